"""What the commands share: their common options, the account that they talk to, and where they print.

Results go to stdout and progress to stderr; rich output only on a terminal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from workflow.account import Account
    from workflow.config import Config
    from workflow.deployment.packaging import Asset
    from workflow.deployment.stack import StackOutputs
    from workflow.local.cloud import Begun, Connection

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="The config file.", show_default="kelpie.toml, when there is one"),
]
OnAws = Annotated[
    bool, typer.Option("--aws", help="In your AWS account.", show_default="in the local cloud that runs here")
]
ExecutionName = Annotated[str | None, typer.Argument(help="Name or ARN; the latest when left out.")]

_PLAIN_WIDTH = 240


def load_config(config_file: Path | None = None) -> Config:
    """The settings of `kelpie.toml`, or the defaults."""
    from workflow import config

    return config.load(config_file)


def chosen_account(config: Config, aws: bool) -> Account:
    """The AWS account when it is asked for, else the local cloud that runs in this folder; never AWS unasked.

    Raises:
        KelpieError: there is no local cloud, or AWS does not know who asks.
    """
    if aws:
        return aws_account(config)
    from workflow.errors import NotRunning
    from workflow.local import cloud

    try:
        return cloud.require(cloud.default_home()).account()
    except NotRunning as error:
        raise NotRunning(error.headline, error.detail, f"{error.fix}, or --aws for your AWS account") from None


def aws_account(config: Config) -> Account:
    """The account that boto3 finds credentials for (environment, profile, role), in the Region of `kelpie.toml`.

    Raises:
        KelpieError: there are no credentials, AWS refuses them, or it is not clear which Region is meant.
    """
    import boto3
    from botocore.exceptions import BotoCoreError

    from workflow.account import Account
    from workflow.errors import ConfigError, KelpieError

    region = config.aws.region
    try:
        elsewhere = os.environ.get("AWS_REGION") or boto3.Session().region_name
        session = boto3.Session(region_name=region)
        credentials = session.get_credentials()
    except BotoCoreError as error:
        raise KelpieError("AWS cannot be reached with this profile", str(error), "aws configure list") from error
    if elsewhere and elsewhere != region and "region" not in config.aws.model_fields_set:
        raise ConfigError(
            f"Your AWS environment is set to {elsewhere}, and kelpie.toml names no Region",
            f"Without a name Kelpie takes {region}; AWS_REGION, AWS_DEFAULT_REGION or the profile says {elsewhere}.",
            f'put region = "{elsewhere}" (or "{region}") into the section [aws] of kelpie.toml',
        )
    if credentials is None:
        raise KelpieError(
            "There are no AWS credentials",
            "boto3 looked in the environment, in ~/.aws, and for a role of this machine.",
            "Sign in (aws sso login, or set AWS_PROFILE), or use the local cloud: kelpie local up",
        )
    account = Account(session)
    _ = account.account_id  # asks AWS, and says what to do when it refuses
    return account


def running_account(aws: bool = False, config_file: Path | None = None) -> tuple[Account, StackOutputs]:
    """The account, and what its stack made; KelpieError when there is none."""
    from workflow.deployment import stack

    config = load_config(config_file)
    account = chosen_account(config, aws)
    return account, stack.outputs(account, config)


def place(local: bool, aws: bool, command: str) -> bool:
    """Whether a command that changes something is meant for AWS; without a word, for the local cloud that runs here.

    Raises:
        UsageError: both were named, or neither and no local cloud runs here.
    """
    from workflow.errors import UsageError
    from workflow.local import cloud

    if local and aws:
        raise UsageError("--local and --aws exclude each other", fix=f"{command} --local")
    if not (local or aws) and cloud.connect(cloud.default_home()) is None:
        raise UsageError(
            f"say where: {command} --local, or {command} --aws",
            detail="no local cloud runs here, and nothing is done in your AWS account unasked",
            fix=f"{command} --local",
        )
    return aws


def local_cloud(
    config: Config, begun: Begun | None = None, meanwhile: Callable[[], object] | None = None
) -> Connection:
    """Bring the local cloud up, as the settings say; `meanwhile` is called while it starts."""
    from workflow.local import cloud

    with progress_console().status("starting the local cloud"):
        return cloud.up(
            cloud.default_home(),
            region=config.aws.region,
            time_scale=config.local.time_scale,
            begun=begun,
            meanwhile=meanwhile,
        )


def local_account(config: Config, begun: Begun | None = None) -> tuple[Connection, Account, StackOutputs]:
    """Bring the local cloud up and the stack up to date, without a question."""
    packed: dict[str, Asset] = {}
    connection = local_cloud(config, begun, lambda: packed.update(_prepared(config)))
    from workflow.deployment import stack

    account = connection.account()
    with progress_console().status("deploying") as status:
        outputs = stack.deploy(
            account,
            config,
            assets=packed or None,
            on_event=lambda event: status.update(f"deploying: {event.status} {event.resource}"),
        )
    return connection, account, outputs


def _prepared(config: Config) -> dict[str, Asset]:
    from workflow.deployment import stack

    return stack.prepare(config)


def find(execution: str | None, *, aws: bool = False, running: bool = False) -> tuple[Account, StackOutputs, str]:
    """The account, its stack, and the ARN of an execution given by name, ARN or None (the latest)."""
    from workflow import executions

    account, outputs = running_account(aws)
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
