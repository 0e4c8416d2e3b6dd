"""A change set as data, and in words: what a deployment will do to an account, before it does it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_LONGEST_VALUE = 72


class Effect(StrEnum):
    """What happens to one resource.

    Source: botocore 1.44.5, CloudFormation's service model, ResourceChange: Action, Replacement and PolicyAction.
    """

    ADDED = "added"
    CHANGED = "changed in place"
    MAY_BE_REPLACED = "changed, perhaps REPLACED"
    REPLACED = "REPLACED"
    REMOVED = "removed"
    KEPT = "left to you (it leaves the stack and stays)"


@dataclass(frozen=True)
class Change:
    """What happens to one resource, and to which of its properties."""

    resource: str
    resource_type: str
    effect: Effect
    properties: tuple[str, ...] = ()

    def __str__(self) -> str:
        what = f": {', '.join(self.properties)}" if self.properties else ""
        return f"{self.resource} ({self.resource_type}){what}"


@dataclass(frozen=True)
class ParameterChange:
    """A parameter of the stack that gets another value; `before` is None when it is new."""

    name: str
    before: str | None
    after: str

    def __str__(self) -> str:
        before = "" if self.before is None else f"{_short(self.before)} -> "
        return f"{self.name}: {before}{_short(self.after)}"


@dataclass(frozen=True)
class ChangeSet:
    """A change set that CloudFormation has made and not yet executed."""

    arn: str
    stack: str
    creates_stack: bool
    changes: tuple[Change, ...]
    parameters: tuple[ParameterChange, ...]

    @property
    def only_adds(self) -> bool:
        """Whether nothing that exists is touched."""
        return all(change.effect is Effect.ADDED for change in self.changes)

    def lines(self) -> Iterator[str]:
        """The change set in words, line by line."""
        yield f"the stack {self.stack} is {'created' if self.creates_stack else 'updated'}:"
        for effect in Effect:
            found = [change for change in self.changes if change.effect is effect]
            if found:
                yield f"  {effect} ({len(found)}):"
                yield from (f"    {change}" for change in found)
        if not self.changes:
            yield "  no resource changes"
        if self.parameters and not self.creates_stack:
            yield f"  parameters with another value ({len(self.parameters)}):"
            yield from (f"    {parameter}" for parameter in self.parameters)


def read(
    described: Mapping[str, Any], changes: list[Mapping[str, Any]], creates_stack: bool, before: Mapping[str, str]
) -> ChangeSet:
    """The change set that DescribeChangeSet answered, with the changes of all its pages.

    `before` holds the values of the stack's parameters as they are.
    """
    after = {one["ParameterKey"]: one.get("ParameterValue", "") for one in described.get("Parameters", ())}
    return ChangeSet(
        arn=described["ChangeSetId"],
        stack=described["StackName"],
        creates_stack=creates_stack,
        changes=tuple(
            _change(one["ResourceChange"])
            for one in sorted(changes, key=lambda one: str(one["ResourceChange"]["LogicalResourceId"]))
        ),
        parameters=tuple(
            ParameterChange(name, before.get(name), value)
            for name, value in sorted(after.items())
            if before.get(name) != value
        ),
    )


def _change(described: Mapping[str, Any]) -> Change:
    targets = [detail.get("Target", {}) for detail in described.get("Details", ())]
    names = (target.get("Name") or target.get("Attribute") for target in targets)
    return Change(
        described["LogicalResourceId"],
        described["ResourceType"],
        _effect(described),
        tuple(dict.fromkeys(name for name in names if name)),
    )


def _effect(described: Mapping[str, Any]) -> Effect:
    action, policy = described["Action"], described.get("PolicyAction", "")
    if action == "Remove":
        return Effect.KEPT if policy in ("Retain", "Snapshot") else Effect.REMOVED
    if action in ("Add", "Import"):
        return Effect.ADDED
    by_replacement = {"True": Effect.REPLACED, "Conditional": Effect.MAY_BE_REPLACED, "False": Effect.CHANGED}
    # Actions Dynamic and SyncWithActual: what happens is known only when it is executed.
    return by_replacement.get(
        described.get("Replacement", ""), Effect.CHANGED if action == "Modify" else Effect.MAY_BE_REPLACED
    )


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST_VALUE else f"{value[: _LONGEST_VALUE - 1]}…"
