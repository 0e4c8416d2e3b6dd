"""The operator's account: clients are made once, and what is missing is said."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import botocore
import pytest

from workflow.account import Account, flag
from workflow.errors import KelpieError


def session(region: str | None = "eu-west-1", key: str | None = "AKIA") -> boto3.Session:
    return boto3.Session(key, key, region_name=region)


@pytest.fixture
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials and no Region from this machine."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_a_client_is_made_once() -> None:
    account = Account(session())
    assert account.client("s3") is account.client("s3")


def test_every_client_of_a_local_account_goes_to_its_endpoint() -> None:
    account = Account(session(), "http://127.0.0.1:9")
    urls = {account.client(service).meta.endpoint_url for service in ("s3", "stepfunctions", "sagemaker-runtime")}
    assert urls == {"http://127.0.0.1:9"}


def test_an_account_of_aws_uses_the_regions_own_endpoints() -> None:
    assert Account(session()).client("s3").meta.endpoint_url == "https://s3.eu-west-1.amazonaws.com"


def test_a_command_for_pasting_names_aws_only_when_it_is_meant() -> None:
    assert flag(Account(session())) == " --aws"
    assert flag(Account(session(), "http://127.0.0.1:9")) == ""


def test_addresses_end_as_botocore_has_it_for_each_partition() -> None:
    known = json.loads((Path(botocore.__file__).parent / "data" / "endpoints.json").read_text())["partitions"]
    assert len(known) >= 8
    for partition in known:
        region = next(iter(partition["regions"]))
        assert Account(session(region)).dns_suffix == partition["dnsSuffix"], region


def test_a_session_without_a_region_is_refused(nothing_configured: None) -> None:
    with pytest.raises(KelpieError, match=r"kelpie\.toml"):
        Account(session(region=None))


def test_missing_credentials_say_how_to_sign_in(nothing_configured: None) -> None:
    with pytest.raises(KelpieError, match="Unable to locate credentials") as raised:
        _ = Account(session(key=None)).account_id
    assert "aws sso login" in raised.value.fix
