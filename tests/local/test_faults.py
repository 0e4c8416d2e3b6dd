"""API errors on request: over HTTP, in each service's own protocol, for one caller only."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from tests.local.test_stepfunctions import PASS, Machines, catch, task
from workflow.commands.faults import fault_app
from workflow.errors import KelpieError, NotRunning
from workflow.local import cloud
from workflow.local.faults import fault_of

CREATE_MODEL = {"ModelName": "m", "ExecutionRoleArn": "arn:aws:iam::123456789012:role/none"}


@pytest.fixture(scope="module")
def machines(world: Any) -> Machines:
    return Machines(world)


@pytest.fixture(scope="module")
def session(world: Any, machines: Machines) -> dict[str, str]:
    keys = world.client("sts").assume_role(RoleArn=machines.role, RoleSessionName="caller")["Credentials"]
    return {
        "aws_access_key_id": keys["AccessKeyId"],
        "aws_secret_access_key": keys["SecretAccessKey"],
        "aws_session_token": keys["SessionToken"],
    }


def client(world: Any, service: str, session: dict[str, str]) -> Any:
    url = world.connection.endpoint_url
    once = Config(retries={"total_max_attempts": 1})
    return boto3.client(service, region_name="us-east-1", endpoint_url=url, config=once, **session)


def pending(world: Any) -> list[dict[str, Any]]:
    """What is still to come."""
    return world.connection.faults()["pending"]


@pytest.fixture(autouse=True)
def nothing_pending(world: Any) -> Iterator[None]:
    yield
    world.connection.clear_faults()


@pytest.mark.parametrize(
    ("operation", "code", "call", "status", "exception"),
    [
        ("sagemaker:CreateModel", "ThrottlingException", ("sagemaker", "create_model", CREATE_MODEL), 400, None),
        ("sagemaker:CreateModel", "ResourceLimitExceeded", ("sagemaker", "create_model", CREATE_MODEL), 400,
         "ResourceLimitExceeded"),
        ("sagemaker:ListModels", "InternalFailure", ("sagemaker", "list_models", {}), 500, None),
        ("sagemaker:InvokeEndpoint", "ModelError",
         ("sagemaker-runtime", "invoke_endpoint", {"EndpointName": "e", "Body": b"x"}), 424, "ModelError"),
        ("lambda:Invoke", "TooManyRequestsException", ("lambda", "invoke", {"FunctionName": "f"}), 429,
         "TooManyRequestsException"),
        ("dynamodb:ListTables", "InternalServerError", ("dynamodb", "list_tables", {}), 500, "InternalServerError"),
        ("states:ListStateMachines", "ServiceUnavailable", ("stepfunctions", "list_state_machines", {}), 503, None),
        ("s3:ListBuckets", "SlowDown", ("s3", "list_buckets", {}), 503, None),
        ("s3:GetObject", "NoSuchKey", ("s3", "get_object", {"Bucket": "bucket-of-the-tests", "Key": "k"}), 404,
         "NoSuchKey"),
        ("sns:Publish", "Throttled",
         ("sns", "publish", {"TopicArn": "arn:aws:sns:us-east-1:123456789012:t", "Message": "m"}), 429,
         "ThrottledException"),
        ("cloudwatch:ListMetrics", "InternalServiceError", ("cloudwatch", "list_metrics", {}), 500,
         "InternalServiceFault"),
        ("application-autoscaling:DescribeScalableTargets", "ConcurrentUpdateException",
         ("application-autoscaling", "describe_scalable_targets", {"ServiceNamespace": "sagemaker"}), 400,
         "ConcurrentUpdateException"),
    ],
)  # fmt: skip
def test_an_error_comes_once_as_the_service_sends_it(world, session, operation, code, call, status, exception):
    service, method, parameters = call
    caller = client(world, service, session)
    world.connection.fail_api(operation, code, "on <request>", caller="caller")
    with pytest.raises(ClientError) as caught:
        getattr(caller, method)(**parameters)
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["Error"]["Message"] == "on <request>"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert type(caught.value).__name__ == (exception or "ClientError")
    try:
        getattr(caller, method)(**parameters)
    except ClientError as error:
        second = str(error)
    else:
        second = ""
    assert "on <request>" not in second


def test_it_comes_as_often_as_asked_and_to_nobody_else(world, machines, session):
    world.connection.fail_api("sagemaker:ListModels", "ThrottlingException", count=2)
    world.sagemaker.list_models()
    client(world, "sagemaker", session).list_models()
    states = {
        "List": task("aws-sdk:sagemaker:listModels", {}, **catch("SageMaker.SageMakerException")),
        "Caught": PASS,
    }
    assert [error["count"] for error in pending(world)] == [2]
    for left in (1, 0):
        assert "Cause" in machines.output(states)
        assert sum(error["count"] for error in pending(world)) == left
    assert "Models" in machines.output(states)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("ThrottlingException", "SageMaker.AmazonSageMakerException"),
        ("ResourceLimitExceeded", "SageMaker.ResourceLimitExceededException"),
    ],
)
def test_a_state_sees_a_modelled_error_by_its_name_and_all_others_by_the_generic_one(world, machines, code, name):
    world.connection.fail_api("sagemaker:CreateModel", code, "no more")
    states = {"Model": task("sagemaker:createModel", CREATE_MODEL, **catch(name)), "Caught": PASS}
    error = machines.output(states)
    assert error["Error"] == name
    assert f"Error Code: {code}" in error["Cause"]


def test_a_state_that_retries_goes_on_after_throttling(world, machines):
    world.connection.fail_api("lambda:GetAccountSettings", "TooManyRequestsException", count=2)
    retry = [{"ErrorEquals": ["Lambda.TooManyRequestsException"], "IntervalSeconds": 1, "MaxAttempts": 2}]
    ended = machines.run({"Ask": task("aws-sdk:lambda:getAccountSettings", {}, Retry=retry)})
    assert "TooManyRequests" not in json.dumps(ended, default=str)
    assert pending(world) == []


def test_an_error_may_be_meant_for_one_state_only(world, machines):
    world.connection.fail_api("sagemaker:ListModels", "ThrottlingException", "only here", state="Second")
    sdk = "SageMaker.SageMakerException"
    states = {
        "First": task("aws-sdk:sagemaker:listModels", {}, Next="Second", ResultPath=None),
        "Second": task("aws-sdk:sagemaker:listModels", {}, **catch(sdk)),
        "Caught": PASS,
    }
    assert "only here" in machines.output(states)["Cause"]
    assert pending(world) == []


def test_a_call_that_hangs_is_carried_out_and_times_the_state_out(world, machines):
    world.connection.add_fault("api-hang", operation="sns:CreateTopic", seconds=2.5)
    state = task("aws-sdk:sns:createTopic", {"Name": "made-late"}, TimeoutSeconds=1, **catch("States.Timeout"))
    began = time.monotonic()
    execution = machines.start({"Make": state, "Caught": PASS})
    ended = machines.end(execution)
    assert json.loads(ended["output"])["Error"] == "States.Timeout"
    assert 1 <= time.monotonic() - began < 2.5
    topics = world.client("sns").list_topics()["Topics"]
    assert any(topic["TopicArn"].endswith(":made-late") for topic in topics)
    time.sleep(max(0.0, began + 3 - time.monotonic()))
    events = machines.sfn.get_execution_history(executionArn=execution)["events"]
    assert "TaskTimedOut" in [event["type"] for event in events]
    assert "TaskSucceeded" not in [event["type"] for event in events], "the late answer is in the history"


@pytest.mark.parametrize("swapped", [False, True])
def test_the_generic_names_can_be_swapped(world, machines, swapped):
    names = ["SageMaker.AmazonSageMakerException", "SageMaker.SageMakerException"]
    world.connection.play(swap_generic_errors=swapped)
    for resource, name in zip(("createModel", "aws-sdk"), reversed(names) if swapped else names, strict=True):
        world.connection.fail_api("sagemaker:CreateModel", "ValidationException")
        service = "sagemaker:createModel" if resource == "createModel" else "aws-sdk:sagemaker:createModel"
        states = {"Model": task(service, CREATE_MODEL, **catch(name)), "Caught": PASS}
        assert machines.output(states)["Error"] == name


def test_a_modelled_error_is_told_from_one_that_callers_see_under_the_generic_name():
    limit = fault_of("api-error", operation="sagemaker:CreateModel", code="ResourceLimitExceeded")
    throttling = fault_of("api-error", operation="sagemaker:CreateModel", code="ThrottlingException")
    assert limit.is_modelled
    assert not throttling.is_modelled


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("api-error", {"operation": "sagemaker:CreateModels", "code": "X"}, "sagemaker:CreateModel"),
        ("api-error", {"operation": "sage:CreateModel", "code": "X"}, "expected SERVICE:OPERATION"),
        ("api-error", {"operation": "sagemaker:CreateModel", "code": "no code"}, "expected a code such as"),
        ("api-error", {"operation": "sagemaker:CreateModel", "code": "X", "count": 0}, "count=0"),
        ("api-error", {"operation": "sagemaker:CreateModel", "code": "X", "count": "2"}, "count='2'.*expected int"),
        ("api-hang", {"operation": "sagemaker:CreateModel", "seconds": -1.0}, "seconds=-1"),
        ("spot-interruption", {"notice_seconds": 500}, "0 to 120"),
        ("spot-interruption", {"host": "second"}, "a host such as algo-2"),
        ("training-failure", {}, "either reason or stopped"),
        ("training-failure", {"stopped": "Bored"}, "MaxWaitTimeExceeded, MaxRuntimeExceeded, Stopped"),
        ("model", {"behaviour": "lazy", "next_deployment": True}, "slow, wrong, failing"),
        ("model", {"behaviour": "slow"}, "one of the two"),
        ("model", {"behaviour": "failing", "status": 200, "next_deployment": True}, "500 to 599"),
        ("flood", {}, "expected one of"),
    ],
)
def test_a_senseless_fault_is_refused_with_what_is_allowed(kind, values, message):
    with pytest.raises(ValueError, match=message):
        fault_of(kind, **values)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["api-hang", "sns:Publish", "3", "--state", "NotifySuccess"], {"kind": "api-hang", "seconds": 3.0}),
        (["spot-interruption", "--notice", "0", "--host", "algo-2"], {"host": "algo-2", "notice_seconds": 0.0}),
        (["training-failure", "--stopped", "MaxWaitTimeExceeded"], {"stopped": "MaxWaitTimeExceeded"}),
        (["endpoint-failure", "--rollback-fails"], {"kind": "endpoint-failure", "rollback_fails": True}),
        (["slow-model", "--seconds", "2"], {"behaviour": "slow", "seconds": 2.0, "next_deployment": True}),
        (["failing-model", "--status", "503"], {"behaviour": "failing", "status": 503}),
        (["wrong-model", "--endpoint-config", "c"], {"behaviour": "wrong", "endpoint_config": "c"}),
        (["dead-server", "--endpoint-config", "none-such"], {"kind": "dead-server"}),
    ],
)
def test_every_kind_has_a_command_and_is_listed_until_it_is_cleared(world, monkeypatch, arguments, expected):
    monkeypatch.setattr(cloud, "connect", lambda _home: world.connection)
    assert CliRunner().invoke(fault_app, arguments).exit_code == 0
    listed = json.loads(CliRunner().invoke(fault_app, ["list"]).output)["pending"]
    assert len(listed) == 1
    assert expected.items() <= listed[0].items()
    CliRunner().invoke(fault_app, ["clear"])
    assert pending(world) == []


def test_what_nobody_documents_is_played_as_asked(world, monkeypatch):
    monkeypatch.setattr(cloud, "connect", lambda _home: world.connection)
    played = ["undocumented", "--stopped", "succeeds", "--generic-errors", "swapped"]
    assert CliRunner().invoke(fault_app, played).exit_code == 0
    assert world.connection.faults()["undocumented"] == {"stopped_fails": False, "swap_generic_errors": True}
    assert CliRunner().invoke(fault_app, ["undocumented", "--stopped", "maybe"]).exit_code == 2
    world.connection.clear_faults()
    assert world.connection.faults()["undocumented"] == {"stopped_fails": True, "swap_generic_errors": False}


def test_the_command_asks_the_cloud_of_this_folder(world, monkeypatch):
    monkeypatch.setattr(cloud, "connect", lambda _home: world.connection)
    said = CliRunner().invoke(
        fault_app, ["api-error", "sagemaker:Search", "Throttling", "--count", "3", "--caller", "me"]
    )
    assert said.exit_code == 0
    assert said.output == "the next 3x that me calls sagemaker:Search, it fails with Throttling\n"
    assert [(e["operation"], e["count"], e["caller"]) for e in pending(world)] == [("sagemaker:Search", 3, "me")]
    wrong = CliRunner().invoke(fault_app, ["api-error", "sagemaker:Nothing", "Throttling"])
    assert isinstance(wrong.exception, KelpieError)
    monkeypatch.setattr(cloud, "connect", lambda _home: None)
    assert isinstance(CliRunner().invoke(fault_app, ["spot-interruption"]).exception, NotRunning)
