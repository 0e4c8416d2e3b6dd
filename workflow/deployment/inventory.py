"""What a project has in an account besides the resources of its stack: what executions made at run time, and its data.

Each `Kind` can be read again at any time, so the same list says what `kelpie destroy` will remove and, afterwards,
whether anything is left. Names that belong to a project are told by their form (names.py): the project's name and the
32 hexadecimal digits of an execution, so that `dogs` never takes what belongs to `dogs-2`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from workflow import names
from workflow.account import Account
from workflow.deployment.cloudformation import CloudFormationStack
from workflow.executions import TRAINING_LOG_GROUP

ENDPOINT_LOG_GROUP = "/aws/sagemaker/Endpoints/"
PROJECT_TAG, RESOURCE_TAG = "kelpie:project", "kelpie:resource"
"""The tags of buckets and key in stack.yaml: the project's name, and the bucket's logical name."""
DATA_TYPES = ("AWS::S3::Bucket", "AWS::KMS::Key")
"""The types of resources that stack.yaml keeps when the stack is deleted."""

_MISSING = frozenset(
    {
        "404",
        "NoSuchBucket",
        "NotFound",
        "NotFoundException",
        "RepositoryNotFoundException",
        "ResourceNotFound",
        "ResourceNotFoundException",
        "StateMachineDoesNotExist",
    }
)


@dataclass(frozen=True)
class Scope:
    """One project in one account."""

    account: Account
    project: str

    def client(self, service: str) -> Any:
        """The boto3 client of a service."""
        return self.account.client(service)

    def owns(self, name: str) -> bool:
        """Whether a name is made from the project's and an execution's."""
        return re.fullmatch(rf"{re.escape(self.project)}-[0-9a-f]{{32}}(-.*)?", name) is not None


@dataclass(frozen=True)
class Kind:
    """One kind of thing: how to find those of a project."""

    what: str
    """In the plural, for people."""
    find: Callable[[Scope], list[str]]
    billed: bool = True
    """Whether one that is left costs money."""


def is_missing(error: Exception) -> bool:
    """Whether AWS says that what was asked for does not exist."""
    if not isinstance(error, ClientError):
        return False
    answer = error.response["Error"]
    return answer["Code"] in _MISSING or (
        answer["Code"] == "ValidationException" and "Could not find" in answer["Message"]
    )


def executions(scope: Scope) -> list[str]:
    """ARNs of the executions that run."""
    found = []
    for machine in _pages(scope, "stepfunctions", "list_state_machines", "stateMachines"):
        if machine["name"] == scope.project:
            arn = machine["stateMachineArn"]
            listed = _pages(
                scope, "stepfunctions", "list_executions", "executions", stateMachineArn=arn, statusFilter="RUNNING"
            )
            found += [execution["executionArn"] for execution in listed]
    return found


def training_jobs(scope: Scope) -> list[str]:
    """Names of the training jobs that have not ended."""
    return [
        job["TrainingJobName"]
        for status in ("InProgress", "Stopping")
        for job in _sagemaker(scope, "list_training_jobs", "TrainingJobSummaries", StatusEquals=status)
        if scope.owns(job["TrainingJobName"])
    ]


def scalable_targets(scope: Scope) -> list[str]:
    """Resource ids of the endpoint's scalable targets."""
    answer = scope.client("application-autoscaling").describe_scalable_targets(
        ServiceNamespace="sagemaker", ResourceIds=[names.scalable_resource(scope.project)]
    )
    return [target["ResourceId"] for target in answer["ScalableTargets"]]


def scaling_alarms(scope: Scope) -> list[str]:
    """Names of the alarms that target tracking has made for the endpoint."""
    prefix = f"TargetTracking-{names.scalable_resource(scope.project)}-"
    alarms = _pages(scope, "cloudwatch", "describe_alarms", "MetricAlarms", AlarmNamePrefix=prefix)
    return [alarm["AlarmName"] for alarm in alarms]


def endpoints(scope: Scope) -> list[str]:
    """The endpoint, when there is one."""
    listed = _sagemaker(scope, "list_endpoints", "Endpoints")
    return [one["EndpointName"] for one in listed if one["EndpointName"] == scope.project]


def endpoint_configs(scope: Scope) -> list[str]:
    """Names of the endpoint configs of executions."""
    listed = _sagemaker(scope, "list_endpoint_configs", "EndpointConfigs")
    return [one["EndpointConfigName"] for one in listed if scope.owns(one["EndpointConfigName"])]


def models(scope: Scope) -> list[str]:
    """Names of the models of executions."""
    return [one["ModelName"] for one in _sagemaker(scope, "list_models", "Models") if scope.owns(one["ModelName"])]


def model_packages(scope: Scope) -> list[str]:
    """ARNs of the registered versions."""
    try:
        listed = list(
            _pages(
                scope,
                "sagemaker",
                "list_model_packages",
                "ModelPackageSummaryList",
                ModelPackageGroupName=scope.project,
            )
        )
    except ClientError as error:
        if is_missing(error) or "does not exist" in str(error):
            return []
        raise
    return [one["ModelPackageArn"] for one in listed]


def log_groups(scope: Scope) -> list[str]:
    """The endpoint's log group, and the streams of training jobs as GROUP:STREAM: that group is the whole account's."""
    endpoint = f"{ENDPOINT_LOG_GROUP}{scope.project}"
    groups = _pages(scope, "logs", "describe_log_groups", "logGroups", logGroupNamePrefix=endpoint)
    found = [group["logGroupName"] for group in groups if group["logGroupName"] == endpoint]
    try:
        streams = list(
            _pages(
                scope,
                "logs",
                "describe_log_streams",
                "logStreams",
                logGroupName=TRAINING_LOG_GROUP,
                logStreamNamePrefix=f"{scope.project}-",
            )
        )
    except ClientError as error:
        if not is_missing(error):
            raise
        streams = []
    mine = (one["logStreamName"] for one in streams if scope.owns(one["logStreamName"].partition("/")[0]))
    return [*found, *(f"{TRAINING_LOG_GROUP}:{name}" for name in mine)]


def stack(scope: Scope) -> list[str]:
    """The stack, when there is one."""
    return [scope.project] if CloudFormationStack(scope.account, scope.project).status() else []


def registries(scope: Scope) -> list[str]:
    """The registry of the serving image, when there is one."""
    name = f"{scope.project}-serving"
    try:
        scope.client("ecr").describe_repositories(repositoryNames=[name])
    except ClientError as error:
        if is_missing(error):
            return []
        raise
    return [name]


RUN_TIME: tuple[Kind, ...] = (
    Kind("running executions", executions),
    Kind("training jobs that have not ended", training_jobs),
    Kind("scalable targets", scalable_targets),
    Kind("endpoints", endpoints),
    Kind("alarms of target tracking", scaling_alarms),
    Kind("endpoint configs", endpoint_configs, billed=False),
    Kind("models", models, billed=False),
    Kind("registered versions", model_packages, billed=False),
    Kind("logs", log_groups),
)
"""What executions make and the stack does not know, in the order in which it can be removed."""

KINDS: tuple[Kind, ...] = (*RUN_TIME, Kind("stacks", stack), Kind("image registries", registries))
"""Everything but the data."""


def data(scope: Scope) -> dict[str, str]:
    """Buckets and keys of the stack, and of earlier stacks of this name, that exist: their ids, by logical name.

    CloudFormation forgets a deleted stack after 90 days; what it kept carries the project's tag for as long as it is.
    Source: CloudFormation API reference, ListStacks, read 2026-11.
    """
    found = _data_of_stacks(scope) | _data_by_tag(scope)
    return {name: physical_id for name, (kind, physical_id) in found.items() if _exists(scope, kind, physical_id)}


def _data_of_stacks(scope: Scope) -> dict[str, tuple[str, str]]:
    """Type and id, by logical name and id."""
    found = CloudFormationStack(scope.account, scope.project)
    ids = [stack["StackId"]] if (stack := found.describe()) else []
    deleted = _pages(scope, "cloudformation", "list_stacks", "StackSummaries", StackStatusFilter=["DELETE_COMPLETE"])
    ids += [one["StackId"] for one in deleted if one["StackName"] == scope.project]
    return {
        f"{one['LogicalResourceId']} {one['PhysicalResourceId']}": (one["ResourceType"], one["PhysicalResourceId"])
        for stack_id in ids
        for one in found.resources(stack_id)
        if one["ResourceType"] in DATA_TYPES and one.get("PhysicalResourceId")
    }


def _data_by_tag(scope: Scope) -> dict[str, tuple[str, str]]:
    """The same of what carries the project's tag in stack.yaml."""
    tagged = _pages(
        scope,
        "resourcegroupstaggingapi",
        "get_resources",
        "ResourceTagMappingList",
        TagFilters=[{"Key": PROJECT_TAG, "Values": [scope.project]}],
        ResourceTypeFilters=["s3", "kms:key"],
    )
    found = {}
    for one in tagged:
        tags = {tag["Key"]: tag["Value"] for tag in one["Tags"]}
        *_, service, _region, _account, resource = one["ResourceARN"].split(":", 5)
        if service == "kms":
            key_id = resource.removeprefix("key/")
            found[f"Key {key_id}"] = ("AWS::KMS::Key", key_id)
        elif RESOURCE_TAG in tags:
            found[f"{tags[RESOURCE_TAG]} {resource}"] = ("AWS::S3::Bucket", resource)
    return found


def sagemaker_grants(scope: Scope, key_id: str) -> list[str]:
    """Ids of the grants on a key that SageMaker may use or retire."""
    grants = _pages(scope, "kms", "list_grants", "Grants", KeyId=key_id)
    return [
        grant["GrantId"]
        for grant in grants
        if any("sagemaker" in grant.get(principal, "") for principal in ("GranteePrincipal", "RetiringPrincipal"))
    ]


def is_key(logical_name: str) -> bool:
    """Whether an entry of `data` is a key, and not a bucket."""
    return logical_name.startswith("Key ")


def _exists(scope: Scope, resource_type: str, physical_id: str) -> bool:
    try:
        if resource_type == "AWS::KMS::Key":
            state = scope.client("kms").describe_key(KeyId=physical_id)["KeyMetadata"]["KeyState"]
            return bool(state != "PendingDeletion")
        scope.client("s3").head_bucket(Bucket=physical_id)
    except ClientError as error:
        if is_missing(error):
            return False
        raise
    return True


def _sagemaker(scope: Scope, operation: str, key: str, **more: str) -> Iterator[dict[str, Any]]:
    yield from _pages(scope, "sagemaker", operation, key, NameContains=scope.project, **more)


def _pages(scope: Scope, service: str, operation: str, key: str, **parameters: Any) -> Iterator[dict[str, Any]]:
    for page in scope.client(service).get_paginator(operation).paginate(**parameters):
        yield from page[key]
