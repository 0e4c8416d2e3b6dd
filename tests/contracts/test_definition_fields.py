"""Every field of every Task is in AWS's own service models; the optimised integrations get proven fields only."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from botocore.model import ListShape, MapShape, Shape, StructureShape
from botocore.session import Session

from workflow import definition
from workflow.config import Config

PROVEN: dict[str, dict[str, str]] = json.loads(
    Path(__file__).with_name("proven_fields.json").read_text(encoding="utf-8")
)["fields"]
SERVICES = {"applicationautoscaling": "application-autoscaling", "sfn": "stepfunctions"}
VPC = {"vpc": {"subnet_ids": ["subnet-1"], "security_group_ids": ["sg-1"]}}
UNPROVEN = {"unproven": {"retry_attempts": 3, "encrypt_inter_container_traffic": True}}
SESSION = Session()


@functools.cache
def built(settings: str) -> dict[str, dict[str, Any]]:
    states: dict[str, dict[str, Any]] = definition.build(Config.model_validate_json(settings))["States"]
    return states


def tasks(settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: state for name, state in built(json.dumps(settings)).items() if state["Type"] == "Task"}


def integration(task: dict[str, Any]) -> str:
    return str(task["Resource"]).partition(":states:::")[2]


def input_shape(task: dict[str, Any]) -> StructureShape:
    service, action = integration(task).removesuffix(".sync").split(":")[-2:]
    model = SESSION.get_service_model(SERVICES.get(service, service))
    return model.operation_model(action[0].upper() + action[1:]).input_shape  # type: ignore[no-any-return]


def faults(value: Any, shape: Shape, where: str) -> list[str]:
    """What does not fit: unknown and missing members, at every depth, and constants of the wrong type."""
    if isinstance(shape, StructureShape):
        if not isinstance(value, dict):
            return [f"{where}: expected an object, got {value!r}"]
        # Members are written in PascalCase, whatever the service calls them.
        members = {name[0].upper() + name[1:]: member for name, member in shape.members.items()}
        given = {key.removesuffix(".$"): (key, item) for key, item in value.items()}
        found = [f"{where}: {key} is unknown" for key in given if key not in members]
        required = {name[0].upper() + name[1:] for name in shape.required_members}
        found += [f"{where}: {key} is missing" for key in sorted(required - set(given))]
        for name, (key, item) in given.items():
            if name in members and not key.endswith(".$"):
                found += faults(item, members[name], f"{where}.{name}")
        return found
    if isinstance(shape, ListShape):
        return [fault for n, item in enumerate(value) for fault in faults(item, shape.member, f"{where}[{n}]")]
    if isinstance(shape, MapShape):
        return [
            fault
            for key, item in value.items()
            if not key.endswith(".$")
            for fault in faults(item, shape.value, f"{where}.{key}")
        ]
    expected = {
        "string": str,
        "boolean": bool,
        "integer": int,
        "long": int,
        "float": (int, float),
        "double": (int, float),
    }
    if shape.type_name in expected and not isinstance(value, expected[shape.type_name]):  # type: ignore[arg-type]
        return [f"{where}: {value!r} is no {shape.type_name}"]
    if getattr(shape, "enum", None) and value not in shape.enum:
        return [f"{where}: {value!r} is none of {shape.enum}"]
    return []


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
        fields = {key.removesuffix(".$") for key in task["Parameters"]}
        assert fields - set(PROVEN[integration(task)]) == set(), name


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
