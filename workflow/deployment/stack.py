"""The account's stack: validate, deploy, read outputs. The same code for AWS and for the local cloud.

A deployment has two phases, because assets need a bucket and nothing but the stack may create one. Phase 1, only when
there is no stack yet, creates it from the part of stack.yaml that artifact bucket, image registry and image build
consist of. Then the assets are uploaded, under keys that contain their SHA-256, the serving image is built, and phase 2
updates the stack to the whole template. Both phases are change sets, shown before they are executed. A failure of phase
2 leaves a stack that the next deployment updates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from workflow.account import Account, flag
from workflow.config import Config
from workflow.deployment import packaging, rendered, serving_image, template, wheels
from workflow.deployment.change_set import ChangeSet
from workflow.deployment.cloudformation import CloudFormationStack, OnEvent, StackEvent, ignore
from workflow.deployment.packaging import Asset
from workflow.errors import KelpieError
from workflow.service_models import read_service_models

SERVICES = ("cloudformation", "s3", "ecr", "codebuild")
"""Whose APIs a deployment calls."""

_ASSETS_PREFIX = "assets/"
_IN_ONE_PIECE_BYTES = 64 * 1024**2
"""Pretrained weights of a small network are not worth several requests."""

_UPLOADS_AT_ONCE = 4

Approve = Callable[[ChangeSet], bool]
"""Whether a change set may be executed."""


class Declined(KelpieError):
    """A change set was shown and not approved; nothing was changed."""


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
    state_machine_alias_arn: str = ""
    schedule_name: str = ""
    dead_letter_queue_url: str = ""
    classify_url: str = ""
    dashboard_name: str = ""


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
_MORE_OUTPUT_KEYS = {
    "state_machine_alias_arn": "StateMachineAliasArn",
    "schedule_name": "ScheduleName",
    "dead_letter_queue_url": "DeadLetterQueueUrl",
    "classify_url": "ClassifyUrl",
    "dashboard_name": "DashboardName",
}


def _approve_all(_: ChangeSet) -> bool:
    return True


def deploy(
    account: Account,
    config: Config,
    *,
    assets: Mapping[str, Asset] | None = None,
    rebuild_image: bool = False,
    on_event: OnEvent = ignore,
    approve: Approve = _approve_all,
) -> StackOutputs:
    """Bring the account to this version: create or update the stack named like the project.

    `assets` are those of `prepare(config)`, when they are packed already. `approve` is asked before each change
    set is executed, and not at all when nothing would change. With `rebuild_image` the serving image is built although
    there is one of this context.

    Raises:
        Declined: a change set was not approved.
        KelpieError: when the template and the definition do not fit together, or CloudFormation fails; it names the
            resource that failed first, and why.
    """
    template_body = template.TEMPLATE_FILE.read_text(encoding="utf-8")
    whole = _parsed(template_body)
    assets = stack_assets(config) if assets is None else assets
    validate(template_body, assets)

    stack = CloudFormationStack(account, config.project.name, on_event)
    if not stack.prepare():
        first = template.bootstrap(whole)
        given = template.parameter_list(first, parameters(config, "", assets))
        _execute(stack, stack.propose(given, TemplateBody=json.dumps(first)), approve)
    made = {one["LogicalResourceId"]: one.get("PhysicalResourceId", "") for one in stack.resources()}
    bucket = _bootstrapped(account, made, "ArtifactBucket", config)
    libraries = wheels.none() if account.endpoint_url else wheels.wheels(config.images.training_tag)
    body = packaging.asset_of_bytes("stack.yaml", template_body.encode())
    with ThreadPoolExecutor(_UPLOADS_AT_ONCE) as pool:
        context = assets["ServingContext"]
        uploads = _upload(pool, account, bucket, [context, *assets.values(), *libraries, body], on_event)
        if context.key in uploads:
            uploads[context.key].result()
        image_uri = serving_image.ensure(
            account,
            repository=_bootstrapped(account, made, "ServingRepository", config),
            build_project=_bootstrapped(account, made, "ImageBuild", config),
            bucket=bucket,
            context=context,
            rebuild=rebuild_image,
            on_event=on_event,
        )
        for upload in uploads.values():
            upload.result()
    values = parameters(config, bucket, assets, wheels_prefix=libraries[0].prefix, serving_image_uri=image_uri) | _kept(
        stack.parameters()
    )
    proposed = stack.propose(template.parameter_list(whole, values), TemplateURL=_https_url(account, bucket, body))
    _execute(stack, proposed, approve)
    return _stack_outputs(stack.outputs())


def outputs(account: Account, config: Config) -> StackOutputs:
    """The outputs of a deployed stack.

    Raises:
        KelpieError: when it is not deployed.
    """
    found = CloudFormationStack(account, config.project.name).outputs()
    if not set(_OUTPUT_KEYS.values()) <= set(found):
        raise KelpieError(
            f"The stack {config.project.name} is not deployed in {account.region}",
            "It does not exist, or its deployment did not end well.",
            "kelpie local up" if account.endpoint_url else "kelpie deploy --aws",
        )
    return _stack_outputs(found)


def prepare(config: Config) -> dict[str, Asset]:
    """What a deployment does before it needs an account, and the assets; whoever waits for one does it meanwhile.

    Raises:
        KelpieError: as `deploy`.
    """
    read_service_models(*SERVICES)
    assets = stack_assets(config)
    validate(template.TEMPLATE_FILE.read_text(encoding="utf-8"), assets)
    return assets


def stack_assets(config: Config) -> dict[str, Asset]:
    """Everything to upload, by what it is: `Definition`, `Code`, ..., or a Lambda's name in stack.yaml."""
    weights = packaging.weights(config.weights.file) or packaging.asset_of_bytes(
        "no-weights.txt", b"No pretrained weights were installed where this stack was deployed.\n"
    )
    return {
        "Definition": packaging.asset_of_bytes("state-machine.json", rendered.rendered(config).encode()),
        "Code": packaging.training_archive(),
        "Weights": weights,
        "ServingContext": packaging.serving_context(),
        "PowertoolsLayer": packaging.layer_archive(),
        **{_logical_name(name): packaging.lambda_archive(name) for name in packaging.LAMBDAS},
    }


def parameters(
    config: Config,
    artifact_bucket: str,
    assets: Mapping[str, Asset],
    *,
    wheels_prefix: str = "assets/wheels/",
    serving_image_uri: str = "not-built-yet",
) -> dict[str, str]:
    """The template's parameters that follow from the settings and from what is uploaded and built."""
    concurrency = config.concurrency
    return {
        "ProjectName": config.project.name,
        "TrainingImageTag": config.images.training_tag,
        "UsesVpc": _switch(bool(config.vpc.subnet_ids)),
        "CreateVpc": _switch(config.vpc.create),
        "CreateTrail": _switch(config.trail.enabled),
        "ScheduleExpression": config.schedule.expression,
        "ScheduleTimeZone": config.schedule.time_zone,
        "ScheduleFlexibleWindowMinutes": str(config.schedule.flexible_window_minutes),
        "StartOnNewData": _switch(config.triggers.on_new_data),
        "NotificationEmail": config.notifications.email,
        "MonthlyBudgetUsd": str(config.budget.monthly_usd),
        "ClassifyReservedConcurrency": str(concurrency.classify_reserved),
        "ClassifyProvisionedMin": str(concurrency.classify_provisioned_min),
        "ClassifyProvisionedMax": str(concurrency.classify_provisioned_max),
        "ServingImageUri": serving_image_uri,
        "WheelsChannelUri": f"s3://{artifact_bucket}/{wheels_prefix}",
        "DefinitionKey": assets["Definition"].key,
        "CodeChannelUri": f"s3://{artifact_bucket}/{assets['Code'].prefix}",
        "WeightsChannelUri": f"s3://{artifact_bucket}/{assets['Weights'].prefix}",
        "PowertoolsLayerKey": assets["PowertoolsLayer"].key,
        **{f"{name}CodeKey": assets[name].key for name in map(_logical_name, packaging.LAMBDAS)},
    }


def validate(template_body: str, assets: Mapping[str, Asset]) -> None:
    """Check, before anything is created, what CloudFormation would find late or never.

    Raises:
        KelpieError: when the template is too long, or supplies other substitutions than the definition uses.
    """
    whole = _parsed(template_body)
    for what, size_bytes, limit_bytes in (
        ("stack.yaml", len(template_body.encode()), template.URL_LIMIT_BYTES),
        ("the first part of stack.yaml", len(json.dumps(template.bootstrap(whole))), template.BODY_LIMIT_BYTES),
    ):
        if size_bytes > limit_bytes:
            raise KelpieError(
                f"{what} is too long for CloudFormation",
                f"{size_bytes:,} bytes; the limit is {limit_bytes:,} bytes.",
                "Shorten it, or split it.",
            )
    supplied = set(whole["Resources"]["StateMachine"]["Properties"]["DefinitionSubstitutions"])
    definition_bytes = assets["Definition"].content
    assert isinstance(definition_bytes, bytes)
    used = set(re.findall(r"\$\{(\w+)\}", definition_bytes.decode()))
    if used - supplied:
        raise KelpieError(
            "The state machine uses values that the stack does not supply",
            f"Not in DefinitionSubstitutions of workflow/stack.yaml: {', '.join(sorted(used - supplied))}.",
            "Add them there, or remove them from workflow/definition/.",
        )


@lru_cache(maxsize=2)
def _parsed(template_body: str) -> Mapping[str, Any]:
    """The template, to be read only."""
    return template.parse(template_body)


def _switch(on: bool) -> str:
    return "true" if on else "false"


def _execute(stack: CloudFormationStack, proposed: ChangeSet | None, approve: Approve) -> None:
    if proposed is None:
        return
    approved = False
    try:
        approved = approve(proposed)
    finally:
        if not approved:
            stack.discard(proposed)
    if not approved:
        raise Declined("The change set was not executed", "The stack is as it was.")
    stack.execute(proposed)


def _kept(values: Mapping[str, str]) -> dict[str, str]:
    """Parameters that a deployment leaves as they are: whether the schedule is on is switched by `kelpie schedule`."""
    return {name: values[name] for name in ("ScheduleState",) if name in values}


def _bootstrapped(account: Account, made: Mapping[str, str], name: str, config: Config) -> str:
    if not made.get(name):
        raise KelpieError(
            f"The stack {config.project.name} has no {name}",
            "It was deployed by an earlier version, whose first phase did not make one.",
            "Remove the stack and deploy again; buckets, with data and models, and their key stay: "
            f"kelpie destroy{flag(account)}",
        )
    return made[name]


def _logical_name(lambda_name: str) -> str:
    return "".join(part.capitalize() for part in lambda_name.split("_"))


def _stack_outputs(found: Mapping[str, str]) -> StackOutputs:
    more = {name: found[key] for name, key in _MORE_OUTPUT_KEYS.items() if key in found}
    return StackOutputs(**{name: found[key] for name, key in _OUTPUT_KEYS.items()}, **more)


def _https_url(account: Account, bucket: str, asset: Asset) -> str:
    return f"https://{bucket}.s3.{account.region}.{account.dns_suffix}/{asset.key}"


def _upload(
    pool: Executor, account: Account, bucket: str, assets: Iterable[Asset], on_event: OnEvent
) -> dict[str, Future[None]]:
    """Begin to upload each asset, unless its key, which contains its hash, is already there; the uploads by key."""
    from boto3.s3.transfer import TransferConfig

    s3 = account.client("s3")
    in_one_piece = TransferConfig(multipart_threshold=_IN_ONE_PIECE_BYTES)
    try:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=_ASSETS_PREFIX)
        there = {found["Key"] for page in pages for found in page.get("Contents", ())}
    except ClientError as error:
        raise KelpieError(f"The assets cannot be uploaded to {bucket}", str(error)) from error

    def put(asset: Asset) -> None:
        if isinstance(asset.content, Path):
            s3.upload_file(str(asset.content), bucket, asset.key, Config=in_one_piece)
        else:
            s3.put_object(Bucket=bucket, Key=asset.key, Body=asset.content)
        on_event(StackEvent(asset.name, "asset", "UPLOADED", f"({asset.size_bytes:,} bytes)"))

    wanted = {asset.key: asset for asset in assets}
    return {key: pool.submit(put, asset) for key, asset in wanted.items() if key not in there}
