"""`kelpie local fault ...`: make something go wrong in the local cloud that runs in this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from workflow.local.cloud import Connection

fault_app = typer.Typer(help="Make something go wrong in the local cloud.", no_args_is_help=True)


@fault_app.command("spot-interruption")
def spot_interruption(
    after_checkpoints: Annotated[int, typer.Option(min=0, help="Let the job write so many checkpoints first.")] = 1,
    count: Annotated[int, typer.Option(min=1, help="How often to interrupt.")] = 1,
) -> None:
    """Interrupt the running training job, or the next one, as a spot reclaim does."""
    _cloud().interrupt_spot(after_checkpoints=after_checkpoints, count=count)
    print(f"the next training job is interrupted {count}x after {after_checkpoints} checkpoints")


@fault_app.command("api-error")
def api_error(
    operation: Annotated[str, typer.Argument(help="Service and operation, such as sagemaker:CreateModel.")],
    code: Annotated[
        str, typer.Argument(help="The error's code, such as ThrottlingException or ResourceLimitExceeded.")
    ],
    count: Annotated[int, typer.Option(min=1, help="How many requests fail.")] = 1,
    message: Annotated[str, typer.Option(help="The error's message.")] = "Injected fault",
    caller: Annotated[
        str, typer.Option(help="Whose requests: states for the state machine, or a Lambda function's name.")
    ] = "states",
) -> None:
    """Let the next requests for an AWS operation fail, as they would at AWS."""
    _cloud().fail_api(operation, code, message, count=count, caller=caller)
    print(f"the next {count}x that {caller} calls {operation}, it fails with {code}")


def _cloud() -> Connection:
    from workflow.local import cloud

    return cloud.require(cloud.default_home())
