"""What a rule hands to its target: the event itself, a part of it, a constant, or a template filled from it.

Pure. Source: EventBridge user guide, "Amazon EventBridge input transformation", Nov 2026: a variable that is a value of
the template's JSON is inserted as JSON, one inside a string as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from jsonpath_ng.ext.parser import parse as parse_path

_VARIABLE = re.compile(r"<([A-Za-z0-9_.\-]+)>")


class InvalidInput(Exception):
    """The template and the event do not make JSON."""


def target_input(target: Mapping[str, Any], event: Mapping[str, Any], rule_arn: str) -> str:
    """The text that the target gets, for a target as PutTargets describes it.

    Raises: InvalidInput.
    """
    if "Input" in target:
        return str(target["Input"])
    if "InputPath" in target:
        return json.dumps(_find(str(target["InputPath"]), event))
    if "InputTransformer" not in target:
        return json.dumps(event)
    transformer = target["InputTransformer"]
    values: dict[str, Any] = {
        name: _find(path, event) for name, path in transformer.get("InputPathsMap", {}).items()
    } | {
        "aws.events.rule-arn": rule_arn,
        "aws.events.rule-name": rule_arn.rsplit("/", 1)[-1],
        "aws.events.event.ingestion-time": event["time"],
        "aws.events.event": {key: value for key, value in event.items() if key != "detail"},
        "aws.events.event.json": dict(event),
    }
    return _filled(str(transformer["InputTemplate"]), values)


def _find(path: str, event: Mapping[str, Any]) -> Any:
    """The value at a path, None where the event has none."""
    found = parse_path(path).find(event)
    return found[0].value if found else None


def _filled(template: str, values: Mapping[str, Any]) -> str:
    parts: list[str] = []
    position = 0
    for match in _VARIABLE.finditer(template):
        if match[1] not in values:
            continue
        parts.append(template[position : match.start()])
        value = values[match[1]]
        parts.append(_inside_string(value) if _is_inside_string("".join(parts)) else json.dumps(value))
        position = match.end()
    text = "".join([*parts, template[position:]])
    try:
        json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"The input template does not give JSON: {error}: {text[:500]}") from None
    return text


def _is_inside_string(text: str) -> bool:
    """Whether a JSON text so far ends inside a string."""
    return len(re.findall(r'(?<!\\)(?:\\\\)*"', text)) % 2 == 1


def _inside_string(value: Any) -> str:
    """A value as a part of a JSON string: what is no string itself is written as JSON, and its quotes are escaped."""
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
    return json.dumps(text)[1:-1]
