"""A change set in words: each effect by its name, what is lost in capitals."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from workflow.deployment import change_set
from workflow.deployment.change_set import Effect

NONE: Mapping[str, str] = MappingProxyType({})


def resource_change(action: str = "Modify", **more: Any) -> dict[str, Any]:
    change = {"Action": action, "LogicalResourceId": "Bucket", "ResourceType": "AWS::S3::Bucket", **more}
    return {"Type": "Resource", "ResourceChange": change}


def read(
    *changes: dict[str, Any], before: Mapping[str, str] = NONE, after: Mapping[str, str] = NONE
) -> change_set.ChangeSet:
    parameters = [{"ParameterKey": name, "ParameterValue": value} for name, value in after.items()]
    described = {"ChangeSetId": "arn", "StackName": "kelpie", "Parameters": parameters}
    return change_set.read(described, list(changes), creates_stack=False, before=before)


@pytest.mark.parametrize(
    ("described", "effect"),
    [
        (resource_change("Add"), Effect.ADDED),
        (resource_change("Import"), Effect.ADDED),
        (resource_change(Replacement="False"), Effect.CHANGED),
        (resource_change(Replacement="Conditional"), Effect.MAY_BE_REPLACED),
        (resource_change(Replacement="True"), Effect.REPLACED),
        (resource_change("Dynamic"), Effect.MAY_BE_REPLACED),
        (resource_change("Remove"), Effect.REMOVED),
        (resource_change("Remove", PolicyAction="Delete"), Effect.REMOVED),
        (resource_change("Remove", PolicyAction="Retain"), Effect.KEPT),
    ],
)
def test_every_effect_has_a_word(described: dict[str, Any], effect: Effect) -> None:
    proposed = read(described)
    assert [change.effect for change in proposed.changes] == [effect]
    assert f"  {effect} (1):" in list(proposed.lines())
    assert proposed.only_adds == (effect is Effect.ADDED)


def test_changed_properties_and_parameters_are_named() -> None:
    target = {"Attribute": "Properties", "Name": "Tags"}
    proposed = read(
        resource_change(Replacement="False", Details=[{"Target": target}, {"Target": target}]),
        before={"Same": "1", "Other": "a"},
        after={"Same": "1", "Other": "b", "New": "c"},
    )
    assert list(proposed.lines()) == [
        "the stack kelpie is updated:",
        "  changed in place (1):",
        "    Bucket (AWS::S3::Bucket): Tags",
        "  parameters with another value (2):",
        "    New: c",
        "    Other: a -> b",
    ]


def test_a_long_value_is_cut() -> None:
    [parameter] = read(before={"Key": "a" * 500}, after={"Key": "b" * 500}).parameters
    assert len(str(parameter)) < 200
