"""Every field of every Task is in AWS's own service models; the optimised integrations get proven fields only."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest

from workflow import definition
from workflow.config import Config
from workflow.preflight.tasks import faults, input_shape, integration, proven_fields, unproven

PROVEN = proven_fields()
VPC = {"vpc": {"subnet_ids": ["subnet-1"], "security_group_ids": ["sg-1"]}}
UNPROVEN = {"unproven": {"retry_attempts": 3, "encrypt_inter_container_traffic": True}}


@functools.cache
def built(settings: str) -> dict[str, dict[str, Any]]:
    states: dict[str, dict[str, Any]] = definition.build(Config.model_validate_json(settings))["States"]
    return states


def tasks(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: state for name, state in built(json.dumps(settings)).items() if state["Type"] == "Task"}


@pytest.mark.parametrize("settings", [{}, VPC, UNPROVEN], ids=["default", "vpc", "unproven"])
def test_every_field_of_every_task_is_in_the_service_model(settings: dict[str, Any]) -> None:
    for name, task in tasks(settings).items():
        assert faults(task["Parameters"], input_shape(task), name) == []


def test_the_check_sees_misspelt_missing_and_mistyped_fields() -> None:
    train = tasks({})["Train"]
    broken = json.loads(json.dumps(train["Parameters"]))
    broken["StoppingCondition"]["MaxWaitSeconds"] = 1
    del broken["RoleArn"]
    broken["ResourceConfig"]["InstanceCount"] = "two"
    broken["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3DataType"] = "Folder"
    found = "; ".join(faults(broken, input_shape(train), "Train"))
    assert "StoppingCondition: MaxWaitSeconds is unknown" in found
    assert "Train: RoleArn is missing" in found
    assert "InstanceCount: 'two' is no integer" in found
    assert "S3DataType: 'Folder' is none of" in found


def test_the_traffic_that_update_endpoint_reads_from_the_state_is_in_the_service_model_too() -> None:
    states = built("{}")
    shape: Any = input_shape(states["UpdateEndpoint"])
    for member in ("DeploymentConfig", "BlueGreenUpdatePolicy", "TrafficRoutingConfiguration"):
        shape = shape.members[member]
    for name in ("ShiftOneInstanceFirst", "ShiftAllAtOnce"):
        assert faults(states[name]["Result"], shape, name) == []


@pytest.mark.parametrize("settings", [{}, VPC], ids=["default", "vpc"])
def test_optimised_integrations_get_proven_fields_only(settings: dict[str, Any]) -> None:
    optimised = {name: task for name, task in tasks(settings).items() if "aws-sdk" not in task["Resource"]}
    assert len(optimised) > 10
    for name, task in optimised.items():
        assert unproven(task) == set(), name
        assert PROVEN[integration(task)], name


def test_an_unproven_field_would_be_noticed() -> None:
    found = {field for task in tasks(UNPROVEN).values() for field in unproven(task)}
    assert found == {"RetryStrategy", "EnableInterContainerTrafficEncryption"}


def test_unproven_fields_are_rendered_only_when_they_are_switched_on() -> None:
    unproven = {"RetryStrategy", "EnableInterContainerTrafficEncryption"}
    for state in ("Train", "TrainOnDemand"):
        assert not unproven & set(tasks({})[state]["Parameters"])
        assert unproven <= set(tasks(UNPROVEN)[state]["Parameters"])
        assert not unproven & set(PROVEN["sagemaker:createTrainingJob.sync"])


def test_tags_have_a_key_and_a_value() -> None:
    tagged = [task["Parameters"]["Tags"] for task in tasks({}).values() if "Tags" in task["Parameters"]]
    assert len(tagged) >= 5
    for tag in (tag for tags in tagged for tag in tags):
        assert {key.removesuffix(".$") for key in tag} == {"Key", "Value"}


def test_a_versioned_model_package_has_no_tags_of_its_own() -> None:
    """SageMaker refuses them: a version takes the tags of its group. Source: API reference, CreateModelPackage."""
    assert "Tags" not in tasks({})["RegisterVersion"]["Parameters"]
