"""Building the serving image: pushed with the project's own role, under a digest that follows from the context."""

from __future__ import annotations

import io
import json
import re
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from moto.codebuild.models import CodeBuildBackend
from moto.codebuild.responses import CodeBuildResponse
from stack_server import StackServer, stack_server

from workflow.deployment import packaging, serving_image, template
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


def ensure(server: StackServer, context: packaging.Asset, *, rebuild: bool = False) -> tuple[str, list[str]]:
    server.client("s3").put_object(Bucket="artifacts", Key=context.key, Body=context.content)
    events: list[str] = []
    uri = serving_image.ensure(
        server.account,
        repository="dogs-serving",
        build_project="dogs-serving",
        bucket="artifacts",
        context=context,
        rebuild=rebuild,
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


def test_an_image_can_be_built_again_and_the_newest_one_is_used(running_server: StackServer, images: Images) -> None:
    context = packaging.serving_context()
    first, _ = ensure(running_server, context, rebuild=True)  # there is none yet: its tag is that of any first image
    ecr = running_server.client("ecr")
    [image] = ecr.describe_images(repositoryName="dogs-serving")["imageDetails"]
    assert image["imageTags"] == [context.sha256]
    again, events = ensure(running_server, context, rebuild=True)
    assert events
    [image] = ecr.describe_images(repositoryName="dogs-serving")["imageDetails"]  # the same bytes make the same image
    assert again == first
    tags = sorted(image["imageTags"])
    assert len(tags) == 2
    assert re.fullmatch(rf"{context.sha256}-\d{{8}}T\d{{6}}Z", tags[1])
    other = {"schemaVersion": 2, "mediaType": serving_image.MANIFEST, "config": {"digest": "sha256:" + "0" * 64}}
    other["layers"] = [{"size": 1, "digest": "sha256:" + "1" * 64}]
    pushed = ecr.put_image(
        repositoryName="dogs-serving", imageManifest=json.dumps(other), imageTag=f"{context.sha256}-20990101T000000Z"
    )["image"]["imageId"]["imageDigest"]
    ecr.put_image(repositoryName="dogs-serving", imageManifest=json.dumps(other | {"x": 1}), imageTag="another-context")
    assert ensure(running_server, context) == (f"{REPOSITORY}@{pushed}", [])


def test_the_build_takes_the_base_image_by_digest_and_labels_the_image_with_it(tmp_path: Path) -> None:
    """The commands of stack.yaml's build specification, run by a shell with stand-ins for docker and aws."""
    resources = template.parse(template.TEMPLATE_FILE.read_text(encoding="utf-8"))["Resources"]
    phases = yaml.safe_load(resources["ImageBuild"]["Properties"]["Source"]["BuildSpec"])["phases"]
    with zipfile.ZipFile(io.BytesIO(packaging.serving_context().content)) as archive:  # type: ignore[arg-type] # bytes
        archive.extractall(tmp_path / "context")
    base = re.findall(r"^FROM (\S+)", (tmp_path / "context/inference/Dockerfile").read_text(), flags=re.MULTILINE)
    assert len(set(base)) == 1
    digest = f"sha256:{'5' * 64}"
    name = base[0].rpartition(":")[0]
    programs = tmp_path / "programs"
    programs.mkdir()
    for program, answer in (
        ("aws", "echo password"),
        ("docker", f'[ "$2" = inspect ] && echo "{name}@{digest}"; true'),
    ):
        (programs / program).write_text(f'#!/bin/sh\necho "{program} $@" >> {tmp_path / "said"}\n{answer}\n')
        (programs / program).chmod(0o755)
    commands = [command for phase in phases.values() for command in phase["commands"]]
    subprocess.run(
        ["/bin/sh", "-e", "-c", "\n".join(commands)],
        cwd=tmp_path / "context",
        env={
            "PATH": f"{programs}:/usr/bin:/bin",
            "REPOSITORY_URI": REPOSITORY,
            "IMAGE_TAG": "a-tag",
            "CODEBUILD_BUILD_SUCCEEDING": "1",
        },
        check=True,
    )
    built = re.findall(r"^FROM (\S+)", (tmp_path / "context/inference/Dockerfile").read_text(), flags=re.MULTILINE)
    assert set(built) == {f"{name}@{digest}"}
    said = (tmp_path / "said").read_text().splitlines()
    assert f"docker pull {base[0]}" in said
    [build] = [line for line in said if line.startswith("docker buildx build")]
    assert f"--label org.opencontainers.image.base.name={base[0]} " in build
    assert f"--label org.opencontainers.image.base.digest={digest} " in build
    assert said[-1] == f"docker push {REPOSITORY}:a-tag"


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
