"""Automatic scaling of endpoints: what target tracking chooses, and the loop with real servers under real load."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.conftest import World, wait_until
from workflow.local.target_tracking import Capacity, Policy, Since, decide

DIMENSION = "sagemaker:variant:DesiredInstanceCount"


def count(
    points: list[float], current: int = 1, lowest: int = 1, highest: int = 4, since: Since | None = None, **policy: Any
) -> int:
    policies = [Policy("p", 100.0, **policy)]
    return decide(current, Capacity(lowest, highest), policies, [points], since or Since()).count


def test_three_minutes_above_the_target_scale_out_in_proportion() -> None:
    assert count([250.0, 250.0]) == 1
    assert count([250.0, 90.0, 250.0]) == 1
    assert count([110.0, 150.0, 250.0]) == 3
    assert count([110.0, 150.0, 900.0]) == 4, "the maximum capacity bounds it"


def test_fifteen_minutes_below_ninety_percent_scale_in() -> None:
    assert count([20.0] * 14, current=3) == 3
    assert count([20.0] * 15, current=3) == 1
    assert count([95.0] * 15, current=3) == 3, "between 90 % and the target nothing happens"
    assert count([60.0] + [0.0] * 14, current=3) == 2, "what remains would have carried the busiest minute"
    assert count([0.0] * 15, current=3, lowest=2) == 2


def test_no_data_changes_nothing() -> None:
    assert count([], current=2) == 2


def test_a_count_outside_the_capacity_is_brought_inside() -> None:
    assert count([], current=1, lowest=2) == 2
    assert count([], current=5, highest=4) == 4


def test_cooldowns_and_switches_hold_back() -> None:
    high, low = [500.0] * 3, [0.0] * 15
    assert count(high, since=Since(scaled_out=59.0), scale_out_cooldown=60.0) == 1
    assert count(high, since=Since(scaled_out=60.0), scale_out_cooldown=60.0) == 4
    assert count(low, current=2, since=Since(scaled_in=299.0)) == 2
    assert count(low, current=2, since=Since(scaled_in=300.0)) == 1
    assert count(low, current=2, may_scale_in=False) == 2


def test_one_policy_scales_out_but_all_have_to_agree_to_scale_in() -> None:
    policies = [Policy("a", 100.0), Policy("b", 100.0)]
    high, low = [300.0] * 15, [0.0] * 15
    assert decide(2, Capacity(1, 8), policies, [low, high], Since()).count == 6
    assert decide(2, Capacity(1, 8), policies, [low, [95.0] * 15], Since()).count == 2
    assert decide(2, Capacity(1, 8), policies, [low, low], Since()).count == 1


def register(world: World, endpoint: str, **changes: Any) -> dict[str, Any]:
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/AllTraffic",
        "ScalableDimension": DIMENSION,
    }
    world.client("application-autoscaling").register_scalable_target(
        **{**target, "MinCapacity": 1, "MaxCapacity": 2, **changes}
    )
    return target


def put_policy(world: World, target: dict[str, Any], target_value: float) -> None:
    world.client("application-autoscaling").put_scaling_policy(
        **target,
        PolicyName="invocations",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": target_value,
            "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
            "ScaleOutCooldown": 60,
            "ScaleInCooldown": 300,
        },
    )


@contextmanager
def load(world: World, endpoint: str, answers: list[int], errors: list[Exception]) -> Iterator[None]:
    done = threading.Event()

    def call() -> None:
        while not done.is_set():
            try:
                answers.append(world.invoke(endpoint, b"sleep 0.01")["pid"])
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_load_adds_a_server_and_silence_takes_it_away_again(world: World) -> None:
    name = world.endpoint(world.config(world.model()))
    world.settled(name)
    target = register(world, name)
    put_policy(world, target, 1.0)
    answers: list[int] = []
    errors: list[Exception] = []
    with load(world, name, answers, errors):
        wait_until(lambda: world.instances(name) == 2)
        wait_until(lambda: len(set(answers)) == 2)
    wait_until(lambda: world.instances(name) == 1)
    assert not errors
    wait_until(lambda: world.described(name)["EndpointStatus"] == "InService")
    scaling = world.client("application-autoscaling")
    activities = scaling.describe_scaling_activities(ServiceNamespace="sagemaker", ResourceId=target["ResourceId"])
    causes = [activity["Cause"] for activity in activities["ScalingActivities"]]
    assert "AlarmLow" in causes[0]
    assert "AlarmHigh" in causes[-1]
    world.sagemaker.delete_endpoint(EndpointName=name)
    left = scaling.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[target["ResourceId"]])
    assert left["ScalableTargets"] == []


def test_the_minimum_capacity_is_reached_without_load_and_blocks_another_instance_type(world: World) -> None:
    model = world.model()
    name = world.endpoint(world.config(model))
    world.settled(name)
    target = register(world, name, MinCapacity=2)
    wait_until(lambda: world.instances(name) == 2)
    world.settled(name)
    bigger = world.config(model, instance_type="ml.c5.2xlarge")
    with pytest.raises(ClientError, match="must be deregistered as scalable targets"):
        world.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=bigger)
    world.client("application-autoscaling").deregister_scalable_target(**target)
    world.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=bigger)
    assert world.settled(name)["EndpointConfigName"] == bigger
    world.sagemaker.delete_endpoint(EndpointName=name)


def test_what_application_auto_scaling_refuses_is_refused(world: World) -> None:
    with pytest.raises(ClientError, match="No production variant found"):
        register(world, "no-such-endpoint")
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "endpoint/none/variant/AllTraffic",
        "ScalableDimension": DIMENSION,
    }
    with pytest.raises(ClientError, match="No scalable target registered") as raised:
        put_policy(world, target, 1.0)
    assert raised.value.response["Error"]["Code"] == "ObjectNotFoundException"
    with pytest.raises(ClientError) as raised:
        world.client("application-autoscaling").deregister_scalable_target(**target)
    assert raised.value.response["Error"]["Code"] == "ObjectNotFoundException"


def test_a_burstable_instance_type_cannot_be_scaled(world: World) -> None:
    name = world.endpoint(world.config(world.model(), instance_type="ml.t2.medium"))
    world.settled(name)
    with pytest.raises(ClientError, match=r"burstable instance type ml\.t2\.medium") as raised:
        register(world, name)
    assert raised.value.response["Error"]["Code"] == "ValidationException"
    world.sagemaker.delete_endpoint(EndpointName=name)
