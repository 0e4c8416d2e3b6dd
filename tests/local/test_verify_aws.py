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
from workflow.executions import TRAINING_LOG_GROUP
from workflow.verify_aws import EXPERIMENTS, Experiment
from workflow.verify_aws.experiments import Observation
from workflow.verify_aws.lab import Lab
from workflow.verify_aws.left_overs import remove

PROJECT = Config().project.name
QUICK = ("unproven-fields", "retried-parameters", "redrive-count", "generic-errors")


@pytest.fixture
def account(world: Any) -> Iterator[Account]:
    found: Account = world.connection.account()
    yield found
    remove(found, PROJECT)


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
    assert verify_aws.left_overs(account, PROJECT) == []


def test_what_costs_or_needs_a_person_is_not_tried_unasked(account: Account) -> None:
    results = verify_aws.verify(account, Config(), [one for one in EXPERIMENTS if one.spends or one.needs_person])
    assert len(results) >= 4
    assert {one.outcome for one in results} == {"not tried"}
    assert all(one.answer for one in results)
    assert verify_aws.left_overs(account, PROJECT) == []


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
    assert verify_aws.left_overs(account, PROJECT) == []


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
    assert [one.kind for one in verify_aws.left_overs(account, PROJECT)] == ["rule"]
    assert len(verify_aws.clean_up(account, PROJECT)) == 1


def test_what_a_killed_run_leaves_is_found_and_removed_and_nothing_else(account: Account) -> None:
    iam = account.client("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": "states.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    iam.create_role(RoleName="kelpie-verifyx", AssumeRolePolicyDocument=document)
    make_everything(Lab(account, PROJECT), Config())  # never left
    kinds = [one.kind for one in verify_aws.left_overs(account, PROJECT)]
    assert sorted(kinds) == ["role", "role", "role", "rule", "schedule", "state machine"]
    assert len(verify_aws.clean_up(account, PROJECT)) == 6
    assert verify_aws.left_overs(account, PROJECT) == []
    assert iam.get_role(RoleName="kelpie-verifyx")
    iam.delete_role(RoleName="kelpie-verifyx")


@pytest.fixture
def artifact_bucket(account: Account) -> Iterator[str]:
    """A stack of the project's name with nothing but the artifact bucket, and what is in it."""
    stacks, s3 = account.client("cloudformation"), account.client("s3")
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"VersioningConfiguration": {"Status": "Enabled"}}}
    stacks.create_stack(StackName=PROJECT, TemplateBody=json.dumps({"Resources": {"ArtifactBucket": bucket}}))
    stacks.get_waiter("stack_create_complete").wait(StackName=PROJECT, WaiterConfig={"Delay": 0.1})
    [resource] = stacks.describe_stack_resources(StackName=PROJECT)["StackResources"]
    name = resource["PhysicalResourceId"]
    yield name
    for one in s3.list_object_versions(Bucket=name).get("Versions", ()):
        s3.delete_object(Bucket=name, Key=one["Key"], VersionId=one["VersionId"])
    stacks.delete_stack(StackName=PROJECT)


def test_what_a_training_job_writes_is_found_and_removed_in_every_version(
    account: Account, artifact_bucket: str
) -> None:
    s3, logs = account.client("s3"), account.client("logs")
    lab = Lab(account, PROJECT)
    job = lab.name("job")
    for key in (f"runs/{job}/output/model.tar.gz", f"runs/{job}/output/model.tar.gz", "runs/kelpie-0/model.tar.gz"):
        s3.put_object(Bucket=artifact_bucket, Key=key, Body=b"model")
    s3.delete_object(Bucket=artifact_bucket, Key=f"runs/{job}/output/model.tar.gz")  # which leaves a marker
    with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_group(logGroupName=TRAINING_LOG_GROUP)
    for stream in (f"{job}/algo-1-1", "kelpie-0/algo-1-1"):
        logs.create_log_stream(logGroupName=TRAINING_LOG_GROUP, logStreamName=stream)
    kinds = [one.kind for one in verify_aws.left_overs(account, PROJECT)]
    assert sorted(kinds) == ["log stream", "object", "object", "object"]
    assert len(verify_aws.clean_up(account, PROJECT)) == 4
    assert verify_aws.left_overs(account, PROJECT) == []
    answer = s3.list_object_versions(Bucket=artifact_bucket)
    assert [one["Key"] for one in answer["Versions"]] == ["runs/kelpie-0/model.tar.gz"]
    assert "DeleteMarkers" not in answer
    logs.delete_log_stream(logGroupName=TRAINING_LOG_GROUP, logStreamName="kelpie-0/algo-1-1")  # ours was not touched


def test_an_endpoint_config_that_was_accepted_against_expectation_is_found_and_removed(
    account: Account, world: Any
) -> None:
    sagemaker, model = account.client("sagemaker"), world.model()
    variant = {"VariantName": "v", "ModelName": model, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    name = Lab(account, PROJECT).name("config")
    for one in (name, "kelpie-verified"):
        sagemaker.create_endpoint_config(EndpointConfigName=one, ProductionVariants=[variant])
    assert verify_aws.clean_up(account, PROJECT) == [f"endpoint config {name}"]
    assert verify_aws.left_overs(account, PROJECT) == []
    sagemaker.delete_endpoint_config(EndpointConfigName="kelpie-verified")  # ours was not touched


def test_what_a_state_machine_makes_while_it_is_removed_is_removed_too(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kind is looked for after the ones before it are gone, not before."""
    lab = Lab(account, PROJECT)
    lab.machine({"Wait": {"Type": "Wait", "Seconds": 86_400, "End": True}}, [])
    sfn = account.client("stepfunctions")
    delete = sfn.delete_state_machine

    def delete_late(**request: Any) -> Any:
        lab.role("events.amazonaws.com", [])
        return delete(**request)

    monkeypatch.setattr(sfn, "delete_state_machine", delete_late)
    assert len(verify_aws.clean_up(account, PROJECT)) == 3
    assert verify_aws.left_overs(account, PROJECT) == []


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
    assert verify_aws.left_overs(account, PROJECT) == []
