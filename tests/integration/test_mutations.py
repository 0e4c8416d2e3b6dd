"""Ten mutations of docs/reference/permissions.md, confirmed: with the policy changed an execution fails as said."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import pytest
from authorized_requests import Recorded, load
from integration.harness import LocalCloud, left_behind
from integration.test_faults import MACHINE, Drill, drilling
from policy_mutations import Mutation, Outcome, mutations_of, outcomes
from stack_policies import Stack, StackPolicy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

COUNT = 10
SCENARIO = "first deployment of a model, spot interrupted"
LOGS_AND_METRICS = ("logs:", "cloudwatch:PutMetricData")
"""Nothing fails for want of these: what would be written is lost."""


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drill]:
    with drilling(tmp_path_factory.mktemp("mutated") / "local") as drill:
        yield drill


def is_fatal(one: Recorded) -> bool:
    """Whether an execution that may not do this fails: not when it is only to log, or goes on with a warning."""
    if SCENARIO not in one.scenarios or one.action.startswith(LOGS_AND_METRICS) or "." in one.principal:
        return False
    if one.principal == "StateMachineRole":
        return any(not MACHINE.goes_on(state) and not MACHINE.is_way_back(state) for state in one.states)
    return one.principal in ("TrainingRole", "HostingRole", "CheckDataRole", "SmokeTestRole")


@pytest.fixture(scope="module")
def chosen() -> list[Outcome]:
    """Removals that break a first deployment: as many principals as there are in turn, in an order nobody chose."""
    by_principal: dict[str, list[Outcome]] = {}
    for one in outcomes(Stack(), load(), []):
        if one.verdict == "needed" and one.mutation.policy.kind == "identity" and any(map(is_fatal, one.broken)):
            by_principal.setdefault(one.mutation.policy.owner, []).append(one)
    for found in by_principal.values():
        found.sort(key=lambda one: hashlib.sha256(one.mutation.name.encode()).hexdigest())
    turns = zip_longest(*(by_principal[name] for name in sorted(by_principal)))
    return [one for turn in turns for one in turn if one is not None][:COUNT]


@contextmanager
def mutated(local_cloud: LocalCloud, mutation: Mutation) -> Iterator[None]:
    """The policy of the running stack with the same change; its names differ from the template's, its form does not."""
    iam, policy = local_cloud.account.client("iam"), mutation.policy
    role = local_cloud.account.client("cloudformation").describe_stack_resource(
        StackName="kelpie", LogicalResourceId=policy.owner
    )["StackResourceDetail"]["PhysicalResourceId"]
    named = {"RoleName": role, "PolicyName": policy.name}
    before: dict[str, Any] = iam.get_role_policy(**named)["PolicyDocument"]
    names = [one.name for one in mutations_of(policy)]
    running = mutations_of(StackPolicy(policy.owner, policy.kind, policy.name, before, role))
    assert len(running) == len(names), "the running stack's policy is not of the template's form"
    after = running[names.index(mutation.name)].document
    iam.put_role_policy(**named, PolicyDocument=json.dumps(after))
    try:
        yield
    finally:
        iam.put_role_policy(**named, PolicyDocument=json.dumps(before))


@pytest.mark.parametrize("number", range(COUNT))
def test_an_execution_fails_with_the_denial_that_was_predicted(
    drill: Drill, chosen: list[Outcome], number: int
) -> None:
    outcome = chosen[number]
    predicted = sorted({one.action for one in outcome.broken if is_fatal(one)})
    drill.prepare("first deployment")
    with mutated(drill.cloud, outcome.mutation):
        execution = drill.execute("first deployment", may_resume=False)
    assert execution.status == "FAILED", f"{outcome.mutation.name} changed nothing"
    assert any(action in execution.cause for action in predicted), f"{predicted} not in {execution.cause!r}"
    assert [what for what in left_behind(drill.cloud, execution) if not what.startswith("the lock")] == []
