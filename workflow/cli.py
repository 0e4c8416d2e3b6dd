"""The `kelpie` command: puts the commands together, and turns an error into a message and its exit code.

Exit codes: 0 ok, 1 the execution failed, 2 usage or config.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from workflow.commands import executions, local, models, preflight, project, stack, verify_aws
from workflow.errors import KelpieError

if TYPE_CHECKING:
    from workflow.local.cloud import Begun

app = typer.Typer(
    help="From a folder of labelled pictures to a guarded, autoscaled SageMaker endpoint.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for part in (executions, models, project, preflight, stack, verify_aws):
    app.add_typer(part.app)
app.add_typer(local.app, name="local")


@app.callback()
def kelpie(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    """From a folder of labelled pictures to a guarded, autoscaled SageMaker endpoint."""
    if debug:
        os.environ["KELPIE_DEBUG"] = "1"


def main(begun: Begun | None = None) -> None:
    """Run the command line; a KelpieError becomes a message and its exit code. `begun` is for `kelpie local up`."""
    try:
        app(standalone_mode=True, obj=begun)
    except Exception as error:
        told = error if isinstance(error, KelpieError) else _refusal(error)
        if told is None or os.environ.get("KELPIE_DEBUG"):
            raise
        _report(told)
        sys.exit(told.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _refusal(error: Exception) -> KelpieError | None:
    """What AWS answered, for a person; None for an error that is not AWS's."""
    if not type(error).__module__.startswith("botocore"):
        return None
    from botocore.exceptions import ClientError

    if isinstance(error, ClientError):
        answer = error.response.get("Error", {})
        return KelpieError(
            f"{error.operation_name} was refused: {answer.get('Code', 'no error code')}",
            detail=answer.get("Message", ""),
        )
    fix = "aws sts get-caller-identity" if "--aws" in sys.argv else "kelpie local status"
    return KelpieError("AWS could not be reached", detail=str(error), fix=fix)


def _report(error: KelpieError) -> None:
    print(f"kelpie: {error.headline}", file=sys.stderr)
    for line in error.detail.splitlines():
        print(f"  {line}", file=sys.stderr)
    if error.fix:
        print(f"  try: {error.fix}", file=sys.stderr)
