"""The stack: deploy it, remove it, switch its schedule."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from workflow.commands.session import (
    AsJson,
    ConfigFile,
    OnAws,
    chosen_account,
    load_config,
    local_cloud,
    place,
    print_json,
    print_table,
    progress_console,
)
from workflow.errors import ConfigError, KelpieError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workflow.account import Account
    from workflow.config import Config
    from workflow.deployment.change_set import ChangeSet
    from workflow.deployment.cloudformation import StackEvent
    from workflow.deployment.teardown import Holdings
    from workflow.schedule import Schedule

app = typer.Typer()

_SHOWN_NAMES = 10
_NEXT_RUNS = 5

Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]


class Switch(StrEnum):
    """What `kelpie schedule` does."""

    SHOW = "show"
    ENABLE = "enable"
    DISABLE = "disable"
    NEXT = "next"


@app.command()
def deploy(
    local: Annotated[bool, typer.Option("--local", help="Into the local cloud; starts it when needed.")] = False,
    aws: OnAws = False,
    rebuild_image: Annotated[
        bool, typer.Option("--rebuild-image", help="Build the serving image again, for the patches of its base.")
    ] = False,
    yes: Yes = False,
    config_file: ConfigFile = None,
) -> None:
    """Bring the stack in an account up to date.

    Shows what would change and asks. Uploads and changes nothing that is there already.
    """
    from workflow.deployment import stack

    config = load_config(config_file)
    on_aws = place(local, aws, "kelpie deploy")
    account = chosen_account(config, aws=True) if on_aws else local_cloud(config).account()
    _preflight(config, account)
    progress_console().print(_where(account), highlight=False)
    question = _Question(yes)
    with _events() as on_event:
        outputs = stack.deploy(account, config, rebuild_image=rebuild_image, on_event=on_event, approve=question)
    if not question.asked:
        print("nothing to change")
    print(f"state machine: {outputs.state_machine_arn}")
    print(f"data: s3://{outputs.data_bucket}/datasets/default/")
    if not account.endpoint_url:
        _print_links(account, config)


@app.command()
def destroy(
    local: Annotated[bool, typer.Option("--local", help="From the local cloud.")] = False,
    aws: OnAws = False,
    delete_data: Annotated[
        bool, typer.Option("--delete-data", help="The buckets with all data and models too, and their key.")
    ] = False,
    yes: Yes = False,
    config_file: ConfigFile = None,
) -> None:
    """Remove the stack and everything that executions made.

    Lists it and asks. Data, models and their key stay, unless told otherwise. Then reads the account again.
    """
    from workflow.account import flag
    from workflow.deployment import teardown

    config = load_config(config_file)
    account = chosen_account(config, place(local, aws, "kelpie destroy"))
    project = config.project.name
    holdings = teardown.read(account, project)
    progress_console().print(_where(account), highlight=False)
    data = holdings.data if delete_data else {}
    if not holdings.found and not data:
        print(f"nothing of {project} is there")
        _print_kept(holdings)
        return
    _print_holdings(holdings, delete_data)
    if not _agreed(yes, "Remove all this?"):
        raise KelpieError("Nothing was removed")
    with _events() as on_event:
        teardown.remove(account, project, holdings, delete_data=delete_data, on_event=on_event)
    left = teardown.read(account, project)
    if left.found:
        _print_names(left)
        raise KelpieError(
            f"Not everything of {project} is gone",
            f"{'It costs money' if left.costly else 'It costs nothing'}: {', '.join(left.costly or left.found)}.",
            f"kelpie destroy{flag(account)}",
        )
    print(f"read again: no {', no '.join(_kinds())} of {project}; nothing is left that costs money by the hour")
    _print_kept(left)


@app.command()
def schedule(
    what: Annotated[Switch, typer.Argument(help="Show it, switch it on or off, or only show when it fires.")] = (
        Switch.SHOW
    ),
    as_json: AsJson = False,
    aws: OnAws = False,
    config_file: ConfigFile = None,
) -> None:
    """Show or switch the schedule that starts executions."""
    from workflow import schedule as schedules
    from workflow.deployment import stack

    config = load_config(config_file)
    account = chosen_account(config, aws)
    outputs = stack.outputs(account, config)
    if what in (Switch.ENABLE, Switch.DISABLE):
        with _events() as on_event:
            schedules.switch(account, config.project.name, enabled=what is Switch.ENABLE, on_event=on_event)
    found = schedules.read(account, outputs.schedule_name)
    times = found.next_times(_NEXT_RUNS)
    if as_json:
        print_json({**asdict(found), "next_times": [time.isoformat() for time in times]})
        return
    if what is not Switch.NEXT:
        _print_schedule(found)
    for time in times:
        print(f"{time:%a %Y-%m-%d %H:%M %Z}{'' if found.enabled else '  (if it were enabled)'}")


def _print_schedule(found: Schedule) -> None:
    window = f"within {found.flexible_window_minutes} minutes" if found.flexible_window_minutes else "on time"
    print_table(
        ("schedule", "state", "expression", "time zone", "starts"),
        [(found.name, "ENABLED" if found.enabled else "DISABLED", found.expression, found.time_zone, window)],
    )


def _preflight(config: Config, account: Account) -> None:
    """Say what preflight warns of; refuse what would fail."""
    from workflow import preflight
    from workflow.account import flag
    from workflow.preflight import Severity

    console = progress_console()
    errors = 0
    for one in preflight.check(config, None if account.endpoint_url else account):
        errors += one.severity is Severity.ERROR
        if one.severity is not Severity.INFO:
            console.print(f"{one.severity}: {one.what} ({one.where})", markup=False, soft_wrap=True)
    if errors:
        raise ConfigError(
            f"preflight found {errors} errors, and nothing was deployed", fix=f"kelpie preflight{flag(account)}"
        )


class _Question:
    """Shows each change set and asks: of a new stack first for what holds files, then for the rest with its roles."""

    def __init__(self, yes: bool) -> None:
        self._yes = yes
        self.asked = False

    def __call__(self, proposed: ChangeSet) -> bool:
        self.asked = True
        for line in proposed.lines():
            print(line)
        if proposed.creates_stack:
            print("then what these hold is uploaded, the serving image is built, and the rest of the stack is proposed")
        return _agreed(self._yes, "Do this?")


def _agreed(yes: bool, question: str) -> bool:
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError(
            "nothing was changed: nobody can be asked here",
            detail="standard input is no terminal",
            fix="the same with --yes",
        )
    return typer.confirm(question)


@contextmanager
def _events() -> Iterator[Callable[[StackEvent], None]]:
    """Print the events on stderr: each on a line of its own, or in place on a terminal that shows only the last."""
    console = progress_console()

    def say(event: StackEvent) -> None:
        if event.status.endswith("_IN_PROGRESS") and event.resource_type != "AWS::CloudFormation::Stack":
            status.update(str(event))
        else:
            console.print(str(event), markup=False, soft_wrap=True)

    with console.status("asking AWS") as status:
        yield say


def _where(account: Account) -> str:
    return f"{'local cloud' if account.endpoint_url else 'AWS'}: account {account.account_id}, {account.region}"


def _print_links(account: Account, config: Config) -> None:
    from workflow.console_links import links
    from workflow.deployment import stack
    from workflow.deployment.cloudformation import CloudFormationStack

    described = CloudFormationStack(account, config.project.name).describe()
    assert described is not None
    for what, url in links(account, stack.outputs(account, config), described["StackId"]):
        print(f"{what}: {url}")


def _print_names(holdings: Holdings) -> None:
    for what, found in holdings.found.items():
        more = f" and {len(found) - _SHOWN_NAMES} more" if len(found) > _SHOWN_NAMES else ""
        print(f"  {what} ({len(found)}): {', '.join(found[:_SHOWN_NAMES])}{more}")


def _print_holdings(holdings: Holdings, delete_data: bool) -> None:
    print("to be removed:")
    _print_names(holdings)
    if holdings.stack_resources:
        print(f"  the stack's {holdings.stack_resources} resources")
    print("to be DELETED FOR GOOD, every version:" if delete_data else "kept (--delete-data removes them too):")
    for name in holdings.data:
        print(f"  {name}")


def _print_kept(holdings: Holdings) -> None:
    if holdings.data:
        print("kept; storage and keys are billed by the month:")
        for name in holdings.data:
            print(f"  {name}")


def _kinds() -> list[str]:
    from workflow.deployment.inventory import KINDS

    return [kind.what for kind in KINDS]
