"""Delete old versions of the model package group; never one that serves or that a rollback needs.

Environment: LOCK_TABLE (name of the DynamoDB table that also holds the serving pointer
`<project>#serving`).
IAM: sagemaker:ListModelPackages on `*`; sagemaker:DescribeModelPackage and sagemaker:DeleteModelPackage on
     `model-package/<group>/*`; sagemaker:DescribeEndpoint on `endpoint/<project>`;
     sagemaker:DescribeEndpointConfig on `endpoint-config/<project>-*`; sagemaker:DescribeModel on
     `model/<project>-*`; dynamodb:GetItem on the lock table.
Timeout 120 s, memory 256 MB.

Event: {"project", "model_package_group", "endpoint_name", "versions_to_keep"}.
Returns {"deleted": [model package ARN, ...], "kept": [...]}, both newest version first.
Errors: PruneFailed (at least one version could not be deleted; the others were), InvalidRetention
(versions_to_keep).

Kept are: the newest `versions_to_keep` versions of each approval status, so that a row of rejected versions
never pushes out an approved one; the version that the pointer names; every version whose model artifact is
in the config that serves or in the config that a rollback would return to. If what serves cannot be found
out, nothing is deleted.
"""

from __future__ import annotations

import os
from collections import Counter
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
    """At least one version could not be deleted."""


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
        PruneFailed: names each version that is still there and why.
        InvalidRetention: versions_to_keep is not a positive integer.
    """
    keep = event["versions_to_keep"]
    if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
        raise InvalidRetention(
            f"Invalid retention.versions_to_keep {str(keep)[:80]!r}, expected an integer of at least 1. "
            "Correct it in kelpie.toml and run `kelpie deploy`."
        )
    versions = list_versions(event["model_package_group"])
    old = candidates(versions, keep)
    if old:
        used_arns, used_artifacts = in_use(event["project"], event["endpoint_name"])
        old = [arn for arn in old if arn not in used_arns and not artifacts_of_version(arn) & used_artifacts]
    deleted: list[str] = []
    failures: list[str] = []
    for arn in old:
        try:
            client("sagemaker").delete_model_package(ModelPackageName=arn)
        except ClientError as error:
            if not _is_missing(error):
                failures.append(f"{arn}: {error}")
                continue
        deleted.append(arn)
    logger.info("versions pruned", extra={"deleted": deleted, "failures": failures})
    if failures:
        raise PruneFailed(
            f"{len(failures)} of {len(old)} old versions could not be deleted, first {failures[0]}. "
            "The new model serves; delete them by hand or leave them to the next execution."
        )
    gone = set(deleted)
    return {"deleted": deleted, "kept": [arn for arn, _, _ in versions if arn not in gone]}


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


def in_use(project: str, endpoint_name: str) -> tuple[set[str], set[str]]:
    """Return the model package ARNs and the model artifact URIs that must stay."""
    table = os.environ["LOCK_TABLE"]
    answer = client("dynamodb").get_item(TableName=table, Key={"pk": {"S": f"{project}#serving"}}, ConsistentRead=True)
    pointer = {key: value.get("S", "") for key, value in answer.get("Item", {}).items()}
    configs = {pointer.get("endpoint_config", ""), pointer.get("previous_endpoint_config", "")}
    try:
        configs.add(client("sagemaker").describe_endpoint(EndpointName=endpoint_name)["EndpointConfigName"])
    except ClientError as error:
        if not _is_missing(error):
            raise
    arns = {pointer.get("model_package_arn", "")}
    artifacts: set[str] = set()
    for config in sorted(configs - {""}):
        for container in _containers(config):
            arns.add(container.get("ModelPackageName", ""))
            artifacts.add(container.get("ModelDataUrl", ""))
    return arns - {""}, artifacts - {""}


def artifacts_of_version(arn: str) -> set[str]:
    """Return the model artifact URIs of one model package."""
    description = client("sagemaker").describe_model_package(ModelPackageName=arn)
    containers = description.get("InferenceSpecification", {}).get("Containers", [])
    return {container["ModelDataUrl"] for container in containers if container.get("ModelDataUrl")}


def _containers(config: str) -> list[dict[str, Any]]:
    try:
        variants = client("sagemaker").describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
        models = [client("sagemaker").describe_model(ModelName=variant["ModelName"]) for variant in variants]
    except ClientError as error:
        if _is_missing(error):
            return []  # a rollback target that somebody deleted protects nothing
        raise
    return [
        container
        for model in models
        for container in [model.get("PrimaryContainer"), *model.get("Containers", [])]
        if container
    ]


def _is_missing(error: ClientError) -> bool:
    """SageMaker has no error code for a missing resource, only texts under ValidationException.

    Source: service models of botocore 1.44.5; the texts as moto 5.2.5 and public issue reports give them (2026-11-21).
    """
    text = str(error.response.get("Error", {}).get("Message", "")).lower()
    return any(words in text for words in ("could not find", "not found", "does not exist"))
