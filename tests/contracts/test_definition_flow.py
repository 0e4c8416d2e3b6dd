"""What flows through the state machine: it runs in moto's ASL interpreter with canned results for its Tasks.

Every Task becomes Pass states, so every path and intrinsic of its Parameters and its ResultSelector is evaluated, and
the parameters that come out are what a service would get: botocore's validator checks them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import time
import uuid
from typing import Any

import boto3
import pytest
from botocore.session import Session
from botocore.validate import ParamValidator
from moto import mock_aws
from moto.core.config import default_user_config

from workflow import definition, names
from workflow.config import Config

ASL = definition.build(Config())
WAITING_ASL = definition.build(Config.model_validate({"lock": {"when_held": "wait"}}))
STATES: dict[str, dict[str, Any]] = ASL["States"]
TASKS = {name: state for name, state in STATES.items() if state["Type"] == "Task"}


def canned(state: str) -> Any:
    """What the service answers; the shape is the service's own."""
    answers: dict[str, Any] = {
        "ResolveInput": {"Payload": defaults()},
        "CheckData": {
            "Payload": {
                "s3_uri": "s3://data/datasets/default/",
                "layout": "flat",
                "class_count": 10,
                "image_count": 1500,
                "total_bytes": 1,
                "manifest_sha256": "ab" * 32,
                "warnings": [],
            }
        },
        "Train": {"TrainingJobStatus": "Completed", "SecondaryStatus": "Completed"},
        "TrainOnDemand": {"TrainingJobStatus": "Completed", "SecondaryStatus": "Completed"},
        "QualityGate": {
            "Payload": {
                "passed": True,
                "reason": "",
                "test_accuracy": 0.95,
                "champion_test_accuracy": None,
                "comparable": False,
            }
        },
        "RegisterVersion": {"ModelPackageArn": "arn:aws:sagemaker:us-east-1:123456789012:model-package/kelpie/1"},
        "DescribeEndpoint": {"Error": "SageMaker.SageMakerException", "Cause": NOT_FOUND},
        "DescribeServingConfig": {"ProductionVariants": [{"InstanceType": Config().hosting.instance_type}]},
        "DescribeScalableTarget": {"ScalableTargets": []},
        "DescribeScalingPolicies": {"ScalingPolicies": []},
        "DescribeDeployment": {"EndpointStatus": "InService", "EndpointConfigName": "set by run()"},
        "SmokeTest": {
            "Payload": {"accuracy": 1.0, "picture_count": 20, "latency_ms": {"p50": 1, "max": 2}, "predictions": []}
        },
        "PruneOldVersions": {"Payload": {"deleted": [], "kept": [], "deleted_names": []}},
        "CleanUp": {"Payload": {"done": True, "error": "E", "cause": "C", "actions": []}},
        "ReadLock": {"Item": {"pk": {"S": "kelpie"}, "owner": {"S": OTHER_EXECUTION}}},
        "DescribeLockOwner": {"Status": "RUNNING"},
    }
    return answers.get(state, {})


LAPS = '"NumericLessThan": 3'
"""Loops end sooner here; that they end at all is what matters."""

NOT_FOUND = 'Could not find endpoint "arn:aws:sagemaker:us-east-1:123456789012:endpoint/kelpie". (Service: SageMaker)'
OTHER_EXECUTION = "arn:aws:states:us-east-1:123456789012:execution:kelpie:other"
ACCOUNT_VALUES = {
    "Partition": "aws",
    "Region": "us-east-1",
    "AccountId": "123456789012",
    "KmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/k",
    "TrainingRoleArn": "arn:aws:iam::123456789012:role/training",
    "HostingRoleArn": "arn:aws:iam::123456789012:role/hosting",
}


def defaults() -> dict[str, Any]:
    return json.loads(substituted(json.dumps(Config().defaults())))


def substituted(text: str) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda found: ACCOUNT_VALUES.get(found[1], found[1].lower()), text)


@functools.cache
def without_tasks(machine: str, start: str, stop: str) -> str:
    """The machine with each Task as Pass states: its parameters, its raw result, its selected result.

    What a Task answers or raises is found in the execution's input, `{"given", "answers", "raises"}`: parsing a machine
    takes the interpreter longer than running it, so one text serves many tests. Only the states from `start` to `stop`
    are kept.
    """
    text = substituted(machine).replace('"$$.Execution.Input"', '"$$.Execution.Input.given"')
    asl = json.loads(re.sub(r'"NumericLessThan": \d+', LAPS, text))
    asl.pop("TimeoutSeconds")
    states: dict[str, Any] = {"Given: start": {"Type": "Pass", "InputPath": "$.given", "Next": start}}
    for name, state in asl["States"].items():
        if name == stop:
            states[name] = {"Type": "Succeed"}
        elif state["Type"] == "Wait":
            states[name] = {"Type": "Pass", "Next": state["Next"]}
        elif state["Type"] == "Fail":
            states[name] = {"Type": "Pass", "End": True}
        elif state["Type"] == "Task":
            states |= _without_task(name, state)
        else:
            states[name] = state
    kept = {name: states[name] for name in reached(states, "Given: start")}
    return json.dumps({**asl, "StartAt": "Given: start", "States": kept})


def _without_task(name: str, task: dict[str, Any]) -> dict[str, Any]:
    raised = f"$$.Execution.Input.raises.{name}"
    ways_out: dict[str, Any] = {}
    rules: list[dict[str, Any]] = []
    for number, catch in enumerate(task["Catch"]):
        way_out = f"{name}: catch {number}"
        ways_out[way_out] = {
            "Type": "Pass",
            "InputPath": raised,
            "ResultPath": catch["ResultPath"],
            "Next": catch["Next"],
        }
        for error in catch["ErrorEquals"]:
            of_this_name = [] if error == "States.ALL" else [{"Variable": f"{raised}.Error", "StringEquals": error}]
            rules.append({"And": [{"Variable": raised, "IsPresent": True}, *of_this_name], "Next": way_out})
    selector = {"Parameters": task["ResultSelector"]} if "ResultSelector" in task else {}
    return {
        name: {
            "Type": "Pass",
            "Parameters": task["Parameters"],
            "ResultPath": "$.parameters",
            "Next": f"{name}: outcome",
        },
        f"{name}: outcome": {"Type": "Choice", "Choices": rules, "Default": f"{name}: answer"},
        **ways_out,
        f"{name}: answer": {
            "Type": "Pass",
            "InputPath": f"$$.Execution.Input.answers.{name}",
            "ResultPath": "$.answer",
            "Next": f"{name}: result",
        },
        f"{name}: result": {
            "Type": "Pass",
            "InputPath": "$.answer",
            **selector,
            "ResultPath": task.get("ResultPath", "$"),
            "Next": task["Next"],
        },
    }


def reached(states: dict[str, Any], start: str) -> list[str]:
    found: list[str] = []
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.append(name)
            waiting += re.findall(r'"(?:Next|Default)": "([^"]+)"', json.dumps(states[name]))
    return found


class Run:
    """One execution: the states that it went through, the parameters of its Tasks, and the state data at the end."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        entered = [event["stateEnteredEventDetails"] for event in events if "stateEnteredEventDetails" in event]
        exited = [event["stateExitedEventDetails"] for event in events if "stateExitedEventDetails" in event]
        self.data_at = {state["name"]: json.loads(state["input"]) for state in entered}
        self.path = [state["name"] for state in entered if ": " not in state["name"]]
        self.parameters = {
            state["name"]: json.loads(state["output"])["parameters"] for state in exited if state["name"] in TASKS
        }
        self.end: dict[str, Any] = json.loads(exited[-1]["output"])


@functools.cache
def step_functions() -> Any:
    """One client for all: reading its model takes longer than most executions here."""
    session = boto3.Session(aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1")
    return session.client("stepfunctions")


def run(
    answers: dict[str, Any] | None = None,
    raises: dict[str, dict[str, str]] | None = None,
    *,
    name: str = "11111111-2222-3333-4444-555555555555",
    input_text: str = "{}",
    start: str = "KeepInput",
    stop: str = "",
    machine: dict[str, Any] = ASL,
) -> Run:
    arn = f"arn:aws:states:us-east-1:123456789012:execution:kelpie:{name}"
    config = f"kelpie-{hashlib.md5(arn.encode(), usedforsecurity=False).hexdigest()}"
    serving = {"DescribeDeployment": {"EndpointStatus": "InService", "EndpointConfigName": config}}
    asl = without_tasks(json.dumps(machine), start, stop)
    if start != "KeepInput" and input_text == "{}":
        data_at = first_deployment().data_at
        input_text = json.dumps(data_at[start] if start in data_at else data_at["Train"])
    with mock_aws(config={**default_user_config, "stepfunctions": {"execute_state_machine": True}}):
        client = step_functions()
        machine_arn = client.create_state_machine(
            name="kelpie", definition=asl, roleArn=ACCOUNT_VALUES["TrainingRoleArn"]
        )["stateMachineArn"]
        given = {
            "given": json.loads(input_text),
            "answers": {task: canned(task) for task in TASKS} | serving | (answers or {}),
            "raises": raises or {},
        }
        execution = client.start_execution(stateMachineArn=machine_arn, name=name, input=json.dumps(given))[
            "executionArn"
        ]
        while (status := client.describe_execution(executionArn=execution))["status"] == "RUNNING":
            time.sleep(0.01)
        assert status["status"] == "SUCCEEDED", status
        return Run(client.get_execution_history(executionArn=execution)["events"])


# The paths

SETTLE = ["KeepInput", "ResolveInput", "NameResources", "LimitTraining"]
FIRST_DEPLOYMENT = [
    *SETTLE,
    *("AcquireLock", "RollBack?", "CheckData", "ReadServing", "ChampionKnown?", "NoChampionYet"),
    *("FingerprintTraining", "ResumeTraining?", "UseSpot?", "Train", "SpotTrainingCompleted?", "NameArtifacts"),
    *("QualityGate", "PassedQualityGate?", "RegisterVersion", "CreateModel", "CreateEndpointConfig"),
    *("StartLooking", "DescribeEndpoint", "EndpointExists?", "NoEndpointYet", "CreateEndpoint"),
    *("StartWaiting", "WaitForEndpoint", "DescribeDeployment", "EndpointSettled?", "ServingNewConfig?"),
    *("RegisterScalableTarget", "PutScalingPolicy", "SmokeTest", "RecordServing", "ApproveVersion", "KeepChampion"),
    *("PruneOldVersions", "ReleaseLock", "NotifySuccess", "Succeeded"),
]
WAY_BACK = ["CleanUp", "CleanedUp?", "ReleaseLockAfterFailure", "NotifyFailure", "ExecutionFailed"]
SERVING = {
    "EndpointStatus": "InService",
    "EndpointConfigName": "kelpie-before",
    "ProductionVariants": [{"VariantName": "AllTraffic", "CurrentInstanceCount": 1}],
}


@functools.cache
def first_deployment() -> Run:
    return run()


@functools.cache
def update() -> Run:
    return run({"DescribeEndpoint": SERVING}, start="DescribeEndpoint")


def train_with(**training: Any) -> Run:
    changed = defaults()
    changed["training"] |= training
    return run({"ResolveInput": {"Payload": changed}}, stop="NameArtifacts")


def test_the_first_execution_creates_the_endpoint() -> None:
    assert first_deployment().path == FIRST_DEPLOYMENT
    assert first_deployment().end["endpoint"] == {"exists": False, "EndpointConfigName": ""}


def test_a_later_execution_updates_the_endpoint_and_remembers_what_served() -> None:
    assert "CreateEndpoint" not in update().path
    assert update().path[-1] == "Succeeded"
    assert update().end["endpoint"]["exists"] is True
    item = update().parameters["RecordServing"]["Item"]
    assert item["previous_endpoint_config"] == {"S": "kelpie-before"}
    assert update().parameters["UpdateEndpoint"]["RetainAllVariantProperties"] is True


@pytest.mark.parametrize(("variant", "routing"), [({"CurrentInstanceCount": 2}, "CANARY"), ({}, "ALL_AT_ONCE")])
def test_a_canary_needs_two_instances(variant: dict[str, Any], routing: str) -> None:
    answers = {"DescribeEndpoint": SERVING | {"ProductionVariants": [variant]}}
    sent = run(answers, start="DescribeEndpoint", stop="StartWaiting").parameters["UpdateEndpoint"]
    assert sent["DeploymentConfig"]["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]["Type"] == routing
    assert complaints("UpdateEndpoint", sent) == ""


def complaints(name: str, parameters: dict[str, Any]) -> str:
    """What botocore has against the parameters of a Task."""
    service, action = re.sub(r"\.sync$", "", TASKS[name]["Resource"]).split(":")[-2:]
    model = Session().get_service_model(
        {"applicationautoscaling": "application-autoscaling", "sfn": "stepfunctions"}.get(service, service)
    )
    operation = model.operation_model(action[0].upper() + action[1:])
    report = ParamValidator().validate(parameters, operation.input_shape)
    return str(report.generate_report())


@pytest.mark.parametrize("answered", [first_deployment, update], ids=["create", "update"])
def test_every_service_accepts_the_parameters_that_it_gets(answered: Any) -> None:
    sent = {name: value for name, value in answered().parameters.items() if "Payload" not in value}
    assert len(sent) >= 9
    assert {name: complaints(name, value) for name, value in sent.items()} == dict.fromkeys(sent, "")


def test_hyperparameters_are_strings() -> None:
    sent = first_deployment().parameters["Train"]["HyperParameters"]
    assert {type(value) for value in sent.values()} == {str}
    assert sent["epochs"] == str(Config().training.epochs)
    assert sent["learning-rate"] == str(Config().training.learning_rate)


def test_the_wait_for_spot_comes_on_top_of_the_run_time() -> None:
    started = train_with(max_runtime_seconds=100, max_spot_wait_seconds=60)
    stopping = started.parameters["Train"]["StoppingCondition"]
    assert stopping == {"MaxRuntimeInSeconds": 100, "MaxWaitTimeInSeconds": 160}
    assert started.end["limits"]["spot_seconds"] > 160


def test_without_spot_training_runs_on_demand_and_does_not_wait() -> None:
    started = train_with(managed_spot=False)
    assert "Train" not in started.path
    sent = started.parameters["TrainOnDemand"]
    assert "MaxWaitTimeInSeconds" not in sent["StoppingCondition"]
    assert "EnableManagedSpotTraining" not in sent
    assert complaints("TrainOnDemand", sent) == ""


def test_the_functions_get_the_events_that_they_document() -> None:
    events = {name: sent["Payload"] for name, sent in first_deployment().parameters.items() if "Payload" in sent}
    assert {name: set(event) for name, event in events.items()} == {
        "ResolveInput": {"input", "defaults"},
        "CheckData": {"s3_uri"},
        "QualityGate": {"training_job", "gate"},
        "SmokeTest": {"endpoint_name", "evidence_s3_uri", "min_accuracy", "max_latency_ms"},
        "PruneOldVersions": {"project", "model_package_group", "endpoint_name", "versions_to_keep"},
    }


@pytest.mark.parametrize("input_text", ['{"Comment": "Insert your JSON here"}', '"text"', '{"failed": 3}'])
def test_any_input_reaches_resolve_input_as_it_is(input_text: str) -> None:
    refused = {"ResolveInput": {"Error": "InvalidInput", "Cause": "no"}}
    failed = run(input_text=input_text, raises=refused, stop="NameResources")
    assert failed.parameters["ResolveInput"]["Payload"]["input"] == json.loads(input_text)
    assert failed.path == ["KeepInput", "ResolveInput", *WAY_BACK]
    assert failed.parameters["CleanUp"]["Payload"]["state"]["failed"] == refused


def test_checkpoints_lie_where_they_expire_and_what_a_run_leaves_behind_lies_elsewhere() -> None:
    sent = first_deployment().parameters["Train"]
    run_id = first_deployment().end["names"]["run"]
    assert sent["CheckpointConfig"]["S3Uri"] == f"s3://artifactbucket/checkpoints/{run_id}/"
    assert sent["OutputDataConfig"]["S3OutputPath"] == f"s3://artifactbucket/runs/{run_id}/output"


@pytest.mark.parametrize("name", [f"{uuid.UUID(int=8)}_{uuid.UUID(int=9)}", "x" * 80, "Kräuter!(1)"])
def test_an_execution_of_any_name_makes_legal_names(name: str) -> None:
    started = run(name=name, stop="NameArtifacts")
    made = [started.end["names"][key] for key in ("model", "endpoint_config", "endpoint")]
    made.append(started.parameters["Train"]["TrainingJobName"])
    assert [one for one in made if not names.is_sagemaker_name(one)] == []
    assert len(set(made)) == 3


# What goes wrong


@pytest.mark.parametrize("where", ["CheckData", "CreateModel", "PutScalingPolicy", "RecordServing"])
def test_a_failing_task_ends_on_the_way_back(where: str) -> None:
    error = {"Error": "Some.Error", "Cause": "because"}
    failed = run(raises={where: error}, start=where)
    assert failed.path == [where, *WAY_BACK]
    assert failed.end["failed"] == {where: error}


AFTER_PROMOTION = ["ApproveVersion", "KeepChampion", "PruneOldVersions", "ReleaseLock", "NotifySuccess"]


@pytest.mark.parametrize("where", AFTER_PROMOTION)
def test_a_failure_after_promotion_is_a_warning(where: str) -> None:
    error = {"Error": "Some.Error", "Cause": "because"}
    warned = run(raises={where: error}, start="ApproveVersion")
    assert warned.path == [*AFTER_PROMOTION, "Succeeded"]
    assert warned.end["warnings"] == {where: error}
    assert warned.end["failed"] == {}


def test_a_model_that_is_taken_back_was_neither_approved_nor_champion() -> None:
    refused = run(raises={"RecordServing": {"Error": "States.Timeout"}}, start="SmokeTest")
    assert refused.path == ["SmokeTest", "RecordServing", *WAY_BACK]


STOPPED = {"TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxWaitTimeExceeded"}
REFUSED = {"Payload": {**canned("QualityGate")["Payload"], "passed": False, "reason": "too bad"}}
DENIED = {"Error": "SageMaker.SageMakerException", "Cause": "not authorized"}


@pytest.mark.parametrize(
    ("state", "answer", "stop", "where", "error"),
    [
        ("TrainOnDemand", STOPPED, "NameArtifacts", "Train", "TrainingNotCompleted"),
        ("Train", {}, "NameArtifacts", "Train", "TrainingNotCompleted"),
        ("QualityGate", REFUSED, "CreateModel", "QualityGate", "QualityGateRefused"),
        ("DescribeEndpoint", {**SERVING, "EndpointStatus": "Updating"}, "UpdateEndpoint", "", "EndpointUnusable"),
        ("DescribeEndpoint", {**SERVING, "EndpointStatus": "Failed"}, "UpdateEndpoint", "", "EndpointUnusable"),
        ("DescribeEndpoint", {"Error": "States.Timeout"}, "CreateEndpoint", "", "States.Timeout"),
        ("DescribeEndpoint", DENIED, "CreateEndpoint", "", DENIED["Error"]),
        ("DescribeDeployment", {"EndpointStatus": "Failed"}, "SmokeTest", "WaitForEndpoint", "EndpointNotReady"),
        ("DescribeDeployment", {"EndpointStatus": "Creating"}, "SmokeTest", "WaitForEndpoint", "EndpointNotReady"),
        ("DescribeDeployment", SERVING, "SmokeTest", "UpdateEndpoint", "UpdateRolledBack"),
        ("DescribeDeployment", {"EndpointStatus": "InService"}, "SmokeTest", "UpdateEndpoint", "UpdateRolledBack"),
    ],
)
def test_what_no_task_raises_is_named_too(
    state: str, answer: dict[str, Any], stop: str, where: str, error: str
) -> None:
    failed = run({state: answer}, start="StartWaiting" if state == "DescribeDeployment" else state, stop=stop)
    assert failed.path[-len(WAY_BACK) :] == WAY_BACK
    assert failed.end["failed"][where or state]["Error"] == error


# No spot capacity

FALLEN_BACK = ["NoteFallBack", "ForgetFailure", "NextAttempt", "TrainOnDemand", "TrainingCompleted?", "NameArtifacts"]
GENERIC_ERRORS = ("States.TaskFailed", "SageMaker.AmazonSageMakerException", "SageMaker.SageMakerException")
NO_CAPACITY = {
    "TrainingJobStatus": "Failed",
    "SecondaryStatus": "Failed",
    "FailureReason": "CapacityError: Unable to provision requested ML compute capacity.",
}
LEFT_TO_ITSELF = [
    {"TrainingJobStatus": "Stopped", "SecondaryStatus": "Stopped"},
    {"TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxRuntimeExceeded"},
    {**NO_CAPACITY, "FailureReason": "AlgorithmError: no CapacityError, but a broken picture"},
    {"TrainingJobStatus": "Failed", "SecondaryStatus": "Failed"},
]


def train_ending(job: dict[str, Any], error: str = "") -> Run:
    """A spot job that ends like this; `.sync` raises the error, or returns the job when there is none."""
    raises = {"Train": {"Error": error, "Cause": "cut off"}} if error else {}
    return run({"Train": job, "DescribeSpotTraining": job}, raises, start="Train", stop="QualityGate")


@pytest.mark.parametrize("error", GENERIC_ERRORS)
@pytest.mark.parametrize("job", [STOPPED, NO_CAPACITY], ids=["waited too long", "no capacity"])
def test_without_spot_capacity_training_goes_on_on_demand(job: dict[str, Any], error: str) -> None:
    trained = train_ending(job, error)
    looked = ["Train", "DescribeSpotTraining", "SpotTrainingCompleted?"]
    assert trained.path == [*looked, *FALLEN_BACK, "QualityGate"]
    assert trained.parameters["DescribeSpotTraining"] == {
        "TrainingJobName": trained.parameters["Train"]["TrainingJobName"]
    }


def test_a_job_that_waited_too_long_falls_back_also_where_stopped_is_a_success() -> None:
    trained = train_ending(STOPPED)
    assert trained.path == ["Train", "SpotTrainingCompleted?", *FALLEN_BACK, "QualityGate"]
    assert "no spot capacity" in trained.end["warnings"]["Train"]["Cause"]
    assert trained.end["failed"] == {}


def test_the_job_on_demand_has_another_name_the_same_checkpoints_and_no_wait() -> None:
    trained = train_ending(NO_CAPACITY, "States.TaskFailed")
    spot, on_demand = trained.parameters["Train"], trained.parameters["TrainOnDemand"]
    base = trained.end["names"]["training_job"]
    assert (spot["TrainingJobName"], on_demand["TrainingJobName"]) == (f"{base}-0", f"{base}-1")
    assert trained.end["artifacts"]["model_s3_uri"].endswith(f"/{base}-1/output/model.tar.gz")
    differing = {key for key in spot | on_demand if spot.get(key) != on_demand.get(key)}
    assert differing == {"TrainingJobName", "StoppingCondition", "EnableManagedSpotTraining"}
    assert "MaxWaitTimeInSeconds" not in on_demand["StoppingCondition"]
    assert complaints("TrainOnDemand", on_demand) == ""


@pytest.mark.parametrize("error", GENERIC_ERRORS)
@pytest.mark.parametrize("job", LEFT_TO_ITSELF)
def test_what_is_no_lack_of_capacity_does_not_fall_back(job: dict[str, Any], error: str) -> None:
    failed = train_ending(job, error)
    looked = ["Train", "DescribeSpotTraining", "SpotTrainingCompleted?", "SpotTrainingFailed"]
    assert failed.path == [*looked, *WAY_BACK]
    assert failed.end["failed"] == {"Train": {"Error": error, "Cause": "cut off"}}


@pytest.mark.parametrize("job", LEFT_TO_ITSELF[:2])
def test_a_job_that_was_stopped_does_not_fall_back_where_stopped_is_a_success(job: dict[str, Any]) -> None:
    failed = train_ending(job)
    assert failed.path == ["Train", "SpotTrainingCompleted?", "TrainingNotCompleted", *WAY_BACK]
    assert failed.end["failed"]["Train"]["Error"] == "TrainingNotCompleted"


def test_a_job_that_was_never_created_fails_with_its_own_cause() -> None:
    refused = {"Error": "SageMaker.ResourceLimitExceededException", "Cause": "your quota is 0"}
    missing = {"Error": "SageMaker.SageMakerException", "Cause": "Requested resource not found."}
    failed = run(raises={"Train": refused, "DescribeSpotTraining": missing}, start="Train", stop="QualityGate")
    assert failed.path[2:] == ["SpotTrainingCompleted?", "SpotTrainingFailed", *WAY_BACK]
    assert failed.end["failed"] == {"Train": refused}


def test_training_on_demand_that_lacks_capacity_too_fails_with_that_cause() -> None:
    error = {"Error": "States.TaskFailed", "Cause": "CapacityError: none"}
    failed = run({"Train": STOPPED}, raises={"TrainOnDemand": error}, start="Train", stop="QualityGate")
    assert failed.path == ["Train", "SpotTrainingCompleted?", *FALLEN_BACK[:4], *WAY_BACK]
    assert failed.end["failed"] == {"TrainOnDemand": error}


def test_a_clean_up_that_is_never_done_ends_and_says_so() -> None:
    endless = run(
        {"CleanUp": {"Payload": {**canned("CleanUp")["Payload"], "done": False}}},
        raises={"CheckData": {"Error": "InvalidData", "Cause": "no pictures"}},
        start="CheckData",
    )
    assert endless.path.count("CleanUp") == 4
    assert endless.path[-4:] == ["CleanUpFailed", *WAY_BACK[2:]]
    assert "no pictures" in endless.end["clean_up"]["cause"]


def test_a_clean_up_that_fails_still_notifies() -> None:
    failed = run(raises={"CheckData": {"Error": "E"}, "CleanUp": {"Error": "States.Timeout"}}, start="CheckData")
    assert failed.path[-5:] == ["CleanUp", "CleanUpFailed", *WAY_BACK[2:]]


# The lock

HELD = {"AcquireLock": {"Error": "DynamoDB.ConditionalCheckFailedException", "Cause": "held"}}


def lock(answers: dict[str, Any] | None = None, raises: dict[str, dict[str, str]] | None = None) -> Run:
    return run(answers, HELD | (raises or {}), start="AcquireLock", stop="RollBack?")


def test_an_execution_gives_way_to_one_that_runs_and_names_it() -> None:
    refused = lock()
    asked = ["AcquireLock", "ReadLock", "LockStillHeld?", "DescribeLockOwner", "LockOwnerRunning?"]
    assert refused.path == [*asked, "LockHeld", *WAY_BACK]
    assert refused.end["failed"]["AcquireLock"]["Error"] == "LockHeld"
    assert OTHER_EXECUTION in refused.end["failed"]["AcquireLock"]["Cause"]


@pytest.mark.parametrize("status", ["ABORTED", "TIMED_OUT", "FAILED", "SUCCEEDED"])
def test_the_lock_of_an_execution_that_has_ended_is_taken_over(status: str) -> None:
    taken = lock({"DescribeLockOwner": {"Status": status}})
    assert taken.path[-1] == "RollBack?"
    taking = taken.parameters["TakeOverLock"]
    assert (taking["ConditionExpression"], taking["UpdateExpression"]) == (
        "#owner = :stale",
        "SET #owner = :me, acquired_at = :now ADD unswept :unswept",
    )
    values = taking["ExpressionAttributeValues"]
    assert values[":stale"] == {"S": OTHER_EXECUTION}
    assert values[":unswept"] == {"SS": [OTHER_EXECUTION]}, "the sweep has to know from whom it was taken"


def test_the_lock_of_an_execution_that_is_forgotten_is_taken_over() -> None:
    taken = lock(raises={"DescribeLockOwner": {"Error": "Sfn.ExecutionDoesNotExistException", "Cause": "gone"}})
    assert taken.path[-2:] == ["TakeOverLock", "RollBack?"]


def test_a_lock_that_is_released_meanwhile_is_acquired() -> None:
    taken = lock({"ReadLock": {}})
    assert taken.path[1:] == ["ReadLock", "LockStillHeld?", "AcquireFreedLock", "RollBack?"]


LOOK = ["ReadLock", "LockStillHeld?"]
OWNER_RUNS = [*LOOK, "DescribeLockOwner", "LockOwnerRunning?"]
NEXT_LAP = ["CountLockLap", "WaitForLockAgain?", "WaitForLock"]


def wait_for_lock(answers: dict[str, Any] | None = None, raises: dict[str, dict[str, str]] | None = None) -> Run:
    return run(answers, HELD | (raises or {}), start="AcquireLock", stop="RollBack?", machine=WAITING_ASL)


def test_an_execution_that_may_wait_gives_way_after_a_bounded_time_and_names_the_other() -> None:
    waited = wait_for_lock()
    laps = [*OWNER_RUNS, *NEXT_LAP] * 2
    given_up = [*OWNER_RUNS, *NEXT_LAP[:2], "LockHeld", *WAY_BACK]
    assert waited.path == ["AcquireLock", "StartWaitingForLock", *laps, *given_up]
    assert OTHER_EXECUTION in waited.end["failed"]["AcquireLock"]["Cause"]


def test_an_execution_that_may_wait_takes_the_lock_as_soon_as_it_can() -> None:
    assert wait_for_lock({"ReadLock": {}}).path[-2:] == ["AcquireFreedLock", "RollBack?"]
    assert wait_for_lock({"DescribeLockOwner": {"Status": "SUCCEEDED"}}).path[-2:] == ["TakeOverLock", "RollBack?"]


def test_an_execution_that_may_wait_and_is_never_fast_enough_ends_too() -> None:
    slow = wait_for_lock({"ReadLock": {}}, raises={"AcquireFreedLock": HELD["AcquireLock"]})
    laps = [*LOOK, "AcquireFreedLock", *NEXT_LAP] * 2
    given_up = [*LOOK, "AcquireFreedLock", *NEXT_LAP[:2], "LockContested", *WAY_BACK]
    assert slow.path == ["AcquireLock", "StartWaitingForLock", *laps, *given_up]
    assert slow.end["failed"]["AcquireLock"]["Error"] == "LockHeld"


def test_a_lock_that_another_took_over_first_is_waited_for() -> None:
    raced = {"TakeOverLock": HELD["AcquireLock"]}
    slow = wait_for_lock({"DescribeLockOwner": {"Status": "ABORTED"}}, raises=raced)
    assert slow.path[6:11] == ["TakeOverLock", *NEXT_LAP, "ReadLock"]
    assert slow.path[-len(WAY_BACK) :] == WAY_BACK


@pytest.mark.parametrize("state", ["ReleaseLock", "ReleaseLockAfterFailure"])
def test_the_lock_is_released_by_its_owner_only(state: str) -> None:
    assert STATES[state]["Parameters"]["ConditionExpression"] == "#owner = :me"
    assert STATES[state]["Parameters"]["ExpressionAttributeValues"] == {":me": {"S.$": "$$.Execution.Id"}}


@pytest.mark.parametrize("state", ["AcquireLock", "AcquireFreedLock", "ReleaseLock", "ReleaseLockAfterFailure"])
def test_from_whom_the_lock_was_taken_over_survives_its_release_and_the_next_owner(state: str) -> None:
    asked = STATES[state]
    assert asked["Resource"].endswith("dynamodb:updateItem"), "putItem and deleteItem would forget it"
    assert "unswept" not in asked["Parameters"]["UpdateExpression"]
