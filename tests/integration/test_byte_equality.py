"""The same bytes on AWS and in the local cloud: template, definition and archives. Only what is filled in differs.

There is no AWS here. The way of `--aws` (credentials and a Region from the environment, no endpoint URL in Kelpie's
hands) leads to a second cloud, because AWS_ENDPOINT_URL says so; what is there is then read back through AWS's APIs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from integration.harness import TIME_SCALE
from moto.moto_api._internal import mock_random
from stack_server import REGION, stack_server
from typer.testing import CliRunner

from workflow.account import Account
from workflow.cli import app
from workflow.commands.session import aws_account
from workflow.config import Config
from workflow.deployment import cloudformation, packaging, rendered, serving_image, stack, template, wheels
from workflow.local import cloud

CONFIG = Config()
IMAGE = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/kelpie-serving@sha256:{'0' * 64}"
GOLDEN_DEFINITION = (Path(__file__).parents[1] / "contracts/golden/definition.json").read_text(encoding="utf-8")
WHEEL = "onnx-1.0-cp313-none-any.whl"
MAY_DIFFER = {"WheelsChannelUri"}
"""AWS gets the libraries that the training image lacks; the local cloud's environment has them."""

_SUBSTITUTION = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class Deployed:
    """What a deployment left in an account, read through AWS's APIs."""

    template: bytes
    assets: Mapping[str, bytes]
    """By key, below assets/; without the channel of wheels."""
    code_sha256: Mapping[str, str]
    """Of each Lambda."""
    layer_sha256: Mapping[str, str]
    """Of the layer versions that the Lambdas use, by ARN."""
    definition: str
    """As the stack got it, with `${Name}`."""
    rendered: str
    """As the state machine has it."""
    parameters: Mapping[str, str]
    generated: Mapping[str, str]
    """Physical ids of the stack's resources, by logical name."""

    @property
    def substitutions(self) -> dict[str, str]:
        """What stands in the state machine for each `${Name}`."""
        return substitutions(self.definition, self.rendered)

    def plain(self, text: str) -> str:
        """A text with logical names for the ids that CloudFormation generated."""
        for name, physical_id in sorted(self.generated.items(), key=lambda one: -len(one[1])):
            text = text.replace(physical_id, f"<{name}>")
        return text


def substitutions(text: str, rendered: str) -> dict[str, str]:
    """Read the values off a rendered definition. Whether they are right shows when they are filled in again."""
    pieces = _SUBSTITUTION.split(text)  # text, name, text, name, ..., text
    values: dict[str, str] = {}
    position = len(pieces[0])
    for name, after in zip(pieces[1::2], pieces[2::2], strict=True):
        if name not in values:
            assert after, f"nothing stands between ${{{name}}} and what follows"
            values[name] = rendered[position : rendered.index(after, position)]
        position += len(values[name]) + len(after)
    return values


def filled_in(text: str, values: Mapping[str, str]) -> str:
    return _SUBSTITUTION.sub(lambda match: values[match[1]], text)


def read(account: Account) -> Deployed:
    cfn, s3, functions = account.client("cloudformation"), account.client("s3"), account.client("lambda")
    deployed = cloudformation.CloudFormationStack(account, "kelpie")
    outputs, parameters = deployed.outputs(), deployed.parameters()
    body = cfn.get_template(StackName="kelpie", TemplateStage="Original")["TemplateBody"]
    bucket = outputs["ArtifactBucket"]
    assets = {
        one["Key"]: s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read()
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="assets/")
        for one in page["Contents"]
        if not parameters["WheelsChannelUri"].endswith(one["Key"].rpartition("/")[0] + "/")
    }
    machine = account.client("stepfunctions").describe_state_machine(stateMachineArn=outputs["StateMachineArn"])
    return Deployed(
        template=(body if isinstance(body, str) else json.dumps(body)).encode(),
        assets=assets,
        code_sha256={
            one["FunctionName"]: one["CodeSha256"]
            for page in functions.get_paginator("list_functions").paginate()
            for one in page["Functions"]
        },
        layer_sha256={
            one["Arn"]: _layer_version(functions, one["Arn"])["Content"]["CodeSha256"]
            for page in functions.get_paginator("list_functions").paginate()
            for function in page["Functions"]
            for one in function["Layers"]
        },
        definition=assets[parameters["DefinitionKey"]].decode(),
        rendered=machine["definition"],
        parameters=parameters,
        generated={one["LogicalResourceId"]: one["PhysicalResourceId"] for one in deployed.resources()},
    )


def _layer_version(client: Any, arn: str) -> Any:
    layer, _, number = arn.split(":layer:")[1].partition(":")
    return client.get_layer_version(LayerName=layer, VersionNumber=int(number))


def unlike(here: Mapping[str, str], there: Mapping[str, str], local: Deployed, aws: Deployed) -> set[str]:
    """The names whose values differ in more than ids that CloudFormation generated."""
    return {name for name in here if local.plain(here[name]) != aws.plain(there[name])}


def assert_same_bytes(here: Deployed, there: Deployed) -> None:
    """What is shipped is the same, and is what the repository has."""
    assert here.template == there.template == template.TEMPLATE_FILE.read_bytes()
    assert here.assets == there.assets
    assert {"sourcedir.tar.gz", "state-machine.json", "stack.yaml"} <= {key.rpartition("/")[2] for key in here.assets}
    assert here.code_sha256 == there.code_sha256
    zips = {
        base64.b64encode(hashlib.sha256(content).digest()).decode()
        for key, content in here.assets.items()
        if key.endswith(".zip")
    }
    assert len(here.code_sha256) == len(packaging.LAMBDAS)
    assert set(here.code_sha256.values()) <= zips
    assert here.layer_sha256 == there.layer_sha256
    assert len(here.layer_sha256) == 1
    assert set(here.layer_sha256.values()) <= zips
    for one in (here, there):
        assert filled_in(one.definition, one.substitutions) == one.rendered
        assert "${" not in one.rendered


def fake_download(folder: Path, *_: Any) -> None:
    """Instead of pip, which would need a package index."""
    folder.mkdir(parents=True)
    (folder / WHEEL).write_bytes(b"a library that the training image lacks")


def aws_environment(monkeypatch: pytest.MonkeyPatch, url: str, key_id: str, secret_key: str, home: Path) -> None:
    """The shell of somebody who is signed in to an account that is reached at `url`."""
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": key_id,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_REGION": REGION,
        "AWS_CONFIG_FILE": str(home / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(home / "none"),
        "KELPIE_HOME": str(home),
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(wheels, "_download", fake_download)


@pytest.mark.slow
def test_the_same_account_and_region_get_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # One server in this process, emptied between the two: its random generator makes the same names and ids again.
    # The definition is the stored one, which a test compares with the built one: that takes the SDK, and seconds.
    # Nor is it packed twice: test_packaging.py says that packing is deterministic, and the slow test below does it.
    monkeypatch.setattr(rendered, "rendered", lambda _: GOLDEN_DEFINITION)
    assets = stack.stack_assets(CONFIG)
    monkeypatch.setattr(stack, "stack_assets", lambda _: assets)
    monkeypatch.setattr(serving_image, "ensure", lambda *_, **__: IMAGE)
    monkeypatch.setattr(cloudformation, "_POLL_SECONDS", 0.0)
    with stack_server() as server:
        mock_random.seed(1)
        stack.deploy(server.account, CONFIG)
        local = read(server.account)

        server.reset()
        keys = server.account._session.get_credentials()
        aws_environment(monkeypatch, str(server.account.endpoint_url), keys.access_key, keys.secret_key, tmp_path)
        account = aws_account(CONFIG)
        assert account.endpoint_url is None
        mock_random.seed(1)
        stack.deploy(account, CONFIG)
        aws = read(account)

    assert_same_bytes(local, aws)
    # The ids that CloudFormation generates while a Lambda runs beside it depend on who is quicker.
    assert unlike(local.parameters, aws.parameters, local, aws) == MAY_DIFFER
    assert unlike(local.substitutions, aws.substitutions, local, aws) == MAY_DIFFER
    same_wheels = {**aws.substitutions, **{name: local.substitutions[name] for name in MAY_DIFFER}}
    assert aws.plain(filled_in(aws.definition, same_wheels)) == local.plain(local.rendered)


@pytest.mark.slow
def test_the_two_commands_leave_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KELPIE_HOME", str(tmp_path / "first"))
    try:
        deployed = CliRunner().invoke(app, ["deploy", "--local", "--yes"])
        assert deployed.exit_code == 0, deployed.output
        local = read(cloud.require(cloud.default_home()).account())
    finally:
        cloud.down(cloud.default_home())
    second = cloud.up(tmp_path / "second", region=REGION, time_scale=TIME_SCALE)
    try:
        home = tmp_path / "home"
        aws_environment(monkeypatch, second.endpoint_url, second.access_key_id, second.secret_access_key, home)
        deployed = CliRunner().invoke(app, ["deploy", "--aws", "--yes"])
        assert deployed.exit_code == 0, deployed.output
        aws = read(aws_account(CONFIG))
    finally:
        cloud.down(tmp_path / "second")

    assert_same_bytes(local, aws)
    assert local.generated.keys() == aws.generated.keys()
    for here, there in ((local.parameters, aws.parameters), (local.substitutions, aws.substitutions)):
        assert here.keys() == there.keys()
        assert unlike(here, there, local, aws) == MAY_DIFFER
    # The serving image too: the same build context makes the same digest.
    assert local.parameters["ServingImageUri"] == aws.parameters["ServingImageUri"]


def test_values_are_read_off_a_rendered_definition() -> None:
    text = '{"a": "${One}", "b": "x/${Two}/y", "c": "${One}"}'
    rendered = '{"a": "1", "b": "x/2/y", "c": "1"}'
    assert substitutions(text, rendered) == {"One": "1", "Two": "2"}
    assert filled_in(text, substitutions(text, rendered)) == rendered
