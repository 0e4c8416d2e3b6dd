"""A second execution under load: it updates the endpoint, keeps the scaled fleet, and no client notices."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from integration.harness import LocalCloud

from workflow import executions

Eventually = Callable[[Callable[[], bool], str, float], None]


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


def test_the_fleet_grows_under_load_survives_an_update_and_shrinks_again(
    local_cloud: LocalCloud, first_execution: executions.Execution, dogs_folder: Path, eventually: Eventually
) -> None:
    def variant() -> dict[str, Any]:
        found: dict[str, Any] = local_cloud.endpoint()["ProductionVariants"][0]
        return found

    def servers() -> set[int]:
        return local_cloud.process_ids("AllTraffic/*")

    assert variant()["DesiredInstanceCount"] == 1
    first_servers = servers()
    assert len(first_servers) == 1

    with Clients(local_cloud, next(dogs_folder.glob("test/*/*.jpg"))) as clients:
        eventually(lambda: variant()["CurrentInstanceCount"] == 2, "the scale-out", 60)
        assert len(servers()) == 2
        assert first_servers < servers()

        second = local_cloud.run()
        assert second.status == "SUCCEEDED", f"{second.error}: {second.cause}"
        names = {visit.name for visit in second.visits}
        assert "UpdateEndpoint" in names
        assert "CreateEndpoint" not in names
        assert variant()["DesiredInstanceCount"] == 2
        assert second.output is not None
        assert local_cloud.endpoint()["EndpointConfigName"] == second.output["names"]["endpoint_config"]
        assert not servers() & first_servers, "the old fleet still runs"

    eventually(lambda: variant()["CurrentInstanceCount"] == 1, "the scale-in", 90)
    eventually(lambda: len(servers()) == 1, "the end of the second server", 10)
    assert set(clients.answers) == {"ok"}
    assert clients.answers["ok"] > 20


def test_the_second_execution_compares_with_the_champion_on_the_same_pictures(
    local_cloud: LocalCloud, first_execution: executions.Execution
) -> None:
    listed = local_cloud.account.client("stepfunctions").list_executions(
        stateMachineArn=local_cloud.outputs.state_machine_arn, statusFilter="SUCCEEDED"
    )["executions"]
    newest = max(listed, key=lambda item: item["startDate"])
    assert newest["executionArn"] != first_execution.arn
    second = executions.describe(local_cloud.account, newest["executionArn"])
    assert first_execution.output
    assert second.output
    assert first_execution.output["gate"]["comparable"] is False
    assert second.output["gate"]["comparable"] is True
    assert second.output["gate"]["champion_test_accuracy"] == first_execution.output["gate"]["test_accuracy"]
