"""Executions that go on where an earlier one failed, and versions that come back.

The slow tests have a cloud of their own: they change which model serves, and count its versions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from integration import clouds
from integration.harness import SMALL, LocalCloud, eventually

from workflow import executions, models, recovery
from workflow.account import Account
from workflow.config import Config
from workflow.errors import KelpieError

# The hosting of all tests: a version that comes back is scaled as the input says.
EASY: dict[str, Any] = {
    "gate": {"min_test_accuracy": 0.0},
    "smoke_test": {"min_accuracy": 0.0},
    "hosting": SMALL["hosting"],
}


@pytest.fixture(scope="module")
def own_cloud(tmp_path_factory: pytest.TempPathFactory, dogs_folder: Path) -> Iterator[LocalCloud]:
    """A local cloud that nobody else changes."""
    with clouds.own_cloud(tmp_path_factory.mktemp("recovery") / "local", Config(), dogs_folder) as found:
        yield found


def visited(execution: executions.Execution) -> set[str]:
    return {visit.name for visit in execution.visits}


def succeeded(execution: executions.Execution) -> dict[str, Any]:
    """The output of an execution that succeeded."""
    assert execution.status == "SUCCEEDED", f"{execution.error}: {execution.cause}"
    assert execution.output is not None
    return execution.output


def resume(local_cloud: LocalCloud, execution: executions.Execution) -> executions.Execution:
    started = recovery.resume(local_cloud.account, local_cloud.outputs, Config(), execution.name)
    return local_cloud.wait(started.execution_arn)


def roll_back(local_cloud: LocalCloud, version: str | None = None) -> executions.Execution:
    """The default smoke test asks more than what is trained here on a few drawn dogs can answer."""
    start = executions.start

    def start_mildly(account: Account, machine_arn: str, execution_input: dict[str, Any]) -> str:
        return start(account, machine_arn, {**EASY, **execution_input})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executions, "start", start_mildly)
        started = recovery.rollback(local_cloud.account, local_cloud.outputs, Config(), version)
    return local_cloud.wait(started.execution_arn)


def version(local_cloud: LocalCloud, arn: str) -> models.Version:
    found = models.versions(local_cloud.account, local_cloud.outputs, "kelpie")
    return next(one for one in found if one.arn == arn)


def serving_version(local_cloud: LocalCloud) -> str:
    return models.serving(local_cloud.account, local_cloud.outputs, "kelpie")["model_package_arn"]


def served_archive(local_cloud: LocalCloud) -> str:
    """The URI of the archive that the endpoint serves."""
    client = local_cloud.account.client("sagemaker")
    config = client.describe_endpoint_config(EndpointConfigName=local_cloud.endpoint()["EndpointConfigName"])
    model = client.describe_model(ModelName=config["ProductionVariants"][0]["ModelName"])
    return str(model["PrimaryContainer"]["ModelDataUrl"])


def champion_etag(local_cloud: LocalCloud) -> str:
    answer = local_cloud.account.client("s3").head_object(
        Bucket=local_cloud.outputs.artifact_bucket, Key="champion/model.tar.gz"
    )
    return str(answer["ETag"])


def training_jobs(local_cloud: LocalCloud) -> set[str]:
    listed = local_cloud.account.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]
    return {job["TrainingJobName"] for job in listed}


@pytest.fixture(scope="module")
def first(own_cloud: LocalCloud) -> tuple[executions.Execution, executions.Execution, set[str]]:
    """An execution that fails after training, the one that resumes it, and the training jobs in between."""
    fault = {"message": "not today", "count": 4}  # the state tries again three times
    own_cloud.connection.fail_api("sagemaker:CreateModel", "ValidationException", **fault)
    failed = own_cloud.run(training={"epochs": 1}, **EASY)
    assert failed.status == "FAILED"
    assert "not today" in failed.cause
    jobs = training_jobs(own_cloud)
    return failed, resume(own_cloud, failed), jobs


@pytest.fixture(scope="module")
def second(own_cloud: LocalCloud, first: Any) -> tuple[executions.Execution, executions.Execution]:
    """An execution that is stopped in mid-training, and the one that resumes it: the second version."""
    arn = own_cloud.start(training={"epochs": 6, "seed": 2, "trainable": "all"}, **EASY)

    def losses() -> list[tuple[int, float]]:
        name = executions.describe(own_cloud.account, arn).training_job
        return executions.loss_curve(executions.training_log(own_cloud.account, name)) if name else []

    eventually(lambda: len(losses()) > 4, "some training steps", 120)
    executions.stop(own_cloud.account, arn)
    stopped = own_cloud.wait(arn)
    assert stopped.status == "ABORTED"
    return stopped, resume(own_cloud, stopped)


def test_a_version_comes_back_by_the_way_of_a_new_one_but_without_training(
    local_cloud: LocalCloud, first_execution: executions.Execution
) -> None:
    before = succeeded(first_execution)
    jobs, config_name = training_jobs(local_cloud), local_cloud.endpoint()["EndpointConfigName"]
    started = {"rollback": {"model_package_arn": before["package"]["ModelPackageArn"]}, **EASY}
    back = local_cloud.wait(executions.start(local_cloud.account, local_cloud.outputs.state_machine_arn, started))
    output = succeeded(back)
    assert {"DescribeVersion", "UpdateEndpoint", "SmokeTest", "KeepChampion"} <= visited(back)
    assert served_archive(local_cloud) == before["artifacts"]["model_s3_uri"]
    assert local_cloud.endpoint()["EndpointConfigName"] != config_name
    assert training_jobs(local_cloud) == jobs
    assert output["gate"]["test_accuracy"] == before["gate"]["test_accuracy"]
    assert output["warnings"] == {}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_execution_that_failed_after_training_is_resumed_without_training_again(
    own_cloud: LocalCloud, first: tuple[executions.Execution, executions.Execution, set[str]]
) -> None:
    failed, resumed, jobs = first
    job = own_cloud.training_job(failed)
    output = succeeded(resumed)
    assert len(jobs) == 1
    assert "Train" not in visited(resumed)
    assert output["train"]["TrainingJobName"] == job["TrainingJobName"]
    assert output["artifacts"]["model_s3_uri"] == job["ModelArtifacts"]["S3ModelArtifacts"]
    assert output["warnings"] == {}
    with pytest.raises(KelpieError, match="nothing to resume"):
        resume(own_cloud, resumed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_execution_that_was_stopped_in_mid_training_is_resumed_from_its_checkpoints(
    own_cloud: LocalCloud, second: tuple[executions.Execution, executions.Execution]
) -> None:
    stopped, resumed = second
    succeeded(resumed)
    assert "UseEarlierCheckpoints" in visited(resumed)
    job = own_cloud.training_job(resumed)["TrainingJobName"]
    assert job != stopped.training_job
    log = "\n".join(executions.training_log(own_cloud.account, job))
    steps = [int(step) for step in re.findall(r"resumed_step=(\d+)", log)]
    assert steps
    assert min(steps) > 0, log[:2000]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_was_learned_with_another_seed_is_not_gone_on_from(
    own_cloud: LocalCloud, first: tuple[executions.Execution, executions.Execution, set[str]]
) -> None:
    job = own_cloud.training_job(first[0])["TrainingJobName"]
    settings = {"training": {"epochs": 1, "seed": 7}, "gate": {"min_test_accuracy": 1.0}}
    other = own_cloud.run(**settings, resume={"training_job": job})
    assert other.error == "QualityGateRefused", f"{other.error}: {other.cause}"
    assert job in other.data["warnings"]["ResumeTraining"]["Cause"]
    own = own_cloud.training_job(other)
    assert own["TrainingJobName"] != job
    log = executions.training_log(own_cloud.account, own["TrainingJobName"])
    assert any("resumed_step=0" in line for line in log)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_version_that_does_not_pass_its_smoke_test_does_not_come_back_and_stays_approved(
    own_cloud: LocalCloud, first: Any, second: Any
) -> None:
    arn = succeeded(first[1])["package"]["ModelPackageArn"]
    started = {"rollback": {"model_package_arn": arn}, "smoke_test": {"min_accuracy": 0.0, "max_latency_ms": 1}}
    refused = own_cloud.wait(executions.start(own_cloud.account, own_cloud.outputs.state_machine_arn, started))
    assert refused.status == "FAILED"
    assert refused.error == "SmokeTestFailed", refused.cause
    assert version(own_cloud, arn).approval_status == "Approved"
    serves = succeeded(second[1])
    assert serving_version(own_cloud) == serves["package"]["ModelPackageArn"]
    assert served_archive(own_cloud) == serves["artifacts"]["model_s3_uri"]
    assert own_cloud.endpoint()["EndpointStatus"] == "InService"
    with pytest.raises(ClientError, match="Could not find"):
        own_cloud.account.client("sagemaker").describe_model(ModelName=refused.data["names"]["model"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_version_before_comes_back_and_then_none_is_older(own_cloud: LocalCloud, first: Any, second: Any) -> None:
    older, newer = succeeded(first[1]), succeeded(second[1])
    older_arn, newer_arn = older["package"]["ModelPackageArn"], newer["package"]["ModelPackageArn"]
    assert serving_version(own_cloud) == newer_arn
    champion, jobs = champion_etag(own_cloud), training_jobs(own_cloud)

    back = roll_back(own_cloud)
    output = succeeded(back)
    assert serving_version(own_cloud) == older_arn
    assert served_archive(own_cloud) == older["artifacts"]["model_s3_uri"]
    assert champion_etag(own_cloud) != champion
    assert training_jobs(own_cloud) == jobs
    assert output["endpoint"]["EndpointConfigName"] == newer["names"]["endpoint_config"]
    assert output["warnings"] == {}
    assert {version(own_cloud, arn).approval_status for arn in (older_arn, newer_arn)} == {"Approved"}
    # What served before it survived the pruning.
    own_cloud.account.client("sagemaker").describe_model(ModelName=newer["names"]["model"])

    with pytest.raises(KelpieError, match=f"no approved version older than {version(own_cloud, older_arn).number}"):
        roll_back(own_cloud)
    succeeded(roll_back(own_cloud, newer_arn))
    assert serving_version(own_cloud) == newer_arn
    assert champion_etag(own_cloud) == champion
