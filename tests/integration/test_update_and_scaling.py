"""A second execution under load: it updates the endpoint, keeps the scaled fleet, and no client notices."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from integration.clients import Clients
from integration.harness import LocalCloud, eventually

from workflow import executions


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

    eventually(lambda: len(servers()) == 1, "the scale-in after what earlier tests asked of it", 180)
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


# What is wrong with the new model, and what is as before when it is gone again

TARGET = {"ServiceNamespace": "sagemaker", "ResourceId": "endpoint/kelpie/variant/AllTraffic"}


def scaling(local_cloud: LocalCloud) -> dict[str, Any]:
    """The endpoint's scalable target and policies as Application Auto Scaling describes them."""
    client = local_cloud.account.client("application-autoscaling")
    targets = client.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    policies = client.describe_scaling_policies(**TARGET)["ScalingPolicies"]
    volatile = ("CreationTime", "PolicyARN", "ScalableTargetARN")
    return {
        "targets": [{key: value for key, value in each.items() if key not in volatile} for each in targets],
        "policies": [{key: value for key, value in each.items() if key not in volatile} for each in policies],
    }


def instance_type(local_cloud: LocalCloud) -> str:
    """What the endpoint runs on."""
    config = local_cloud.endpoint()["EndpointConfigName"]
    described = local_cloud.account.client("sagemaker").describe_endpoint_config(EndpointConfigName=config)
    return str(described["ProductionVariants"][0]["InstanceType"])


@pytest.fixture
def faults(local_cloud: LocalCloud) -> Iterator[Any]:
    """Let something go wrong; nothing does any more after the test."""
    yield local_cloud.connection.add_fault
    local_cloud.connection.clear_faults()


def endpoint_configs(local_cloud: LocalCloud) -> set[str]:
    found = local_cloud.account.client("sagemaker").list_endpoint_configs()["EndpointConfigs"]
    return {config["EndpointConfigName"] for config in found}


OTHER_HOSTING = {
    "instance_type": "ml.m5.large",
    "max_instance_count": 3,
    "target_invocations_per_instance": 900.0,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "state", "error"),
    [
        ({"kind": "model", "behaviour": "wrong", "next_deployment": True}, "SmokeTest", "SmokeTestFailed"),
        ({"kind": "endpoint-failure", "reason": "no instances left"}, "ServingNewConfig?", "UpdateRolledBack"),
    ],
    ids=["answers wrongly", "is rolled back silently"],
)
@pytest.mark.parametrize("hosting", [{"max_instance_count": 3}, OTHER_HOSTING], ids=["same instances", "others"])
def test_a_model_that_does_not_hold_goes_and_all_is_as_before(
    local_cloud: LocalCloud,
    first_execution: executions.Execution,
    faults: Any,
    fault: dict[str, Any],
    state: str,
    error: str,
    hosting: dict[str, Any],
) -> None:
    serving, before = local_cloud.endpoint()["EndpointConfigName"], scaling(local_cloud)
    configs, servers = endpoint_configs(local_cloud), local_cloud.process_ids("AllTraffic/*")
    assert before["targets"]
    assert before["policies"]
    assert first_execution.output
    least = first_execution.output["smoke"]["accuracy"] - 0.05
    faults(**fault)
    failed = local_cloud.run(training={"epochs": 3}, hosting=hosting, smoke_test={"min_accuracy": least})
    assert (failed.status, failed.error) == ("FAILED", error), failed.cause
    visited = [visit.name for visit in failed.visits]
    assert state in visited
    assert ("DeregisterScalableTarget" in visited) == ("instance_type" in hosting)
    assert ("RegisterScalableTarget" in visited) == (error == "SmokeTestFailed")
    assert local_cloud.endpoint()["EndpointStatus"] == "InService"
    assert local_cloud.endpoint()["EndpointConfigName"] == serving
    assert scaling(local_cloud) == before
    assert endpoint_configs(local_cloud) == configs
    assert len(local_cloud.process_ids("AllTraffic/*")) == len(servers)
    assert "left undone" not in failed.cause


@pytest.mark.slow
def test_other_instances_take_over_and_scale(local_cloud: LocalCloud, first_execution: executions.Execution) -> None:
    assert instance_type(local_cloud) != OTHER_HOSTING["instance_type"]
    changed = local_cloud.run(hosting=OTHER_HOSTING)
    assert changed.status == "SUCCEEDED", changed.cause
    assert "DeregisterScalableTarget" in {visit.name for visit in changed.visits}
    assert instance_type(local_cloud) == OTHER_HOSTING["instance_type"]
    (target,) = scaling(local_cloud)["targets"]
    assert target["MaxCapacity"] == OTHER_HOSTING["max_instance_count"]
    policy = json.dumps(scaling(local_cloud)["policies"])
    assert '"TargetValue": 900.0' in policy
    back = local_cloud.run()
    assert back.status == "SUCCEEDED", back.cause
    assert instance_type(local_cloud) != OTHER_HOSTING["instance_type"]
