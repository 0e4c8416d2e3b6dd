"""A second execution under load: it updates the endpoint, keeps the scaled fleet, and no client notices."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from integration.harness import LocalCloud, eventually

from workflow import executions


class Clients:
    """Sends one picture about twenty times a second until it is stopped; counts what came back."""

    def __init__(self, local_cloud: LocalCloud, picture: Path) -> None:
        self.answers: Counter[str] = Counter()
        self._client = local_cloud.account.client("sagemaker-runtime")
        self._picture = picture.read_bytes()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(2)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        while not self._stopped.wait(0.1):
            try:
                self._client.invoke_endpoint(EndpointName="kelpie", ContentType="image/jpeg", Body=self._picture)
                self.answers["ok"] += 1
            except ClientError as error:
                self.answers[str(error)] += 1


@dataclass(frozen=True)
class Observed:
    """What was seen while clients called, and a second execution updated the endpoint below them."""

    first_servers: set[int]
    scaled_out_servers: set[int]
    updated_servers: set[int]
    second: executions.Execution
    desired_after_update: int
    serving_config: str
    answers: Counter[str]


@pytest.fixture(scope="module")
def observed(local_cloud: LocalCloud, first_execution: executions.Execution, dogs_folder: Path) -> Observed:
    """Load until the fleet has two servers, then a second execution under the same load."""

    def servers() -> set[int]:
        return local_cloud.process_ids("AllTraffic/*")

    first_servers = servers()
    with Clients(local_cloud, next(dogs_folder.glob("test/*/*.jpg"))) as clients:
        eventually(lambda: local_cloud.variant()["CurrentInstanceCount"] == 2, "the scale-out", 60)
        scaled_out_servers = servers()
        second = local_cloud.run()
        return Observed(
            first_servers=first_servers,
            scaled_out_servers=scaled_out_servers,
            updated_servers=servers(),
            second=second,
            desired_after_update=local_cloud.variant()["DesiredInstanceCount"],
            serving_config=local_cloud.endpoint()["EndpointConfigName"],
            answers=clients.answers,
        )


def test_load_adds_a_second_server_process(observed: Observed) -> None:
    assert len(observed.first_servers) == 1
    assert len(observed.scaled_out_servers) == 2
    assert observed.first_servers < observed.scaled_out_servers


def test_a_second_execution_updates_the_endpoint_and_keeps_the_scaled_count(observed: Observed) -> None:
    assert observed.second.status == "SUCCEEDED", f"{observed.second.error}: {observed.second.cause}"
    names = {visit.name for visit in observed.second.visits}
    assert "UpdateEndpoint" in names
    assert "CreateEndpoint" not in names
    assert observed.desired_after_update == 2
    assert observed.second.output is not None
    assert observed.serving_config == observed.second.output["names"]["endpoint_config"]
    assert not observed.updated_servers & observed.scaled_out_servers, "the old fleet still runs"


def test_no_client_noticed_the_update(observed: Observed) -> None:
    assert set(observed.answers) == {"ok"}
    assert observed.answers["ok"] > 20


def test_silence_takes_the_second_server_away_again(local_cloud: LocalCloud, observed: Observed) -> None:
    assert len(observed.updated_servers) == 2
    eventually(lambda: local_cloud.variant()["CurrentInstanceCount"] == 1, "the scale-in", 90)
    eventually(lambda: len(local_cloud.process_ids("AllTraffic/*")) == 1, "the end of the second server", 10)
    assert local_cloud.variant()["DesiredInstanceCount"] == 1


def test_the_second_execution_compares_with_the_champion_on_the_same_pictures(
    first_execution: executions.Execution, observed: Observed
) -> None:
    assert first_execution.output
    assert observed.second.output
    first_gate, second_gate = first_execution.output["gate"], observed.second.output["gate"]
    assert first_gate["comparable"] is False
    assert second_gate["comparable"] is True
    assert second_gate["champion_test_accuracy"] == first_gate["test_accuracy"]
