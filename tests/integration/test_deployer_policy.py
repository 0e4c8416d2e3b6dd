"""Somebody with the documented policies, and nothing else, deploys and removes the stack.

The local cloud authorises what the commands ask for; what CloudFormation then does in the caller's name it does by
itself. Of that the tables are the only proof (tests/contracts/test_deployer_policy.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import deployer_policy
import pytest
from integration.harness import TIME_SCALE
from typer.testing import CliRunner

from workflow.cli import app
from workflow.config import Config
from workflow.deployment import wheels
from workflow.local import cloud
from workflow.local.cloud import Connection

DEPLOYER = ("deployer-policy-base.json", "deployer-policy-workflow.json")
OPERATOR = ("operator-policy.json",)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    home = tmp_path / "cloud"
    try:
        yield cloud.up(home, region=Config().aws.region, time_scale=TIME_SCALE)
    finally:
        cloud.down(home)


def sign_in(connection: Connection, name: str, documents: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a role with these policies, and this process the shell of somebody who has assumed it."""
    account = connection.account()
    iam = account.client("iam")
    root = f"arn:aws:iam::{account.account_id}:root"
    trust = {"Effect": "Allow", "Principal": {"AWS": root}, "Action": "sts:AssumeRole"}
    role = iam.create_role(
        RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    )["Role"]
    for document in documents:
        text = deployer_policy.filled_in(
            deployer_policy.DOCUMENTS[document], Config().project.name, account.region, account.account_id
        )
        iam.put_role_policy(RoleName=name, PolicyName=document.removesuffix(".json"), PolicyDocument=text)
    keys = account.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="shell")["Credentials"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys["SecretAccessKey"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", keys["SessionToken"])


def kelpie(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*arguments, "--aws"])
    failure = result.exception if not isinstance(result.exception, SystemExit) else None
    return getattr(
        failure, "exit_code", result.exit_code
    ), f"{result.output}{failure or ''}{getattr(failure, 'detail', '')}"


@pytest.mark.slow
def test_the_documented_policies_are_enough_for_what_the_commands_ask(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(folder: Path, *_: object) -> None:
        folder.mkdir(parents=True)
        (folder / "onnx-1.0-py3-none-any.whl").write_bytes(b"no wheel: nothing is trained here")

    monkeypatch.setattr(wheels, "_download", fetch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KELPIE_HOME", str(tmp_path / "nothing"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", connection.endpoint_url)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)

    sign_in(connection, "nobody", (), monkeypatch)
    code, said = kelpie("deploy", "--yes")
    assert code != 0
    assert "AccessDenied" in said, said

    sign_in(connection, "operator", OPERATOR, monkeypatch)
    code, said = kelpie("deploy", "--yes")
    assert code != 0
    assert "AccessDenied" in said, said

    sign_in(connection, "deployer", (*DEPLOYER, *OPERATOR), monkeypatch)
    for arguments in (
        ("deploy", "--yes"),
        ("deploy", "--yes"),
        ("schedule", "enable"),
        ("list",),
        ("destroy", "--yes", "--delete-data"),
    ):
        code, said = kelpie(*arguments)
        assert code == 0, f"{arguments}: {said}"
    assert "nothing is left that costs money" in said
