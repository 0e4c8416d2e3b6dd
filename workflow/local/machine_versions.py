"""Versions and aliases of state machines: moto keeps them, and cannot publish, delete or start one.

An execution that is started through an alias or a version runs that version's definition with its role, and belongs to
the state machine like any other.

Source: Step Functions developer guide, "Manage continuous deployments with versions and aliases"; API reference,
PublishStateMachineVersion, DeleteStateMachineVersion, Nov 2026.
"""

from __future__ import annotations

import copy
import json
import secrets
from datetime import UTC, datetime
from typing import Any

from moto.core.exceptions import AWSError
from moto.core.responses import ActionResult
from moto.stepfunctions.exceptions import InvalidExecutionInput, StateMachineDoesNotExist
from moto.stepfunctions.parser.backend.execution import Execution
from moto.stepfunctions.responses import StepFunctionResponse

from workflow.local.authorization import replace

HOOKS: tuple[str, ...] = (
    "moto.stepfunctions.exceptions.InvalidExecutionInput",
    "moto.stepfunctions.exceptions.StateMachineDoesNotExist",
    "moto.stepfunctions.models.StateMachine._handle_name_input_idempotency",
    "moto.stepfunctions.models.StateMachine.aliases",
    "moto.stepfunctions.models.StateMachine.latest_version",
    "moto.stepfunctions.models.StateMachine.publish",
    "moto.stepfunctions.models.StateMachine.versions",
    "moto.stepfunctions.parser.backend.execution.Execution",
    "moto.stepfunctions.responses.StepFunctionResponse.list_executions",
    "moto.stepfunctions.responses.StepFunctionResponse.stepfunction_backend",
)

_original_list = StepFunctionResponse.list_executions


def install() -> None:
    """Add the operations that moto lacks."""
    for name, operation in (
        ("publish_state_machine_version", _publish),
        ("delete_state_machine_version", _delete),
        ("list_state_machine_versions", _list),
        ("list_executions", _list_executions),
    ):
        replace(StepFunctionResponse, name, operation)


def resolve(backend: Any, arn: str) -> Any:
    """The state machine, or the version of one, that an ARN names; of an alias' versions one, by their weights."""
    machine, qualifier = _machine(backend, arn)
    if machine is None or not qualifier:
        return backend.describe_state_machine(arn)
    if qualifier in machine.aliases:
        routes = machine.aliases[qualifier].routing_configuration
        [route] = secrets.SystemRandom().choices(routes, [int(route["weight"]) for route in routes])
        qualifier = str(route["stateMachineVersionArn"]).rsplit(":", 1)[-1]
    version = machine.versions.get(int(qualifier)) if qualifier.isdigit() else None
    if version is None:
        raise StateMachineDoesNotExist(f"State Machine Does Not Exist: '{arn}'")
    return version


def start(
    backend: Any,
    qualified_arn: str,
    version: Any,
    name: str,
    execution_input: str | None = None,
    trace_header: str | None = None,
) -> Execution:
    """Start a version, which `qualified_arn` (its own, or an alias') names."""
    machine = backend.describe_state_machine(version.source_arn)
    existing: Execution | None = machine._handle_name_input_idempotency(name, execution_input)
    if existing is not None:
        return existing
    try:
        json.loads(execution_input or "{}")
    except ValueError as error:
        raise InvalidExecutionInput(f"Invalid State Machine Execution Input: '{error}'") from None
    snapshot = copy.copy(machine)
    snapshot.definition, snapshot.roleArn, snapshot.executions = version.definition, version.roleArn, []
    execution: Any = Execution(
        name=name,
        sm_type=machine.sm_type,
        role_arn=version.roleArn,
        exec_arn=f"{machine.arn.replace(':stateMachine:', ':execution:')}:{name}",
        account_id=backend.account_id,
        region_name=backend.region_name,
        state_machine=snapshot,
        start_date=datetime.now(tz=UTC),
        cloud_watch_logging_session=None,
        input_data=execution_input or "{}",
        trace_header=trace_header,
        activity_store={},
    )
    execution.qualified_arn, execution.version_arn = qualified_arn, version.arn
    machine.executions.append(execution)
    execution.start()
    started: Execution = execution
    return started


def qualifiers(execution: Any) -> dict[str, str]:
    """What DescribeExecution says of an execution that was started through a version or an alias."""
    version: str | None = getattr(execution, "version_arn", None)
    if version is None:
        return {}
    alias = {} if execution.qualified_arn == version else {"stateMachineAliasArn": execution.qualified_arn}
    return {"stateMachineVersionArn": version, **alias}


def _machine(backend: Any, arn: str) -> tuple[Any, str]:
    """The state machine in an ARN, and what comes after its name."""
    parts = arn.split(":")
    base = ":".join(parts[:7])
    machine = next((machine for machine in backend.state_machines if machine.arn == base), None)
    return machine, ":".join(parts[7:])


def _publish(self: Any) -> ActionResult:
    """PublishStateMachineVersion; without a change since the last one it answers that one."""
    machine = self.stepfunction_backend.describe_state_machine(self._get_param("stateMachineArn"))
    latest = machine.latest_version
    now = (machine.definition, machine.roleArn, machine.loggingConfiguration, machine.tracingConfiguration)
    if latest is None or latest.version not in machine.versions or now != (
        latest.definition, latest.roleArn, latest.loggingConfiguration, latest.tracingConfiguration
    ):  # fmt: skip
        machine.publish(self._get_param("description"))
        latest = machine.latest_version
    return ActionResult({"creationDate": latest.creation_date, "stateMachineVersionArn": latest.arn})


def _delete(self: Any) -> ActionResult:
    arn = self._get_param("stateMachineVersionArn")
    machine, number = _machine(self.stepfunction_backend, arn)
    if machine is None or not number.isdigit():
        return ActionResult({})
    users = [
        alias.name
        for alias in machine.aliases.values()
        if arn in [route["stateMachineVersionArn"] for route in alias.routing_configuration]
    ]
    if users:
        raise AWSError(
            f"Version to be deleted must not be referenced by an alias: {', '.join(users)}", "ConflictException"
        )
    machine.versions.pop(int(number), None)
    return ActionResult({})


def _list(self: Any) -> ActionResult:
    machine = self.stepfunction_backend.describe_state_machine(self._get_param("stateMachineArn"))
    versions = sorted(machine.versions.values(), key=lambda version: version.version, reverse=True)
    described = [{"stateMachineVersionArn": each.arn, "creationDate": each.creation_date} for each in versions]
    return ActionResult({"stateMachineVersions": described})


def _list_executions(self: Any) -> ActionResult:
    """ListExecutions of a version or an alias too."""
    arn = self._get_param("stateMachineArn")
    machine, qualifier = _machine(self.stepfunction_backend, arn)
    if machine is None or not qualifier:
        answer: ActionResult = _original_list(self)
        return answer
    resolve(self.stepfunction_backend, arn)
    wanted = self._get_param("statusFilter")
    found = [
        execution
        for execution in machine.executions
        if arn in (getattr(execution, "qualified_arn", None), getattr(execution, "version_arn", None))
        and wanted in (None, execution.status)
    ]
    found.sort(key=lambda execution: execution.start_date, reverse=True)
    listed = [
        {
            "executionArn": execution.execution_arn,
            "name": execution.name,
            "startDate": execution.start_date,
            "stateMachineArn": machine.arn,
            "status": execution.status,
            **qualifiers(execution),
            **({"stopDate": execution.stop_date} if execution.stop_date else {}),
        }
        for execution in found
    ]
    return ActionResult({"executions": listed})
