"""What is read in less time is what botocore reads."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator

import botocore.session
import pytest
from botocore.loaders import create_loader

from workflow import service_models


@pytest.fixture(autouse=True)
def fresh_loader() -> Iterator[None]:
    """One that no client has used: S3's change the model that they get."""
    service_models.service_models.cache_clear()
    yield
    service_models.service_models.cache_clear()


@pytest.mark.parametrize("service", ["sqs", "s3", "sagemaker"])
def test_a_service_model_is_the_one_that_botocore_reads(service: str) -> None:
    found = service_models.service_models().load_service_model(service, "service-2")
    expected = create_loader().load_service_model(service, "service-2")
    is_same = json.dumps(found) == json.dumps(expected)  # the order too
    assert is_same  # pytest would look for the differences of megabytes
    assert isinstance(expected, OrderedDict)
    assert not isinstance(found["operations"], OrderedDict)


def test_what_was_read_ahead_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    service_models.read_service_models("sqs")
    read: list[str] = []
    monkeypatch.setattr(service_models._FileLoader, "_load_file", lambda _self, path, _open: read.append(path))
    session = botocore.session.Session()
    session.register_component("data_loader", service_models.service_models())
    session.create_client("sqs", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    assert not [path for path in read if path.endswith(("/service-2.json.gz", "/endpoint-rule-set-1.json.gz"))]


def test_a_file_that_is_not_there_is_none() -> None:
    assert service_models.service_models().file_loader.load_file("/no/such/model") is None
