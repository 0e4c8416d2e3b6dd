"""The model registry, models and what moto lacks; hyperparameters as the training toolkit passes them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.conftest import IMAGE, World
from workflow.local import faults, training_record
from workflow.local.training_host import flags
from workflow.local.training_record import TrainingRecord


@pytest.fixture
def group(world: World) -> str:
    """A model package group."""
    name = f"group-{uuid.uuid4().hex[:8]}"
    world.sagemaker.create_model_package_group(ModelPackageGroupName=name)
    return name


def register(world: World, group: str, **more: Any) -> str:
    container = {"Image": IMAGE, "ModelDataUrl": f"s3://{world.bucket}/model.tar.gz"}
    return world.sagemaker.create_model_package(
        ModelPackageGroupName=group,
        InferenceSpecification={
            "Containers": [container],
            "SupportedContentTypes": ["image/jpeg"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
        **more,
    )["ModelPackageArn"]


def versions(world: World, group: str) -> list[int]:
    listed = world.sagemaker.list_model_packages(ModelPackageGroupName=group)["ModelPackageSummaryList"]
    return sorted(item["ModelPackageVersion"] for item in listed)


def test_versions_never_repeat_after_deletions(world: World, group: str) -> None:
    arns = [register(world, group) for _ in range(3)]
    assert [arn.rsplit("/", 1)[1] for arn in arns] == ["1", "2", "3"]
    world.sagemaker.delete_model_package(ModelPackageName=arns[0])
    assert versions(world, group) == [2, 3]
    assert register(world, group).endswith("/4")
    world.sagemaker.delete_model_package(ModelPackageName=arns[2])
    assert register(world, group).endswith("/5")
    assert versions(world, group) == [2, 4, 5]
    with pytest.raises(ClientError, match="not found"):
        world.sagemaker.describe_model_package(ModelPackageName=arns[0])


def test_an_approval_keeps_what_the_request_does_not_name(world: World, group: str) -> None:
    arn = register(
        world,
        group,
        ModelApprovalStatus="PendingManualApproval",
        CustomerMetadataProperties={"run": "r1", "dropped": "x"},
    )
    world.sagemaker.update_model_package(
        ModelPackageArn=arn, ModelApprovalStatus="Approved", CustomerMetadataPropertiesToRemove=["dropped"]
    )
    described = world.sagemaker.describe_model_package(ModelPackageName=arn)
    assert described["ModelApprovalStatus"] == "Approved"
    assert described["CustomerMetadataProperties"] == {"run": "r1"}
    world.sagemaker.update_model_package(ModelPackageArn=arn, CustomerMetadataProperties={"more": "y"})
    described = world.sagemaker.describe_model_package(ModelPackageName=arn)
    assert described["ModelApprovalStatus"] == "Approved"
    assert described["CustomerMetadataProperties"] == {"run": "r1", "more": "y"}


def test_only_an_empty_group_is_deleted(world: World, group: str) -> None:
    arn = register(world, group)
    with pytest.raises(ClientError, match="not empty"):
        world.sagemaker.delete_model_package_group(ModelPackageGroupName=group)
    world.sagemaker.delete_model_package(ModelPackageName=arn)
    world.sagemaker.delete_model_package_group(ModelPackageGroupName=group)
    with pytest.raises(ClientError, match="does not exist"):
        world.sagemaker.describe_model_package_group(ModelPackageGroupName=group)


def test_a_model_keeps_its_network_isolation_and_its_name_is_its_own(world: World) -> None:
    name = f"model-{uuid.uuid4().hex[:8]}"
    request = {
        "ModelName": name,
        "ExecutionRoleArn": world.role,
        "PrimaryContainer": {"Image": IMAGE, "ModelDataUrl": f"s3://{world.bucket}/model.tar.gz"},
        "EnableNetworkIsolation": True,
    }
    world.sagemaker.create_model(**request)
    assert world.sagemaker.describe_model(ModelName=name)["EnableNetworkIsolation"] is True
    with pytest.raises(ClientError, match="already existing model"):
        world.sagemaker.create_model(**request)
    role = world.make_role(principal="lambda.amazonaws.com")
    with pytest.raises(ClientError, match="Could not assume role"):
        world.sagemaker.create_model(**{**request, "ModelName": name + "x", "ExecutionRoleArn": role})


def test_an_instance_type_that_does_not_exist_is_refused_and_a_new_one_is_not(world: World) -> None:
    model = world.model()
    world.config(model, instance_type="ml.g6.xlarge")
    with pytest.raises(ClientError, match="enum value set"):
        world.config(model, instance_type="ml.none.xlarge")


def test_metrics_of_jobs_and_endpoints_are_read_together(world: World) -> None:
    world.train("print('test:accuracy=0.5')")
    now = datetime.now(UTC)
    data = world.client("cloudwatch").get_metric_data(
        StartTime=now - timedelta(minutes=5),
        EndTime=now + timedelta(minutes=1),
        MetricDataQueries=[
            {
                "Id": "accuracy",
                "MetricStat": {
                    "Metric": {"Namespace": "/aws/sagemaker/TrainingJobs", "MetricName": "test:accuracy"},
                    "Period": 60,
                    "Stat": "Maximum",
                },
            }
        ],
    )["MetricDataResults"]
    assert data[0]["Values"]


def test_hyperparameters_become_flags_as_the_toolkit_makes_them() -> None:
    assert flags(
        {
            "batch-size": "8",
            "backbone": '"efficientnet_lite0"',
            "plain": "text",
            "deep": "true",
            "n": "1",
            "nothing": "null",
            "sagemaker_program": '"train.py"',
        }
    ) == [
        *("--backbone", "efficientnet_lite0"),
        *("--batch-size", "8"),
        *("--deep", "True"),
        *("-n", "1"),
        *("--nothing", ""),
        *("--plain", "text"),
    ]


class Job:
    """moto's training job as far as a record writes it."""

    arn = "arn"


def test_billed_seconds_leave_out_the_time_without_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(training_record.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(training_record, "utcnow", lambda: datetime(2026, 1, 1) + timedelta(seconds=clock[0]))
    job: Any = Job()
    record = TrainingRecord(job)
    for seconds in (10, 5):  # two attempts, and 60 seconds without capacity after the first
        record.start_billing()
        clock[0] += seconds
        record.stop_billing()
        clock[0] += 60 if seconds == 10 else 0
    record.finish("Completed", "Completed", "done")
    assert (job.training_time_in_seconds, job.billable_time_in_seconds) == (75, 15)


def test_an_interruption_waits_for_its_checkpoints_and_is_taken_once() -> None:
    pending = faults.Faults()
    pending.add(faults.SpotInterruption(after_checkpoints=2, count=2))
    assert pending.take_spot_interruption(1) is None
    assert pending.take_spot_interruption(2) is not None
    assert pending.take_spot_interruption(0) is None, "the second one counts the checkpoints of its own attempt"
    assert pending.take_spot_interruption(5) is not None
    assert pending.take_spot_interruption(5) is None
    with pytest.raises(ValueError, match="after_checkpoints"):
        faults.SpotInterruption(after_checkpoints=-1)
