"""Executions: start, watch, list, describe, compare and stop them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workflow.commands.session import (
    AsJson,
    ConfigFile,
    ExecutionName,
    OnAws,
    find,
    load_config,
    local_account,
    place,
    print_json,
    print_table,
    progress_console,
    running_account,
)
from workflow.errors import ConfigError, ExecutionFailed, UsageError

if TYPE_CHECKING:
    from workflow.account import Account
    from workflow.config import Config
    from workflow.recovery import Recovery

app = typer.Typer()

_FAILURE_CHARACTERS = 100


@app.command()
def start(
    local: Annotated[bool, typer.Option("--local", help="Run in the local cloud; starts it when needed.")] = False,
    aws: OnAws = False,
    data: Annotated[str | None, typer.Option(help="A folder of labelled pictures, or an s3:// URI.")] = None,
    input_: Annotated[str, typer.Option("--input", help="Execution input: JSON, or a JSON file.")] = "{}",
    name: Annotated[str | None, typer.Option(help="Name of the execution.", show_default="a UUID")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show the states until the execution has ended.")] = False,
    config_file: ConfigFile = None,
) -> None:
    """Start an execution and print its ARN."""
    on_aws = place(local, aws, "kelpie start")
    from workflow import datasets, executions, listing
    from workflow.deployment import packaging
    from workflow.execution_input import check_execution_input

    config = load_config(config_file)
    execution_input = _execution_input(input_)
    check_execution_input(execution_input, config.defaults())
    _check_cost(execution_input, config)
    packaging.check_program(execution_input.get("hosting", {}).get("program", config.hosting.program))
    if data and not data.startswith("s3://"):
        datasets.pictures(Path(data))  # bad input fails before anything is started
    account, outputs = running_account(aws, config_file) if on_aws else local_account(config)[1:]
    if data:
        uri = data if data.startswith("s3://") else _upload(account, outputs.data_bucket, Path(data))
        execution_input.setdefault("data", {})["s3_uri"] = uri
    execution_input.setdefault("Comment", listing.comment("kelpie start"))
    arn = executions.start(account, outputs.state_machine_arn, execution_input, name)
    print(arn)
    if watch:
        _watch(account, arn)


@app.command("watch")
def watch_(execution: ExecutionName = None, aws: OnAws = False) -> None:
    """Show an execution until it has ended.

    Ctrl-C leaves it running.
    """
    account, _, arn = find(execution, aws=aws)
    _watch(account, arn)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
    as_json: AsJson = False,
    aws: OnAws = False,
) -> None:
    """List executions with their results.

    How they ended, who or what started them, how good the model was.
    """
    from workflow import listing

    account, outputs = running_account(aws)
    rows = listing.rows(account, outputs.state_machine_arn, limit)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    print_table(
        ("execution", "status", "started", "seconds", "test accuracy", "started by", "failure"),
        [
            (
                row.name,
                row.status,
                f"{row.started:%Y-%m-%d %H:%M:%S}",
                f"{row.seconds:.0f}",
                "" if row.test_accuracy is None else f"{row.test_accuracy:.1%}",
                row.started_by,
                row.failure[:_FAILURE_CHARACTERS],
            )
            for row in rows
        ],
    )


@app.command()
def describe(execution: ExecutionName = None, as_json: AsJson = False, aws: OnAws = False) -> None:
    """Say what an execution did, and why it failed."""
    from workflow import executions
    from workflow.summary import summarize, to_text

    account, _, arn = find(execution, aws=aws)
    summary = summarize(account, executions.describe(account, arn))
    if as_json:
        print_json(summary)
    else:
        print(to_text(summary))


@app.command()
def logs(
    execution: ExecutionName = None,
    state: Annotated[str | None, typer.Option(help="Only this state, such as Train or SmokeTest.")] = None,
    host: Annotated[str | None, typer.Option(help="Only this host or function, such as algo-2.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the execution has ended.")] = False,
    as_json: AsJson = False,
    aws: OnAws = False,
) -> None:
    """Print the logs of an execution.

    What its training hosts, functions and endpoint wrote, by state.
    """
    from workflow import executions
    from workflow import logs as written

    account, _, arn = find(execution, aws=aws)
    if follow:
        lines = written.follow(account, arn, state)
    else:
        found = written.sources(account, executions.describe(account, arn))
        states = list(dict.fromkeys(source.state for source in found))
        if state and state not in states:
            raise UsageError(f"{state} wrote no log", detail=f"states with a log so far: {', '.join(states) or 'none'}")
        lines = (line for one in found if state in (None, one.state) for line in written.read(account, one))
    for line in lines:
        if host in (None, line.writer):
            print(json.dumps(asdict(line)) if as_json else f"{line.state} {line.writer}  {line.message}")


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="Name or ARN of an execution.")],
    second: Annotated[str, typer.Argument(help="Name or ARN of another one.")],
    as_json: AsJson = False,
    aws: OnAws = False,
) -> None:
    """Show how two executions differ."""
    from workflow import comparison, executions

    account, outputs = running_account(aws)
    arns = [executions.find(account, outputs.state_machine_arn, name) for name in (first, second)]
    compared = comparison.compare(account, *arns)
    if as_json:
        print_json(asdict(compared))
        return
    headers = ("", *(arn.rpartition(":")[2] for arn in arns))
    rows = [(one.name, _shown(one.first), _shown(one.second)) for one in (*compared.settings, *compared.measures)]
    if not compared.settings:
        print("the same settings, data and code")
    print_table(headers, rows)


@app.command()
def stop(
    execution: Annotated[str | None, typer.Argument(help="Name or ARN; the one that runs when left out.")] = None,
    aws: OnAws = False,
) -> None:
    """Stop an execution and its training job."""
    from workflow import executions

    account, _, arn = find(execution, aws=aws, running=True)
    executions.stop(account, arn)
    print(f"stopped {arn}")


@app.command()
def resume(
    execution: Annotated[str | None, typer.Argument(help="Name or ARN of one that failed; the latest.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show the states until the execution has ended.")] = False,
    config_file: ConfigFile = None,
    aws: OnAws = False,
) -> None:
    """Go on from what a failed execution trained.

    Starts a new execution that uses the finished training job, or else its checkpoints.
    """
    from workflow import recovery

    account, outputs = running_account(aws, config_file)
    started = recovery.resume(account, outputs, load_config(config_file), execution)
    follow_recovery(account, started, watch)


@app.command()
def cost(
    execution: ExecutionName = None, as_json: AsJson = False, config_file: ConfigFile = None, aws: OnAws = False
) -> None:
    """Show what an execution cost, or can cost.

    Without EXECUTION: what one with these settings can cost at most, and a month in which nothing runs.
    """
    if execution is None:
        _estimate(load_config(config_file), as_json)
        return
    from workflow import executions
    from workflow.summary import summarize

    account, _, arn = find(execution, aws=aws)
    summary = summarize(account, executions.describe(account, arn))
    spent = summary["cost_usd_estimate"]
    if as_json:
        print_json(spent)
        return
    print_table(
        ("what", "USD", "how it comes about"),
        [
            ("training", _usd(spent["training"]), f"{summary['billable_seconds']} s billed per host, {_of(summary)}"),
            ("state transitions", _usd(spent["state_transitions"]), f"{spent['transition_count']} of them"),
            ("this execution", _usd(spent["total"]), ""),
            ("endpoint, a month", _usd(spent["endpoint_per_month"]), f"{summary['instance_count']} instance(s)"),
        ],
    )
    print(f"prices of {spent['prices_as_of']} for one Region, source: {spent['prices_source']}")


def _of(summary: dict[str, Any]) -> str:
    saving = summary["cost_usd_estimate"]["spot_saving_percent"]
    return f"{summary['hosts']} host(s)" + (f", managed spot saved {saving:.0f} %" if saving is not None else "")


def _estimate(config: Config, as_json: bool) -> None:
    from workflow.cost import costs, pricing

    chapters = {
        "execution_at_most": ("an execution, at most", costs.execution_at_most(config)),
        "deployment": ("a deployment that builds the image", costs.deployment()),
        "idle_month": ("a month in which nothing runs", costs.idle_month(config)),
    }
    prices = pricing.load_prices()
    if as_json:
        parts = {
            key: {"total_usd": costs.total(lines), "lines": [asdict(line) for line in lines]}
            for key, (_, lines) in chapters.items()
        }
        of: dict[str, object] = {
            "prices_as_of": prices.as_of,
            "prices_region": prices.region,
            "prices_source": prices.source,
        }
        of["max_usd_per_execution"] = config.cost.max_usd_per_execution
        print_json({"total_usd": parts["execution_at_most"]["total_usd"], **parts, **of})
        return
    for heading, lines in chapters.values():
        rows = [(line.what, costs.shown(line.usd), line.how) for line in lines]
        print_table((heading, "USD", "how it comes about"), [*rows, ("together", costs.shown(costs.total(lines)), "")])
        print()
    limit = config.cost.max_usd_per_execution
    print(f"limit of an execution (cost.max_usd_per_execution): {f'{limit:.2f} USD' if limit else 'none'}")
    print(f"prices of {prices.as_of} for {prices.region}, source: {prices.source}; free tiers are not counted")


def _check_cost(execution_input: dict[str, Any], config: Config) -> None:
    """Refuse what can cost more than the limit, before anything is started."""
    limit = config.cost.max_usd_per_execution
    if not limit:
        return
    from workflow.cost import costs, pricing

    given = {name: section for name, section in execution_input.items() if name in type(config).model_fields}
    merged = config.model_copy(
        update={name: getattr(config, name).model_copy(update=section) for name, section in given.items()}
    )
    total = costs.total(costs.execution_at_most(merged))
    if total is None:
        used = {"training": merged.training.instance_type, "hosting": merged.hosting.instance_type}
        priced = pricing.load_prices().usd_per_instance_hour
        unpriced = ", ".join(name for use, name in used.items() if name not in priced[use])
        raise ConfigError(
            f"there is no price for {unpriced}, so cost.max_usd_per_execution cannot hold",
            detail="workflow/cost/prices.json lists the instance types with a price",
            fix="choose one of these, set cost.max_usd_per_execution to 0, or ask AWS: kelpie preflight --aws",
        )
    if total > limit:
        raise ConfigError(
            f"the execution can cost {total:.2f} USD; cost.max_usd_per_execution allows {limit:.2f}",
            detail="most of it is training to its time limits at on-demand prices; see: kelpie cost",
            fix="lower training.max_runtime_seconds or training.instance_count, or raise the limit",
        )


def _usd(value: float | None) -> str:
    return "no price" if value is None else f"{value:.4f}" if value < 1 else f"{value:.2f}"


def _shown(value: Any) -> str:
    return "" if value is None else str(value)


def _upload(account: Account, bucket: str, folder: Path) -> str:
    from rich.progress import Progress

    from workflow import datasets

    with Progress(console=progress_console(), transient=True) as progress:
        task = progress.add_task("uploading pictures", total=None)
        return datasets.upload(
            account, bucket, folder, lambda done, total: progress.update(task, completed=done, total=total)
        )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a name, or with a zero byte
        return False


def _execution_input(text: str) -> dict[str, Any]:
    source = text
    if not text.lstrip().startswith("{"):
        path = Path(text)
        if not _is_file(path):
            raise UsageError(
                f"--input is neither JSON nor a file: {text!r}",
                fix="""kelpie start --local --input '{"training": {"epochs": 3}}'""",
            )
        text = path.read_text(encoding="utf-8", errors="replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--input is not JSON: {error}", detail=f"read from {source!r}") from error
    if not isinstance(value, dict):
        raise UsageError(f"--input must be a JSON object, not {type(value).__name__}")
    return value


def follow_recovery(account: Account, started: Recovery, watch: bool) -> None:
    """Say what was started and what to expect, and watch it if asked to."""
    progress_console().print(started.expectation, markup=False, soft_wrap=True)
    print(started.execution_arn)
    if watch:
        _watch(account, started.execution_arn)


def _watch(account: Account, arn: str) -> None:
    from workflow.account import flag
    from workflow.watch import watch

    console = progress_console()
    try:
        execution = watch(account, arn, console)
    except KeyboardInterrupt:
        console.print(f"the execution goes on; see it with: kelpie watch {arn.rpartition(':')[2]}{flag(account)}")
        raise
    if execution.status != "SUCCEEDED":
        raise ExecutionFailed(
            f"the execution ended: {execution.status}",
            detail=f"{execution.error}: {execution.cause}",
            fix=f"kelpie describe {execution.name}{flag(account)}",
        )
