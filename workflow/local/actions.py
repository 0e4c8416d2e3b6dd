"""From a request to what it needs: (service, operation, parameters) -> IAM actions on resource ARNs with context.

The data are in action_tables.py; here is how they are read. Who may do it is authorization.py's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from workflow.local.action_tables import PASSED_ROLES, SERVICES

Parameters = Mapping[str, Any]


class Unmapped(Exception):
    """No entry says what an operation needs, so no role may call it."""


@dataclass(frozen=True)
class Account:
    """What ARNs are made of."""

    account_id: str
    region: str
    partition: str = "aws"


@dataclass(frozen=True)
class Need:
    """One permission that a request needs; `context` adds to the request's own condition keys."""

    action: str
    resource: str
    context: Mapping[str, str | list[str]] = field(default_factory=dict)


def needs(service: str, operation: str, parameters: Parameters, account: Account) -> list[Need]:
    """All permissions that a request needs; every one must be allowed.

    `service` is botocore's name ("stepfunctions"), `parameters` the request parsed by botocore's model.
    Raises: Unmapped.
    """
    entry = SERVICES.get(service)
    if entry is None or operation not in entry.operations:
        raise Unmapped(f"{entry.prefix if entry else service}:{operation}")
    derive = _DERIVED.get(service)
    names = {"partition": account.partition, "region": account.region, "account": account.account_id}
    values = {**parameters, **(derive(parameters) if derive else {}), **names}
    context = _request_context(service, parameters)
    found: list[Need] = []
    for text in entry.operations[operation]:
        action, _, template = text.rpartition(" ")
        action = action or operation
        action = action if ":" in action else f"{entry.prefix}:{action}"
        arn = SERVICES.get(action.split(":")[0], entry).arn
        for resource in _expand(template, values):
            if resource != "*" and not resource.startswith("arn:"):
                resource = arn.format(**names) + resource
            found.append(Need(action, _canonical(action, resource), context))
    found += _tag_needs(service, operation, parameters, found)
    found += _passed_roles(service, operation, parameters)
    return found


_PLACEHOLDER = re.compile(r"\{([\w|]+)\}")


def _expand(template: str, values: Parameters) -> Iterator[str]:
    """Fill in a resource template: one result for every element of a list parameter."""
    match = _PLACEHOLDER.search(template)
    if match is None:
        yield template
        return
    value = next((values[name] for name in match[1].split("|") if values.get(name) is not None), "")
    for one in value if isinstance(value, list) else [value]:
        prefix = "" if str(one).startswith("arn:") else template[: match.start()]
        for rest in _expand(template[match.end() :], values):
            yield f"{prefix}{one}{rest}"


def _canonical(action: str, resource: str) -> str:
    """SageMaker lower-cases names in ARNs. Source: AWS CDK, stepfunctions-tasks, Nov 2026."""
    return resource.lower() if action.startswith("sagemaker:") else resource


def _passed_roles(service: str, operation: str, parameters: Parameters) -> list[Need]:
    path, principal = PASSED_ROLES.get((service, operation), ("", ""))
    if "[]." in path:
        name, _, member = path.partition("[].")
        named = [one.get(member) for one in parameters.get(name, [])]
    else:
        name, _, member = path.partition(".")
        named = [(parameters.get(name) or {}).get(member) if member else parameters.get(name)]
    return [Need("iam:PassRole", arn, {"iam:PassedToService": principal}) for arn in named if arn]


def _tag_needs(service: str, operation: str, parameters: Parameters, found: list[Need]) -> list[Need]:
    """What is created with tags also needs the permission to tag it."""
    if service == "sagemaker" and operation.startswith("Create") and parameters.get("Tags"):
        return [Need("sagemaker:AddTags", found[0].resource, found[0].context)]
    if service == "kms" and operation == "CreateKey" and parameters.get("Tags"):
        return [Need("kms:TagResource", "*", found[0].context)]
    if operation in ("PutObject", "CopyObject", "CreateMultipartUpload") and parameters.get("Tagging"):
        return [Need("s3:PutObjectTagging", found[0].resource, found[0].context)]
    return []


_CONTEXT_KEYS: Mapping[str, Mapping[str, str]] = {
    "s3": {
        "Prefix": "s3:prefix",
        "Delimiter": "s3:delimiter",
        "MaxKeys": "s3:max-keys",
        "ACL": "s3:x-amz-acl",
        "ServerSideEncryption": "s3:x-amz-server-side-encryption",
        "SSEKMSKeyId": "s3:x-amz-server-side-encryption-aws-kms-key-id",
    },
    "cloudwatch": {"Namespace": "cloudwatch:namespace"},
    "application-autoscaling": {
        "ServiceNamespace": "application-autoscaling:service-namespace",
        "ScalableDimension": "application-autoscaling:scalable-dimension",
    },
    "iam": {"AWSServiceName": "iam:AWSServiceName"},
    "sns": {"Protocol": "sns:Protocol", "Endpoint": "sns:Endpoint"},
}


def _request_context(service: str, parameters: Parameters) -> dict[str, str | list[str]]:
    """Condition keys that come from the request's parameters."""
    context: dict[str, str | list[str]] = {
        key: str(parameters[name])
        for name, key in _CONTEXT_KEYS.get(service, {}).items()
        if parameters.get(name) is not None
    }
    if service == "s3" and "Bucket" in parameters and "Key" not in parameters:
        context.setdefault("s3:prefix", "")
    if service == "stepfunctions" and (qualifier := _state_machine(parameters)[1]):
        context["states:StateMachineQualifier"] = qualifier
    tags = parameters.get("Tags") or parameters.get("tags") or []
    pairs = tags.items() if isinstance(tags, Mapping) else [_tag(tag) for tag in tags if isinstance(tag, Mapping)]
    for key, value in pairs:
        context[f"aws:RequestTag/{key}"] = str(value)
        context.setdefault("aws:TagKeys", [])
        context["aws:TagKeys"] = [*context["aws:TagKeys"], str(key)]
    return context


def _tag(tag: Mapping[str, Any]) -> tuple[str, str]:
    """Key and value of a tag; services spell the members differently."""
    found = [next((str(tag[name]) for name in names if name in tag), "") for names in _TAG_MEMBERS]
    return found[0], found[1]


_TAG_MEMBERS = ("Key", "key", "TagKey"), ("Value", "value", "TagValue")


Derive = Callable[[Parameters], dict[str, Any]]
"""Template values that a request does not carry in the form that the ARN needs."""


def _derived_s3(parameters: Parameters) -> dict[str, Any]:
    """Naming a version of an object asks for the ...Version action instead of the plain one."""
    bucket, key, version = (str(parameters.get(name) or "") for name in ("Bucket", "Key", "VersionId"))
    source, _, source_version = str(parameters.get("CopySource") or "").partition("?versionId=")
    source = unquote(source).lstrip("/")
    deleted = parameters.get("Delete", {}).get("Objects", [])
    objects = {
        "": [f"{bucket}/{one['Key']}" for one in deleted if not one.get("VersionId")],
        "Version": [f"{bucket}/{one['Key']}" for one in deleted if one.get("VersionId")],
    }
    return {
        "CurrentObject": [] if version else [f"{bucket}/{key}"],
        "ObjectVersion": [f"{bucket}/{key}"] if version else [],
        "CopySource": [] if source_version else [source],
        "CopySourceVersion": [source] if source_version else [],
        "DeletedObjects": objects[""],
        "DeletedVersions": objects["Version"],
    }


def _derived_dynamodb(parameters: Parameters) -> dict[str, Any]:
    index = parameters.get("IndexName")
    items = parameters.get("TransactItems", [])
    derived: dict[str, Any] = {"IndexPath": f"/index/{index}" if index else ""}
    read = [item["Get"]["TableName"] for item in items if "Get" in item]
    derived["TableNames"] = list(parameters.get("RequestItems", {})) or read
    for kind in ("Put", "Update", "Delete", "ConditionCheck"):
        derived[f"{kind}Tables"] = [item[kind]["TableName"] for item in items if kind in item]
    return derived


def _derived_sagemaker(parameters: Parameters) -> dict[str, Any]:
    group = parameters.get("ModelPackageGroupName")
    group_name = str(group).rsplit("/", 1)[-1] if group else None
    return {
        "NewModelPackage": f"{group_name}/*" if group_name else parameters.get("ModelPackageName", ""),
        "ListedModelPackages": f"model-package/{group_name}/*" if group_name else "*",
    }


def _derived_lambda(parameters: Parameters) -> dict[str, Any]:
    """A function is named by name, name:qualifier, partial ARN or ARN."""
    name = str(parameters.get("FunctionName", "")).split(":function:")[-1].removeprefix("function:")
    name, _, qualifier = name.partition(":")
    qualifier = str(parameters.get("Qualifier") or qualifier)
    layers = list(parameters.get("Layers") or [])
    return {"FunctionName": name, "QualifierPath": f":{qualifier}" if qualifier else "", "AttachedLayers": layers}


_STATE_MACHINE_ARNS = ("stateMachineArn", "stateMachineVersionArn", "stateMachineAliasArn")


def _state_machine(parameters: Parameters) -> tuple[str, str]:
    """The ARN of the state machine in a request, and the version or alias after it.

    Source: Step Functions developer guide, "Authorization for versions and aliases", Nov 2026.
    """
    arn = next((str(parameters[name]) for name in _STATE_MACHINE_ARNS if parameters.get(name)), "")
    parts = arn.split(":")
    return ":".join(parts[:7]), ":".join(parts[7:])


def _derived_states(parameters: Parameters) -> dict[str, Any]:
    return {"StateMachine": _state_machine(parameters)[0]}


def _derived_scheduler(parameters: Parameters) -> dict[str, Any]:
    return {"ScheduleGroup": parameters.get("GroupName") or "default"}


def _derived_cloudwatch(parameters: Parameters) -> dict[str, Any]:
    return {"AlarmNames": parameters.get("AlarmNames") or [f"{parameters.get('AlarmNamePrefix') or ''}*"]}


def _derived_autoscaling(parameters: Parameters) -> dict[str, Any]:
    endpoint = "/".join(str(parameters.get("ResourceId", "")).split("/")[:2])
    return {"ScaledEndpoint": [endpoint] if parameters.get("ServiceNamespace") == "sagemaker" else []}


def _derived_events(parameters: Parameters) -> dict[str, Any]:
    buses = {entry.get("EventBusName", "default") for entry in parameters.get("Entries", [])}
    return {"EventBuses": sorted(buses)}


def _derived_logs(parameters: Parameters) -> dict[str, Any]:
    identifier = str(parameters.get("logGroupIdentifier") or "").removesuffix(":*")
    return {"logGroupIdentifier": identifier.split(":log-group:")[-1] or None}


def _derived_cloudformation(parameters: Parameters) -> dict[str, Any]:
    return {"StackName": str(parameters.get("StackName") or "*").split(":stack/")[-1].split("/")[0]}


def _derived_codebuild(parameters: Parameters) -> dict[str, Any]:
    """A build's id is its project's name, a colon and a UUID."""
    builds = [str(build).split(":build/")[-1] for build in parameters.get("ids", [])]
    return {"BuiltProjects": sorted({build.partition(":")[0] for build in builds})}


def _derived_ssm(parameters: Parameters) -> dict[str, Any]:
    """Parameter names begin with a slash that the ARN does not repeat."""
    derived: dict[str, Any] = {name: str(parameters.get(name, "")).lstrip("/") for name in ("Name", "Path")}
    return derived | {"Names": [str(name).lstrip("/") for name in parameters.get("Names", [])]}


def _derived_sqs(parameters: Parameters) -> dict[str, Any]:
    name = parameters.get("QueueName") or str(parameters.get("QueueUrl", "")).rpartition("/")[2]
    return {"QueueName": name}


def _derived_kms(parameters: Parameters) -> dict[str, Any]:
    return {"KeyId": str(parameters.get("KeyId") or "*").removeprefix("key/")}


_DERIVED: Mapping[str, Derive] = {
    "s3": _derived_s3,
    "dynamodb": _derived_dynamodb,
    "sagemaker": _derived_sagemaker,
    "lambda": _derived_lambda,
    "scheduler": _derived_scheduler,
    "stepfunctions": _derived_states,
    "cloudwatch": _derived_cloudwatch,
    "application-autoscaling": _derived_autoscaling,
    "events": _derived_events,
    "logs": _derived_logs,
    "kms": _derived_kms,
    "sqs": _derived_sqs,
    "ssm": _derived_ssm,
    "codebuild": _derived_codebuild,
    "cloudformation": _derived_cloudformation,
}
