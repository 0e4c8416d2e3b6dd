"""The account's stack: validate, deploy, read outputs, destroy. The same code for AWS and for the local cloud.

A deployment has two phases, because assets need a bucket and nothing but the stack may create one. Phase 1, only when
there is no stack yet, creates it from the part of stack.yaml that the artifact bucket consists of. Then the assets are
uploaded, under keys that contain their SHA-256, and phase 2 updates the stack to the whole template. A failure of
phase 2 leaves a stack that the next deployment updates.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from workflow import packaging, template
from workflow.account import Account
from workflow.config import Config
from workflow.errors import KelpieError
from workflow.packaging import Asset

_POLL_SECONDS = 2.0
_NEVER_CREATED = frozenset({"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED"})
_SUCCESS = frozenset({"CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"})


@dataclass(frozen=True)
class StackEvent:
    """One step of a deployment: a resource of the stack, or an uploaded asset (`resource_type` "asset")."""

    resource: str
    resource_type: str
    status: str
    reason: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.status.lower().replace("_", " "), self.resource, self.reason)))


@dataclass(frozen=True)
class StackOutputs:
    """What the stack made, by the names under which the rest of Kelpie needs it."""

    state_machine_arn: str
    data_bucket: str
    artifact_bucket: str
    kms_key_arn: str
    topic_arn: str
    lock_table: str
    model_package_group: str
    endpoint_name: str
    classify_function: str


_OUTPUT_KEYS = {
    "state_machine_arn": "StateMachineArn",
    "data_bucket": "DataBucket",
    "artifact_bucket": "ArtifactBucket",
    "kms_key_arn": "KmsKeyArn",
    "topic_arn": "NotificationTopicArn",
    "lock_table": "LockTable",
    "model_package_group": "ModelPackageGroup",
    "endpoint_name": "EndpointName",
    "classify_function": "ClassifyFunctionName",
}

OnEvent = Callable[[StackEvent], None]


def _ignore(_: StackEvent) -> None:
    """Report nothing."""


def deploy(account: Account, config: Config, *, on_event: OnEvent = _ignore) -> StackOutputs:
    """Bring the account to this version: create or update the stack named like the project.

    Raises:
        KelpieError: when the template and the definition do not fit together, or CloudFormation fails; it names the
            resource that failed first, and why.
    """
    template_body = template.TEMPLATE_FILE.read_text(encoding="utf-8")
    whole = template.parse(template_body)
    assets = stack_assets(config)
    validate(template_body, assets)

    deployment = _Deployment(account, config.project.name, on_event)
    status = deployment.status()
    if status is not None and status.endswith("_IN_PROGRESS"):
        raise KelpieError(
            f"The stack {config.project.name} is being changed by somebody else",
            f"Its status is {status}.",
            "Wait until it is done, then deploy again.",
        )
    if status in _NEVER_CREATED:
        deployment.delete()
        status = None
    if status is None:
        first = template.bootstrap(whole)
        deployment.create(json.dumps(first), template.parameter_list(first, {"ProjectName": config.project.name}))
    bucket = deployment.outputs()["ArtifactBucket"]
    for asset in assets.values():
        _upload(account, bucket, asset, on_event)
    deployment.update(template_body, template.parameter_list(whole, parameters(config, bucket, assets)))
    return _stack_outputs(deployment.outputs())


def outputs(account: Account, config: Config) -> StackOutputs:
    """The outputs of a deployed stack.

    Raises:
        KelpieError: when it is not deployed.
    """
    found = _Deployment(account, config.project.name, _ignore).outputs()
    if not set(_OUTPUT_KEYS.values()) <= set(found):
        raise KelpieError(
            f"The stack {config.project.name} is not deployed in {account.region}",
            "It does not exist, or its deployment did not end well.",
            "kelpie local up",
        )
    return _stack_outputs(found)


def destroy(account: Account, config: Config, *, on_event: OnEvent = _ignore) -> None:
    """Delete the stack. Its buckets, with all data and models, and their key stay, as stack.yaml says.

    AWS refuses to delete a model package group that has versions; these are for the caller to delete before.
    """
    deployment = _Deployment(account, config.project.name, on_event)
    if deployment.status() is not None:
        deployment.delete()


def stack_assets(config: Config) -> dict[str, Asset]:
    """Everything to upload, by what it is: `Definition`, `Code`, `Weights`, or a Lambda's name in stack.yaml."""
    # The definition needs the SageMaker SDK, which takes seconds to import; outputs() must not wait for it.
    from workflow import definition

    weights = packaging.weights(config.weights.file) or packaging.asset_of_bytes(
        "no-weights.txt", b"No pretrained weights were installed where this stack was deployed.\n"
    )
    return {
        "Definition": packaging.asset_of_bytes("state-machine.json", definition.render(config).encode()),
        "Code": packaging.training_archive(),
        "Weights": weights,
        **{_logical_name(name): packaging.lambda_archive(name) for name in packaging.LAMBDAS},
    }


def parameters(config: Config, artifact_bucket: str, assets: Mapping[str, Asset]) -> dict[str, str]:
    """The template's parameters that have no fixed default."""
    return {
        "ProjectName": config.project.name,
        "UsesVpc": str(bool(config.vpc.subnet_ids)).lower(),
        "DefinitionKey": assets["Definition"].key,
        "CodeChannelUri": f"s3://{artifact_bucket}/{assets['Code'].prefix}",
        "WeightsChannelUri": f"s3://{artifact_bucket}/{assets['Weights'].prefix}",
        **{f"{name}CodeKey": assets[name].key for name in map(_logical_name, packaging.LAMBDAS)},
    }


def validate(template_body: str, assets: Mapping[str, Asset]) -> None:
    """Check, before anything is created, what CloudFormation would find late or never.

    Raises:
        KelpieError: when the template is too long, or supplies other substitutions than the definition uses.
    """
    size_bytes = len(template_body.encode())
    if size_bytes > template.BODY_LIMIT_BYTES:
        raise KelpieError(
            "stack.yaml is too long for CloudFormation",
            f"{size_bytes:,} bytes; the limit is {template.BODY_LIMIT_BYTES:,} bytes.",
            "Shorten it, or split it.",
        )
    state_machine = template.parse(template_body)["Resources"]["StateMachine"]["Properties"]
    supplied = set(state_machine["DefinitionSubstitutions"])
    definition_bytes = assets["Definition"].content
    assert isinstance(definition_bytes, bytes)
    used = set(re.findall(r"\$\{(\w+)\}", definition_bytes.decode()))
    if used - supplied:
        raise KelpieError(
            "The state machine uses values that the stack does not supply",
            f"Not in DefinitionSubstitutions of workflow/stack.yaml: {', '.join(sorted(used - supplied))}.",
            "Add them there, or remove them from workflow/definition.py.",
        )


def _logical_name(lambda_name: str) -> str:
    return "".join(part.capitalize() for part in lambda_name.split("_"))


def _stack_outputs(found: Mapping[str, str]) -> StackOutputs:
    return StackOutputs(**{name: found[key] for name, key in _OUTPUT_KEYS.items()})


def _upload(account: Account, bucket: str, asset: Asset, on_event: OnEvent) -> None:
    """Upload an asset unless its key, which contains its hash, is already there."""
    s3 = account.client("s3")
    try:
        s3.head_object(Bucket=bucket, Key=asset.key)
        return
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchKey", "NotFound"):
            raise KelpieError(f"{asset.name} cannot be uploaded to {bucket}", str(error)) from error
    if isinstance(asset.content, Path):
        s3.upload_file(str(asset.content), bucket, asset.key)
    else:
        s3.put_object(Bucket=bucket, Key=asset.key, Body=asset.content)
    on_event(StackEvent(asset.name, "asset", "UPLOADED", f"s3://{bucket}/{asset.key}"))


class _Deployment:
    """One stack, and the events of it that were already reported."""

    def __init__(self, account: Account, name: str, on_event: OnEvent) -> None:
        self._client = account.client("cloudformation")
        self._name = name
        self._on_event = on_event
        self._seen: set[str] = set()

    def status(self) -> str | None:
        """The stack's status, or None when there is no such stack."""
        stack = self._describe(self._name)
        return stack["StackStatus"] if stack else None

    def outputs(self) -> dict[str, str]:
        """The outputs by their keys; none when there is no such stack."""
        stack = self._describe(self._name) or {}
        return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", ())}

    def create(self, template_body: str, given: list[dict[str, str]]) -> None:
        """Create the stack and wait."""
        answer = self._client.create_stack(
            StackName=self._name, TemplateBody=template_body, Parameters=given, Capabilities=["CAPABILITY_IAM"]
        )
        self._wait(answer["StackId"], "created")

    def update(self, template_body: str, given: list[dict[str, str]]) -> None:
        """Update the stack and wait; return at once when nothing differs."""
        self._seen |= {event["EventId"] for event in self._events(self._name)}
        try:
            answer = self._client.update_stack(
                StackName=self._name, TemplateBody=template_body, Parameters=given, Capabilities=["CAPABILITY_IAM"]
            )
        except ClientError as error:
            if "No updates are to be performed" in str(error):
                return
            raise KelpieError(f"The stack {self._name} cannot be updated", str(error)) from error
        self._wait(answer["StackId"], "updated")

    def delete(self) -> None:
        """Delete the stack and wait."""
        stack = self._describe(self._name)
        assert stack is not None
        self._seen |= {event["EventId"] for event in self._events(self._name)}
        self._client.delete_stack(StackName=self._name)
        self._wait(stack["StackId"], "deleted")

    def _describe(self, name: str) -> dict[str, Any] | None:
        try:
            stacks: list[dict[str, Any]] = self._client.describe_stacks(StackName=name)["Stacks"]
        except ClientError as error:
            if "does not exist" in str(error):
                return None
            raise KelpieError(f"The stack {name} cannot be read", str(error)) from error
        return stacks[0]

    def _events(self, stack: str) -> list[dict[str, Any]]:
        """All events of a stack, oldest first."""
        pages = self._client.get_paginator("describe_stack_events").paginate(StackName=stack)
        return sorted((event for page in pages for event in page["StackEvents"]), key=lambda event: event["Timestamp"])

    def _wait(self, stack_id: str, participle: str) -> None:
        """Wait by the stack's id, which stays valid after its deletion, and report its events."""
        failures: list[StackEvent] = []
        while True:
            stack = self._describe(stack_id)
            assert stack is not None
            for event in self._events(stack_id):
                if event["EventId"] not in self._seen:
                    self._seen.add(event["EventId"])
                    step = StackEvent(
                        event["LogicalResourceId"],
                        event["ResourceType"],
                        event["ResourceStatus"],
                        event.get("ResourceStatusReason") or "",
                    )
                    failures += [step] if step.status.endswith("_FAILED") else []
                    self._on_event(step)
            if not stack["StackStatus"].endswith("_IN_PROGRESS"):
                break
            time.sleep(_POLL_SECONDS)
        if stack["StackStatus"] not in _SUCCESS:
            first = failures[0] if failures else StackEvent(self._name, "stack", stack["StackStatus"])
            raise KelpieError(
                f"The stack {self._name} was not {participle}: {first.resource} ({first.resource_type}) failed",
                first.reason or f"The stack's status is {stack['StackStatus']}.",
                "Correct the cause, then deploy again.",
            )
