"""`kelpie local ...`: the local cloud of this folder."""

from __future__ import annotations

from typing import Annotated

import typer

from workflow.commands.faults import fault_app
from workflow.commands.session import AsJson, ConfigFile, load_config, local_account, print_json
from workflow.errors import UsageError

app = typer.Typer(help="The local cloud on this machine.", no_args_is_help=True)
app.add_typer(fault_app, name="fault")


@app.command()
def up(context: typer.Context, config_file: ConfigFile = None) -> None:
    """Start the local cloud and deploy the stack into it.

    Does nothing when both are current.
    """
    connection, _, outputs = local_account(load_config(config_file), context.obj)
    print(f"local cloud: {connection.endpoint_url}")
    print(f"state machine: {outputs.state_machine_arn}")
    print(f"pictures for the input {{}}: s3://{outputs.data_bucket}/datasets/default/")


@app.command()
def down() -> None:
    """End the local cloud and every process of it.

    What it held is gone.
    """
    from workflow.local import cloud

    print("local cloud ended" if cloud.down(cloud.default_home()) else "no local cloud was running")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show the local cloud's address and processes."""
    from workflow.local import cloud

    now = cloud.status(cloud.default_home())
    if as_json:
        print_json(now)
    elif now is None:
        print("no local cloud is running here; start one with: kelpie local up")
    else:
        print(f"{now['endpoint_url']}  pid {now['pid']}  waits divided by {now['time_scale']:g}")
        for process in now["processes"]:
            print(f"  {process['pid']:>8}  {process['name']}")


@app.command()
def logs(
    lines: Annotated[int, typer.Option(min=1, help="How many of the last lines.")] = 50,
) -> None:
    """Show the end of the local cloud's own log.

    `kelpie logs` shows those of an execution.
    """
    from workflow.local import cloud

    path = cloud.default_home() / cloud.LOG_FILE
    if not path.is_file():
        raise UsageError(f"there is no log {path}", fix="kelpie local up")
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]:
        print(line)
