"""What flows through the chapters that touch the endpoint: its instances, its scaling, and the way back from each."""

from __future__ import annotations

from typing import Any

import pytest
from contracts.test_definition_flow import HELD, SERVING, STATES, TASKS, WAY_BACK, Run, canned, complaints, run

from workflow.config import Config

FOUND = ["DescribeEndpoint", "EndpointExists?", "EndpointIsThere", "TakeFirstVariant"]
LOOKED = ["DescribeServingConfig", "DescribeScalableTarget", "DescribeScalingPolicies"]
BEGIN = [*FOUND, *LOOKED, "SeveralInstances?", "ShiftAllAtOnce", "InstanceTypeChanges?"]
OTHER_INSTANCES = {"ProductionVariants": [{"VariantName": "AllTraffic", "InstanceType": "ml.g5.xlarge"}]}
TARGET = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/kelpie/variant/AllTraffic",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}
SCALES = {
    "DescribeScalableTarget": {"ScalableTargets": [{**TARGET, "MinCapacity": 1, "MaxCapacity": 2}]},
    "DescribeScalingPolicies": {"ScalingPolicies": [{**TARGET, "PolicyName": "kelpie-invocations"}]},
}
ERROR = {"Error": "Some.Error", "Cause": "because"}


def deploy(
    answers: dict[str, Any] | None = None, raises: dict[str, Any] | None = None, stop: str = "StartWaiting"
) -> Run:
    """From the first look at an endpoint that serves until it was asked to change."""
    return run({"DescribeEndpoint": SERVING} | (answers or {}), raises, start="DescribeEndpoint", stop=stop)


# Instances


def test_the_same_instances_keep_their_scalable_target() -> None:
    assert deploy(SCALES).path == [*BEGIN, "UpdateEndpoint", "StartWaiting"]


@pytest.mark.parametrize("config", [OTHER_INSTANCES, {"ProductionVariants": [{"ServerlessConfig": {}}]}])
def test_other_instances_are_deregistered_before_the_update_and_registered_again_after_it(
    config: dict[str, Any],
) -> None:
    changed = deploy(SCALES | {"DescribeServingConfig": config}, stop="SmokeTest")
    assert changed.path[: len(BEGIN) + 2] == [*BEGIN, "DeregisterScalableTarget", "UpdateEndpoint"]
    assert changed.path[-3:] == ["RegisterScalableTarget", "PutScalingPolicy", "SmokeTest"]
    assert changed.parameters["DeregisterScalableTarget"] == TARGET


def test_other_instances_that_do_not_scale_are_no_obstacle() -> None:
    gone = {"Error": "ApplicationAutoScaling.ObjectNotFoundException", "Cause": "No scalable target registered"}
    changed = deploy({"DescribeServingConfig": OTHER_INSTANCES}, {"DeregisterScalableTarget": gone})
    assert changed.path == [*BEGIN, "DeregisterScalableTarget", "UpdateEndpoint", "StartWaiting"]
    assert changed.end["failed"] == {}


def test_what_the_looks_ask_for_is_what_the_services_take() -> None:
    sent = deploy({"DescribeServingConfig": OTHER_INSTANCES}).parameters
    asked = {name: complaints(name, sent[name]) for name in [*LOOKED, "DeregisterScalableTarget"]}
    assert set(asked.values()) == {""}
    assert sent["DescribeServingConfig"] == {"EndpointConfigName": "kelpie-before"}
    assert sent["DescribeScalableTarget"]["ResourceIds"] == [TARGET["ResourceId"]]


@pytest.mark.parametrize("answers", [SCALES, {"DescribeScalableTarget": {}, "DescribeScalingPolicies": {}}])
def test_clean_up_gets_how_the_endpoint_scaled_before_as_aws_describes_it(answers: dict[str, Any]) -> None:
    failed = deploy(answers, {"UpdateEndpoint": ERROR})
    assert failed.path == [*BEGIN, "UpdateEndpoint", *WAY_BACK]
    state = failed.parameters["CleanUp"]["Payload"]["state"]
    target, policies = answers["DescribeScalableTarget"], answers["DescribeScalingPolicies"]
    assert state["scaling"] == {"target": target, "policies": policies}
    assert state["serving"]["config"]["variant"]["InstanceType"] == Config().hosting.instance_type
    assert state["settings"]["hosting"]["instance_type"] == Config().hosting.instance_type


@pytest.mark.parametrize("status", ["Updating", "SystemUpdating"])
def test_an_endpoint_that_is_just_changing_is_waited_for_a_bounded_time(status: str) -> None:
    """Automatic scaling changes it under load, which is no reason to throw a trained model away."""
    busy = deploy({"DescribeEndpoint": {**SERVING, "EndpointStatus": status}})
    lap = ["CountBusyLap", "WaitForBusyEndpoint", "DescribeEndpoint", "EndpointExists?"]
    assert busy.path == [*FOUND[:2], *lap * 3, "EndpointUnusable", *WAY_BACK]
    assert f"Endpoint kelpie is {status}" in busy.end["failed"]["DescribeEndpoint"]["Cause"]


# The way back


@pytest.mark.parametrize("where", ["DescribeScalingPolicies", "DeregisterScalableTarget"])
def test_a_failure_before_or_while_the_endpoint_is_asked_to_change_goes_back(where: str) -> None:
    failed = deploy({"DescribeServingConfig": OTHER_INSTANCES}, {where: ERROR})
    assert failed.path[-len(WAY_BACK) - 1 :] == [where, *WAY_BACK]
    assert failed.end["failed"] == {where: ERROR}


REPLACES = {"DescribeServingConfig": OTHER_INSTANCES, "DescribeEndpoint": SERVING}
WHERE_ELSE = {
    **dict.fromkeys(["DescribeServingConfig", "UpdateEndpoint"], ("DescribeEndpoint", REPLACES, {})),
    "DescribeLockOwner": ("AcquireLock", {}, HELD),
    "TakeOverLock": ("AcquireLock", {"DescribeLockOwner": {"Status": "ABORTED"}}, HELD),
}
"""Tasks that no first deployment comes to and that read what the states before them wrote: where to begin, how the
services answer, and what fails on the way there."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TASKS if STATES[name]["Catch"][-1]["Next"] == "CleanUp"])
def test_every_task_that_leads_back_hands_clean_up_its_error_and_ends_released_and_notified(name: str) -> None:
    start, answers, raises = WHERE_ELSE.get(name, (name, {}, {}))
    failed = run(answers, {**raises, name: ERROR}, start=start)
    assert failed.path[-len(WAY_BACK) - 1 :] == [name, *WAY_BACK]
    assert failed.end["failed"] == {name: ERROR}
    assert failed.parameters["CleanUp"]["Payload"]["state"]["failed"] == {name: ERROR}
    assert failed.parameters["NotifyFailure"]["Message"].endswith("failed. E: C")


def test_a_clean_up_that_is_not_done_is_called_again_with_its_own_answer() -> None:
    unfinished = {"Payload": {**canned("CleanUp")["Payload"], "done": False, "actions": ["half: done"]}}
    waited = deploy({"CleanUp": unfinished}, {"UpdateEndpoint": ERROR})
    again = ["CleanUp", "CleanedUp?", "CountCleanUpLap", "WaitForCleanUp"]
    began = waited.path.index("CleanUp")
    assert waited.path[began:] == [*again * 3, *again[:2], "CleanUpFailed", *WAY_BACK[2:]]
    assert waited.parameters["CleanUp"]["Payload"]["state"]["clean_up"]["actions"] == ["half: done"]
