"""The serving image: built by CodeBuild from `inference/` when the registry has none of that context, used by digest.

The tag of an image is the SHA-256 of its build context, so an unchanged `inference/` builds nothing; what the stack
gets is the digest, which nobody can move to other bytes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, cast

from botocore.exceptions import ClientError

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
    account: Account, *, repository: str, build_project: str, bucket: str, context: Asset, on_event: OnEvent
) -> str:
    """The URI, by digest, of the image that this context makes; builds it when the repository has none.

    Raises:
        KelpieError: the build failed (the error has the phase, its message and where its log is), it pushed no image
            under the context's tag, or the image has a manifest that SageMaker does not take.
    """
    ecr = account.client("ecr")
    image = _image(ecr, repository, context.sha256)
    if image is None:
        _build(account, build_project, bucket, context, on_event)
        image = _image(ecr, repository, context.sha256)
        if image is None:
            raise KelpieError(
                f"CodeBuild built {build_project}, and {repository} has no image with the tag {context.sha256}",
                "Its build specification must push the tag that the variable IMAGE_TAG names.",
            )
    if image["imageManifestMediaType"] != MANIFEST:
        raise KelpieError(
            f"SageMaker cannot use the image {context.sha256} of {repository}",
            f"Its manifest is {image['imageManifestMediaType']}; allowed: {MANIFEST}",
            f"aws ecr batch-delete-image --repository-name {repository} --image-ids imageTag={context.sha256}\n"
            "Then deploy again. Who builds it by hand: docker buildx build --provenance=false --output type=docker.",
        )
    [described] = ecr.describe_repositories(repositoryNames=[repository])["repositories"]
    return f"{described['repositoryUri']}@{image['imageDigest']}"


def _image(ecr: Any, repository: str, tag: str) -> Mapping[str, str] | None:
    """What DescribeImages says of the image with this tag; None if there is none."""
    try:
        [image] = ecr.describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])["imageDetails"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ImageNotFoundException":
            return None
        raise
    return cast("Mapping[str, str]", image)


def _build(account: Account, project: str, bucket: str, context: Asset, on_event: OnEvent) -> None:
    codebuild = account.client("codebuild")
    build = codebuild.start_build(
        projectName=project,
        sourceTypeOverride="S3",
        sourceLocationOverride=f"{bucket}/{context.key}",
        environmentVariablesOverride=[{"name": TAG_VARIABLE, "value": context.sha256, "type": "PLAINTEXT"}],
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
