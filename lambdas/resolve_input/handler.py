"""Resolve an execution's input: check every key, then deep-merge it over the defaults.

JSONPath can neither enumerate keys nor merge deeply, so the state machine's first state is this Lambda; all
later states read only what it returns.

Environment: none of its own (POWERTOOLS_SERVICE_NAME and POWERTOOLS_LOG_LEVEL are honoured, as in every
Lambda here).
IAM: none beyond its log group.
Timeout 15 s, memory 256 MB.

Event: {"input": the execution's input, "defaults": the full default settings}. Returns the settings: the
merged dict.
Beside this file lies `execution_input.schema.json`; packaging writes it from the schema of `kelpie.toml`,
so that the input, its documentation and these checks have one source. What JSON Schema cannot say stands in
it as `x-order-rules`, [["a.b", "<=", "c.d"], ...], and `x-same-kind-rules`, {"a.b": pattern}: the default
and the override must both match the pattern or both not, because the definition was made for one kind.
A data.s3_uri that names an object `_SUCCESS` (new data in S3 start an execution with that) means its folder.
Errors: InvalidInput (a person's mistake, never retried): names the key, the value seen and the values
allowed.
"""

from __future__ import annotations

import difflib
import json
import operator
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import fastjsonschema
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger(service="resolve-input")

SCHEMA_PATH = Path(__file__).with_name("execution_input.schema.json")
MARKER = "_SUCCESS"
"""Name of the object that EventBridge reports: written last, when all pictures of its folder are there."""
NEXT_STEP = "Correct the execution's input and start again; an empty input {} takes every default."

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_LONGEST_VALUE_SHOWN = 120


class InvalidInput(Exception):
    """The execution's input has an unknown key, a bad value, or two values that contradict each other."""


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Return the settings of one execution.

    Raises:
        InvalidInput: see the module's docstring.
    """
    schema = load_schema()
    defaults = event.get("defaults") if isinstance(event, dict) else None
    if not isinstance(defaults, dict):
        raise InvalidInput("Invalid event: expected the object 'defaults'; deploy the stack again.")
    settings = resolve(event.get("input"), defaults, schema)
    logger.info("input resolved", extra={"sections": sorted(settings)})
    return settings


@cache
def load_schema() -> dict[str, Any]:
    """Return the schema that was packed with this Lambda."""
    schema: dict[str, Any] = json.loads(SCHEMA_PATH.read_text("utf-8"))
    return schema


def resolve(given: Any, defaults: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return `defaults` overridden by `given`, which is checked alone first and merged second.

    Checking first bounds the depth of what is merged. The defaults were checked when the stack was made.
    """
    if given is None:
        given = {}
    _check(given, schema)
    overrides = {key: value for key, value in given.items() if key != "Comment"}
    settings = _folder_of_marker(_merge(defaults, overrides))
    _check_order(settings, schema.get("x-order-rules", []))
    _check_kinds(settings, defaults, schema.get("x-same-kind-rules", {}))
    return settings


def _folder_of_marker(settings: dict[str, Any]) -> dict[str, Any]:
    """Name the folder where data.s3_uri names the marker object in it that says that its data set is complete."""
    data = settings.get("data")
    s3_uri = data.get("s3_uri") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(s3_uri, str) or not s3_uri.endswith(f"/{MARKER}"):
        return settings
    return {**settings, "data": {**data, "s3_uri": s3_uri.removesuffix(MARKER)}}


def _merge(defaults: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    merged = dict(defaults)
    for key, value in overrides.items():
        default = defaults.get(key)
        if isinstance(default, dict) and isinstance(value, dict):
            merged[key] = _merge(default, value)
        elif type(default) is int and isinstance(value, float) and value.is_integer():
            # JSON Schema takes 3.0 for an integer; the AWS APIs behind the next states do not.
            merged[key] = int(value)
        else:
            merged[key] = value
    return merged


@cache
def _validator(schema_text: str) -> Callable[[Any], Any]:
    validate: Callable[[Any], Any] = fastjsonschema.compile(json.loads(schema_text), use_default=False)
    return validate


def _check(value: Any, schema: dict[str, Any]) -> None:
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:  # NaN, Infinity or half a character: Python reads them, AWS does not
        raise InvalidInput(f"Invalid input: it is no JSON ({str(error)[:_LONGEST_VALUE_SHOWN]}). {NEXT_STEP}") from None
    try:
        _validator(json.dumps(schema, sort_keys=True))(value)
    except fastjsonschema.JsonSchemaValueException as error:
        raise InvalidInput(_explain(error)) from None


def _explain(error: fastjsonschema.JsonSchemaValueException) -> str:
    path = [str(part) for part in error.path[1:]]
    key = ".".join(path)
    definition = error.definition if isinstance(error.definition, dict) else {}
    if error.rule == "additionalProperties" and isinstance(error.value, dict):
        allowed = sorted(set(definition.get("properties", {})) - {"Comment"})
        unknown = sorted(str(name) for name in error.value if name not in definition.get("properties", {}))
        name = unknown[0] if unknown else "?"
        near = difflib.get_close_matches(name, allowed, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        where = f"section '{key}'" if key else "the input"
        return (
            f"Unknown key '{_shown('.'.join([*path, name]))}' in {where}{hint}; expected one of {allowed}. {NEXT_STEP}"
        )
    what = f"value for '{key}'" if key else "input"
    return f"Invalid {what}: {_shown(json.dumps(error.value))}; expected {_expected(error, definition)}. {NEXT_STEP}"


def _expected(error: fastjsonschema.JsonSchemaValueException, definition: dict[str, Any]) -> str:
    """Say in words what the schema allows at this place."""
    kind = definition.get("type")
    parts: list[str] = []
    if "enum" in definition:
        parts.append(f"one of {definition['enum']}")
    elif "const" in definition:
        parts.append(json.dumps(definition["const"]))
    elif kind == "object":
        names = sorted(set(definition.get("properties", {})) - {"Comment"})
        parts.append(f"an object with keys of {names}")
    elif kind is not None:
        parts.append(" or ".join(kind) if isinstance(kind, list) else str(kind))
    for keyword, words in (
        ("minimum", "at least"),
        ("exclusiveMinimum", "more than"),
        ("maximum", "at most"),
        ("exclusiveMaximum", "less than"),
        ("multipleOf", "a multiple of"),
        ("pattern", "matching"),
        ("minLength", "of a length of at least"),
        ("maxLength", "of a length of at most"),
    ):
        if keyword in definition:
            parts.append(f"{words} {definition[keyword]}")
    return ", ".join(parts) or f"what rule '{error.rule}' says: {_shown(json.dumps(error.rule_definition))}"


def _check_order(settings: dict[str, Any], rules: list[list[str]]) -> None:
    for left, sign, right in rules:
        try:
            smaller, larger = _look_up(settings, left), _look_up(settings, right)
            holds = _OPERATORS[sign](smaller, larger)
        except (KeyError, TypeError):
            raise InvalidInput(f"Invalid event: its 'defaults' lack {left} or {right}; deploy again.") from None
        if not holds:
            raise InvalidInput(
                f"Invalid values: '{left}' is {smaller} and '{right}' is {larger}; "
                f"expected {left} {sign} {right}. {NEXT_STEP}"
            )


def _check_kinds(settings: dict[str, Any], defaults: dict[str, Any], rules: dict[str, str]) -> None:
    for key, pattern in rules.items():
        try:
            default, value = str(_look_up(defaults, key)), str(_look_up(settings, key))
        except (KeyError, TypeError):
            raise InvalidInput(f"Invalid event: its 'defaults' lack {key}; deploy again.") from None
        if (re.match(pattern, default) is None) != (re.match(pattern, value) is None):
            raise InvalidInput(
                f"Invalid value for '{key}': {_shown(json.dumps(value))}; the stack was deployed for "
                f"{_shown(json.dumps(default))}, and of these two one has local storage, which takes no KMS key. "
                f"Set {key} in kelpie.toml and deploy again, or choose a type of the same kind."
            )


def _look_up(settings: dict[str, Any], dotted: str) -> Any:
    value: Any = settings
    for part in dotted.split("."):
        value = value[part]
    return value


def _shown(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE_SHOWN else f"{text[:_LONGEST_VALUE_SHOWN]}..."
