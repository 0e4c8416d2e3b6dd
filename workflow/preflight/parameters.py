"""The template's parameters as a deployment gives them, and the size of what is deployed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from workflow.deployment import template
from workflow.preflight.findings import Finding, Subject, error

DEFINITION_LIMIT_BYTES = 1_048_576
"""Longest definition of a state machine. Source: botocore 1.44.5, states service model, Definition."""

TEMPLATE_LIMIT_BYTES = 1_048_576
"""Longest template passed by TemplateURL. Source: CloudFormation user guide, quotas, read 2026-11."""


def check(subject: Subject) -> Iterator[Finding]:
    """Every parameter against its own rules; substitutions; sizes."""
    for name, slot in subject.template["Parameters"].items():
        for fault in faults(subject.parameters[name], slot):
            yield error(
                f"{name} = {subject.parameters[name]!r}: {fault}",
                f"workflow/stack.yaml, Parameters.{name}",
                "CloudFormation refuses the deployment.",
                "Change the setting of kelpie.toml that it comes from (docs/reference/settings.md).",
            )
    yield from _substitutions(subject)
    sizes = (
        ("The definition", len(json.dumps(subject.definition, ensure_ascii=False).encode()), DEFINITION_LIMIT_BYTES),
        ("workflow/stack.yaml", template.TEMPLATE_FILE.stat().st_size, TEMPLATE_LIMIT_BYTES),
    )
    for what, size, limit in sizes:
        if size > limit:
            yield error(
                f"{what} has {size:,} bytes; the limit is {limit:,}.",
                what,
                "AWS refuses it.",
                "Shorten it, or split it.",
            )


def _substitutions(subject: Subject) -> Iterator[Finding]:
    used = set(re.findall(r"\$\{(\w+)\}", json.dumps(subject.definition)))
    supplied = set(subject.template["Resources"]["StateMachine"]["Properties"]["DefinitionSubstitutions"])
    for name in sorted(used - supplied):
        yield error(
            f"The definition uses ${{{name}}}, which the stack does not supply.",
            "workflow/stack.yaml, StateMachine.DefinitionSubstitutions",
            "The text itself would reach AWS in the place of a value.",
            "Add it there, or remove it from workflow/definition/.",
        )


def faults(value: str, slot: Mapping[str, Any]) -> list[str]:
    """What CloudFormation would refuse about a parameter's value.

    Source: CloudFormation user guide, "Parameters", read 2026-11: AllowedPattern must match the whole value.
    """
    found = []
    if "AllowedValues" in slot and value not in [str(allowed) for allowed in slot["AllowedValues"]]:
        found.append(f"allowed: {', '.join(str(allowed) for allowed in slot['AllowedValues'])}")
    if "AllowedPattern" in slot and re.fullmatch(slot["AllowedPattern"], value) is None:
        found.append(f"allowed: {slot['AllowedPattern']}")
    if len(value) > int(slot.get("MaxLength", len(value))):
        found.append(f"{len(value)} characters; allowed: at most {slot['MaxLength']}")
    if len(value) < int(slot.get("MinLength", 0)):
        found.append(f"{len(value)} characters; allowed: at least {slot['MinLength']}")
    if slot.get("Type") == "Number":
        found += _number_faults(value, slot)
    elif not value and "Default" not in slot:
        found.append("nothing gives it a value")
    return found


def _number_faults(value: str, slot: Mapping[str, Any]) -> list[str]:
    try:
        number = float(value)
    except ValueError:
        return ["it is no number"]
    low, high = float(slot.get("MinValue", number)), float(slot.get("MaxValue", number))
    return [] if low <= number <= high else [f"allowed: {low:g} to {high:g}"]
