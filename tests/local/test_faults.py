"""API errors on request: over HTTP, in each service's own protocol, for one caller only."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from tests.local.test_stepfunctions import PASS, Machines, catch, task
from workflow.errors import KelpieError, NotRunning
from workflow.fault_commands import fault_app
from workflow.local import cloud
from workflow.local.faults import Faults

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
    """What is left, read by adding nothing that could happen."""
    fault = {"kind": "api-error", "operation": "xray:GetSamplingRules", "code": "X", "caller": "nobody"}
    errors = world.connection.control("POST", "faults", fault)["api_errors"]
    return [error for error in errors if error["caller"] != "nobody"]


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
        ("sns:Publish", "Throttled", ("sns", "publish", {"TopicArn": "arn:aws:sns:us-east-1:1:t", "Message": "m"}),
         429, "ThrottledException"),
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
    assert [error["left"] for error in pending(world)] == [2]
    for left in (1, 0):
        assert "Cause" in machines.output(states)
        assert sum(error["left"] for error in pending(world)) == left
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


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"operation": "sagemaker:CreateModels", "code": "X"}, "sagemaker:CreateModel"),
        ({"operation": "sage:CreateModel", "code": "X"}, "expected SERVICE:OPERATION"),
        ({"operation": "sagemaker:CreateModel", "code": "no code"}, "expected a code such as"),
        ({"operation": "sagemaker:CreateModel", "code": "X", "count": 0}, "count=0"),
    ],
)
def test_a_senseless_error_is_refused_with_what_is_allowed(values, message):
    with pytest.raises(ValueError, match=message):
        Faults().fail_api(**values)


def test_the_command_asks_the_cloud_of_this_folder(world, monkeypatch):
    monkeypatch.setattr(cloud, "connect", lambda _home: world.connection)
    said = CliRunner().invoke(
        fault_app, ["api-error", "sagemaker:Search", "Throttling", "--count", "3", "--caller", "me"]
    )
    assert said.exit_code == 0
    assert said.output == "the next 3x that me calls sagemaker:Search, it fails with Throttling\n"
    assert {(e["operation"], e["left"]) for e in pending(world) if e["caller"] == "me"} == {("Search", 3)}
    wrong = CliRunner().invoke(fault_app, ["api-error", "sagemaker:Nothing", "Throttling"])
    assert isinstance(wrong.exception, KelpieError)
    monkeypatch.setattr(cloud, "connect", lambda _home: None)
    assert isinstance(CliRunner().invoke(fault_app, ["spot-interruption"]).exception, NotRunning)
