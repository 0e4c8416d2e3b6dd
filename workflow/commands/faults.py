"""`kelpie local fault ...`: make something go wrong in the local cloud that runs in this folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from workflow.local.cloud import Connection

fault_app = typer.Typer(help="Make something go wrong in the local cloud.", no_args_is_help=True)

Operation = Annotated[str, typer.Argument(help="Service and operation, such as sagemaker:CreateModel.")]
Caller = Annotated[str, typer.Option(help="Whose requests: states for the state machine, or a Lambda function's name.")]
State = Annotated[str, typer.Option(help="Only requests of this state of the state machine, such as SmokeTest.")]
Count = Annotated[int, typer.Option(min=1, help="How often it happens.")]
AfterCheckpoints = Annotated[int, typer.Option(min=0, help="Let the job write so many checkpoints first.")]
EndpointConfig = Annotated[
    str, typer.Option(help="The servers of this endpoint config; without it, those of the next deployment.")
]


@fault_app.command("api-error")
def api_error(
    operation: Operation,
    code: Annotated[str, typer.Argument(help="The error's code, such as ThrottlingException; any code is taken.")],
    count: Count = 1,
    message: Annotated[str, typer.Option(help="The error's message.")] = "Injected fault",
    caller: Caller = "states",
    state: State = "",
) -> None:
    """Let the next requests for an AWS operation fail, as they would at AWS."""
    _cloud().fail_api(operation, code, message, count=count, caller=caller, state=state)
    print(f"the next {count}x that {_who(caller, state)} calls {operation}, it fails with {code}")


@fault_app.command("api-hang")
def api_hang(
    operation: Operation,
    seconds: Annotated[float, typer.Argument(help="For how long the answer is held back, in real seconds.")],
    count: Count = 1,
    caller: Caller = "states",
    state: State = "",
) -> None:
    """Carry out the next requests for an AWS operation, but answer late."""
    _cloud().add_fault("api-hang", operation=operation, seconds=seconds, count=count, caller=caller, state=state)
    print(f"the next {count}x that {_who(caller, state)} calls {operation}, the answer takes {seconds:g} s")


@fault_app.command("spot-interruption")
def spot_interruption(
    after_checkpoints: AfterCheckpoints = 1,
    count: Count = 1,
    notice: Annotated[float, typer.Option(help="Real seconds from SIGTERM to SIGKILL; 0 for SIGKILL at once.")] = 2.0,
    host: Annotated[str, typer.Option(help="Reclaim only this host, such as algo-2.")] = "",
) -> None:
    """Interrupt the running managed-spot training job, or the next one, as a spot reclaim does."""
    _cloud().interrupt_spot(after_checkpoints=after_checkpoints, count=count, notice_seconds=notice, host=host)
    print(f"the next training job is interrupted {count}x after {after_checkpoints} checkpoints")


@fault_app.command("training-failure")
def training_failure(
    reason: Annotated[str, typer.Option(help='End Failed, with this reason: "CapacityError: no instances".')] = "",
    stopped: Annotated[
        str, typer.Option(help="End Stopped: MaxWaitTimeExceeded, MaxRuntimeExceeded, or Stopped as by a person.")
    ] = "",
    after_checkpoints: AfterCheckpoints = 0,
    count: Count = 1,
) -> None:
    """End the running training job, or the next one, before it has instances or after some checkpoints."""
    _cloud().add_fault(
        "training-failure", reason=reason, stopped=stopped, after_checkpoints=after_checkpoints, count=count
    )
    print(f"the next training job ends {f'Stopped ({stopped})' if stopped else f'Failed ({reason})'}")


@fault_app.command("endpoint-failure")
def endpoint_failure(
    reason: Annotated[str, typer.Option(help="The endpoint's FailureReason.")] = "Injected fault",
    rollback_fails: Annotated[
        bool, typer.Option("--rollback-fails", help="An update ends UpdateRollbackFailed instead of InService.")
    ] = False,
    count: Count = 1,
) -> None:
    """Let the next creation of an endpoint end Failed, or its next update be rolled back."""
    _cloud().add_fault("endpoint-failure", reason=reason, rollback_fails=rollback_fails, count=count)
    print(f"the next change of an endpoint fails: {reason}")


@fault_app.command("slow-model")
def slow_model(
    seconds: Annotated[float, typer.Option(help="How much longer each answer takes, in real seconds.")] = 5.0,
    endpoint_config: EndpointConfig = "",
) -> None:
    """Let a model answer late."""
    _model("slow", endpoint_config, seconds=seconds)


@fault_app.command("failing-model")
def failing_model(
    status: Annotated[int, typer.Option(min=500, max=599, help="The HTTP status of its answers.")] = 500,
    endpoint_config: EndpointConfig = "",
) -> None:
    """Let a model answer with server errors."""
    _model("failing", endpoint_config, status=status)


@fault_app.command("wrong-model")
def wrong_model(endpoint_config: EndpointConfig = "") -> None:
    """Let a model give its probabilities to the wrong classes."""
    _model("wrong", endpoint_config)


@fault_app.command("dead-server")
def dead_server(
    endpoint_config: Annotated[str, typer.Option(help="Only a server of this endpoint config.")] = "",
    next_deployment: Annotated[
        bool, typer.Option("--next-deployment", help="A server of the next deployment, as soon as it is healthy.")
    ] = False,
    count: Count = 1,
) -> None:
    """Kill a healthy model server with SIGKILL."""
    _cloud().add_fault("dead-server", endpoint_config=endpoint_config, next_deployment=next_deployment, count=count)
    print(f"{count} model server(s) will be killed")


@fault_app.command("undocumented")
def undocumented(
    stopped: Annotated[
        str, typer.Option(help="How createTrainingJob.sync ends for a job that is Stopped: fails or succeeds.")
    ] = "fails",
    generic_errors: Annotated[
        str, typer.Option(help="Whether SageMaker's two generic error names are as reported, or swapped.")
    ] = "as-reported",
) -> None:
    """Play what AWS documents nowhere one way or the other: a definition must be right under both."""
    if stopped not in ("fails", "succeeds"):
        raise typer.BadParameter(f"{stopped!r}, expected fails or succeeds", param_hint="--stopped")
    if generic_errors not in ("as-reported", "swapped"):
        raise typer.BadParameter(f"{generic_errors!r}, expected as-reported or swapped", param_hint="--generic-errors")
    _cloud().play(stopped_fails=stopped == "fails", swap_generic_errors=generic_errors == "swapped")
    print(f"a job that is Stopped: .sync {stopped}; generic error names: {generic_errors}")


@fault_app.command("list")
def list_faults() -> None:
    """Print the faults that are still to come, and how the undocumented is played, as JSON."""
    print(json.dumps(_cloud().faults(), indent=2))


@fault_app.command("clear")
def clear() -> None:
    """Take back all faults."""
    _cloud().clear_faults()
    print("nothing goes wrong any more")


def _model(behaviour: str, endpoint_config: str, **values: float) -> None:
    _cloud().add_fault(
        "model",
        behaviour=behaviour,
        endpoint_config=endpoint_config,
        next_deployment=not endpoint_config,
        **values,
    )
    print(f"{endpoint_config or 'the next deployment'}: a {behaviour} model, until kelpie local fault clear")


def _who(caller: str, state: str) -> str:
    return f"state {state}" if state else caller


def _cloud() -> Connection:
    from workflow.local import cloud

    return cloud.require(cloud.default_home())
