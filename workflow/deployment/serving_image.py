"""The serving image: built by CodeBuild from `inference/` when the registry has none of that context, used by digest.

The tag of an image is the SHA-256 of its build context, so an unchanged `inference/` builds nothing; what the stack
gets is the digest, which nobody can move to other bytes. The base image and Debian's packages get patches that no
context shows, so an image can be built again: its tag then has the time after the SHA-256, and the newest one is used.
The base image's digest is resolved by the build and written into the image's labels; see
docs/decisions/0022-the-base-image-is-resolved-by-the-build.md.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from typing import Any

from workflow.account import Account
from workflow.deployment.cloudformation import OnEvent, StackEvent
from workflow.deployment.packaging import Asset
from workflow.errors import KelpieError

TAG_VARIABLE = "IMAGE_TAG"
"""The build's environment variable with the image's tag; the build specification in stack.yaml reads it."""

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
"""Docker's type of image manifest: CreateModel refuses OCI's. Source: aws/amazon-sagemaker-feedback issue 180."""

_POLL_SECONDS = 5.0


def ensure(
    account: Account,
    *,
    repository: str,
    build_project: str,
    bucket: str,
    context: Asset,
    rebuild: bool = False,
    on_event: OnEvent,
) -> str:
    """The URI, by digest, of the newest image of this context; builds it when the repository has none.

    With `rebuild` it is built although there is one.

    Raises:
        KelpieError: the build failed (the error has the phase, its message and where its log is), it pushed no image
            under the context's tag, or the image has a manifest that SageMaker does not take.
    """
    ecr = account.client("ecr")
    image = _newest(ecr, repository, context.sha256)
    if image is None or rebuild:
        tag = f"{context.sha256}-{datetime.datetime.now(tz=datetime.UTC):%Y%m%dT%H%M%SZ}" if image else context.sha256
        _build(account, build_project, bucket, context, tag, on_event)
        image = _newest(ecr, repository, context.sha256)
        if image is None or tag not in image["imageTags"]:
            raise KelpieError(
                f"CodeBuild built {build_project}, and {repository} has no image with the tag {tag}",
                "Its build specification must push the tag that the variable IMAGE_TAG names.",
            )
    if image["imageManifestMediaType"] != MANIFEST:
        raise KelpieError(
            f"SageMaker cannot use the image {image['imageTags'][0]} of {repository}",
            f"Its manifest is {image['imageManifestMediaType']}; allowed: {MANIFEST}",
            f"aws ecr batch-delete-image --repository-name {repository} --image-ids imageTag={image['imageTags'][0]}\n"
            "Then deploy again. Who builds it by hand: docker buildx build --provenance=false --output type=docker.",
        )
    [described] = ecr.describe_repositories(repositoryNames=[repository])["repositories"]
    return f"{described['repositoryUri']}@{image['imageDigest']}"


def _newest(ecr: Any, repository: str, sha256: str) -> Mapping[str, Any] | None:
    """What DescribeImages says of the newest image of this context; None if there is none."""
    pages = ecr.get_paginator("describe_images").paginate(repositoryName=repository, filter={"tagStatus": "TAGGED"})
    images: list[Mapping[str, Any]] = [
        image
        for page in pages
        for image in page["imageDetails"]
        if any(tag.partition("-")[0] == sha256 for tag in image["imageTags"])
    ]
    return max(images, key=lambda image: (image["imagePushedAt"], max(image["imageTags"])), default=None)


def _build(account: Account, project: str, bucket: str, context: Asset, tag: str, on_event: OnEvent) -> None:
    codebuild = account.client("codebuild")
    build = codebuild.start_build(
        projectName=project,
        sourceTypeOverride="S3",
        sourceLocationOverride=f"{bucket}/{context.key}",
        environmentVariablesOverride=[{"name": TAG_VARIABLE, "value": tag, "type": "PLAINTEXT"}],
    )["build"]
    phase = ""
    while True:
        [build] = codebuild.batch_get_builds(ids=[build["id"]])["builds"]
        if build.get("currentPhase", "") != phase:
            phase = build["currentPhase"]
            on_event(StackEvent("serving image", "build", phase))
        if build["buildStatus"] != "IN_PROGRESS":
            break
        time.sleep(_POLL_SECONDS)
    if build["buildStatus"] != "SUCCEEDED":
        failed = [one for one in build.get("phases", ()) if one.get("phaseStatus") not in (None, "SUCCEEDED")]
        why = [f"{one['phaseType']}: {said.get('message', '')}" for one in failed for said in one.get("contexts", ())]
        raise KelpieError(
            f"The serving image was not built: {build['buildStatus']}",
            "\n".join([*why, f"log: {build.get('logs', {}).get('deepLink', 'none')}"]),
            "Correct the cause, then deploy again.",
        )
