"""Delete old versions of the model package group, and the models and endpoint configs that nothing needs any more.

Environment: LOCK_TABLE (name of the DynamoDB table that also holds the serving pointer
`<project>#serving`).
IAM: sagemaker:ListModelPackages, sagemaker:ListModels and sagemaker:ListEndpointConfigs on `*`;
     sagemaker:DescribeModelPackage and sagemaker:DeleteModelPackage on `model-package/<group>/*`;
     sagemaker:DescribeEndpoint on `endpoint/<project>`; sagemaker:DescribeEndpointConfig and
     sagemaker:DeleteEndpointConfig on `endpoint-config/<project>-*`; sagemaker:DescribeModel and
     sagemaker:DeleteModel on `model/<project>-*`; dynamodb:GetItem on the lock table.
Timeout 120 s, memory 256 MB.

Event: {"project", "model_package_group", "endpoint_name", "versions_to_keep"}.
Returns {"deleted": [model package ARN, ...], "kept": [...], "deleted_names": [name of an endpoint config and
its model, ...]}, versions newest first.
Errors: PruneFailed (at least one version, model or endpoint config could not be deleted; the others were),
InvalidRetention (versions_to_keep).

Of the versions are kept: the newest `versions_to_keep` of each approval status, so that a row of rejected ones
never pushes out an approved one; the version that the pointer names; every version whose model artifact is
in the config that serves or in the config that served before it. Of the models and endpoint configs that
executions made (`<project>-<32 hexadecimal digits>`): those that serve, those that served before, and those
of the executions that registered the versions that are kept. Anything else of any other name is not touched,
and if what serves cannot be found out, nothing is. It must be called by the execution that holds the lock:
another one may have made a model that does not serve yet.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config
from botocore.exceptions import ClientError

logger = Logger(service="prune-versions")


class InvalidRetention(Exception):
    """versions_to_keep is not a positive integer."""


class PruneFailed(Exception):
    """At least one version, model or endpoint config could not be deleted."""


@dataclass
class InUse:
    """What serves, and what served before it."""

    package_arns: set[str] = field(default_factory=set)
    artifact_uris: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    """Names of endpoint configs, and of the models in them."""


@cache
def client(service: Literal["dynamodb", "sagemaker"]) -> Any:
    """Return the client of one AWS service, made once per container and not at import."""
    return boto3.client(
        service,
        config=Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "max_attempts": 5}),
    )


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, list[str]]:
    """Prune the group.

    Raises:
        PruneFailed: says how much is still there, and why the first of it.
        InvalidRetention: versions_to_keep is not a positive integer.
    """
    names = ("model_package_group", "project", "endpoint_name")
    if not isinstance(event, dict) or not all(isinstance(event.get(name), str) for name in names):
        raise InvalidRetention(f"Invalid event: expected {', '.join(names)} and versions_to_keep")
    keep = event.get("versions_to_keep")
    if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
        raise InvalidRetention(
            f"Invalid retention.versions_to_keep {str(keep)[:80]!r}, expected an integer of at least 1. "
            "Correct it in kelpie.toml and deploy the stack again."
        )
    versions = list_versions(event["model_package_group"])
    used = in_use(event["project"], event["endpoint_name"])
    old = [
        arn
        for arn in candidates(versions, keep)
        if arn not in used.package_arns and not artifacts_of_version(arn) & used.artifact_uris
    ]
    deleted: list[str] = []
    failures: list[str] = []
    for arn in old:
        if _delete("delete_model_package", arn, failures, ModelPackageName=arn):
            deleted.append(arn)
    gone = set(deleted)
    kept = [arn for arn, _, _ in versions if arn not in gone]
    deleted_names = delete_unused(event["project"], used.names, kept, failures)
    logger.info("pruned", extra={"deleted": deleted, "deleted_names": deleted_names, "failures": failures})
    if failures:
        raise PruneFailed(
            f"{len(failures)} old versions, models or endpoint configs could not be deleted, first {failures[0]}. "
            "What serves is not concerned; delete them by hand or leave them to the next execution."
        )
    return {"deleted": deleted, "kept": kept, "deleted_names": deleted_names}


def delete_unused(project: str, used: set[str], kept_versions: list[str], failures: list[str]) -> list[str]:
    """Delete the endpoint configs and models of executions that nothing needs; return their names."""
    if not used:  # nothing would be spared
        return []
    configs, models = (_names_of_executions(project, what) for what in ("EndpointConfig", "Model"))
    unused = (configs | models) - used
    if unused:  # otherwise the versions need not be looked at
        unused -= {f"{project}-{run_of_version(arn)}" for arn in kept_versions}
    deleted = []
    for name in sorted(unused):
        # The config first: a config whose model is gone cannot be deployed.
        done = name not in configs or _delete("delete_endpoint_config", name, failures, EndpointConfigName=name)
        if done and (name not in models or _delete("delete_model", name, failures, ModelName=name)):
            deleted.append(name)
    return deleted


def _names_of_executions(project: str, what: Literal["EndpointConfig", "Model"]) -> set[str]:
    """Return the names of all models, or of all endpoint configs, that executions of the project made."""
    operation = {"EndpointConfig": "list_endpoint_configs", "Model": "list_models"}[what]
    pages = client("sagemaker").get_paginator(operation).paginate(NameContains=f"{project}-")
    names = (str(item[f"{what}Name"]) for page in pages for item in page[f"{what}s"])
    return {name for name in names if re.fullmatch(rf"{re.escape(project)}-[0-9a-f]{{32}}", name)}


def _delete(operation: str, name: str, failures: list[str], **parameters: str) -> bool:
    """Delete something; return whether it is gone, and note in `failures` when it is not."""
    try:
        getattr(client("sagemaker"), operation)(**parameters)
    except ClientError as error:
        if not _is_missing(error):
            failures.append(f"{name}: {error}")
            return False
    return True


def list_versions(group: str) -> list[tuple[str, int, str]]:
    """Return (ARN, version, approval status) of the group's versions, newest first."""
    pages = client("sagemaker").get_paginator("list_model_packages").paginate(ModelPackageGroupName=group)
    found = [
        (item["ModelPackageArn"], item["ModelPackageVersion"], item.get("ModelApprovalStatus", ""))
        for page in pages
        for item in page["ModelPackageSummaryList"]
    ]
    return sorted(found, key=lambda row: row[1], reverse=True)


def candidates(versions: list[tuple[str, int, str]], keep: int) -> list[str]:
    """Return the ARNs beyond the newest `keep` of their approval status; `versions` is sorted newest first."""
    seen: Counter[str] = Counter()
    old = []
    for arn, _, status in versions:
        seen[status] += 1
        if seen[status] > keep:
            old.append(arn)
    return old


def in_use(project: str, endpoint_name: str) -> InUse:
    """Return what must stay, whatever the registry says."""
    table = os.environ["LOCK_TABLE"]
    answer = client("dynamodb").get_item(TableName=table, Key={"pk": {"S": f"{project}#serving"}}, ConsistentRead=True)
    pointer = {key: value.get("S", "") for key, value in answer.get("Item", {}).items()}
    used = InUse(package_arns={pointer.get("model_package_arn", "")})
    used.names = {pointer.get("endpoint_config", ""), pointer.get("previous_endpoint_config", "")}
    try:
        used.names.add(client("sagemaker").describe_endpoint(EndpointName=endpoint_name)["EndpointConfigName"])
    except ClientError as error:
        if not _is_missing(error):
            raise
    for config in sorted(used.names - {""}):
        for model in _models(config):
            used.names.add(model["ModelName"])
            for container in [model.get("PrimaryContainer"), *model.get("Containers", [])]:
                if container:
                    used.package_arns.add(container.get("ModelPackageName", ""))
                    used.artifact_uris.add(container.get("ModelDataUrl", ""))
    for found in (used.package_arns, used.artifact_uris, used.names):
        found.discard("")
    return used


def artifacts_of_version(arn: str) -> set[str]:
    """Return the model artifact URIs of one model package."""
    description = client("sagemaker").describe_model_package(ModelPackageName=arn)
    containers = description.get("InferenceSpecification", {}).get("Containers", [])
    return {container["ModelDataUrl"] for container in containers if container.get("ModelDataUrl")}


def run_of_version(arn: str) -> str:
    """Return the run that registered a model package, or an empty text when it was no execution."""
    description = client("sagemaker").describe_model_package(ModelPackageName=arn)
    return str(description.get("CustomerMetadataProperties", {}).get("run", ""))


def _models(config: str) -> list[dict[str, Any]]:
    """Return the descriptions of the models in an endpoint config."""
    try:
        variants = client("sagemaker").describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
        return [client("sagemaker").describe_model(ModelName=variant["ModelName"]) for variant in variants]
    except ClientError as error:
        if _is_missing(error):
            return []  # a config that somebody deleted protects nothing
        raise


def _is_missing(error: ClientError) -> bool:
    """SageMaker has no error code for a missing resource, only texts under ValidationException.

    Source: service models of botocore 1.44.5; the texts as moto 5.2.5 and public issue reports give them (2026-11-21).
    """
    text = str(error.response.get("Error", {}).get("Message", "")).lower()
    return any(words in text for words in ("could not find", "not found", "does not exist"))
