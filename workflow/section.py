"""A section of settings: its base class, its JSON Schema, and how it is told what is wrong in one.

Importing this module is cheap: it needs no AWS library.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from workflow.errors import ConfigError

FIX = "look the key up in docs/reference/settings.md"


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


def section_schema(section: Any) -> dict[str, Any]:
    schema: dict[str, Any] = section.model_json_schema()
    for rules in schema["properties"].values():
        rules.pop("default", None)
        rules.pop("title", None)
        if "const" in rules:
            rules["enum"] = [rules.pop("const")]
        rules["description"] = " ".join(rules["description"].split())
    schema.pop("title", None)
    return schema


def explain(error: ValidationError, whole: type[Section]) -> str:
    """For each wrong key: where, what it was, what is allowed, and which key may have been meant."""
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            siblings = _siblings(problem["loc"], whole)
            lines.append(f"{where}: there is no such key; allowed: {', '.join(siblings)}")
            lines += [f"did you mean {near}?" for near in get_close_matches(str(problem["loc"][-1]), siblings, 1)]
        else:
            lines.append(f"{where} = {problem['input']!r}: {problem['msg']}")
    return "\n".join(lines)


def check_order(values: dict[str, Any], source: Path | str, rules: list[list[str]]) -> None:
    def value(key: str) -> int:
        section, name = key.split(".")
        return int(values[section][name])

    for left, operator, right in rules:
        if value(left) > value(right):
            detail = f"{left} = {value(left)}, {right} = {value(right)}: must be {left} {operator} {right}"
            raise ConfigError(f"{source} has values that are not allowed.", detail, FIX)


def _siblings(location: tuple[int | str, ...], whole: type[Section]) -> list[str]:
    fields: Any = whole.model_fields
    for part in location[:-1]:
        fields = fields[str(part)].annotation.model_fields
    return sorted(fields)
