"""ValidateStateMachineDefinition of the local cloud."""

from __future__ import annotations

import copy
import json
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest

from workflow import definition
from workflow.config import Config
from workflow.local.definition_check import diagnostics
from workflow.preflight.service import rendered


@cache
def text() -> str:
    account: Any = SimpleNamespace(
        account_id="123456789012", region="us-east-1", partition="aws", dns_suffix="amazonaws.com"
    )
    return rendered(definition.build(Config()), "kelpie", account)


def broken(change: Any) -> list[dict[str, str]]:
    machine = copy.deepcopy(json.loads(text()))
    change(machine["States"])
    return diagnostics(json.dumps(machine))


def test_our_own_definition_is_accepted() -> None:
    assert diagnostics(text()) == []


def test_what_is_no_json_and_what_is_no_definition_are_told_apart() -> None:
    assert [one["code"] for one in diagnostics("{")] == ["INVALID_JSON_DESCRIPTION"]
    (found,) = diagnostics('{"StartAt": "A", "States": {"A": {"Type": "Pause"}}}')
    assert found["code"] == "SCHEMA_VALIDATION_FAILED"


@pytest.mark.parametrize("key", ["Next", "Default", "Choices", "Catch"])
def test_a_transition_to_no_state_is_found_wherever_it_is(key: str) -> None:
    def change(states: dict[str, Any]) -> None:
        state = next(one for one in states.values() if key in one)
        if isinstance(state[key], str):
            state[key] = "Nowhere"
        else:
            state[key][-1]["Next"] = "Nowhere"

    (found,) = broken(change)
    assert found["code"] == "MISSING_TRANSITION_TARGET"
    assert "Nowhere" in found["message"]
    assert f"/{key}" in found["location"]


def test_a_field_that_no_api_has_is_found_and_a_missing_one_too() -> None:
    def change(states: dict[str, Any]) -> None:
        states["Train"]["Parameters"]["Colour"] = "red"
        del states["CreateModel"]["Parameters"]["ExecutionRoleArn"]
        del states["CreateModel"]["Parameters"]["ModelName.$"]

    found = {(one["location"], one["message"]) for one in broken(change)}
    assert ("/States/Train/Parameters", 'The field "Colour" is not supported by Step Functions') in found
    assert ("/States/CreateModel/Parameters", 'The field "ModelName" is required but was missing') in found
