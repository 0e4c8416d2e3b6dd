"""What can be resumed and what can be brought back, and what a person is told when it cannot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.sagemaker.models import sagemaker_backends

from workflow import executions, recovery
from workflow.account import Account
from workflow.config import Config
from workflow.errors import KelpieError
from workflow.recovery import rollback

GROUP = "kelpie"
JOB = f"kelpie-{'0a' * 16}-0"
MACHINE = {"StartAt": "Done", "States": {"Done": {"Type": "Pass", "End": True}}}


@pytest.fixture
def account() -> Iterator[Account]:
    with mock_aws():
        yield Account(
            boto3.Session(aws_access_key_id="testing", aws_secret_access_key="testing", region_name="us-east-1")
        )


@pytest.fixture
def outputs(account: Account) -> Any:
    """A state machine, a model package group and a lock table, all empty."""
    machine = account.client("stepfunctions").create_state_machine(
        name="kelpie", definition=json.dumps(MACHINE), roleArn="arn:aws:iam::123456789012:role/kelpie"
    )["stateMachineArn"]
    account.client("sagemaker").create_model_package_group(ModelPackageGroupName=GROUP)
    account.client("dynamodb").create_table(
        TableName="lock",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return SimpleNamespace(state_machine_arn=machine, model_package_group=GROUP, lock_table="lock")


def register(account: Account, status: str = "Approved", accuracy: str = "0.9") -> str:
    container = {"Image": "serving", "ModelDataUrl": "s3://artifacts/model.tar.gz"}
    answer = account.client("sagemaker").create_model_package(
        ModelPackageGroupName=GROUP,
        ModelApprovalStatus=status,
        InferenceSpecification={"Containers": [container], "SupportedContentTypes": ["image/jpeg"]},
        CustomerMetadataProperties={"test_accuracy": accuracy},
    )
    return str(answer["ModelPackageArn"])


def serves(account: Account, arn: str) -> None:
    item = {"pk": {"S": "kelpie#serving"}, "model_package_arn": {"S": arn}}
    account.client("dynamodb").put_item(TableName="lock", Item=item)


def input_of(account: Account, execution_arn: str) -> Any:
    """The execution's input, without the comment that says who started it."""
    found = json.loads(account.client("stepfunctions").describe_execution(executionArn=execution_arn)["input"])
    assert found.pop("Comment").startswith("kelpie r")
    return found


def error_of(call: Any, *arguments: Any) -> KelpieError:
    with pytest.raises(KelpieError) as caught:
        call(*arguments)
    assert caught.value.fix
    return caught.value


# Rollback


def test_the_newest_approved_version_before_the_one_that_serves_comes_back(account: Account, outputs: Any) -> None:
    first = register(account, accuracy="0.91")
    register(account, "Rejected")
    serves(account, register(account, accuracy="0.95"))
    register(account)  # newer than what serves
    started = rollback(account, outputs, Config())
    assert input_of(account, started.execution_arn) == {"rollback": {"model_package_arn": first}}
    assert started.expectation == (
        "brings back version 1 (Approved, test accuracy 91.0%); now serves 3 (Approved, test accuracy 95.0%)"
    )


@pytest.mark.parametrize("by", ["number", "arn"])
def test_a_version_can_be_named_and_may_be_newer_than_the_one_that_serves(
    account: Account, outputs: Any, by: str
) -> None:
    serves(account, register(account))
    newer = register(account)
    started = rollback(account, outputs, Config(), {"number": "2", "arn": newer}[by])
    assert input_of(account, started.execution_arn) == {"rollback": {"model_package_arn": newer}}


def test_a_version_that_does_not_exist_is_told_which_ones_do(account: Account, outputs: Any) -> None:
    serves(account, register(account, accuracy="0.93"))
    register(account, "Rejected", accuracy="0.92")
    error = error_of(rollback, account, outputs, Config(), "7")
    assert "'7'" in error.headline
    assert error.detail == "versions: 2 (Rejected, test accuracy 92.0%), 1 (Approved, test accuracy 93.0%)"


@pytest.mark.parametrize(
    ("version", "headline"),
    [
        ("2", "version 2 is Rejected: only an Approved one can be brought back"),
        ("1", "version 1 serves already"),
        (None, "there is no approved version older than 1, which serves"),
    ],
)
def test_what_cannot_be_brought_back_is_refused_before_anything_is_started(
    account: Account, outputs: Any, version: str | None, headline: str
) -> None:
    serves(account, register(account))
    register(account, "Rejected")
    assert error_of(rollback, account, outputs, Config(), version).headline == headline
    machine = outputs.state_machine_arn
    assert account.client("stepfunctions").list_executions(stateMachineArn=machine)["executions"] == []


def test_without_a_record_of_what_serves_the_version_must_be_named(account: Account, outputs: Any) -> None:
    register(account)
    assert "not recorded" in error_of(rollback, account, outputs, Config()).headline
    assert "no version is recorded" in rollback(account, outputs, Config(), "1").expectation


# Resume


@pytest.fixture
def earlier(account: Account, outputs: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An execution that ended in some way; returns a function that resumes it."""

    def resume(
        status: str = "FAILED", job: str | None = JOB, execution_input: dict[str, Any] | None = None
    ) -> recovery.Recovery:
        given = {"training": {"epochs": 2}} if execution_input is None else execution_input
        arn = executions.start(account, outputs.state_machine_arn, given, "earlier")
        ended = SimpleNamespace(
            arn=arn,
            name="earlier",
            status=status,
            running=status == "RUNNING",
            input=given,
            error="SmokeTestFailed",
            cause="too slow",
            training_job=job,
        )
        monkeypatch.setattr(executions, "describe", lambda *_: ended)
        return recovery.resume(account, outputs, Config(), "earlier")

    return resume


def make_job(account: Account, status: str) -> None:
    account.client("sagemaker").create_training_job(
        TrainingJobName=JOB,
        RoleArn="arn:aws:iam::123456789012:role/kelpie",
        AlgorithmSpecification={"TrainingImage": "training", "TrainingInputMode": "File"},
        OutputDataConfig={"S3OutputPath": "s3://artifacts/output"},
        ResourceConfig={"InstanceType": "ml.c5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 60},
    )
    sagemaker_backends["123456789012"]["us-east-1"].training_jobs[JOB].training_job_status = status


@pytest.mark.parametrize(
    ("status", "expectation"),
    [
        ("Completed", f"uses the model of {JOB} if data, code, settings and the model that serves are still the same"),
        ("Stopped", f"goes on from the checkpoints of {JOB} (Stopped) if data, code and settings are still the same"),
    ],
)
def test_a_failed_execution_goes_on_from_its_job_with_its_own_input(
    account: Account, earlier: Any, status: str, expectation: str
) -> None:
    make_job(account, status)
    resumed = earlier()
    assert input_of(account, resumed.execution_arn) == {
        "training": {"epochs": 2},
        "resume": {"training_job": JOB},
    }
    assert resumed.expectation == expectation


def test_a_job_that_is_gone_is_said_to_be_trained_from_the_beginning(earlier: Any) -> None:
    assert earlier().expectation.startswith("trains from the beginning, because")


def test_an_execution_that_took_over_a_job_is_resumed_from_that_job(account: Account, earlier: Any) -> None:
    make_job(account, "Completed")
    resumed = earlier(job=None, execution_input={"resume": {"training_job": JOB}})
    assert input_of(account, resumed.execution_arn) == {"resume": {"training_job": JOB}}


VERSION = "arn:aws:sagemaker:us-east-1:123456789012:model-package/kelpie/1"


@pytest.mark.parametrize(
    ("changes", "headline", "fix"),
    [
        ({"status": "RUNNING"}, "still runs", "kelpie stop earlier"),
        ({"status": "SUCCEEDED"}, "nothing to resume", "kelpie start"),
        ({"job": None}, "before it began to train", "kelpie start"),
        ({"execution_input": {"rollback": {"model_package_arn": VERSION}}}, "was a rollback", f"rollback {VERSION}"),
    ],
)
def test_what_cannot_be_resumed_is_refused_with_what_to_do_instead(
    earlier: Any, changes: dict[str, Any], headline: str, fix: str
) -> None:
    error = error_of(lambda: earlier(**changes))
    assert headline in error.headline
    assert fix in error.fix
