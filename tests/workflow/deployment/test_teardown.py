"""Removing a project: all that executions made, nothing of its neighbours, and the data only when told to."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.session import Session
from stack_server import StackServer, stack_server

from workflow.deployment import inventory, teardown, template
from workflow.deployment.inventory import Scope
from workflow.errors import KelpieError

RUN = "0" * 32
TEMPLATE = """
Resources:
  Key:
    Type: AWS::KMS::Key
    DeletionPolicy: RetainExceptOnCreate
    Properties:
      Description: key
      EnableKeyRotation: true
      Tags: [{Key: "kelpie:project", Value: dogs}]
      KeyPolicy: {Version: "2012-10-17", Statement: []}
  DataBucket:
    Type: AWS::S3::Bucket
    DeletionPolicy: RetainExceptOnCreate
    Properties:
      VersioningConfiguration: {Status: Enabled}
      Tags: [{Key: "kelpie:project", Value: dogs}, {Key: "kelpie:resource", Value: DataBucket}]
  DataBucketPolicy:
    Type: AWS::S3::BucketPolicy
    DeletionPolicy: RetainExceptOnCreate
    Properties:
      Bucket: !Ref DataBucket
      PolicyDocument: {Version: "2012-10-17", Statement: []}
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
    assert server.client("s3").get_bucket_policy(Bucket=bucket)["Policy"]
    assert teardown.read(server.account, "dogs-2").found == neighbour
    kinds = [event.resource_type for event in removed if event.status == "REMOVED"]
    assert kinds.index("scalable targets") < kinds.index("endpoints") < kinds.index("endpoint configs")


class Endpoint:
    """A SageMaker whose endpoint has one status after the other."""

    def __init__(self, *statuses: str) -> None:
        self.statuses = list(statuses)
        self.left_at_deletion: list[str] | None = None

    def describe_endpoint(self, EndpointName: str) -> dict[str, str]:
        return {"EndpointStatus": self.statuses.pop(0)}

    def delete_endpoint(self, EndpointName: str) -> None:
        self.left_at_deletion = self.statuses


@pytest.mark.parametrize("busy", ["Creating", "Updating", "SystemUpdating", "RollingBack"])
def test_an_endpoint_is_deleted_only_when_nothing_is_done_to_it_and_without_scalable_targets(
    server: StackServer, monkeypatch: pytest.MonkeyPatch, busy: str
) -> None:
    endpoint, scope = Endpoint(busy, busy, "InService"), Scope(server.account, "dogs")
    client = server.account.client
    monkeypatch.setattr(
        server.account, "client", lambda service: endpoint if service == "sagemaker" else client(service)
    )
    assert inventory.scalable_targets(scope)
    teardown._delete_endpoint(scope, "dogs")
    assert endpoint.left_at_deletion == []
    assert inventory.scalable_targets(scope) == []


def test_every_status_of_an_endpoint_is_busy_or_can_be_deleted() -> None:
    shape: Any = Session().get_service_model("sagemaker").shape_for("EndpointStatus")
    assert set(shape.enum) - teardown._BUSY == {"InService", "OutOfService", "Failed", "UpdateRollbackFailed"}


def test_nothing_starts_while_it_is_removed(server: StackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    events, scheduler = server.client("events"), server.client("scheduler")
    machine, role = "arn:aws:states:us-east-1:123456789012:stateMachine:dogs", "arn:aws:iam::123456789012:role/start"
    target = {"Arn": machine, "RoleArn": role}
    for project in ("dogs", "dogs-2"):
        scheduler.create_schedule(
            Name=project,
            ScheduleExpression="rate(1 days)",
            ScheduleExpressionTimezone="Europe/Berlin",
            FlexibleTimeWindow={"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 5},
            Target=target,
        )
        for end in ("new-data", "ended-badly", "look-around"):
            events.put_rule(Name=f"{project}-{end}", EventPattern='{"source": ["aws.s3"]}')
    before = scheduler.get_schedule(Name="dogs")

    def stopped(scope: Scope, name: str) -> None:
        raise InterruptedError

    monkeypatch.setitem(teardown._REMOVE, "scalable targets", stopped)  # the first thing of `dogs` that is removed
    with pytest.raises(InterruptedError):
        teardown.remove(server.account, "dogs", teardown.read(server.account, "dogs"), delete_data=False)
    after = scheduler.get_schedule(Name="dogs")
    for schedule in (before, after):
        for key in ("State", "LastModificationDate", "ResponseMetadata"):
            schedule.pop(key)
    assert after == before
    assert scheduler.get_schedule(Name="dogs")["State"] == "DISABLED"
    assert scheduler.get_schedule(Name="dogs-2")["State"] == "ENABLED"
    states = {rule["Name"]: rule["State"] for rule in events.list_rules()["Rules"]}
    assert states == {
        "dogs-new-data": "DISABLED",
        "dogs-ended-badly": "DISABLED",
        "dogs-look-around": "DISABLED",
        "dogs-2-new-data": "ENABLED",
        "dogs-2-ended-badly": "ENABLED",
        "dogs-2-look-around": "ENABLED",
    }


@pytest.mark.parametrize(("patience", "asked"), [(900.0, 3), (-1.0, 1)])
def test_on_aws_the_roles_stay_until_sagemaker_has_no_grants(
    monkeypatch: pytest.MonkeyPatch, patience: float, asked: int
) -> None:
    ecr = {"GrantId": "1", "GranteePrincipal": "ecr.us-east-1.amazonaws.com"}
    hosting = {"GrantId": "2", "GranteePrincipal": "sagemaker.us-east-1.amazonaws.com"}
    answers = [[ecr, hosting], [ecr, hosting], [ecr]]
    keys: list[str] = []

    def paginate(KeyId: str) -> list[dict[str, Any]]:
        keys.append(KeyId)
        return [{"Grants": answers[len(keys) - 1]}]

    kms = SimpleNamespace(get_paginator=lambda _: SimpleNamespace(paginate=paginate))
    account: Any = SimpleNamespace(endpoint_url=None, client=lambda _: kms)
    monkeypatch.setattr(teardown, "_POLL_SECONDS", 0.0)
    monkeypatch.setattr(teardown, "_GRANTS_SECONDS", patience)
    holdings = teardown.Holdings({}, frozenset(), 1, {"Key k": "k", "DataBucket b": "b"})
    told: list[Any] = []
    teardown._wait_for_grants(Scope(account, "dogs"), holdings, told.append)
    assert keys == ["k"] * asked
    assert [event.status for event in told] == ([] if asked == 3 else ["NOT_RETIRED"])


def test_a_bucket_that_fills_again_is_named_with_the_command_that_goes_on(
    server: StackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3, bucket, slept = server.client("s3"), bucket_of(server), list[float]()

    def fill(*_: Any, **__: Any) -> dict[str, Any]:
        return {}

    monkeypatch.setattr("workflow.deployment.teardown.time.sleep", slept.append)
    monkeypatch.setattr(teardown, "_POLL_SECONDS", 5.0)
    s3.put_object(Bucket=bucket, Key="log", Body=b"one")
    monkeypatch.setattr(server.account.client("s3"), "delete_objects", fill)
    with pytest.raises(KelpieError, match="cannot be deleted") as raised:
        teardown._delete_bucket(Scope(server.account, "dogs"), bucket)
    assert raised.value.fix.startswith("kelpie destroy")
    assert raised.value.fix.endswith(" --delete-data")
    assert slept == [5.0] * (teardown._EMPTYINGS - 1)


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


def test_data_of_a_stack_that_cloudformation_has_forgotten_is_found_by_its_tags(
    server: StackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DescribeStacks and ListStacks answer nothing about a stack that was deleted more than 90 days ago."""
    known = teardown.read(server.account, "dogs").data
    teardown.remove(server.account, "dogs", teardown.read(server.account, "dogs"), delete_data=False)
    server.client("s3").create_bucket(Bucket="dogs-2-databucket-x")
    tags = [{"Key": "kelpie:project", "Value": "dogs-2"}, {"Key": "kelpie:resource", "Value": "DataBucket"}]
    server.client("s3").put_bucket_tagging(Bucket="dogs-2-databucket-x", Tagging={"TagSet": tags})
    monkeypatch.setattr(inventory, "_data_of_stacks", lambda _: {})
    found = teardown.read(server.account, "dogs")
    assert found.data == known
    assert sorted(name.split()[0] for name in found.data) == ["DataBucket", "Key"]
    teardown.remove(server.account, "dogs", found, delete_data=True)
    assert teardown.read(server.account, "dogs").data == {}
    assert [one["Name"] for one in server.client("s3").list_buckets()["Buckets"]] == ["dogs-2-databucket-x"]


def test_the_buckets_and_the_key_of_the_stack_carry_the_tags_that_they_are_found_by() -> None:
    resources = template.parse(template.TEMPLATE_FILE.read_text(encoding="utf-8"))["Resources"]
    kept = {name: one for name, one in resources.items() if one["Type"] in inventory.DATA_TYPES}
    assert len(kept) == 5
    for name, one in kept.items():
        tags = {tag["Key"]: tag["Value"] for tag in one["Properties"]["Tags"]}
        assert tags[inventory.PROJECT_TAG] == {"Ref": "ProjectName"}
        assert tags.get(inventory.RESOURCE_TAG) == (None if name == "Key" else name)
