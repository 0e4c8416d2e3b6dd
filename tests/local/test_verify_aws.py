"""The checklist for a real account, tried on the local cloud: what it sees there is no evidence about AWS."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from workflow import verify_aws
from workflow.account import Account
from workflow.config import Config
from workflow.errors import KelpieError
from workflow.verify_aws import EXPERIMENTS, PREFIX, Experiment
from workflow.verify_aws.experiments import Observation
from workflow.verify_aws.lab import Lab, remove

QUICK = ("unproven-fields", "retried-parameters", "redrive-count", "generic-errors")


@pytest.fixture
def account(world: Any) -> Iterator[Account]:
    found: Account = world.connection.account()
    yield found
    remove(found, PREFIX)


def tried(account: Account, *names: str, **how: Any) -> dict[str, verify_aws.Result]:
    chosen = [one for one in EXPERIMENTS if one.name in names]
    assert len(chosen) == len(names)
    return {one.name: one for one in verify_aws.verify(account, Config(), chosen, **how)}


def test_the_quick_experiments_are_answered_and_leave_nothing_behind(account: Account) -> None:
    results = tried(account, *QUICK)
    assert {name: one.outcome for name, one in results.items()} == dict.fromkeys(QUICK, "answered")
    assert set(results["unproven-fields"].evidence.values()) <= {"accepted", "refused"}
    assert len(results["retried-parameters"].evidence) == 3
    assert results["generic-errors"].evidence["aws-sdk"]["error"].startswith("SageMaker.")
    assert results["generic-errors"].evidence["optimised"]["error"].startswith("SageMaker.")
    assert verify_aws.left_overs(account) == []


def test_what_costs_or_needs_a_person_is_not_tried_unasked(account: Account) -> None:
    results = verify_aws.verify(account, Config(), [one for one in EXPERIMENTS if one.spends or one.needs_person])
    assert len(results) >= 4
    assert {one.outcome for one in results} == {"not tried"}
    assert all(one.answer for one in results)
    assert verify_aws.left_overs(account) == []


def make_everything(lab: Lab, _config: Config) -> Observation:
    machine = lab.machine({"Wait": {"Type": "Wait", "Seconds": 86_400, "End": True}}, [])
    lab.account.client("stepfunctions").start_execution(stateMachineArn=machine)
    role = lab.role(
        "events.amazonaws.com", [{"Effect": "Allow", "Action": "states:StartExecution", "Resource": machine}]
    )
    events, rule = lab.account.client("events"), lab.name("rule")
    events.put_rule(Name=rule, EventPattern=json.dumps({"source": ["kelpie.verify"]}))
    events.put_targets(Rule=rule, Targets=[{"Id": "machine", "Arn": machine, "RoleArn": role}])
    lab.account.client("scheduler").create_schedule(
        Name=lab.name("schedule"),
        ScheduleExpression="at(2099-01-01T00:00:00)",
        FlexibleTimeWindow={"Mode": "OFF"},
        Target={"Arn": machine, "RoleArn": lab.role("scheduler.amazonaws.com", [])},
    )
    return Observation("made", None)


def make_and(failure: BaseException) -> Callable[[Lab, Config], Observation]:
    def run(lab: Lab, config: Config) -> Observation:
        make_everything(lab, config)
        raise failure

    return run


def experiment(run: Callable[[Lab, Config], Observation]) -> Experiment:
    return Experiment("made-up", "?", "how", "nothing", run)


@pytest.mark.parametrize("failure", [KelpieError("no"), ZeroDivisionError(), KeyboardInterrupt()], ids=repr)
def test_a_failing_or_interrupted_experiment_leaves_nothing_behind(account: Account, failure: BaseException) -> None:
    told = contextlib.nullcontext() if isinstance(failure, KelpieError) else pytest.raises(type(failure))
    with told:
        (result,) = verify_aws.verify(account, Config(), [experiment(make_and(failure))])
        assert (result.outcome, result.answer) == ("failed", "no")
    assert verify_aws.left_overs(account) == []


def test_what_cannot_be_removed_is_told_and_the_next_experiment_is_tried(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "Throttling", "Message": "later"}}, "DeleteRule")

    with monkeypatch.context() as patched:
        patched.setattr(account.client("events"), "delete_rule", refuse)
        chosen = [experiment(make_everything), *(one for one in EXPERIMENTS if one.name == "redrive-count")]
        results = verify_aws.verify(account, Config(), chosen)
    assert [one.outcome for one in results] == ["failed", "answered"]
    assert "could not remove rule kelpie-verify-" in results[0].answer
    assert [one.kind for one in verify_aws.left_overs(account)] == ["rule"]
    assert len(verify_aws.clean_up(account)) == 1


def test_what_a_killed_run_leaves_is_found_and_removed_and_nothing_else(account: Account) -> None:
    iam = account.client("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": "states.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    iam.create_role(RoleName="kelpie-verifyx", AssumeRolePolicyDocument=document)
    make_everything(Lab(account), Config())  # never left
    kinds = [one.kind for one in verify_aws.left_overs(account)]
    assert sorted(kinds) == ["role", "role", "role", "rule", "schedule", "state machine"]
    assert len(verify_aws.clean_up(account)) == 6
    assert verify_aws.left_overs(account) == []
    assert iam.get_role(RoleName="kelpie-verifyx")
    iam.delete_role(RoleName="kelpie-verifyx")


def test_the_record_says_that_it_is_not_of_aws(account: Account) -> None:
    (result,) = tried(account, "console-input").values()
    recorded = verify_aws.record(account, [result], account.endpoint_url)
    assert recorded["where"].endswith("which is not AWS")
    assert json.loads(json.dumps(recorded)) == recorded
    page = verify_aws.to_markdown(recorded)
    assert "which is not AWS" in page
    assert "| console-input |" in page
    assert verify_aws.record(account, [result], None)["where"] == "AWS"


@pytest.mark.slow
def test_a_rule_and_a_schedule_start_executions_that_have_names(account: Account) -> None:
    results = tried(account, "name-by-rule", "name-by-schedule")
    for one in results.values():
        assert one.outcome == "answered", one.answer
        assert one.evidence["name"]
    assert verify_aws.left_overs(account) == []
