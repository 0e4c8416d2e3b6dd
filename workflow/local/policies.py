"""IAM policy documents: which statements match an (action, resource, context), and what that decides.

Pure: no moto, no HTTP. Who the principal is belongs in identity.py; what a request asks for, in actions.py.

Evaluation is IAM's for one account: an explicit Deny wins, then any Allow, else an implicit deny. A statement that
uses something this module does not understand raises `UnsupportedPolicy`, so that nothing is allowed by accident.
Source: IAM User Guide, "Policy evaluation logic" and "IAM JSON policy elements: Condition operators", Nov 2026.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any

Document = Mapping[str, Any]
ContextValue = str | Sequence[str]
Context = Mapping[str, ContextValue]
"""Condition keys (any case) and their values in this request."""


class Effect(Enum):
    """What the policies decide about one action on one resource."""

    ALLOW = "allow"
    EXPLICIT_DENY = "explicit deny"
    IMPLICIT_DENY = "implicit deny"


class UnsupportedPolicy(Exception):
    """A policy uses an element or operator that the local cloud cannot evaluate."""


def parse(document: str | Document) -> Document:
    """A policy document as a mapping, whether it is stored as JSON text or already parsed."""
    return json.loads(document) if isinstance(document, str) else document


def evaluate(documents: Iterable[str | Document], action: str, resource: str, context: Context) -> Effect:
    """Decide `action` ("s3:GetObject") on `resource` (an ARN or "*") by identity policies.

    Raises: UnsupportedPolicy for a condition operator or policy variable outside the supported ones.
    """
    effect = Effect.IMPLICIT_DENY
    for statement in _statements(documents):
        if not (_matches_action(statement, action) and _matches_resource(statement, resource)):
            continue
        if not _conditions_hold(statement.get("Condition", {}), context):
            continue
        if statement["Effect"] == "Deny":
            return Effect.EXPLICIT_DENY
        effect = Effect.ALLOW
    return effect


def trusts(document: str | Document, principal_kind: str, principal: str, context: Context) -> bool:
    """Whether a role's trust policy lets a principal call sts:AssumeRole.

    `principal_kind` is "Service" ("states.amazonaws.com") or "AWS" (the ARN of a role or of the account's root).
    """
    allowed = False
    for statement in _statements([document]):
        if not _matches_action(statement, "sts:AssumeRole"):
            continue
        if not _matches_principal(statement.get("Principal"), principal_kind, principal):
            continue
        if not _conditions_hold(statement.get("Condition", {}), context):
            continue
        if statement["Effect"] == "Deny":
            return False
        allowed = True
    return allowed


def matches(pattern: str, value: str) -> bool:
    """IAM wildcards: `*` is any run of characters (`/` and `:` too), `?` exactly one; all others are literal."""
    return _compiled(pattern).fullmatch(value) is not None


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    if "${" in pattern:
        raise UnsupportedPolicy(f"policy variable in {pattern!r}")
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in re.sub(r"\*+", "*", pattern))
    return re.compile("".join(parts), re.DOTALL)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _statements(documents: Iterable[str | Document]) -> Iterable[Mapping[str, Any]]:
    for document in documents:
        yield from _as_list(parse(document).get("Statement", []))


def _matches_action(statement: Mapping[str, Any], action: str) -> bool:
    def any_of(patterns: Any) -> bool:
        return any(matches(str(pattern).lower(), action.lower()) for pattern in _as_list(patterns))

    if "NotAction" in statement:
        return not any_of(statement["NotAction"])
    return any_of(statement.get("Action", []))


def _matches_resource(statement: Mapping[str, Any], resource: str) -> bool:
    def any_of(patterns: Any) -> bool:
        return any(matches(str(pattern), resource) for pattern in _as_list(patterns))

    if "NotResource" in statement:
        return not any_of(statement["NotResource"])
    return any_of(statement.get("Resource", []))


def _matches_principal(element: Any, kind: str, principal: str) -> bool:
    if element == "*":
        return True
    if not isinstance(element, Mapping):
        return False
    account = principal.split(":")[4] if kind == "AWS" else ""
    names = {principal, account, f"arn:aws:iam::{account}:root"} if kind == "AWS" else {principal}
    return any(str(value) == "*" or str(value) in names for value in _as_list(element.get(kind, [])))


def _matches_arn(pattern: str, value: str) -> bool:
    """ARN operators compare the six colon-separated parts one by one."""
    patterns, values = pattern.split(":", 5), value.split(":", 5)
    return len(patterns) == len(values) and all(map(matches, patterns, values))


_OPERATORS: Mapping[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda wanted, value: wanted == value,
    "StringEqualsIgnoreCase": lambda wanted, value: wanted.lower() == value.lower(),
    "StringLike": matches,
    "ArnEquals": _matches_arn,
    "ArnLike": _matches_arn,
    "Bool": lambda wanted, value: wanted.lower() == value.lower(),
}
_NEGATED: Mapping[str, str] = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
}


def _conditions_hold(conditions: Mapping[str, Mapping[str, Any]], context: Context) -> bool:
    values_by_key = {key.lower(): [value] if isinstance(value, str) else list(value) for key, value in context.items()}
    return all(
        _condition_holds(operator, [_text(value) for value in _as_list(wanted)], values_by_key.get(key.lower()))
        for operator, keys in conditions.items()
        for key, wanted in keys.items()
    )


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _condition_holds(operator: str, wanted: list[str], values: list[str] | None) -> bool:
    """One operator on one key; `values` is None when the request does not have the key."""
    quantifier, _, name = operator.rpartition(":")
    if name == "Null":
        return (values is None) == (wanted[0].lower() == "true")
    if_exists = name.endswith("IfExists")
    name = name.removesuffix("IfExists")
    negated = name in _NEGATED
    compare = _OPERATORS.get(_NEGATED.get(name, name))
    if compare is None or quantifier not in ("", "ForAnyValue", "ForAllValues"):
        raise UnsupportedPolicy(f"condition operator {operator!r}")
    if not values:
        return if_exists or quantifier == "ForAllValues" or (negated and quantifier == "")
    outcomes = [any(compare(pattern, value) for pattern in wanted) != negated for value in values]
    if quantifier == "ForAnyValue" or (quantifier == "" and not negated):
        return any(outcomes)
    return all(outcomes)
