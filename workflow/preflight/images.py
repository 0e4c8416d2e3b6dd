"""The images: whether they exist, and whether AWS still patches them.

Not everybody may list the repository of the Deep Learning Containers, so images.json holds the tags that are known,
with the end of their security patches. Its own date says how old this knowledge is.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow.account import flag
from workflow.preflight.findings import Finding, Subject, asking, error, info, warning

if TYPE_CHECKING:
    from workflow.account import Account

WARN_DAYS = 60
"""How long before the end of patches a warning begins, so that there is time to try another image."""

OLDEST_DAYS = 60
"""How old a serving image may be until a warning says so. Our own choice: Debian publishes fixes every week."""

_REPOSITORY = "pytorch-training"
_WHERE = "images.training_tag"
_SERVING = "workflow/stack.yaml, Parameters.ServingImageUri"
_SCAN = "Switch scanning on for the registry: aws ecr put-registry-scanning-configuration."
_SCANNED = ("COMPLETE", "ACTIVE")
"""States of a scan with findings: of a basic one, and of one that is kept up to date. Source: botocore 1.44.5, ECR."""


def registry(template: Mapping[str, Any], region: str) -> str | None:
    """AWS's account with the training image in a Region, as stack.yaml maps it; None where none is known."""
    found: Mapping[str, str] = template["Mappings"]["TrainingImageRegistry"].get(region, {})
    return found.get("AccountId")


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
    if registry(subject.template, region) is None:
        yield error(
            f"No account of AWS with the image {_REPOSITORY} is known for {region}.",
            "aws.region",
            "workflow/stack.yaml, Mappings.TrainingImageRegistry, has no such Region, so the stack cannot be deployed.",
            f"Choose one of {', '.join(subject.template['Mappings']['TrainingImageRegistry'])}.",
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
    owner = registry(subject.template, account.region)
    if account.endpoint_url is None and owner is not None:
        yield from _missing(account, owner, _REPOSITORY, {"imageTag": tag}, _WHERE)
    else:
        yield info(
            "not asked: the training image",
            _WHERE,
            "No registry of AWS's is known here; on the local cloud its own environment runs.",
        )
    serving = _deployed_serving_image(subject, account)
    if serving is None:
        yield info(
            "not asked: the serving image",
            _SERVING,
            "The stack is not deployed yet; its deployment builds the image.",
            "Ask again after the deployment.",
        )
        return
    holder, repository, digest = serving
    yield from _missing(account, holder, repository, {"imageDigest": digest}, _SERVING)


def _check_patches(subject: Subject, account: Account) -> Iterator[Finding]:
    """Whether the deployed serving image still has the patches of what it is built on."""
    serving = _deployed_serving_image(subject, account)
    if serving is None:
        return  # which _check_registry tells
    holder, repository, digest = serving
    ecr = account.client("ecr")
    named = {"registryId": holder, "repositoryName": repository}
    [image] = ecr.describe_images(**named, imageIds=[{"imageDigest": digest}])["imageDetails"]
    days = (subject.today - image["imagePushedAt"].date()).days
    if days > OLDEST_DAYS:
        yield warning(
            f"The serving image was built {days} days ago.",
            _SERVING,
            "It lacks the patches that its base image, Debian's packages included, has got since.",
            f"kelpie deploy{flag(account)} --rebuild-image; the next execution serves with it.",
        )
    if account.endpoint_url:
        yield info("not asked: what a scan finds in the serving image", _SERVING, "The local cloud scans no images.")
        return
    try:
        answer = ecr.describe_image_scan_findings(**named, imageId={"imageDigest": digest})
    except ecr.exceptions.ScanNotFoundException:
        yield info("The serving image was not scanned.", _SERVING, "Known weaknesses in it are not known here.", _SCAN)
        return
    counts = answer.get("imageScanFindings", {}).get("findingSeverityCounts", {})
    bad = [f"{counts[severity]} {severity}" for severity in ("CRITICAL", "HIGH") if counts.get(severity)]
    if bad:
        yield warning(
            f"ECR's scan found weaknesses in the serving image: {', '.join(bad)}.",
            _SERVING,
            "They are known, and may be patched in what the image is built on.",
            f"kelpie deploy{flag(account)} --rebuild-image; what is found: aws ecr describe-image-scan-findings "
            f"--repository-name {repository} --image-id imageDigest={digest}",
        )
    status = str(answer.get("imageScanStatus", {}).get("status", "UNKNOWN"))
    if status not in _SCANNED:
        yield info(f"ECR's scan of the serving image is {status}.", _SERVING, "It says nothing yet, or nothing new.")


def _missing(account: Account, registry: str, repository: str, image: dict[str, str], where: str) -> Iterator[Finding]:
    answer = account.client("ecr").batch_get_image(registryId=registry, repositoryName=repository, imageIds=[image])
    for failure in answer.get("failures", ()):
        yield error(
            f"There is no image {repository} {next(iter(image.values()))}: {failure.get('failureReason', '')}",
            where,
            "What should run it fails.",
            "kelpie deploy builds the serving image again; for the training image choose another tag.",
        )


def _deployed_serving_image(subject: Subject, account: Account) -> tuple[str, str, str] | None:
    """Registry, repository and digest of the serving image of the deployed stack, if there is one."""
    from botocore.exceptions import ClientError

    try:
        answer = account.client("cloudformation").describe_stacks(StackName=subject.config.project.name)
    except ClientError as failure:
        if "does not exist" in str(failure):
            return None
        raise
    found = {one["ParameterKey"]: one.get("ParameterValue", "") for one in answer["Stacks"][0].get("Parameters", ())}
    match = re.fullmatch(r"(\d{12})\.[^/]+/([^:@]+)@(sha256:[0-9a-f]{64})", str(found.get("ServingImageUri", "")))
    return (match[1], match[2], match[3]) if match else None


check_registry = asking(_check_registry, "the images in the registry", "ecr:BatchGetImage")
check_patches = asking(
    _check_patches, "whether the serving image is patched", "ecr:DescribeImages and ecr:DescribeImageScanFindings"
)
