"""Every permission of stack.yaml is needed by a recorded request, or by real AWS with a source; none is too wide."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from authorized_requests import Recorded, load
from integration.scenarios import SCENARIOS
from permission_table import PAGE, page
from policy_mutations import Outcome, World, foreign_requests, outcomes
from real_aws_only import REAL_AWS_ONLY
from stack_policies import Stack, StackPolicy

from workflow.local.conditions import as_list
from workflow.local.decisions import Request


@pytest.fixture(scope="module")
def stack() -> Stack:
    return Stack()


@pytest.fixture(scope="module")
def recorded() -> list[Recorded]:
    return load()


@pytest.fixture(scope="module")
def foreign(stack: Stack, recorded: list[Recorded]) -> list[Request]:
    return foreign_requests(recorded, World.of(stack))


@pytest.fixture(scope="module")
def found(stack: Stack, recorded: list[Recorded], foreign: list[Request]) -> list[Outcome]:
    return outcomes(stack, recorded, foreign)


def test_the_policies_as_they_are_allow_every_recorded_request(stack: Stack, recorded: list[Recorded]) -> None:
    world = World.of(stack)
    assert [str(one.key) for one in recorded if not world.allows(one.request())] == []
    assert len(recorded) > 100


def test_every_scenario_is_in_the_record(recorded: list[Recorded]) -> None:
    assert {name for one in recorded for name in one.scenarios} == set(SCENARIOS)


def test_nothing_is_permitted_that_no_scenario_needs_and_nobody_explains(found: list[Outcome]) -> None:
    assert [one.mutation.name for one in found if one.verdict == "unexplained"] == []


def test_every_removal_was_tried_and_broke_what_it_should(found: list[Outcome], stack: Stack) -> None:
    statements = sum(len(as_list(policy.document["Statement"])) for policy in stack.policies)
    tried = [one for one in found if one.mutation.change == "statement removed"]
    assert len(tried) == statements
    assert {one.verdict for one in found} <= {"needed", "real AWS only", "guards", "same"}


def test_each_deny_and_each_condition_keeps_somebody_out(found: list[Outcome]) -> None:
    guards = [one for one in found if one.mutation.kind == "widening" and one.mutation.change.endswith("removed")]
    assert len(guards) > 20
    assert [one.mutation.name for one in guards if one.verdict == "same"] == []


def test_each_row_of_what_only_real_aws_needs_is_used(found: list[Outcome]) -> None:
    used = {one.excuse for one in found if one.verdict == "real AWS only"}
    assert [row for row in REAL_AWS_ONLY if row not in used] == []


def test_foreign_requests_come_in_every_kind(foreign: list[Request]) -> None:
    wanted: Mapping[str, bool] = {
        "another endpoint": any(one.resource.endswith("endpoint/other") for one in foreign),
        "another bucket": any(one.resource.startswith("arn:aws:s3:::others") for one in foreign),
        "another account": any(":999999999999:" in one.caller.arn for one in foreign),
        "a stranger": any(one.caller.arn.endswith("/StrangersRole/session") for one in foreign),
        "plain HTTP": any(one.context.get("aws:SecureTransport") == "false" for one in foreign),
        "another encryption": any("AES256" in one.context.values() for one in foreign),
        "another Region": any(":eu-west-1:" in one.resource for one in foreign),
    }
    assert [name for name, is_there in wanted.items() if not is_there] == []


def test_a_permission_that_nothing_needs_would_be_noticed(stack: Stack, recorded: list[Recorded]) -> None:
    extra = {"Sid": "Extra", "Effect": "Allow", "Action": "s3:DeleteBucket", "Resource": "*"}
    policies = [
        StackPolicy(one.owner, one.kind, one.name, {"Statement": [*as_list(one.document["Statement"]), extra]},
                    one.subject)
        for one in stack.policies if (one.owner, one.kind) == ("SmokeTestRole", "identity")
    ]  # fmt: skip
    other = Stack(stack.template)
    other.__dict__["policies"] = policies
    own = [one for one in recorded if one.principal == "SmokeTestRole"]
    unexplained = [one.mutation.name for one in outcomes(other, own, []) if one.verdict == "unexplained"]
    assert unexplained == ["SmokeTestRole identity Extra: statement removed"]


def test_the_page_is_up_to_date(
    stack: Stack, recorded: list[Recorded], foreign: list[Request], found: list[Outcome]
) -> None:
    text = page(stack, recorded, len(foreign), found)
    assert PAGE.read_text(encoding="utf-8") == text, "python tests/permission_table.py"
