"""Watching an execution: a live tree of states on a terminal, one line a change elsewhere. Progress goes to stderr."""

from __future__ import annotations

import re

from botocore.exceptions import ClientError, ConnectionError, HTTPClientError
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from workflow import executions
from workflow.account import Account

_ICONS = {
    "SUCCEEDED": "[green]✔[/]",
    "RUNNING": "[blue]▶[/]",
    "CAUGHT": "[yellow]↯[/]",
    "FAILED": "[red]✘[/]",
}
_BARS = "▁▂▃▄▅▆▇█"
_CURVE_WIDTH = 40
_CURVE_POINTS = 3
_CURVE_SECONDS = 10.0
_DEPLOYING = ("CreateEndpoint", "UpdateEndpoint")
# (state, text of the cause, what it means): errors that are answers.
_EXPECTED = (
    ("DescribeEndpoint", "Could not find endpoint", "there is no endpoint yet"),
    ("AcquireLock", "conditional request failed", "another execution holds the lock"),
    ("ReleaseLockAfterFailure", "conditional request failed", "there was no lock to release"),
)
_WORTH_KNOWING = re.compile(r"^interrupted: |resumed_step=[1-9]")
_WORTH_A_LINE_SECONDS = 0.05


def watch(account: Account, execution_arn: str, console: Console) -> executions.Execution:
    """Show the execution until it has ended, and return it. Ctrl-C leaves it running."""
    return _live(account, execution_arn, console) if console.is_terminal else _lines(account, execution_arn, console)


def sparkline(values: list[float], width: int = _CURVE_WIDTH) -> str:
    """Draw values as a line of blocks, at most `width` characters wide; '' without values."""
    if not values:
        return ""
    step = max(1, -(-len(values) // width))
    points = [sum(part) / len(part) for part in (values[i : i + step] for i in range(0, len(values), step))]
    low, high = min(points), max(points)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((point - low) * scale)] for point in points)


def _live(account: Account, execution_arn: str, console: Console) -> executions.Execution:
    with Live(console=console, refresh_per_second=4) as live:
        lost = Text("the connection is lost; trying again", style="yellow")
        for execution in executions.follow(account, execution_arn, on_lost=lambda: live.update(lost)):
            try:
                log = _log(account, execution)
                below = [_curve(log), *(Text(line) for line in _events(log)), Text(_instances(account, execution))]
            except (ConnectionError, HTTPClientError):
                below = []
            live.update(Group(_table(execution), *(line for line in below if line.plain)))
    return execution


def _table(execution: executions.Execution) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    totals = execution.seconds_by_state()
    visits = {visit.name: visit for visit in execution.visits}
    counts = [visit.name for visit in execution.visits]
    for name, visit in visits.items():
        if visit.type == "Choice" and visit.status == "SUCCEEDED":
            continue
        times = f"×{counts.count(name)}" if counts.count(name) > 1 else ""
        times += f" {visit.attempts} attempts" if visit.attempts > 1 else ""
        table.add_row(_ICONS[visit.status], name, f"{totals[name]:.1f} s", times, note(visit))
    table.add_row("", f"[bold]{execution.status}[/]", f"{execution.seconds:.1f} s", "", "")
    return table


def _log(account: Account, execution: executions.Execution) -> list[str]:
    return executions.training_log(account, execution.training_job) if execution.training_job else []


def _events(log: list[str]) -> list[str]:
    """What the training log says of interruptions."""
    return [line for line in log if _WORTH_KNOWING.search(line)]


def _instances(account: Account, execution: executions.Execution) -> str:
    """How many instances the endpoint has and wants, once this execution has begun to change it; else ''."""
    changed = any(visit.name in _DEPLOYING for visit in execution.visits)
    name = execution.data.get("names", {}).get("endpoint")
    if not changed or not name:
        return ""
    try:
        endpoint = account.client("sagemaker").describe_endpoint(EndpointName=name)
    except ClientError:  # there is none, or not any longer
        return ""
    variants = endpoint.get("ProductionVariants", [])
    counts = [f"{one.get('CurrentInstanceCount', 0)} of {one.get('DesiredInstanceCount', 0)}" for one in variants]
    return f"endpoint {name} {endpoint['EndpointStatus']}" + (f", instances: {', '.join(counts)}" if counts else "")


def _curve(log: list[str]) -> Text:
    curve = executions.loss_curve(log)
    if len(curve) < _CURVE_POINTS:
        return Text("")
    losses = [loss for _, loss in curve]
    return Text(f"train:loss {sparkline(losses)} {losses[0]:.2f} → {losses[-1]:.2f}, step {curve[-1][0]}")


def note(visit: executions.StateVisit) -> str:
    """Why a state failed or was caught, in a few words; '' when nothing is worth saying."""
    for name, text, words in _EXPECTED:
        if visit.name == name and text in visit.cause:
            return words
    return visit.error


def _lines(account: Account, execution_arn: str, console: Console) -> executions.Execution:
    """One line for each state that works for a while or fails, and for each move of the training curve."""
    shown, running, told, curve_shown, curve_at = 0, "", 0, "", 0.0
    instances = ""

    def lost() -> None:
        console.print("          the connection is lost; trying again")

    for execution in executions.follow(account, execution_arn, on_lost=lost):
        ended = [visit for visit in execution.visits if visit.exited is not None]
        for visit in ended[shown:]:
            took_time = visit.seconds() >= _WORTH_A_LINE_SECONDS and visit.type != "Wait"
            if took_time or visit.status != "SUCCEEDED":
                console.print(f"{visit.status:<9} {visit.name} {visit.seconds():.1f} s {note(visit)}".rstrip())
        shown = len(ended)
        current = execution.visits[-1] if execution.visits else None
        if current and current.exited is None and current.name != running:
            running = current.name
            console.print(f"{current.status:<9} {running}")
        try:
            log, now = _log(account, execution), _instances(account, execution)
        except (ConnectionError, HTTPClientError):
            continue
        events = _events(log)
        for event in events[told:]:
            console.print(f"          {event}", soft_wrap=True)
        told = len(events)
        if now and now != instances:
            instances = now
            console.print(f"          {now}")
        if execution.seconds - curve_at >= _CURVE_SECONDS:
            curve, curve_at = str(_curve(log)), execution.seconds
            if curve != curve_shown:
                curve_shown = curve
                console.print(f"          {curve}")
    console.print(f"{execution.status} after {execution.seconds:.1f} s")
    return execution
