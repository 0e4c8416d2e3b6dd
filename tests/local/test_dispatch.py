"""moto's dispatcher finds the same as ever, and what does not change is looked up once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from moto.core import responses, utils
from moto.core.base_backend import BackendDict
from moto.sqs.models import SQSBackend
from moto.sqs.responses import SQSResponse
from werkzeug.test import Client

from workflow.local import dispatch

ACCOUNT_ID = "123456789012"
AUTHORIZATION = "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20261122/us-east-1/sqs/aws4_request, SignedHeaders=host"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in ((responses, "method_names_from_class"), (BackendDict, "__getitem__")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # only so that it is put back
    dispatch.install(SimpleNamespace())  # type: ignore[arg-type]


@pytest.mark.usefixtures("installed")
def test_the_methods_of_a_service_are_listed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[Any] = []
    names: Any = responses.method_names_from_class  # type: ignore[attr-defined]
    monkeypatch.setattr(utils.inspect, "getmembers", lambda *asked, **_: listed.append(asked) or [])  # type: ignore[attr-defined]
    names.cache_clear()
    assert names(SQSResponse) is names(SQSResponse)
    assert len(listed) == 1
    names.cache_clear()


@pytest.mark.usefixtures("installed")
def test_an_account_has_the_backends_that_moto_gives_it_and_new_ones_after_a_reset() -> None:
    backends = BackendDict(SQSBackend, "sqs")
    first = backends[ACCOUNT_ID]
    assert backends[ACCOUNT_ID] is first
    in_use: list[Any] = BackendDict._instances  # type: ignore[misc]
    assert in_use.count(backends) == 1
    in_use.remove(backends)  # as a reset does it to all
    backends.clear()
    assert backends[ACCOUNT_ID] is not first
    assert in_use.count(backends) == 1
    in_use.remove(backends)


def call(dispatcher: dispatch.Dispatcher) -> Any:
    headers = {
        "Authorization": AUTHORIZATION,
        "X-Amz-Target": "AmazonSQS.ListQueues",
        "Content-Type": "application/x-amz-json-1.0",
    }
    return Client(dispatcher).post("/", data=b"{}", headers=headers)


@pytest.mark.usefixtures("installed")
def test_the_folders_of_services_are_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[Any] = []
    search = dispatch.DomainDispatcherApplication.get_backend_for_host
    monkeypatch.setattr(
        dispatch.DomainDispatcherApplication,
        "get_backend_for_host",
        lambda self, host: searched.append(host) or search(self, host),  # type: ignore[func-returns-value]
    )
    dispatcher = dispatch.Dispatcher()
    assert [call(dispatcher).status_code for _ in range(3)] == [200, 200, 200]
    assert len(searched) == len(set(searched)) <= 2


@pytest.mark.usefixtures("installed")
def test_a_failure_of_an_application_goes_to_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("of moto")

    monkeypatch.setattr(SQSResponse, "list_queues", fail)
    with pytest.raises(RuntimeError, match="of moto"):
        call(dispatch.Dispatcher())
