"""A client that asks without pause, and never twice: through an update, a rollback, and the death of a server."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from integration.clients import Answer, Clients
from integration.clouds import own_cloud
from integration.harness import LocalCloud, eventually

from workflow import executions
from workflow.config import Config

pytestmark = pytest.mark.slow

SERVERS = 3
FEW_EPOCHS: dict[str, dict[str, Any]] = {
    "training": {"epochs": 1},
    "gate": {"min_test_accuracy": 0.0},
    "smoke_test": {"min_accuracy": 0.0},
    "hosting": {"min_instance_count": SERVERS, "max_instance_count": SERVERS},
}


@pytest.fixture(scope="module")
def three_servers(tmp_path_factory: pytest.TempPathFactory, dogs_folder: Path) -> Iterator[LocalCloud]:
    """A local cloud of its own, whose endpoint has three servers."""
    with own_cloud(tmp_path_factory.mktemp("kelpie") / "local", Config(), dogs_folder) as found:
        first = found.run(**FEW_EPOCHS)
        assert first.status == "SUCCEEDED", f"{first.error}: {first.cause}"
        assert len(found.process_ids("AllTraffic/*")) == SERVERS
        yield found


@pytest.fixture
def clients(three_servers: LocalCloud, dogs_folder: Path) -> Iterator[Clients]:
    """Six clients, one of them through the classify function; they have begun."""
    picture = next(dogs_folder.glob("test/*/*.jpg"))
    with Clients(three_servers, picture, count=6, through_lambda=1, pause_seconds=0.03) as running:
        eventually(lambda: running.answers["ok"] > 20, "the first answers")
        yield running


def changing(execution: executions.Execution) -> tuple[float, float]:
    """From when the endpoint was asked to change until it was seen to have settled."""
    asked = next(visit for visit in execution.visits if visit.name == "UpdateEndpoint")
    settled = [visit for visit in execution.visits if visit.name == "DescribeDeployment"][-1]
    assert settled.exited
    return asked.entered.timestamp(), settled.exited.timestamp()


def report(what: str, requests: list[Answer]) -> list[Answer]:
    failed = [request for request in requests if request.error]
    print(f"{what}: {len(requests)} requests, {len(failed)} failed")
    return failed


def test_the_death_of_one_of_three_servers(three_servers: LocalCloud, clients: Clients) -> None:
    servers = three_servers.process_ids("AllTraffic/*")
    killed = min(servers)
    began = time.time()
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: len(three_servers.process_ids("AllTraffic/*") - {killed}) == SERVERS, "another server", 60)
    time.sleep(2)
    assert report("death of a server", clients.between(began, time.time())) == []
    assert len(clients.requests) > 40
    assert three_servers.endpoint()["EndpointStatus"] == "InService"


def test_an_update(three_servers: LocalCloud, clients: Clients) -> None:
    before = three_servers.process_ids("AllTraffic/*")
    updated = three_servers.run(**FEW_EPOCHS)
    assert updated.status == "SUCCEEDED", f"{updated.error}: {updated.cause}"
    assert "ShiftOneInstanceFirst" in {visit.name for visit in updated.visits}
    assert not three_servers.process_ids("AllTraffic/*") & before, "the old servers still run"
    meanwhile = clients.between(*changing(updated))
    assert report("update", meanwhile) == []
    assert len(meanwhile) > 40
    assert set(clients.answers) == {"ok"}


@pytest.mark.parametrize("behaviour", ["failing", "slow"])
def test_a_rollback(three_servers: LocalCloud, clients: Clients, behaviour: str) -> None:
    before, serving = three_servers.process_ids("AllTraffic/*"), three_servers.endpoint()["EndpointConfigName"]
    three_servers.connection.add_fault("model", behaviour=behaviour, seconds=4.0, next_deployment=True)
    try:
        rolled_back = three_servers.run(**FEW_EPOCHS)
    finally:
        three_servers.connection.clear_faults()
    assert (rolled_back.status, rolled_back.error) == ("FAILED", "UpdateRolledBack"), rolled_back.cause
    assert {"failing": "kelpie-endpoint-errors", "slow": "kelpie-endpoint-latency"}[behaviour] in rolled_back.cause
    assert three_servers.endpoint()["EndpointConfigName"] == serving
    assert three_servers.process_ids("AllTraffic/*") == before
    meanwhile = clients.between(*changing(rolled_back))
    failed = report(f"rollback of a model that is {behaviour}", meanwhile)
    assert len(meanwhile) > 20
    assert len(failed) == len(report("in all", clients.requests)), "requests failed before or after the update"
    if behaviour == "slow":
        assert failed == []
        return
    assert failed, "nobody saw the new model"
    # One of three servers had it. Requests are dealt at random: four standard deviations above that share.
    exposed = clients.between(failed[0].sent, failed[-1].answered)
    share, most = len(failed) / len(exposed), 1 / SERVERS + 4 * (1 / SERVERS * (1 - 1 / SERVERS) / len(exposed)) ** 0.5
    print(f"share of failed requests while the canary was there: {share:.2f}, at most {most:.2f}")
    assert share <= most
