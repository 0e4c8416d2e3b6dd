"""The registered versions of the model: which there are, how good they are, and which one serves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from workflow import names
from workflow.account import Account
from workflow.deployment.stack import StackOutputs


@dataclass(frozen=True)
class Version:
    """One version of the model package group. `test_accuracy` is 0 to 1, or None when nobody wrote it down."""

    number: int
    arn: str
    approval_status: str
    serves: bool
    test_accuracy: float | None
    run: str
    data_manifest_sha256: str
    created: datetime
    approval_description: str

    def __str__(self) -> str:
        accuracy = "" if self.test_accuracy is None else f", test accuracy {self.test_accuracy:.1%}"
        return f"{self.number} ({self.approval_status}{accuracy})"


def serving(account: Account, outputs: StackOutputs, project: str) -> dict[str, str]:
    """What the last successful execution recorded as serving; {} before there was one."""
    key = {"pk": {"S": names.serving_pointer(project)}}
    answer = account.client("dynamodb").get_item(TableName=outputs.lock_table, Key=key, ConsistentRead=True)
    return {name: str(value.get("S", "")) for name, value in answer.get("Item", {}).items()}


def versions(account: Account, outputs: StackOutputs, project: str) -> list[Version]:
    """All registered versions, newest first."""
    client = account.client("sagemaker")
    pages = client.get_paginator("list_model_packages").paginate(ModelPackageGroupName=outputs.model_package_group)
    now = serving(account, outputs, project).get("model_package_arn")
    found = [
        _version(client.describe_model_package(ModelPackageName=item["ModelPackageArn"]), now)
        for page in pages
        for item in page["ModelPackageSummaryList"]
    ]
    return sorted(found, key=lambda version: version.number, reverse=True)


def _version(described: dict[str, Any], serving_arn: str | None) -> Version:
    metadata = described.get("CustomerMetadataProperties", {})
    accuracy = metadata.get("test_accuracy")
    return Version(
        number=described["ModelPackageVersion"],
        arn=described["ModelPackageArn"],
        approval_status=described.get("ModelApprovalStatus", ""),
        serves=described["ModelPackageArn"] == serving_arn,
        test_accuracy=round(float(accuracy), 4) if accuracy else None,
        run=metadata.get("run", ""),
        data_manifest_sha256=metadata.get("data_manifest_sha256", ""),
        created=described["CreationTime"],
        approval_description=described.get("ApprovalDescription", ""),
    )
