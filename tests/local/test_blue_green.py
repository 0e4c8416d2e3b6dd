"""UpdateEndpoint's deployment configs with real servers, under the traffic of clients that keep calling."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.conftest import World, wait_until
from tests.local.test_alarms import put_alarm


@dataclass
class Clients:
    """What came back, in order: the version that answered, or None for a failure."""

    answers: list[str | None] = field(default_factory=list)
    process_ids: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@contextmanager
def clients(world: World, endpoint: str, count: int = 3) -> Iterator[Clients]:
    """Clients that call the endpoint until the block ends."""
    seen, done = Clients(), threading.Event()

    def call() -> None:
        while not done.is_set():
            try:
                answer = world.invoke(endpoint, b"sleep 0.01")
                seen.answers.append(answer["version"])
                seen.process_ids.append(answer["pid"])
            except ClientError as error:
                seen.answers.append(None)
                seen.errors.append(str(error))

    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        done.set()
        for thread in threads:
            thread.join()


def update(world: World, endpoint: str, config: str, routing: dict[str, Any], *alarms: str) -> None:
    """UpdateEndpoint with a blue/green policy; bakes of 600 seconds, which are 2 here."""
    deployment: dict[str, Any] = {
        "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": {"WaitIntervalInSeconds": 600, **routing}}
    }
    if alarms:
        deployment["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in alarms]}
    world.sagemaker.update_endpoint(
        EndpointName=endpoint, EndpointConfigName=config, DeploymentConfig=deployment, RetainAllVariantProperties=True
    )


def canary(percent: int) -> dict[str, Any]:
    return {"Type": "CANARY", "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": percent}}


def started(world: World, version: str = "one", count: int = 1, role: str | None = None) -> str:
    name = world.endpoint(world.config(world.model(version, role=role), count=count))
    assert world.settled(name)["EndpointStatus"] == "InService"
    return name


def servers(world: World) -> int:
    return sum(each.startswith("AllTraffic/") for each in world.process_names())


def test_a_model_that_answers_500_is_rolled_back_and_fails_no_more_than_the_canary_s_share(world: World) -> None:
    name = started(world, count=2)
    before, running = world.described(name)["EndpointConfigName"], servers(world)
    alarm = put_alarm(world, name)
    failing = world.config(world.model("failing"))
    with clients(world, name) as seen:
        wait_until(lambda: len(seen.answers) > 20)
        update(world, name, failing, canary(25), alarm)
        pending = wait_until(lambda: world.described(name).get("PendingDeploymentSummary"))
        described = world.settled(name)
        after = len(seen.answers)
        wait_until(lambda: len(seen.answers) > after + 20)
    assert pending["EndpointConfigName"] == failing
    assert pending["ProductionVariants"][0]["VariantStatus"][0]["Status"] in ("Creating", "ActivatingTraffic", "Baking")
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", before)
    assert alarm in described["FailureReason"]
    assert "PendingDeploymentSummary" not in described
    assert described["ProductionVariants"][0]["CurrentWeight"] == 1.0
    failures = [index for index, answer in enumerate(seen.answers) if answer is None]
    assert failures
    assert all("Received server error (500)" in error for error in seen.errors)
    exposed = seen.answers[failures[0] : failures[-1] + 1]
    chance = 4 * math.sqrt(len(exposed) * 0.25 * 0.75) + 1  # four standard deviations, and the first one
    assert len(failures) <= 0.25 * len(exposed) + chance
    assert set(seen.answers[after:]) == {"one"}
    wait_until(lambda: servers(world) == running)
    world.sagemaker.delete_endpoint(EndpointName=name)


def test_no_request_fails_through_an_update_a_rollback_and_the_death_of_one_of_three_servers(world: World) -> None:
    name = started(world, count=3)
    good, slow = world.config(world.model("two")), world.config(world.model("slow"))
    steps = {"Type": "LINEAR", "LinearStepSize": {"Type": "INSTANCE_COUNT", "Value": 1}, "WaitIntervalInSeconds": 120}
    # Watches the slow model's fleet alone: the average of both would stay below.
    latency = put_alarm(
        world,
        name,
        "EndpointLatencyAlarm",
        Threshold=300_000,
        Dimensions=[
            {"Name": "EndpointName", "Value": name},
            {"Name": "VariantName", "Value": "AllTraffic"},
            {"Name": "EndpointConfigName", "Value": slow},
        ],
    )
    with clients(world, name) as seen:
        wait_until(lambda: len(seen.answers) > 20)
        update(world, name, good, steps, latency)
        described = world.settled(name)
        assert (described["EndpointConfigName"], described.get("FailureReason")) == (good, None)
        assert described["LastDeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"] == [{"AlarmName": latency}]
        assert described["ProductionVariants"][0]["CurrentInstanceCount"] == 3

        update(world, name, slow, canary(30), latency)
        described = world.settled(name)
        assert described["EndpointConfigName"] == good
        assert latency in described["FailureReason"]

        after = len(seen.process_ids)
        wait_until(lambda: len(set(seen.process_ids[after:])) == 3)
        victim = seen.process_ids[-1]
        os.kill(victim, signal.SIGKILL)
        killed = len(seen.process_ids)
        wait_until(lambda: len(set(seen.process_ids[killed + 3 :])) == 3)
    assert not seen.errors
    assert victim not in seen.process_ids[killed + 3 :]
    kinds = [version for index, version in enumerate(seen.answers) if index == 0 or seen.answers[index - 1] != version]
    assert kinds[0] == "one"
    assert kinds[-1] == "two"
    assert "slow" in kinds
    world.sagemaker.delete_endpoint(EndpointName=name)


def test_an_update_that_sagemaker_refuses_leaves_the_endpoint_alone(world: World) -> None:
    name = started(world)
    other = world.config(world.model("two"))
    with pytest.raises(ClientError, match=r"Could not find CloudWatch alarm\(s\) no-such-alarm") as raised:
        update(world, name, other, {"Type": "ALL_AT_ONCE"}, "no-such-alarm")
    assert raised.value.response["Error"]["Code"] == "ValidationException"
    percentile = put_alarm(world, name, "EndpointLatencyAlarm", Statistic=None, ExtendedStatistic="p99")
    with pytest.raises(ClientError, match="cannot evaluate"):
        update(world, name, other, {"Type": "ALL_AT_ONCE"}, percentile)
    with pytest.raises(ClientError, match="with 1 instance"):
        update(world, name, other, canary(50))
    assert world.described(name)["EndpointStatus"] == "InService"
    world.sagemaker.delete_endpoint(EndpointName=name)


def test_alarms_that_the_role_may_not_read_roll_back_with_the_permission_s_name(world: World) -> None:
    name = started(world)
    model = world.model("two", role=world.make_role(deny="cloudwatch:DescribeAlarms"))
    update(world, name, world.config(model), {"Type": "ALL_AT_ONCE"}, put_alarm(world, name))
    described = world.settled(name)
    assert "cloudwatch:DescribeAlarms" in described["FailureReason"]
    assert world.invoke(name)["version"] == "one"
    world.sagemaker.delete_endpoint(EndpointName=name)


def test_the_old_fleet_stands_by_for_the_termination_wait(world: World) -> None:
    name = started(world)
    running = servers(world)
    world.sagemaker.update_endpoint(
        EndpointName=name,
        EndpointConfigName=world.config(world.model("two")),
        DeploymentConfig={
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0},
                "TerminationWaitInSeconds": 450,
            }
        },
    )
    wait_until(lambda: world.invoke(name)["version"] == "two")
    began = time.monotonic()
    assert servers(world) == running + 1
    world.settled(name)
    assert time.monotonic() - began > 0.75 * 450 / 300
    wait_until(lambda: servers(world) == running)
    world.sagemaker.delete_endpoint(EndpointName=name)
