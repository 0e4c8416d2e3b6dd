"""Building the serving image: pushed with the project's own role, under a digest that follows from the context."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from moto.codebuild.models import CodeBuildBackend
from moto.codebuild.responses import CodeBuildResponse
from stack_server import StackServer, stack_server

from workflow.deployment import packaging, serving_image
from workflow.errors import KelpieError
from workflow.local import codebuild
from workflow.local.images import Images, UnknownImage

ROLE = "arn:aws:iam::123456789012:role/image-build"
REPOSITORY = "123456789012.dkr.ecr.us-east-1.amazonaws.com/dogs-serving"


@pytest.fixture(scope="module")
def running_server() -> Iterator[StackServer]:
    originals = CodeBuildResponse.start_build, CodeBuildBackend.batch_get_builds
    with stack_server() as running:
        yield running
    for owner, name, original in zip(
        (CodeBuildResponse, CodeBuildBackend), ("start_build", "batch_get_builds"), originals, strict=True
    ):
        setattr(owner, name, original)


@pytest.fixture
def images(running_server: StackServer, tmp_path: Path) -> Images:
    """A registry, a project that builds into it, and the environments that stand for what it builds."""
    running_server.reset()
    images = Images(tmp_path)
    identity = SimpleNamespace(client=lambda service, role, principal: running_server.client(service))
    engine: Any = SimpleNamespace(identity=identity, images=images)
    codebuild.install(engine)
    running_server.client("ecr").create_repository(repositoryName="dogs-serving")
    running_server.client("s3").create_bucket(Bucket="artifacts")
    running_server.client("codebuild").create_project(
        name="dogs-serving",
        source={"type": "S3", "location": "artifacts/none.zip"},
        artifacts={"type": "NO_ARTIFACTS"},
        serviceRole=ROLE,
        environment={
            "type": "LINUX_CONTAINER",
            "image": "aws/codebuild/amazonlinux-x86_64-standard:5.0",
            "computeType": "BUILD_GENERAL1_SMALL",
            "environmentVariables": [{"name": "REPOSITORY_URI", "value": REPOSITORY}],
        },
    )
    return images


def ensure(server: StackServer, context: packaging.Asset) -> tuple[str, list[str]]:
    server.client("s3").put_object(Bucket="artifacts", Key=context.key, Body=context.content)
    events: list[str] = []
    uri = serving_image.ensure(
        server.account,
        repository="dogs-serving",
        build_project="dogs-serving",
        bucket="artifacts",
        context=context,
        on_event=lambda event: events.append(event.status),
    )
    return uri, events


def test_an_image_is_built_once_and_named_by_its_digest(running_server: StackServer, images: Images) -> None:
    context = packaging.serving_context()
    uri, events = ensure(running_server, context)
    assert uri.startswith(f"{REPOSITORY}@sha256:")
    assert events
    assert ensure(running_server, context) == (uri, [])
    described = running_server.client("ecr").describe_images(repositoryName="dogs-serving")["imageDetails"]
    assert [image["imageTags"] for image in described] == [[context.sha256]]


def test_an_environment_stands_for_what_was_built_and_for_nothing_else(
    running_server: StackServer, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, _ = ensure(running_server, packaging.serving_context())
    built: list[str] = []
    monkeypatch.setattr("workflow.local.images._build", lambda folder, name, text: built.append(text))
    images.python_for(uri)
    assert built == [(packaging.SOURCE_ROOT / "inference" / "requirements.txt").read_text()]
    with pytest.raises(UnknownImage):
        images.python_for(f"{REPOSITORY}@sha256:{'0' * 64}")


def test_a_context_that_cannot_be_built_fails_with_the_reason(running_server: StackServer, images: Images) -> None:
    with pytest.raises(KelpieError, match="FAILED") as raised:
        ensure(running_server, packaging.asset_of_bytes("serving-context.zip", b"no zip"))
    assert "not one of Kelpie's" in raised.value.detail


def test_an_image_whose_manifest_sagemaker_refuses_is_not_used(
    running_server: StackServer, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    oci = "application/vnd.oci.image.manifest.v1+json"
    monkeypatch.setattr(codebuild, "_MANIFEST", oci)
    with pytest.raises(KelpieError, match="SageMaker cannot use the image") as raised:
        ensure(running_server, packaging.serving_context())
    assert oci in raised.value.detail
    assert serving_image.MANIFEST in raised.value.detail
    with pytest.raises(KelpieError, match="SageMaker cannot use the image"):  # nor when it is there already
        ensure(running_server, packaging.serving_context())
