"""What the commands share: their common options, the account that they talk to, and where they print.

Results go to stdout and progress to stderr; rich output only on a terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from workflow.account import Account
    from workflow.config import Config
    from workflow.local.cloud import Connection
    from workflow.stack import StackOutputs

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="The config file.", show_default="kelpie.toml, when there is one"),
]
ExecutionName = Annotated[str | None, typer.Argument(help="Name or ARN; the latest when left out.")]

_PLAIN_WIDTH = 240


def load_config(config_file: Path | None = None) -> Config:
    """The settings of `kelpie.toml`, or the defaults."""
    from workflow import config

    return config.load(config_file)


def running_account() -> tuple[Account, StackOutputs]:
    """The local cloud that runs in this folder and what its stack made; KelpieError when there is none."""
    from workflow import stack
    from workflow.local import cloud

    account = cloud.require(cloud.default_home()).account()
    return account, stack.outputs(account, load_config())


def local_account(config: Config) -> tuple[Connection, Account, StackOutputs]:
    """Bring the local cloud up and the stack up to date: the one place that composes `local` and `stack`."""
    from workflow import stack
    from workflow.local import cloud

    with progress_console().status("starting the local cloud") as status:
        connection = cloud.up(cloud.default_home(), region=config.aws.region, time_scale=config.local.time_scale)
        account = connection.account()
        outputs = stack.deploy(
            account,
            config,
            on_event=lambda event: status.update(f"deploying: {event.status} {event.resource}"),
        )
    return connection, account, outputs


def find(execution: str | None, *, running: bool = False) -> tuple[Account, StackOutputs, str]:
    """The account, its stack, and the ARN of an execution given by name, ARN or None (the latest)."""
    from workflow import executions

    account, outputs = running_account()
    return account, outputs, executions.find(account, outputs.state_machine_arn, execution, running=running)


def progress_console() -> Console:
    """The console for progress, on stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """Print a result as JSON."""
    print(json.dumps(value, indent=2, default=str))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a result as aligned columns: whole lines where nobody watches, so that they can be searched."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
    table = Table(*headers, box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))
