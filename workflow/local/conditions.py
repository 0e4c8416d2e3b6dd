"""Condition operators of IAM policies: does a statement's Condition hold for the context of a request?

Pure. Fails closed: an operator, a value or a policy variable that is not understood is an error, never a "no".
Source: IAM User Guide, "IAM JSON policy elements: Condition operators" and "... Variables and tags", Nov 2026.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_network
from typing import Any

ContextValue = str | Sequence[str]
Context = Mapping[str, ContextValue]
"""Condition keys (any case) and their values in this request."""


class UnsupportedPolicy(Exception):
    """A policy uses an element, operator or variable that the local cloud cannot evaluate."""


def hold(conditions: Mapping[str, Mapping[str, Any]], context: Context) -> bool:
    """Whether every operator holds for each of its keys.

    Raises: UnsupportedPolicy.
    """
    values_by_key = {key.lower(): [value] if isinstance(value, str) else list(value) for key, value in context.items()}
    return all(
        _condition_holds(operator, [_text(value) for value in as_list(wanted)], values_by_key.get(key.lower()), context)
        for operator, keys in conditions.items()
        for key, wanted in keys.items()
    )


def matches(pattern: str, value: str) -> bool:
    """IAM wildcards: `*` is any run of characters (`/` and `:` too), `?` exactly one; all others are literal.

    Raises: UnsupportedPolicy for a policy variable; `expand` replaces those that the request has.
    """
    return _compiled(pattern).fullmatch(value) is not None


_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_ESCAPES = {"*": "\0", "?": "\1", "$": "$"}
"""`${*}` and `${?}` are the characters themselves: kept apart from wildcards until the pattern is compiled."""


def expand(pattern: str, context: Context) -> str:
    """Replace policy variables such as `${aws:PrincipalAccount}` by their values in this request.

    Raises: UnsupportedPolicy for a variable that the request has no single value for.
    """
    if "${" not in pattern:
        return pattern
    values = {key.lower(): value for key, value in context.items()}

    def value_of(match: re.Match[str]) -> str:
        name = match[1]
        if name in _ESCAPES:
            return _ESCAPES[name]
        value = values.get(name.lower())
        if not isinstance(value, str):
            raise UnsupportedPolicy(f"policy variable in {pattern!r}")
        return value.replace("*", "\0").replace("?", "\1")

    return _VARIABLE.sub(value_of, pattern)


def as_list(value: Any) -> list[Any]:
    """IAM's one or many."""
    return list(value) if isinstance(value, list | tuple) else [value]


@lru_cache(maxsize=16384)
def _compiled(pattern: str) -> re.Pattern[str]:
    if "${" in pattern:
        raise UnsupportedPolicy(f"policy variable in {pattern!r}")
    characters = {"*": ".*", "?": ".", "\0": r"\*", "\1": r"\?"}
    parts = (characters.get(c) or re.escape(c) for c in re.sub(r"\*+", "*", pattern))
    return re.compile("".join(parts), re.DOTALL)


def _matches_arn(pattern: str, value: str) -> bool:
    """ARN operators compare the six colon-separated parts one by one."""
    patterns, values = pattern.split(":", 5), value.split(":", 5)
    return len(patterns) == len(values) and all(map(matches, patterns, values))


Compare = Callable[[str, str], bool]


def _ordered(parse: Callable[[str], Any], relation: Callable[[Any, Any], bool]) -> Compare:
    def compare(wanted: str, value: str) -> bool:
        try:
            return relation(parse(value), parse(wanted))
        except (ValueError, TypeError):
            raise UnsupportedPolicy(f"comparison of {value!r} with {wanted!r}") from None

    return compare


def _time(text: str) -> datetime:
    """ISO 8601 or seconds since 1970. Raises: ValueError."""
    if re.fullmatch(r"\d+", text):
        return datetime.fromtimestamp(int(text), UTC)
    parsed = datetime.fromisoformat(text)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


_RELATIONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "Equals": lambda value, wanted: bool(value == wanted),
    "LessThan": lambda value, wanted: bool(value < wanted),
    "LessThanEquals": lambda value, wanted: bool(value <= wanted),
    "GreaterThan": lambda value, wanted: bool(value > wanted),
    "GreaterThanEquals": lambda value, wanted: bool(value >= wanted),
}
_PATTERNED: Mapping[str, Compare] = {"StringLike": matches, "ArnEquals": _matches_arn, "ArnLike": _matches_arn}
_OPERATORS: Mapping[str, Compare] = {
    "StringEquals": lambda wanted, value: wanted == value,
    "StringEqualsIgnoreCase": lambda wanted, value: wanted.lower() == value.lower(),
    **_PATTERNED,
    "Bool": lambda wanted, value: wanted.lower() == value.lower(),
    "IpAddress": _ordered(lambda text: ip_network(text, strict=False), lambda value, wanted: value.subnet_of(wanted)),
    **{f"Numeric{name}": _ordered(float, relation) for name, relation in _RELATIONS.items()},
    **{f"Date{name}": _ordered(_time, relation) for name, relation in _RELATIONS.items()},
}
_NEGATED: Mapping[str, str] = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
    "NumericNotEquals": "NumericEquals",
    "DateNotEquals": "DateEquals",
    "NotIpAddress": "IpAddress",
}
_WITH_VARIABLES = ("String", "Arn")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _literal(wanted: str) -> str:
    """A value of an operator without wildcards, with the escaped characters as they are."""
    return wanted.replace("\0", "*").replace("\1", "?")


def _condition_holds(operator: str, wanted: list[str], values: list[str] | None, context: Context) -> bool:
    """One operator on one key; `values` is None when the request does not have the key."""
    quantifier, _, name = operator.rpartition(":")
    if quantifier not in ("", "ForAnyValue", "ForAllValues"):
        raise UnsupportedPolicy(f"condition operator {operator!r}")
    if name == "Null":
        return (values is None) == (wanted[0].lower() == "true")
    if_exists = name.endswith("IfExists")
    name = name.removesuffix("IfExists")
    negated = name in _NEGATED
    positive = _NEGATED.get(name, name)
    compare = _OPERATORS.get(positive)
    if compare is None:
        raise UnsupportedPolicy(f"condition operator {operator!r}")
    if positive.startswith(_WITH_VARIABLES):
        wanted = [expand(pattern, context) for pattern in wanted]
        if positive not in _PATTERNED:
            wanted = [_literal(pattern) for pattern in wanted]
    if not values:
        return if_exists or quantifier == "ForAllValues" or (negated and quantifier == "")
    outcomes = [any(compare(pattern, value) for pattern in wanted) != negated for value in values]
    if quantifier == "ForAnyValue" or (quantifier == "" and not negated):
        return any(outcomes)
    return all(outcomes)
