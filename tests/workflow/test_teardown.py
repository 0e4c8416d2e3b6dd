"""Removing a project: all that executions made, nothing of its neighbours, and the data only when told to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from stack_server import StackServer, stack_server

from workflow import teardown
from workflow.inventory import Scope

RUN = "0" * 32
TEMPLATE = """
Resources:
  Key:
    Type: AWS::KMS::Key
    DeletionPolicy: RetainExceptOnCreate
    Properties:
      Description: key
      EnableKeyRotation: true
      KeyPolicy: {Version: "2012-10-17", Statement: []}
  DataBucket:
    Type: AWS::S3::Bucket
    DeletionPolicy: RetainExceptOnCreate
    Properties: {VersioningConfiguration: {Status: Enabled}}
  Topic: {Type: AWS::SNS::Topic, Properties: {DisplayName: dogs}}
"""


@pytest.fixture(scope="module")
def running_server() -> Iterator[StackServer]:
    with stack_server() as running:
        yield running


@pytest.fixture
def server(running_server: StackServer, monkeypatch: pytest.MonkeyPatch) -> StackServer:
    """An account with a small stack, and with what an execution of `dogs` and one of `dogs-2` left."""
    monkeypatch.setattr(teardown, "_POLL_SECONDS", 0.0)
    running_server.reset()
    running_server.client("cloudformation").create_stack(StackName="dogs", TemplateBody=TEMPLATE)
    for project in ("dogs", "dogs-2"):
        made_by_an_execution(running_server, project)
    return running_server


def made_by_an_execution(server: StackServer, project: str) -> None:
    sagemaker, name = server.client("sagemaker"), f"{project}-{RUN}"
    role = "arn:aws:iam::123456789012:role/hosting"
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer={"Image": "kelpie-serving"})
    variant = {"VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=project, EndpointConfigName=name)
    server.client("application-autoscaling").register_scalable_target(
        ServiceNamespace="sagemaker",
        ResourceId=f"endpoint/{project}/variant/AllTraffic",
        ScalableDimension="sagemaker:variant:DesiredInstanceCount",
        MinCapacity=1,
        MaxCapacity=2,
    )
    logs = server.client("logs")
    logs.create_log_group(logGroupName=f"/aws/sagemaker/Endpoints/{project}")
    if project == "dogs":
        logs.create_log_group(logGroupName="/aws/sagemaker/TrainingJobs")
    logs.create_log_stream(logGroupName="/aws/sagemaker/TrainingJobs", logStreamName=f"{name}-0/algo-1")


def bucket_of(server: StackServer) -> str:
    [bucket] = server.client("s3").list_buckets()["Buckets"]
    return str(bucket["Name"])


def test_everything_is_listed_and_nothing_of_another_project(server: StackServer) -> None:
    found = teardown.read(server.account, "dogs").found
    assert found == {
        "scalable targets": ["endpoint/dogs/variant/AllTraffic"],
        "endpoints": ["dogs"],
        "endpoint configs": [f"dogs-{RUN}"],
        "models": [f"dogs-{RUN}"],
        "logs": ["/aws/sagemaker/Endpoints/dogs", f"/aws/sagemaker/TrainingJobs:dogs-{RUN}-0/algo-1"],
        "stacks": ["dogs"],
    }


def test_all_of_it_is_removed_and_data_neighbours_and_the_key_stay(server: StackServer) -> None:
    bucket = bucket_of(server)
    neighbour = teardown.read(server.account, "dogs-2").found
    removed: list[Any] = []
    holdings = teardown.read(server.account, "dogs")
    teardown.remove(server.account, "dogs", holdings, delete_data=False, on_event=removed.append)
    left = teardown.read(server.account, "dogs")
    assert (left.found, left.costly) == ({}, {})
    assert sorted(name.split()[0] for name in left.data) == ["DataBucket", "Key"]
    assert bucket_of(server) == bucket
    assert teardown.read(server.account, "dogs-2").found == neighbour
    kinds = [event.resource_type for event in removed if event.status == "REMOVED"]
    assert kinds.index("scalable targets") < kinds.index("endpoints") < kinds.index("endpoint configs")


@pytest.mark.parametrize("later", [False, True])
def test_data_goes_with_every_version_when_told_to_also_after_the_stack(server: StackServer, later: bool) -> None:
    s3, bucket = server.client("s3"), bucket_of(server)
    for body in (b"one", b"two"):
        s3.put_object(Bucket=bucket, Key="dog.jpg", Body=body)
    s3.delete_object(Bucket=bucket, Key="dog.jpg")
    s3.create_multipart_upload(Bucket=bucket, Key="half.jpg")
    if later:
        teardown.remove(server.account, "dogs", teardown.read(server.account, "dogs"), delete_data=False)
    holdings = teardown.read(server.account, "dogs")
    [key] = [value for name, value in holdings.data.items() if name.startswith("Key")]
    teardown.remove(server.account, "dogs", holdings, delete_data=True)
    left = teardown.read(server.account, "dogs")
    assert (left.found, left.data) == ({}, {})
    assert not s3.list_buckets()["Buckets"]
    assert server.client("kms").describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "PendingDeletion"


def test_names_are_told_apart_by_their_form(server: StackServer) -> None:
    scope = Scope(server.account, "dogs")
    assert scope.owns(f"dogs-{RUN}")
    assert scope.owns(f"dogs-{RUN}-3")
    assert not scope.owns(f"dogs-2-{RUN}")
    assert not scope.owns("dogs-by-hand")
