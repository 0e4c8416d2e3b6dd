"""Every Task of the rendered definition may do what it does, on the resource that it names: no account is needed."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import pytest
from authorized_requests import asked_by
from policy_mutations import World
from stack_policies import ACCOUNT_ID, REGION, Stack

from workflow import definition
from workflow.config import Config
from workflow.local.actions import Account, Need, needs

RUN = "0" * 32
SAGEMAKER = f"arn:aws:sagemaker:{REGION}:{ACCOUNT_ID}"
AT_RUN_TIME = {
    "TrainingJobName": f"kelpie-{RUN}-0",
    "ModelName": f"kelpie-{RUN}",
    "EndpointConfigName": f"kelpie-{RUN}",
    "EndpointName": "kelpie",
    "ModelPackageArn": f"{SAGEMAKER}:model-package/kelpie/1",
    "ModelPackageName": f"{SAGEMAKER}:model-package/kelpie/1",
    "ExecutionArn": f"arn:aws:states:{REGION}:{ACCOUNT_ID}:execution:kelpie:{RUN}",
    "CopySource": f"ArtifactBucket/runs/{RUN}/output/kelpie-{RUN}-0/output/model.tar.gz",
    "Value": RUN,
}
"""What the parameters that an execution computes become; only those that name resources or tags matter here."""
SERVICES = {"applicationautoscaling": "application-autoscaling", "sfn": "stepfunctions"}
STARTED_BY_STEP_FUNCTIONS = {"Key": "MANAGED_BY_AWS", "Value": "STARTED_BY_STEP_FUNCTIONS"}
JOB_EVENTS = f"arn:aws:events:{REGION}:{ACCOUNT_ID}:rule/StepFunctionsGetEventsForSageMakerTrainingJobsRule"


@cache
def stack() -> Stack:
    return Stack()


@cache
def world() -> World:
    return World.of(stack())


@cache
def tasks() -> dict[str, dict[str, Any]]:
    """The Tasks, with what stack.yaml puts in the place of `${Name}`."""
    properties = stack().resources["StateMachine"]["Properties"]
    values = {name: str(stack().resolve(value)) for name, value in properties["DefinitionSubstitutions"].items()}
    rendered = re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], definition.render(Config()))
    return {name: state for name, state in json.loads(rendered)["States"].items() if state["Type"] == "Task"}


def computed(value: Any, name: str = "") -> Any:
    """Parameters as the service gets them."""
    if isinstance(value, dict):
        return {key.removesuffix(".$"): computed(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return [computed(one, name) for one in value]
    return AT_RUN_TIME.get(name.removesuffix(".$"), "?") if name.endswith(".$") else value


def asked_for(state: dict[str, Any]) -> list[Need]:
    """What a Task asks for: the permissions of its request, and those by which Step Functions follows a job."""
    called = state["Resource"].partition(":states:::")[2]
    service, action = called.removeprefix("aws-sdk:").removesuffix(".sync").split(":")
    service, operation = SERVICES.get(service, service), action[0].upper() + action[1:]
    parameters = computed(state.get("Parameters", {}))
    account = Account(ACCOUNT_ID, REGION)
    if "Tags" in parameters:
        parameters["Tags"].append(STARTED_BY_STEP_FUNCTIONS)
    if service == "stepfunctions":
        parameters = {name[0].lower() + name[1:]: value for name, value in parameters.items()}
    found = needs(service, operation, parameters, account)
    if called.endswith(".sync"):
        for follow_up in ("DescribeTrainingJob", "StopTrainingJob"):
            found += needs(service, follow_up, parameters, account)
        found += [Need(f"events:{name}", JOB_EVENTS) for name in ("PutRule", "PutTargets", "DescribeRule")]
    return found


@pytest.mark.parametrize("name", sorted(tasks()))
def test_a_task_may_do_what_it_does_on_the_resource_that_it_names(name: str) -> None:
    asked = asked_for(tasks()[name])
    assert asked
    for need in asked:
        assert "?" not in need.resource, f"{need}: say in AT_RUN_TIME what it is when the Task runs"
        assert world().allows(asked_by("StateMachineRole", need.action, need.resource, need.context)), need


WIDER = {
    "cloudwatch:PutMetricAlarm": "target tracking names its alarms itself: every alarm named TargetTracking-",
    "cloudwatch:DescribeAlarms": "the same",
}
"""Actions that the role may do on what is not the project's."""
OWN = re.compile("kelpie|LockTable|NotificationTopic|ArtifactBucket|TrainingRole|HostingRole")


@pytest.mark.parametrize("name", sorted(tasks()))
def test_a_task_may_do_it_on_no_other_project_s_resource(name: str) -> None:
    for need in asked_for(tasks()[name]):
        other = OWN.sub("strange", need.resource)
        if other != need.resource:
            allowed = world().allows(asked_by("StateMachineRole", need.action, other, need.context))
            assert allowed is (need.action in WIDER), (need, other)


@pytest.mark.parametrize(
    ("role", "action", "kind", "attempt"),
    [
        ("StateMachineRole", "CreateModel", "model", ""),
        ("StateMachineRole", "UpdateEndpoint", "endpoint-config", ""),
        ("StateMachineRole", "StopTrainingJob", "training-job", "-0"),
        ("CleanUpRole", "StopTrainingJob", "training-job", "-1"),
        ("CleanUpRole", "UpdateEndpoint", "endpoint-config", ""),
        ("CleanUpRole", "DeleteEndpointConfig", "endpoint-config", ""),
        ("CleanUpRole", "DeleteModel", "model", ""),
        ("PruneVersionsRole", "DescribeModel", "model", ""),
        ("PruneVersionsRole", "DeleteEndpointConfig", "endpoint-config", ""),
        ("PruneVersionsRole", "DeleteModel", "model", ""),
    ],
)
def test_a_project_whose_name_begins_with_this_one_s_is_another_project(
    role: str, action: str, kind: str, attempt: str
) -> None:
    for project, allowed in (("kelpie", True), ("kelpie-2", False)):
        resource = f"{SAGEMAKER}:{kind}/{project}-{RUN}{attempt}"
        assert world().allows(asked_by(role, f"sagemaker:{action}", resource, {})) is allowed, resource


@pytest.mark.parametrize("role", ["StateMachineRole", "CleanUpRole"])
def test_only_endpoints_are_scaled(role: str) -> None:
    targets = f"arn:aws:application-autoscaling:{REGION}:{ACCOUNT_ID}:scalable-target/*"
    for namespace, allowed in (("sagemaker", True), ("lambda", False)):
        context = {"application-autoscaling:service-namespace": namespace}
        asked = asked_by(role, "application-autoscaling:DeregisterScalableTarget", targets, context)
        assert world().allows(asked) is allowed, namespace
