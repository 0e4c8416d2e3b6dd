"""The images: whether they exist, and whether AWS still patches them.

Not everybody may list the repository of the Deep Learning Containers, so images.json holds the tags that are known,
with the end of their security patches. Its own date says how old this knowledge is.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow.preflight.findings import Finding, Subject, asking, error, info, warning

if TYPE_CHECKING:
    from workflow.account import Account

WARN_DAYS = 60
"""How long before the end of patches a warning begins, so that there is time to try another image."""

REGISTRY = "763104351884"
"""AWS's account with the Deep Learning Containers, in the Regions below; stack.yaml names no other."""
REGIONS = frozenset(
    {
        *("ap-northeast-1", "ap-northeast-2", "ap-south-1", "ap-southeast-1", "ap-southeast-2", "ca-central-1"),
        *("eu-central-1", "eu-north-1", "eu-west-1", "eu-west-2", "eu-west-3", "sa-east-1"),
        *("us-east-1", "us-east-2", "us-west-1", "us-west-2"),
    }
)
"""Regions in which the training image is in that account. Source: SageMaker Python SDK, image_uri_config/pytorch.json,
PyTorch 2.8.0 for training."""
_REPOSITORY = "pytorch-training"
_WHERE = "images.training_tag"


@cache
def table() -> dict[str, Any]:
    """The known images, by repository and version."""
    loaded: dict[str, Any] = json.loads(Path(__file__).with_name("images.json").read_text(encoding="utf-8"))
    return loaded


def newest_tag(kind: str) -> str:
    """The newest known tag of the training image for `cpu` or `gpu`."""
    tags = (str(tag) for version in table()[_REPOSITORY].values() for tag in version["tags"])
    return next(tag for tag in tags if f"-{kind}-" in tag)


def check(subject: Subject) -> Iterator[Finding]:
    """The training image's Region and tag, and until when its version gets security patches."""
    region = subject.account.region if subject.account else subject.config.aws.region
    if region not in REGIONS and (subject.account is None or subject.account.endpoint_url is None):
        yield error(
            f"In {region} AWS keeps {_REPOSITORY} in another account than {REGISTRY}, or not at all.",
            "aws.region",
            "Training jobs cannot pull the image that workflow/stack.yaml names, and fail.",
            f"Choose one of {', '.join(sorted(REGIONS))}.",
        )
    tag = subject.parameters["TrainingImageTag"]
    version = ".".join(tag.split(".")[:2])
    known = table()[_REPOSITORY].get(version)
    dated = table()["dated"]
    if known is None:
        yield warning(
            f"{_REPOSITORY}:{tag} is of a version that Kelpie does not know ({dated}).",
            _WHERE,
            "Nobody has checked that it exists, and until when AWS patches it.",
            f"Known versions: {', '.join(table()[_REPOSITORY])}; see the Framework Support Policy of AWS.",
        )
        return
    if tag not in known["tags"]:
        yield warning(
            f"{_REPOSITORY}:{tag} is none of the tags that are known to exist ({dated}).",
            _WHERE,
            "A training job with an image that does not exist fails.",
            f"Known tags of {version}: {', '.join(known['tags']) or 'none'}.",
        )
    end = datetime.date.fromisoformat(known["end_of_patch"])
    if subject.today > end:
        yield warning(
            f"{_REPOSITORY} {version} gets no security patches any more since {end}.",
            _WHERE,
            "Known weaknesses of its libraries stay open.",
            "Choose a later version for images.training_tag, and try it with an execution.",
        )
    elif subject.today > end - datetime.timedelta(days=WARN_DAYS):
        yield info(
            f"{_REPOSITORY} {version} gets security patches until {end}.",
            _WHERE,
            "After that, known weaknesses of its libraries stay open.",
            "Plan a later version for images.training_tag.",
        )


def _check_registry(subject: Subject, account: Account) -> Iterator[Finding]:
    """Look at the manifests of both images, as a job that pulls them would."""
    tag = subject.parameters["TrainingImageTag"]
    if account.endpoint_url is None:
        yield from _missing(account, REGISTRY, _REPOSITORY, {"imageTag": tag}, _WHERE)
    else:
        yield info(
            "not asked: the training image",
            _WHERE,
            "The local cloud has no registry of AWS's; its own environment runs.",
        )
    uri = _deployed_serving_image(subject, account)
    match = re.fullmatch(r"(\d{12})\.[^/]+/([^:@]+)@(sha256:[0-9a-f]{64})", uri)
    if match is None:
        yield info(
            "not asked: the serving image",
            "workflow/stack.yaml, Parameters.ServingImageUri",
            "The stack is not deployed yet; its deployment builds the image.",
            "Ask again after the deployment.",
        )
        return
    registry, repository, digest = match.groups()
    where = "workflow/stack.yaml, Parameters.ServingImageUri"
    yield from _missing(account, registry, repository, {"imageDigest": digest}, where)


def _missing(account: Account, registry: str, repository: str, image: dict[str, str], where: str) -> Iterator[Finding]:
    answer = account.client("ecr").batch_get_image(registryId=registry, repositoryName=repository, imageIds=[image])
    for failure in answer.get("failures", ()):
        yield error(
            f"There is no image {repository} {next(iter(image.values()))}: {failure.get('failureReason', '')}",
            where,
            "What should run it fails.",
            "kelpie deploy builds the serving image again; for the training image choose another tag.",
        )


def _deployed_serving_image(subject: Subject, account: Account) -> str:
    """The parameter of the deployed stack, or nothing."""
    from botocore.exceptions import ClientError

    try:
        answer = account.client("cloudformation").describe_stacks(StackName=subject.config.project.name)
    except ClientError as failure:
        if "does not exist" in str(failure):
            return ""
        raise
    found = {one["ParameterKey"]: one.get("ParameterValue", "") for one in answer["Stacks"][0].get("Parameters", ())}
    return str(found.get("ServingImageUri", ""))


check_registry = asking(_check_registry, "the images in the registry", "ecr:BatchGetImage")
