"""Executions in the running local cloud: task services, errors, time, and the API's answers."""

from __future__ import annotations

import io
import json
import threading
import time
import uuid
import zipfile
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from workflow.local import state_tasks, stepfunctions
from workflow.local.endings import Endings
from workflow.local.faults import Faults, Undocumented
from workflow.local.state_tasks import SageMakerTask

STATES = "arn:aws:states:::"
ENDED = {"SUCCEEDED", "FAILED", "ABORTED", "TIMED_OUT"}
EVERYTHING = [{"Effect": "Allow", "Action": "*", "Resource": "*"}]
PASS = {"Type": "Pass", "End": True}


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def task(resource: str, parameters: dict[str, Any], **others: Any) -> dict[str, Any]:
    following = {} if "Next" in others else {"End": True}
    return {"Type": "Task", "Resource": STATES + resource, "Parameters": parameters, **following, **others}


def catch(error: str, following: str = "Caught") -> dict[str, Any]:
    return {"Catch": [{"ErrorEquals": [error], "Next": following}]}


class Machines:
    """Makes state machines and runs them."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.sfn = world.client("stepfunctions")
        self.role = self.role_with(*EVERYTHING)

    def role_with(self, *statements: dict[str, Any], trusts: str = "states.amazonaws.com") -> str:
        iam = self.world.client("iam")
        name = f"machine-{uuid.uuid4().hex[:8]}"
        trust = policy({"Effect": "Allow", "Principal": {"Service": trusts}, "Action": "sts:AssumeRole"})
        arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=policy(*statements))
        return arn

    def create(self, states: dict[str, Any], role: str | None = None, **machine: Any) -> str:
        definition = {"StartAt": next(iter(states)), "States": states, **machine}
        arn: str = self.sfn.create_state_machine(
            name=f"m-{uuid.uuid4().hex[:8]}", definition=json.dumps(definition), roleArn=role or self.role
        )["stateMachineArn"]
        return arn

    def start(self, states: dict[str, Any], role: str | None = None, data: Any = None, **machine: Any) -> str:
        arn = self.create(states, role, **machine)
        started = self.sfn.start_execution(stateMachineArn=arn, input=json.dumps(data or {}))
        execution: str = started["executionArn"]
        return execution

    def end(self, execution: str, seconds: float = 30) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            described: dict[str, Any] = self.sfn.describe_execution(executionArn=execution)
            if described["status"] in ENDED:
                return described
            time.sleep(0.05)
        raise AssertionError(f"{execution} still runs after {seconds} s")

    def run(self, states: dict[str, Any], **how: Any) -> dict[str, Any]:
        return self.end(self.start(states, **how))

    def output(self, states: dict[str, Any], **how: Any) -> Any:
        ended = self.run(states, **how)
        assert ended["status"] == "SUCCEEDED", ended
        return json.loads(ended["output"])

    def events(self, execution: str) -> list[str]:
        history = self.sfn.get_execution_history(executionArn=execution, maxResults=1000)
        return [event["type"] for event in history["events"]]


@pytest.fixture(scope="module")
def machines(world: Any) -> Machines:
    return Machines(world)


# ---- sagemaker:createTrainingJob.sync ------------------------------------------------------------------------


def test_a_training_job_is_followed_to_its_end_and_described_as_json(machines, world):
    request = world.job_request("print('test:accuracy=0.5')")
    output = machines.output({"Train": task("sagemaker:createTrainingJob.sync", request, TimeoutSeconds=60)})
    assert output["TrainingJobStatus"] == "Completed"
    assert output["ModelArtifacts"]["S3ModelArtifacts"].endswith("/output/model.tar.gz")
    assert output["TrainingEndTime"] == pytest.approx(time.time() * 1000, abs=600_000)  # epoch milliseconds


def test_a_failed_job_fails_the_task_with_its_description_as_cause(machines, world):
    request = world.job_request("raise SystemExit(3)")
    states = {
        "Train": task("sagemaker:createTrainingJob.sync", request, TimeoutSeconds=60, **catch("States.TaskFailed")),
        "Caught": PASS,
    }
    output = machines.output(states)
    assert output["Error"] == "States.TaskFailed"
    assert json.loads(output["Cause"])["TrainingJobStatus"] == "Failed"


def running_job(machines: Machines, world: Any, **task_fields: Any) -> tuple[str, str]:
    """An execution whose training job runs for a minute; execution and job name."""
    request = world.job_request("import time; time.sleep(60)")
    states = {
        "Train": task("sagemaker:createTrainingJob.sync", request, **{"TimeoutSeconds": 60, **task_fields}),
        "Caught": PASS,
    }
    execution, name = machines.start(states), request["TrainingJobName"]
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if world.job(name)["SecondaryStatus"] == "Training":
                return execution, name
        except ClientError:
            pass  # not created yet
        time.sleep(0.1)
    raise AssertionError(f"{name} does not train")


def test_a_job_that_somebody_stops_fails_the_task(machines, world):
    execution, job = running_job(machines, world, **catch("States.TaskFailed"))
    world.sagemaker.stop_training_job(TrainingJobName=job)
    ended = machines.end(execution)
    assert json.loads(json.loads(ended["output"])["Cause"])["TrainingJobStatus"] == "Stopped"


def test_stopping_the_execution_stops_its_job_and_reports_no_success(machines, world):
    execution, job = running_job(machines, world)
    machines.sfn.stop_execution(executionArn=execution, error="Why", cause="because")
    ended = machines.end(execution)
    assert (ended["status"], ended["error"], ended["cause"]) == ("ABORTED", "Why", "because")
    assert ended["stopDate"]
    assert world.finished(job)["TrainingJobStatus"] == "Stopped"
    types = machines.events(execution)
    assert types[-1] == "ExecutionAborted"
    assert "TaskSucceeded" not in types


def test_a_task_that_times_out_stops_its_job(machines, world):
    execution, job = running_job(machines, world, TimeoutSeconds=4, **catch("States.Timeout"))
    assert json.loads(machines.end(execution)["output"])["Error"] == "States.Timeout"
    assert world.finished(job)["TrainingJobStatus"] == "Stopped"
    assert "TaskSucceeded" not in machines.events(execution)


def test_a_machine_that_times_out_stops_its_job(machines, world):
    request = world.job_request("import time; time.sleep(60)")
    train = task("sagemaker:createTrainingJob.sync", request, TimeoutSeconds=60)
    execution = machines.start({"Train": train}, TimeoutSeconds=4)
    assert machines.end(execution)["status"] == "TIMED_OUT"
    assert world.finished(request["TrainingJobName"])["TrainingJobStatus"] == "Stopped"


@pytest.mark.parametrize(
    "resource", ["sagemaker:createTrainingJob.sync:2", "sagemaker:createModel.sync", "sagemaker:x"]
)
def test_an_integration_that_aws_does_not_have_is_refused_at_creation(machines, resource):
    with pytest.raises(ClientError, match=r"not recognized|Unsupported"):
        machines.create({"A": task(resource, {})})


class _Client:
    def __init__(self, status: str) -> None:
        self._status = status

    def describe_training_job(self, **_: str) -> dict[str, str]:
        return {"TrainingJobName": "j", "TrainingJobStatus": self._status}


class _Running:
    def is_running(self) -> bool:
        return True


def test_stopped_can_be_made_to_succeed_for_it_is_not_documented(monkeypatch):
    follower = SageMakerTask()
    faults = Faults()
    faults.undocumented = Undocumented(stopped_fails=False)
    engine = SimpleNamespace(faults=faults, endings=Endings())
    monkeypatch.setattr(SageMakerTask, "engine", engine, raising=False)
    monkeypatch.setattr(SageMakerTask, "_client", lambda *_: _Client("Stopped"))
    assert follower._follow(_Running(), "j", None)["TrainingJobStatus"] == "Stopped"


def test_a_job_that_ends_ends_its_task_without_another_poll(monkeypatch):
    looked = threading.Event()

    class Ending(_Client):
        def describe_training_job(self, **named: str) -> dict[str, str]:
            answer = super().describe_training_job(**named)
            looked.set()
            return answer

    client, engine = Ending("InProgress"), SimpleNamespace(faults=Faults(), endings=Endings())
    monkeypatch.setattr(SageMakerTask, "engine", engine, raising=False)
    monkeypatch.setattr(SageMakerTask, "_client", lambda *_: client)
    monkeypatch.setattr(state_tasks, "_POLL_SECONDS", 3600)
    found = []
    task_thread = threading.Thread(target=lambda: found.append(SageMakerTask()._follow(_Running(), "j", None)))
    task_thread.start()
    assert looked.wait(30)
    client._status = "Completed"
    engine.endings.announce("j")
    task_thread.join(30)
    assert [job["TrainingJobStatus"] for job in found] == ["Completed"]


# ---- Parameters and errors -----------------------------------------------------------------------------------


def test_a_misspelt_field_fails_the_execution_naming_it_and_nothing_catches_that(machines, world):
    request = world.job_request("pass")
    nested = json.loads(json.dumps(request))
    nested["ResourceConfig"]["InstanceCont"] = 2
    for parameters, field in (({**request, "TrainingJobNme": "x"}, "TrainingJobNme"), (nested, "InstanceCont")):
        states = {
            "Train": task("sagemaker:createTrainingJob.sync", parameters, **catch("States.ALL")),
            "Caught": PASS,
        }
        ended = machines.run(states)
        assert (ended["status"], ended["error"]) == ("FAILED", "States.Runtime")
        assert field in ended["cause"]


@pytest.mark.parametrize(
    ("resource", "parameters", "field"),
    [
        ("dynamodb:putItem", {"TableName": "t", "Item": {}, "ConditionExpresion": "x"}, "ConditionExpresion"),
        ("sns:publish", {"TopicArn": "t", "MessageText": "x"}, "MessageText"),
        ("lambda:invoke", {"FunctionName": "f", "Paylod": {}}, "Paylod"),
        ("aws-sdk:sagemaker:describeEndpoint", {"EndpointNam": "e"}, "EndpointNam"),
        ("aws-sdk:sfn:describeExecution", {"executionArn": "e"}, 'write "ExecutionArn"'),
    ],
)
def test_no_integration_drops_a_field_silently(machines, resource, parameters, field):
    ended = machines.run({"A": task(resource, parameters)})
    assert ended["error"] == "States.Runtime"
    assert field in ended["cause"]


@pytest.mark.parametrize(
    ("resource", "parameters", "error", "cause"),
    [
        (
            "sagemaker:createEndpoint",
            {"EndpointName": "none", "EndpointConfigName": "none"},
            "SageMaker.AmazonSageMakerException",
            "Service: AmazonSageMaker; Status Code: 400; Error Code: ValidationException",
        ),
        (
            "aws-sdk:sagemaker:describeEndpoint",
            {"EndpointName": "none"},
            "SageMaker.SageMakerException",
            "Could not find",
        ),
        (
            "aws-sdk:applicationautoscaling:deregisterScalableTarget",
            {
                "ServiceNamespace": "sagemaker",
                "ResourceId": "endpoint/none/variant/v",
                "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
            },
            "ApplicationAutoScaling.",
            "",
        ),
        ("aws-sdk:s3:getObject", {"Bucket": "bucket-of-the-tests", "Key": "none"}, "S3.NoSuchKeyException", ""),
        (
            "dynamodb:getItem",
            {"TableName": "none", "Key": {"pk": {"S": "x"}}},
            "DynamoDB.ResourceNotFoundException",
            "",
        ),
    ],
)
def test_errors_carry_the_names_that_aws_gives_them(machines, resource, parameters, error, cause):
    output = machines.output({"A": task(resource, parameters, **catch("States.ALL")), "Caught": PASS})
    assert output["Error"].startswith(error)
    assert cause in output["Cause"]


@pytest.mark.parametrize(
    ("resource", "parameters", "error", "action"),
    [
        ("sagemaker:createModel", {"ModelName": "m"}, "SageMaker.AmazonSageMakerException", "sagemaker:CreateModel"),
        (
            "aws-sdk:sagemaker:describeEndpoint",
            {"EndpointName": "e"},
            "SageMaker.SageMakerException",
            "sagemaker:DescribeEndpoint",
        ),
        ("lambda:invoke", {"FunctionName": "f"}, "Lambda.AWSLambdaException", "lambda:InvokeFunction"),
        (
            "dynamodb:getItem",
            {"TableName": "t", "Key": {"pk": {"S": "x"}}},
            "DynamoDB.AmazonDynamoDBException",
            "dynamodb:GetItem",
        ),
        (
            "sns:publish",
            {"TopicArn": "arn:aws:sns:us-east-1:123456789012:t", "Message": "m"},
            "SNS.AuthorizationErrorException",
            "sns:Publish",
        ),
    ],
)
def test_a_missing_permission_of_the_machines_role_fails_its_task(machines, resource, parameters, error, action):
    nothing = machines.role_with({"Effect": "Allow", "Action": "none:Nothing", "Resource": "*"})
    ended = machines.run({"A": task(resource, parameters)}, role=nothing)
    assert ended["error"] == error
    assert f"is not authorized to perform: {action} on resource: " in ended["cause"]


def test_creating_needs_the_permission_to_tag_for_step_functions_adds_a_tag(machines, world):
    sagemaker_role = world.role
    parameters = {"ModelName": "tagged", "ExecutionRoleArn": sagemaker_role, "PrimaryContainer": {"Image": "i"}}
    allowed = {"Effect": "Allow", "Action": ["sagemaker:CreateModel", "iam:PassRole"], "Resource": "*"}
    ended = machines.run({"A": task("sagemaker:createModel", parameters)}, role=machines.role_with(allowed))
    assert "sagemaker:AddTags" in ended["cause"]


def test_a_lost_conditional_write_can_be_caught_by_name(machines, world):
    name = f"locks-{uuid.uuid4().hex[:8]}"
    world.client("dynamodb").create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    item = {"pk": {"S": "lock"}, "owner": {"S.$": "$$.Execution.Id"}}
    put = {"TableName": name, "Item": item, "ConditionExpression": "attribute_not_exists(pk)"}
    states = {
        "First": task("dynamodb:putItem", put, ResultPath=None, Next="Second"),
        "Second": task("dynamodb:putItem", put, **catch("DynamoDB.ConditionalCheckFailedException")),
        "Caught": PASS,
    }
    assert machines.output(states)["Error"] == "DynamoDB.ConditionalCheckFailedException"


def function(machines: Machines, body: str) -> str:
    """A Lambda function of one statement; its ARN."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as code:
        source = f"import time\nclass InvalidInput(Exception): pass\ndef handler(event, context): {body}\n"
        code.writestr("handler.py", source)
    arn: str = machines.world.client("lambda").create_function(
        FunctionName=f"f-{uuid.uuid4().hex[:8]}",
        Runtime="python3.12",
        Handler="handler.handler",
        Timeout=30,
        Role=machines.role_with(*EVERYTHING, trusts="lambda.amazonaws.com"),
        Code={"ZipFile": archive.getvalue()},
    )["FunctionArn"]
    return arn


def test_a_functions_error_type_is_the_tasks_error(machines):
    invoke = {"FunctionName": function(machines, "raise InvalidInput('epochs')"), "Payload": {}}
    output = machines.output({"A": task("lambda:invoke", invoke, **catch("InvalidInput")), "Caught": PASS})
    assert output["Error"] == "InvalidInput"
    assert json.loads(output["Cause"])["errorMessage"] == "epochs"


def test_a_task_that_fails_after_the_execution_was_stopped_leaves_it_aborted(machines):
    invoke = {"FunctionName": function(machines, "time.sleep(2); raise InvalidInput('late')"), "Payload": {}}
    execution = machines.start({"A": task("lambda:invoke", invoke)})
    deadline = time.monotonic() + 10
    while "TaskStarted" not in machines.events(execution) and time.monotonic() < deadline:
        time.sleep(0.05)
    machines.sfn.stop_execution(executionArn=execution)
    assert machines.end(execution)["status"] == "ABORTED"


def test_sdk_integrations_answer_in_pascal_case_with_iso_times(machines):
    execution = machines.start({"A": PASS})
    machines.end(execution)
    states = {"A": task("aws-sdk:sfn:describeExecution", {"ExecutionArn": execution})}
    output = machines.output(states)
    assert output["Status"] == "SUCCEEDED"
    assert output["StartDate"].endswith("Z")


# ---- The language --------------------------------------------------------------------------------------------


def test_a_fail_state_repeats_the_error_and_cause_that_a_catch_recorded(machines):
    failed = {"Error": "States.TaskFailed", "Cause": "why"}
    states = {
        "A": {"Type": "Pass", "Result": failed, "Next": "End"},
        "End": {"Type": "Fail", "ErrorPath": "$.Error", "CausePath": "States.Format('{}: {}', $$.State.Name, $.Cause)"},
    }
    ended = machines.run(states)
    assert (ended["status"], ended["error"], ended["cause"]) == ("FAILED", "States.TaskFailed", "End: why")


def test_hash_json_and_context_paths_work(machines):
    parameters = {
        "run.$": "States.Hash($$.Execution.Id, 'MD5')",
        "text.$": "States.JsonToString($)",
        "started.$": "$$.Execution.StartTime",
        "deep.$": "$.a[1].b",
        "all.$": "$.a[*].b",
        "some.$": "$.a[?(@.b=='here')]",
    }
    output = machines.output(
        {"A": {"Type": "Pass", "Parameters": parameters, "End": True}}, data={"a": [{}, {"b": "here"}]}
    )
    assert len(output["run"]) == 32
    assert json.loads(output["text"]) == {"a": [{}, {"b": "here"}]}
    assert output["started"].endswith("Z")
    assert output["deep"] == "here"
    assert output["all"] == ["here"]
    assert output["some"] == [{"b": "here"}]


def test_waits_and_retry_intervals_are_scaled_and_the_retries_counted(machines):
    retry = [
        {"ErrorEquals": ["SageMaker.SageMakerException"], "IntervalSeconds": 60, "MaxAttempts": 2, "BackoffRate": 2}
    ]
    describe = task(
        "aws-sdk:sagemaker:describeEndpoint", {"EndpointName": "none"}, Retry=retry, **catch("States.ALL", "W")
    )
    states = {"A": describe, "W": {"Type": "Wait", "Seconds": 300, "End": True}}
    begin = time.monotonic()
    execution = machines.start(states)
    machines.end(execution)
    scaled = (60 + 120 + 300) / 300
    assert scaled <= time.monotonic() - begin < scaled + 10
    assert machines.events(execution).count("TaskFailed") == 3


def test_a_wait_ends_when_the_execution_is_stopped(machines):
    execution = machines.start({"W": {"Type": "Wait", "Seconds": 300 * 600, "End": True}})
    machines.sfn.stop_execution(executionArn=execution)
    assert machines.end(execution, seconds=5)["status"] == "ABORTED"


def test_the_machines_own_timeout_is_not_scaled(machines):
    execution = machines.start({"W": {"Type": "Wait", "Seconds": 300 * 600, "End": True}}, TimeoutSeconds=1)
    ended = machines.end(execution, seconds=10)
    assert ended["status"] == "TIMED_OUT"
    assert (ended["stopDate"] - ended["startDate"]).total_seconds() >= 1


# ---- The API -------------------------------------------------------------------------------------------------


def test_an_execution_without_a_name_gets_a_uuid(machines):
    name = machines.start({"A": PASS}).rsplit(":", 1)[1]
    assert str(uuid.UUID(name)) == name


@pytest.mark.parametrize("name", ["a b", "a/b"])
def test_an_illegal_execution_name_is_refused(machines, name):
    arn = machines.create({"A": PASS})
    with pytest.raises(ClientError, match="InvalidName"):
        machines.sfn.start_execution(stateMachineArn=arn, name=name)


def test_a_running_execution_is_found_again_by_its_name_and_input(machines):
    arn = machines.create({"W": {"Type": "Wait", "Seconds": 300 * 600, "End": True}})
    first, second = (machines.sfn.start_execution(stateMachineArn=arn, name="n", input="{}") for _ in range(2))
    assert first["executionArn"] == second["executionArn"]
    with pytest.raises(ClientError, match="ExecutionAlreadyExists"):
        machines.sfn.start_execution(stateMachineArn=arn, name="n", input='{"other": 1}')
    machines.sfn.stop_execution(executionArn=first["executionArn"])


def test_history_comes_in_pages_and_backwards(machines):
    execution = machines.start({"A": {"Type": "Pass", "Next": "B"}, "B": PASS})
    machines.end(execution)
    whole = machines.sfn.get_execution_history(executionArn=execution)["events"]
    paginator = machines.sfn.get_paginator("get_execution_history")
    pages = list(paginator.paginate(executionArn=execution, PaginationConfig={"PageSize": 4}))
    assert [len(page["events"]) for page in pages] == [4, 2]
    assert [event["id"] for page in pages for event in page["events"]] == [event["id"] for event in whole]
    backwards = machines.sfn.get_execution_history(executionArn=execution, reverseOrder=True, maxResults=1)
    assert [event["type"] for event in backwards["events"]] == ["ExecutionSucceeded"]


def test_a_role_that_step_functions_may_not_assume_is_refused_at_creation(machines, world):
    with pytest.raises(ClientError, match="Neither the global service principal"):
        machines.create({"A": PASS}, role=world.role)


def test_a_role_whose_trust_is_withdrawn_cannot_start(machines, world):
    role = machines.role_with(*EVERYTHING)
    arn = machines.create({"A": PASS}, role=role)
    nobody = policy({"Effect": "Deny", "Principal": {"Service": "states.amazonaws.com"}, "Action": "sts:AssumeRole"})
    world.client("iam").update_assume_role_policy(RoleName=role.rsplit("/", 1)[1], PolicyDocument=nobody)
    with pytest.raises(ClientError, match="AccessDeniedException"):
        machines.sfn.start_execution(stateMachineArn=arn)


def test_a_sync_task_needs_the_permissions_for_its_managed_rule(machines, world):
    states = {"Train": task("sagemaker:createTrainingJob.sync", {})}
    rule = "arn:aws:events:us-east-1:123456789012:rule/StepFunctionsGetEventsForSageMakerTrainingJobsRule"
    actions = ["events:PutTargets", "events:PutRule", "events:DescribeRule"]
    machines.create(states, role=machines.role_with({"Effect": "Allow", "Action": actions, "Resource": rule}))
    for missing in actions:
        rest = [action for action in actions if action != missing]
        role = machines.role_with({"Effect": "Allow", "Action": rest, "Resource": rule})
        with pytest.raises(ClientError, match="is not authorized to create managed-rule"):
            machines.create(states, role=role)


def test_every_hook_is_listed_once():
    assert len(set(stepfunctions.HOOKS)) == len(stepfunctions.HOOKS)
