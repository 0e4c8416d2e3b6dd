"""Remove a project from an account: what executions made, then the stack, then, if told to, its data and key."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from botocore.exceptions import ClientError

from workflow import names
from workflow.account import Account, flag
from workflow.deployment import inventory
from workflow.deployment.cloudformation import CloudFormationStack, OnEvent, StackEvent, ignore
from workflow.deployment.inventory import Scope
from workflow.errors import KelpieError
from workflow.executions import TRAINING_LOG_GROUP

KEY_PENDING_DAYS = 7
"""The shortest time that KMS lets a key wait for its deletion. Source: botocore 1.44.5, KMS, ScheduleKeyDeletion."""

_POLL_SECONDS = 5.0
_PATIENCE_SECONDS = 3900.0
"""An endpoint cannot be deleted while it is created, which can take an hour before SageMaker gives up."""
_GRANTS_SECONDS = 900.0
"""How long the execution role is kept for SageMaker to retire its grants: it speaks of "a few minutes"."""
_EMPTYINGS = 6
"""How often a bucket is emptied before its deletion is given up: access logs arrive minutes after what they tell of."""
_BUSY = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})
"""The states in which an endpoint cannot be deleted. Source: botocore 1.44.5, SageMaker, DescribeEndpoint."""
_SCHEDULE_ANSWER_ONLY = frozenset({"Arn", "CreationDate", "LastModificationDate", "ResponseMetadata"})
"""What GetSchedule answers and UpdateSchedule does not take. Source: botocore 1.44.5, EventBridge Scheduler."""
_MOST_DELETED = 1000
"""Keys of one DeleteObjects request. Source: botocore 1.44.5, S3, DeleteObjects."""


@dataclass(frozen=True)
class Holdings:
    """What a project has in an account."""

    found: Mapping[str, list[str]]
    """Names, by what they are; only kinds of which there are any."""
    billed: frozenset[str]
    """The kinds that cost money while they exist."""
    stack_resources: int
    data: Mapping[str, str] = field(default_factory=dict)
    """Buckets and keys."""

    @property
    def costly(self) -> dict[str, list[str]]:
        """What costs money, data aside."""
        return {what: found for what, found in self.found.items() if what in self.billed}


def read(account: Account, project: str) -> Holdings:
    """Everything of a project, read from the account's APIs."""
    scope = Scope(account, project)
    found = {kind.what: kind.find(scope) for kind in inventory.KINDS}
    stack = CloudFormationStack(account, project)
    return Holdings(
        found={what: names_ for what, names_ in found.items() if names_},
        billed=frozenset(kind.what for kind in inventory.KINDS if kind.billed),
        stack_resources=len(stack.resources()) if found["stacks"] else 0,
        data=inventory.data(scope),
    )


def remove(
    account: Account, project: str, holdings: Holdings, *, delete_data: bool, on_event: OnEvent = ignore
) -> None:
    """Remove it all, in an order that works; with `delete_data` the buckets with every version, and the key.

    Raises:
        KelpieError: something cannot be removed; what comes after it is untouched, and a second call goes on there.
    """
    scope = Scope(account, project)
    _switch_off(scope, on_event)
    for kind in inventory.RUN_TIME:
        names_ = kind.find(scope)  # again: one removal can bring another along
        for name in names_:
            try:
                _REMOVE[kind.what](scope, name)
            except ClientError as error:
                if not inventory.is_missing(error):
                    raise KelpieError(f"{kind.what}: {name} cannot be removed", str(error), _again(scope)) from error
            on_event(StackEvent(name, kind.what, "REMOVED"))
        if names_ and kind.what in _WAITED_FOR:
            _wait_until_none(scope, kind)
    _wait_for_grants(scope, holdings, on_event)
    stack = CloudFormationStack(account, project, on_event)
    if stack.status() is not None:
        stack.delete()
    if delete_data:
        for logical_name, physical_id in sorted(holdings.data.items(), key=_last_log_bucket_and_key):
            (_delete_key if inventory.is_key(logical_name) else _delete_bucket)(scope, physical_id)
            on_event(StackEvent(physical_id, "data", "REMOVED"))


def _last_log_bucket_and_key(one: tuple[str, str]) -> int:
    """The other buckets write their access logs into the log bucket, and all are encrypted with the key."""
    return 2 if inventory.is_key(one[0]) else int(one[0].startswith("LogBucket "))


def _again(scope: Scope) -> str:
    return f"kelpie destroy{flag(scope.account)}"


def _switch_off(scope: Scope, on_event: OnEvent) -> None:
    """Let nothing start any more, and nothing put the endpoint back, while the project is removed.

    The stack's deletion removes schedule and rules only after all that executions made.
    """
    for name, what, switch in (
        (scope.project, "schedule", _disable_schedule),
        (f"{scope.project}-new-data", "rule", _disable_rule),
        (f"{scope.project}-ended-badly", "rule", _disable_rule),
        (f"{scope.project}-look-around", "rule", _disable_rule),
    ):
        try:
            switch(scope, name)
        except ClientError as error:
            if inventory.is_missing(error):
                continue
            raise KelpieError(f"The {what} {name} cannot be disabled", str(error), _again(scope)) from error
        on_event(StackEvent(name, what, "DISABLED"))


def _disable_schedule(scope: Scope, name: str) -> None:
    """UpdateSchedule sets what it is not given to its default, so it is given all that is there."""
    client = scope.client("scheduler")
    found = {key: value for key, value in client.get_schedule(Name=name).items() if key not in _SCHEDULE_ANSWER_ONLY}
    client.update_schedule(**{**found, "State": "DISABLED"})


def _disable_rule(scope: Scope, name: str) -> None:
    scope.client("events").disable_rule(Name=name)


def _stop_execution(scope: Scope, arn: str) -> None:
    scope.client("stepfunctions").stop_execution(
        executionArn=arn, error="StoppedByUser", cause="Stopped by kelpie destroy"
    )


def _stop_training(scope: Scope, name: str) -> None:
    try:
        scope.client("sagemaker").stop_training_job(TrainingJobName=name)
    except ClientError as error:
        if "has already" not in str(error) and "Stopping" not in str(error):  # it has ended, or is about to
            raise


def _deregister(scope: Scope, resource_id: str) -> None:
    scope.client("application-autoscaling").deregister_scalable_target(
        ServiceNamespace="sagemaker", ResourceId=resource_id, ScalableDimension=names.SCALABLE_DIMENSION
    )


def _delete_endpoint(scope: Scope, name: str) -> None:
    """Delete it, as soon as nothing is being done to it; its scalable targets may have come back while it waited."""
    client, deadline = scope.client("sagemaker"), time.monotonic() + _PATIENCE_SECONDS
    while True:
        status = client.describe_endpoint(EndpointName=name)["EndpointStatus"]
        if status == "Deleting":
            return
        if status not in _BUSY or time.monotonic() > deadline:
            for target in inventory.scalable_targets(scope):
                _deregister(scope, target)
            client.delete_endpoint(EndpointName=name)
            return
        time.sleep(_POLL_SECONDS)


def _delete_log(scope: Scope, name: str) -> None:
    group, _, stream = name.partition(":")
    if stream:
        scope.client("logs").delete_log_stream(logGroupName=TRAINING_LOG_GROUP, logStreamName=stream)
    else:
        scope.client("logs").delete_log_group(logGroupName=group)


_REMOVE: Mapping[str, Callable[[Scope, str], None]] = {
    "running executions": _stop_execution,
    "training jobs that have not ended": _stop_training,
    "scalable targets": _deregister,
    "endpoints": _delete_endpoint,
    "alarms of target tracking": lambda scope, name: scope.client("cloudwatch").delete_alarms(AlarmNames=[name]),
    "endpoint configs": lambda scope, name: scope.client("sagemaker").delete_endpoint_config(EndpointConfigName=name),
    "models": lambda scope, name: scope.client("sagemaker").delete_model(ModelName=name),
    "registered versions": lambda scope, name: scope.client("sagemaker").delete_model_package(ModelPackageName=name),
    "logs": _delete_log,
}
_WAITED_FOR = frozenset({"running executions", "training jobs that have not ended", "endpoints"})


def _wait_until_none(scope: Scope, kind: inventory.Kind) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while left := kind.find(scope):
        if time.monotonic() > deadline:
            raise KelpieError(
                f"{kind.what} do not go away: {', '.join(left)}",
                f"They were asked to {_PATIENCE_SECONDS:.0f} s ago.",
                _again(scope),
            )
        time.sleep(_POLL_SECONDS)


def _wait_for_grants(scope: Scope, holdings: Holdings, on_event: OnEvent) -> None:
    """Keep the roles until SageMaker holds no grant on the project's key any more, at most 15 minutes.

    After DeleteEndpoint, SageMaker retires its grants by itself, with the execution role. Source: SageMaker API
    reference, DeleteEndpoint, read 2026-11. The local cloud makes no grants.
    """
    if scope.account.endpoint_url:
        return
    deadline = time.monotonic() + _GRANTS_SECONDS
    for key_id in (physical_id for name, physical_id in holdings.data.items() if inventory.is_key(name)):
        while left := inventory.sagemaker_grants(scope, key_id):
            if time.monotonic() > deadline:
                on_event(StackEvent(key_id, "grants", "NOT_RETIRED", f"SageMaker still holds {len(left)}"))
                break
            time.sleep(_POLL_SECONDS)


def _delete_bucket(scope: Scope, bucket: str) -> None:
    """Empty it of every version and every unfinished upload, and delete it."""
    s3 = scope.client("s3")
    for uploads in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
        for upload in uploads.get("Uploads", ()):
            s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    for attempt in range(1, _EMPTYINGS + 1):
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, MaxKeys=_MOST_DELETED):
            versions = [
                {"Key": one["Key"], "VersionId": one["VersionId"]}
                for one in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
            ]
            if versions:
                answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": versions, "Quiet": True})
                for error in answer.get("Errors", ())[:1]:
                    raise KelpieError(
                        f"The bucket {bucket} cannot be emptied",
                        f"{error['Key']}: {error.get('Code')}: {error.get('Message')}",
                        f"{_again(scope)} --delete-data",
                    )
        try:
            s3.delete_bucket(Bucket=bucket)
            return
        except ClientError as error:
            if error.response["Error"]["Code"] != "BucketNotEmpty" or attempt == _EMPTYINGS:
                raise KelpieError(
                    f"The bucket {bucket} cannot be deleted", str(error), f"{_again(scope)} --delete-data"
                ) from error
        time.sleep(_POLL_SECONDS)


def _delete_key(scope: Scope, key_id: str) -> None:
    scope.client("kms").schedule_key_deletion(KeyId=key_id, PendingWindowInDays=KEY_PENDING_DAYS)
