"""ValidateStateMachineDefinition, which moto lacks: whether a definition would be accepted, and what is wrong with it.

moto's parser judges the language; here the rest that AWS refuses: transitions to states that do not exist, and fields
that no API has. The codes are AWS's.
Source: Step Functions API reference, ValidateStateMachineDefinitionDiagnostic, read 2026-11.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import UnknownServiceError
from moto.core.exceptions import AWSError
from moto.core.responses import ActionResult
from moto.stepfunctions.parser.models import StepFunctionsParserBackend

from workflow.local.state_tasks import boto_name
from workflow.local.task_values import input_shape, pascal

HOOKS: tuple[str, ...] = ("moto.stepfunctions.parser.models.StepFunctionsParserBackend._validate_definition",)

_INTEGRATION = "arn:aws:states:::"
_MAX_RESULTS = 100


def diagnostics(definition: str) -> list[dict[str, str]]:
    """What is wrong with a definition: severity, code, message and location (a JSON pointer) each."""
    try:
        machine = json.loads(definition)
    except ValueError as error:
        return [_error("INVALID_JSON_DESCRIPTION", str(error), "")]
    try:
        StepFunctionsParserBackend._validate_definition(definition)
    except AWSError as error:
        return [_error("SCHEMA_VALIDATION_FAILED", str(error.message)[:1024], "")]
    return list(_of_states(machine, ""))


def validate_state_machine_definition(self: Any) -> ActionResult:
    """The API's answer; `severity` of the request says whether warnings are wanted, and there are none here."""
    found = diagnostics(str(self._get_param("definition")))
    limit = int(self._get_param("maxResults") or 0) or _MAX_RESULTS
    return ActionResult(
        {"result": "FAIL" if found else "OK", "diagnostics": found[:limit], "truncated": len(found) > limit}
    )


def _error(code: str, message: str, location: str) -> dict[str, str]:
    return {"severity": "ERROR", "code": code, "message": message, "location": location}


def _of_states(machine: Mapping[str, Any], where: str) -> Iterator[dict[str, str]]:
    states = machine["States"]
    if machine["StartAt"] not in states:
        yield _missing(machine["StartAt"], f"{where}/StartAt")
    for name, state in states.items():
        here = f"{where}/States/{name}"
        for place, target in _transitions(state):
            if target not in states:
                yield _missing(target, f"{here}{place}")
        if state["Type"] == "Task":
            yield from _of_task(state, here)
        for n, branch in enumerate(state.get("Branches", ())):
            yield from _of_states(branch, f"{here}/Branches/{n}")
        inner = state.get("ItemProcessor", state.get("Iterator"))
        if inner:
            yield from _of_states(inner, f"{here}/ItemProcessor")


def _missing(target: str, location: str) -> dict[str, str]:
    return _error("MISSING_TRANSITION_TARGET", f"There is no state {target!r}", location)


def _transitions(state: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("Next", "Default"):
        if key in state:
            yield f"/{key}", state[key]
    for key in ("Choices", "Catch"):
        for n, rule in enumerate(state.get(key, ())):
            yield f"/{key}/{n}/Next", rule["Next"]


def _of_task(state: Mapping[str, Any], where: str) -> Iterator[dict[str, str]]:
    resource = str(state["Resource"])
    if not resource.startswith(_INTEGRATION):
        return  # a function's or an activity's own ARN
    service, action = resource.removeprefix(_INTEGRATION).partition(".")[0].split(":")[-2:]
    try:
        shape = input_shape(boto_name(service), action)
    except (ValueError, UnknownServiceError) as error:
        yield _error("INVALID_RESOURCE", str(error), f"{where}/Resource")
        return
    given = {key.removesuffix(".$") for key in state.get("Parameters", {})}
    for name in sorted(given - {pascal(member) for member in shape.members}):
        message = f'The field "{name}" is not supported by Step Functions'
        yield _error("SCHEMA_VALIDATION_FAILED", message, f"{where}/Parameters")
    for name in sorted({pascal(member) for member in shape.required_members} - given):
        message = f'The field "{name}" is required but was missing'
        yield _error("SCHEMA_VALIDATION_FAILED", message, f"{where}/Parameters")
