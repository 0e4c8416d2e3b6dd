"""Every Task of the definition against AWS's own service models, and against what Step Functions passes on.

An optimised integration (`sagemaker:createTrainingJob.sync`) takes fewer fields than the API behind it. Which, no
document lists any more; proven_fields.json holds the evidence. A field that it does not know ends an execution in a way
that no Catch handles, or keeps the state machine from being created.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape
from botocore.session import Session

from workflow.preflight.findings import Finding, Subject, error, warning

_SERVICES = {"applicationautoscaling": "application-autoscaling", "sfn": "stepfunctions"}
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
}


@cache
def proven_fields() -> Mapping[str, Mapping[str, str]]:
    """For each optimised integration the fields that it is known to accept, with the evidence."""
    text = Path(__file__).with_name("proven_fields.json").read_text(encoding="utf-8")
    fields: Mapping[str, Mapping[str, str]] = json.loads(text)["fields"]
    return fields


def check(subject: Subject) -> Iterator[Finding]:
    """Unknown, missing and mistyped fields of every Task; unproven ones of the optimised integrations."""
    for name, task in subject.tasks().items():
        shape = input_shape(task)
        if shape is None:
            yield error(
                f"{name} calls {integration(task)}, which is no API of AWS.",
                name,
                "Step Functions refuses the state machine.",
                "Correct the Resource in workflow/definition/.",
            )
            continue
        for fault in faults(task.get("Parameters", {}), shape, name):
            yield error(
                fault,
                name,
                f"AWS refuses the request of {integration(task)}.",
                "Correct the Parameters in workflow/definition/ or workflow/training_job.py.",
            )
        for field in sorted(unproven(task)):
            yield warning(
                f"{name} gives {field} to {integration(task)}; nobody has seen Step Functions accept it.",
                f"{name}.{field}",
                "If it does not, the execution ends with States.Runtime, which nothing catches: nobody cleans up.",
                "kelpie verify-aws finds out; until then leave the section [unproven] of kelpie.toml out.",
            )


def integration(task: Mapping[str, Any]) -> str:
    """What follows `:states:::` in a Task's Resource, such as `sagemaker:createModel`."""
    return str(task["Resource"]).partition(":states:::")[2]


def unproven(task: Mapping[str, Any]) -> set[str]:
    """The fields that no evidence shows to pass an optimised integration; none for `aws-sdk`, which passes all."""
    called = integration(task)
    if called.startswith("aws-sdk:"):
        return set()
    fields = {key.removesuffix(".$") for key in task.get("Parameters", {})}
    return fields - set(proven_fields().get(called, {}))


@cache
def _model(service: str) -> Any:
    return Session().get_service_model(service)


def input_shape(task: Mapping[str, Any]) -> StructureShape | None:
    """The shape of a Task's parameters, or None when there is no such API."""
    service, action = re.sub(r"\.(sync|waitForTaskToken)$", "", integration(task)).split(":")[-2:]
    try:
        operation = _model(_SERVICES.get(service, service)).operation_model(action[0].upper() + action[1:])
    except Exception as unknown:
        if type(unknown).__name__ not in ("UnknownServiceError", "OperationNotFoundError"):
            raise
        return None
    shape: StructureShape = operation.input_shape
    return shape


def faults(value: Any, shape: Shape, where: str) -> list[str]:
    """What does not fit: unknown and missing members at every depth, and constants that the model refuses.

    What is known only later, `$.path` and `${Name}`, has no type, length or pattern yet.
    """
    if isinstance(shape, StructureShape):
        if not isinstance(value, dict):
            return [f"{where}: expected an object, got {value!r}"]
        # Members are written in PascalCase, whatever the service calls them.
        members = {name[0].upper() + name[1:]: member for name, member in shape.members.items()}
        given = {key.removesuffix(".$"): (key, item) for key, item in value.items()}
        found = [f"{where}: {key} is unknown" for key in given if key not in members]
        required = {name[0].upper() + name[1:] for name in shape.required_members}
        found += [f"{where}: {key} is missing" for key in sorted(required - set(given))]
        for name, (key, item) in given.items():
            if name in members and not key.endswith(".$"):
                found += faults(item, members[name], f"{where}.{name}")
        return found
    if isinstance(shape, ListShape):
        if not isinstance(value, list):
            return [f"{where}: expected a list, got {value!r}"]
        found = _out_of_range(len(value), shape, where, "elements")
        return found + [fault for n, item in enumerate(value) for fault in faults(item, shape.member, f"{where}[{n}]")]
    if isinstance(shape, MapShape):
        if not isinstance(value, dict):
            return [f"{where}: expected an object, got {value!r}"]
        found = _out_of_range(len(value), shape, where, "entries")
        for key, item in value.items():
            found += faults(key.removesuffix(".$"), shape.key, f"{where}.{key} (its key)")
            if not key.endswith(".$"):
                found += faults(item, shape.value, f"{where}.{key}")
        return found
    return _scalar_faults(value, shape, where)


def _scalar_faults(value: Any, shape: Shape, where: str) -> list[str]:
    expected = _TYPES.get(shape.type_name)
    number_for_bool = isinstance(value, bool) and shape.type_name != "boolean"
    if expected and (number_for_bool or not isinstance(value, expected)):
        return [f"{where}: {value!r} is no {shape.type_name}"]
    if isinstance(value, str) and "${" in value:
        return []
    enum = getattr(shape, "enum", None)
    if enum and value not in enum:
        return [f"{where}: {value!r} is none of {enum}"]
    if isinstance(value, str):
        return _out_of_range(len(value), shape, where, "characters") + _pattern_faults(value, shape, where)
    return _out_of_range(value, shape, where, "") if isinstance(value, int | float) else []


def _out_of_range(size: float, shape: Shape, where: str, unit: str) -> list[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if (low is None or size >= low) and (high is None or size <= high):
        return []
    shown = f"{size:g} {unit}".strip()
    return [f"{where}: {shown}; allowed: {'any' if low is None else low} to {'any' if high is None else high}"]


def _pattern_faults(value: str, shape: Shape, where: str) -> list[str]:
    pattern = shape.metadata.get("pattern")
    try:
        matches = pattern is None or re.fullmatch(pattern, value) is not None
    except re.error:  # such as \p{L}, which Python does not know
        return []
    return [] if matches else [f"{where}: {value!r} does not match {pattern}"]
