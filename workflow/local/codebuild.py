"""CodeBuild and ECR in the local cloud: a build reads its context and pushes an image, which stands for an environment.

moto keeps projects, builds and registries. Here StartBuild does what the build of stack.yaml does, with the rights of
the project's own role: it reads the build context from S3, pushes a layer and a manifest (the digest follows from the
context's bytes) under the tag that IMAGE_TAG names, and writes a log. Nothing is installed: the Dockerfile is checked
for being there, not executed, and the environment of the context's requirements file stands for the image (images.py).
"""

from __future__ import annotations

import io
import json
import logging
import time
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moto.codebuild.models import CodeBuildBackend
from moto.codebuild.responses import CodeBuildResponse
from moto.core.responses import ActionResult

if TYPE_CHECKING:
    from workflow.local.engine import Engine

HOOKS: tuple[str, ...] = (
    "moto.codebuild.models.CodeBuildBackend.batch_get_builds",
    "moto.codebuild.models.CodeBuildBackend.codebuild_projects",
    "moto.codebuild.responses.CodeBuildResponse.start_build",
)

SERVICE = "codebuild.amazonaws.com"
DOCKERFILE, REQUIREMENTS = "inference/Dockerfile", "inference/requirements.txt"

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_original_start_build = CodeBuildResponse.start_build
_original_batch_get_builds = CodeBuildBackend.batch_get_builds
_log = logging.getLogger(__name__)


class BuildFailed(Exception):
    """The context cannot be built; the message says why."""


def install(engine: Engine) -> None:
    """Put this module into moto."""
    failures: dict[str, str] = {}

    def start_build(response: CodeBuildResponse) -> ActionResult:
        result = _original_start_build(response)
        build = result._result["build"]  # type: ignore[index]
        request = {
            "source": response._get_param("sourceLocationOverride"),
            "variables": response._get_param("environmentVariablesOverride") or [],
        }
        project = response.codebuild_backend.codebuild_projects[build["projectName"]].project_metadata
        try:
            _build(engine, project, request, str(build["id"]))
        except Exception as error:
            _log.info("build %s failed", build["id"], exc_info=True)
            failures[build["id"]] = str(error)
        return result

    def batch_get_builds(backend: CodeBuildBackend, ids: list[str]) -> list[dict[str, Any]]:
        found = _original_batch_get_builds(backend, ids)
        for build in found:
            if build["id"] in failures:
                message = {"statusCode": "COMMAND_EXECUTION_ERROR", "message": failures[build["id"]]}
                phase = {"phaseType": "BUILD", "phaseStatus": "FAILED", "contexts": [message]}
                build["buildStatus"] = "FAILED"
                build["phases"] = [one for one in build["phases"] if one["phaseType"] != "BUILD"] + [phase]
        return found

    for owner, name, replacement in (
        (CodeBuildResponse, "start_build", start_build),
        (CodeBuildBackend, "batch_get_builds", batch_get_builds),
    ):
        setattr(owner, name, replacement)


def _build(engine: Engine, project: Mapping[str, Any], request: Mapping[str, Any], build_id: str) -> None:
    """Read, push, tell. Raises: BuildFailed, and what AWS answers to what the role may not do."""

    def client(service: str) -> Any:
        return engine.identity.client(service, project["serviceRole"], SERVICE)

    variables = {one["name"]: one["value"] for one in project["environment"].get("environmentVariables", ())}
    variables |= {one["name"]: one["value"] for one in request["variables"]}
    repository = variables["REPOSITORY_URI"].rpartition("/")[2]
    bucket, _, key = (request["source"] or project["source"]["location"]).partition("/")
    context = client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    requirements = _requirements(context)
    digest = _push(client("ecr"), repository, variables["IMAGE_TAG"], context)
    engine.images.add(f"{repository}@{digest}", requirements)
    group = project.get("logsConfig", {}).get("cloudWatchLogs", {}).get("groupName")
    if group:
        said = f"{repository}:{variables['IMAGE_TAG']} is {digest}; {DOCKERFILE} was found and not executed"
        stream = build_id.partition(":")[2]
        client("logs").create_log_stream(logGroupName=group, logStreamName=stream)
        event = {"timestamp": int(time.time() * 1000), "message": said}
        client("logs").put_log_events(logGroupName=group, logStreamName=stream, logEvents=[event])


def _requirements(context: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(context)) as archive:
            archive.read(DOCKERFILE)
            return archive.read(REQUIREMENTS).decode()
    except (KeyError, zipfile.BadZipFile) as error:
        raise BuildFailed(f"the build context is not one of Kelpie's: {error}") from error


def _push(ecr: Any, repository: str, tag: str, context: bytes) -> str:
    """What `docker push` does, with the context for its only layer; returns the digest."""
    ecr.get_authorization_token()
    upload = ecr.initiate_layer_upload(repositoryName=repository)["uploadId"]
    ecr.upload_layer_part(
        repositoryName=repository,
        uploadId=upload,
        partFirstByte=0,
        partLastByte=len(context) - 1,
        layerPartBlob=context,
    )
    layer = ecr.complete_layer_upload(repositoryName=repository, uploadId=upload, layerDigests=["sha256:" + "0" * 64])
    described = {"mediaType": _LAYER, "size": len(context), "digest": layer["layerDigest"]}
    ecr.batch_check_layer_availability(repositoryName=repository, layerDigests=[layer["layerDigest"]])
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {"mediaType": _CONFIG, "size": 2, "digest": layer["layerDigest"]},
        "layers": [described],
    }
    pushed = ecr.put_image(repositoryName=repository, imageManifest=json.dumps(manifest), imageTag=tag)["image"]
    return str(pushed["imageId"]["imageDigest"])
