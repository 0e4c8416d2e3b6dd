"""The local cloud's CloudFormation: what stack.yaml uses is created, changed and deleted, and failures show."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from stack_server import StackServer, stack_server, succeed

from workflow.local import cloudformation

STATE_MACHINE_TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "states.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
FUNCTION_ZIP_KEY = "function.zip"


@pytest.fixture(scope="module")
def running_server() -> Iterator[StackServer]:
    with stack_server() as running:
        yield running


@pytest.fixture
def server(running_server: StackServer) -> StackServer:
    """An empty account."""
    running_server.reset()
    return running_server


def create(server: StackServer, resources: dict[str, Any], name: str = "dogs", **more: Any) -> str:
    """Create a stack and return its status; `more` are other sections of the template."""
    values = more.pop("values", {})
    body = json.dumps({"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources, **more})
    server.client("cloudformation").create_stack(StackName=name, TemplateBody=body, Parameters=_given(values))
    return status(server, name)


def update(server: StackServer, resources: dict[str, Any], name: str = "dogs", **more: Any) -> str:
    values = more.pop("values", {})
    body = json.dumps({"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources, **more})
    server.client("cloudformation").update_stack(StackName=name, TemplateBody=body, Parameters=_given(values))
    return status(server, name)


def status(server: StackServer, name: str = "dogs") -> str:
    return str(server.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]["StackStatus"])


def failure(server: StackServer, name: str = "dogs") -> tuple[str, str]:
    """Logical id and reason of the resource that failed."""
    events = server.client("cloudformation").describe_stack_events(StackName=name)["StackEvents"]
    [failed] = [
        event
        for event in events
        if event["ResourceStatus"].endswith("_FAILED") and event["ResourceType"] != "AWS::CloudFormation::Stack"
    ]
    return failed["LogicalResourceId"], failed["ResourceStatusReason"]


def output(server: StackServer, key: str, name: str = "dogs") -> str:
    outputs = server.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]["Outputs"]
    return next(str(item["OutputValue"]) for item in outputs if item["OutputKey"] == key)


def _given(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()]


def bucket(**properties: Any) -> dict[str, Any]:
    return {"Type": "AWS::S3::Bucket", "Properties": properties}


def role(actions: list[str], policy_name: str = "rules") -> dict[str, Any]:
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "RoleName": "worker",
            "AssumeRolePolicyDocument": STATE_MACHINE_TRUST,
            "Policies": [{"PolicyName": policy_name, "PolicyDocument": document}],
        },
    }


def custom_resource(**properties: Any) -> dict[str, Any]:
    """A Lambda, its role, and a custom resource `Marker` behind it."""
    code = {"ZipFile": "def handler(event, context): pass"}
    return {
        "Worker": role(["s3:PutObject"]),
        "Function": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "FunctionName": "marker",
                "Runtime": "python3.12",
                "Handler": "index.handler",
                "Role": {"Fn::GetAtt": ["Worker", "Arn"]},
                "Code": code,
            },
        },
        "Marker": {
            "Type": "Custom::Marker",
            "Properties": {"ServiceToken": {"Fn::GetAtt": ["Function", "Arn"]}, **properties},
        },
    }


def test_a_bucket_gets_every_property_that_its_template_gives_it(server: StackServer) -> None:
    rules = [
        {"Id": "old", "Status": "Enabled", "NoncurrentVersionExpiration": {"NoncurrentDays": 30}},
        {"Id": "captures", "Status": "Enabled", "Prefix": "captures/", "ExpirationInDays": 7},
    ]
    blocked = dict.fromkeys(("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"), True)
    encryption = {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "key"}}
    assert create(server, {"Data": bucket(
        BucketName="pictures",
        VersioningConfiguration={"Status": "Enabled"},
        PublicAccessBlockConfiguration=blocked,
        BucketEncryption={"ServerSideEncryptionConfiguration": [encryption]},
        LifecycleConfiguration={"Rules": rules},
    )}) == "CREATE_COMPLETE"  # fmt: skip

    s3 = server.client("s3")
    assert s3.get_bucket_versioning(Bucket="pictures")["Status"] == "Enabled"
    assert s3.get_public_access_block(Bucket="pictures")["PublicAccessBlockConfiguration"] == blocked
    [rule] = s3.get_bucket_encryption(Bucket="pictures")["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"] == "key"
    old, captures = s3.get_bucket_lifecycle_configuration(Bucket="pictures")["Rules"]
    assert old["NoncurrentVersionExpiration"]["NoncurrentDays"] == 30
    assert (captures["Filter"]["Prefix"], captures["Expiration"]["Days"]) == ("captures/", 7)


def test_a_policy_that_demands_tls_is_kept_and_does_not_block_the_loopback(server: StackServer) -> None:
    statement = {
        "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "*",
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }  # fmt: skip
    policy = {
        "Type": "AWS::S3::BucketPolicy",
        "Properties": {"Bucket": {"Ref": "Data"}, "PolicyDocument": {"Statement": [statement]}},
    }
    create(server, {"Data": bucket(BucketName="pictures"), "TlsOnly": policy})
    s3 = server.client("s3")
    s3.put_object(Bucket="pictures", Key="dog.jpg", Body=b"dog")
    assert s3.get_object(Bucket="pictures", Key="dog.jpg")["Body"].read() == b"dog"
    assert json.loads(s3.get_bucket_policy(Bucket="pictures")["Policy"])["Statement"] == [statement]


def test_changed_permissions_of_a_role_replace_the_earlier_ones(server: StackServer) -> None:
    create(server, {"Worker": role(["s3:GetObject"], policy_name="read")})
    assert update(server, {"Worker": role(["s3:PutObject"], policy_name="write")}) == "UPDATE_COMPLETE"
    iam = server.client("iam")
    assert iam.list_role_policies(RoleName="worker")["PolicyNames"] == ["write"]
    document = iam.get_role_policy(RoleName="worker", PolicyName="write")["PolicyDocument"]
    assert document["Statement"][0]["Action"] == ["s3:PutObject"]


def state_machine(key: str, **substitutions: Any) -> dict[str, Any]:
    return {
        "Worker": role(["s3:GetObject"]),
        "Machine": {
            "Type": "AWS::StepFunctions::StateMachine",
            "Properties": {
                "StateMachineName": "machine",
                "RoleArn": {"Fn::GetAtt": ["Worker", "Arn"]},
                "DefinitionS3Location": {"Bucket": "assets", "Key": key},
                "DefinitionSubstitutions": substitutions,
            },
        },
    }


def put_definition(server: StackServer, result: str, key: str = "definition.json") -> str:
    definition = {"StartAt": "Say", "States": {"Say": {"Type": "Pass", "Result": {"said": result}, "End": True}}}
    server.client("s3").create_bucket(Bucket="assets")
    server.client("s3").put_object(Bucket="assets", Key=key, Body=json.dumps(definition))
    return key


def said(server: StackServer) -> Any:
    """Run the state machine and return its output."""
    states = server.client("stepfunctions")
    [machine] = states.list_state_machines()["stateMachines"]
    arn = states.start_execution(stateMachineArn=machine["stateMachineArn"], name=f"run-{time.monotonic_ns()}")
    deadline = time.monotonic() + 10
    while (run := states.describe_execution(executionArn=arn["executionArn"]))["status"] == "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return json.loads(run["output"])["said"]


def test_a_state_machine_runs_its_definition_from_s3_with_the_values_put_in(server: StackServer) -> None:
    key = put_definition(server, "${Breed} at ${Role}")
    values = {"Breed": "collie", "Role": {"Fn::GetAtt": ["Worker", "Arn"]}}
    assert create(server, state_machine(key, **values)) == "CREATE_COMPLETE"
    assert said(server) == "collie at arn:aws:iam::123456789012:role/worker"


def test_a_parameter_that_is_used_only_in_a_sub_changes_what_uses_it(server: StackServer) -> None:
    resources = state_machine(put_definition(server, "${Image}"), Image={"Fn::Sub": "registry/dogs:${Tag}"})
    template = {"Parameters": {"Tag": {"Type": "String"}}}
    create(server, resources, **template, values={"Tag": "1"})
    assert update(server, resources, **template, values={"Tag": "2"}) == "UPDATE_COMPLETE"
    assert said(server) == "registry/dogs:2"


def test_a_name_without_a_value_fails_the_stack_and_is_named(server: StackServer) -> None:
    key = put_definition(server, "${Breed} ${Colour}")
    assert create(server, state_machine(key, Breed="collie")) == "ROLLBACK_COMPLETE"
    assert failure(server) == ("Machine", "DefinitionSubstitutions has no value for Colour")


def test_the_lambda_of_a_custom_resource_gets_cloudformations_event(server: StackServer) -> None:
    outputs = {"Colour": {"Value": {"Fn::GetAtt": ["Marker", "Colour"]}}, "Id": {"Value": {"Ref": "Marker"}}}
    assert create(server, custom_resource(Size=3, Loud=True), Outputs=outputs) == "CREATE_COMPLETE"
    [event] = server.custom_resource_events
    assert (event["RequestType"], event["ResourceType"]) == ("Create", "Custom::Marker")
    assert (event["ResourceProperties"]["Size"], event["ResourceProperties"]["Loud"]) == ("3", "true")
    assert (output(server, "Colour"), output(server, "Id")) == ("blue", "made")


def test_the_lambda_of_a_custom_resource_hears_of_changes_and_of_the_end(server: StackServer) -> None:
    create(server, custom_resource(Size=3))
    update(server, custom_resource(Size=4))
    server.client("cloudformation").delete_stack(StackName="dogs")
    created, changed, deleted = server.custom_resource_events
    assert changed["OldResourceProperties"]["Size"] == "3"
    assert changed["ResourceProperties"]["Size"] == "4"
    assert (deleted["RequestType"], deleted["PhysicalResourceId"]) == ("Delete", "made")
    assert len({event["RequestId"] for event in (created, changed, deleted)}) == 3


def test_a_custom_resource_that_fails_gives_its_reason(server: StackServer) -> None:
    server.answer = lambda event: {**succeed(event), "Status": "FAILED", "Reason": "no such bucket"}
    create(server, custom_resource())
    name, reason = failure(server)
    assert name == "Marker"
    assert reason.endswith("no such bucket")


def test_a_custom_resource_that_does_not_answer_fails_at_once(server: StackServer) -> None:
    server.answer = lambda event: None
    create(server, custom_resource())
    assert "without an answer" in failure(server)[1]


def test_what_needs_no_custom_resource_is_made_while_its_lambda_runs(server: StackServer) -> None:
    def topics() -> set[str]:
        return {found["TopicArn"].rsplit(":", 1)[-1] for found in server.client("sns").list_topics()["Topics"]}

    seen: list[set[str]] = []

    def answer(event: dict[str, Any]) -> dict[str, Any]:
        deadline = time.monotonic() + 20
        while "other" not in topics() and time.monotonic() < deadline:
            time.sleep(0.01)
        seen.append(topics())
        return succeed(event)

    server.answer = answer
    made = custom_resource()
    function = {name: made[name] for name in ("Worker", "Function")}
    assert create(server, function) == "CREATE_COMPLETE"
    other = {"Type": "AWS::SNS::Topic", "DependsOn": "Function", "Properties": {"TopicName": "other"}}
    after = {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": {"Fn::GetAtt": ["Marker", "Colour"]}}}
    assert update(server, {**made, "Other": other, "After": after}) == "UPDATE_COMPLETE"
    assert seen == [{"other"}]
    assert topics() == {"other", "blue"}


def test_a_custom_resource_that_fails_fails_the_update_that_went_on_meanwhile(server: StackServer) -> None:
    server.answer = lambda event: {**succeed(event), "Status": "FAILED", "Reason": "no such bucket"}
    made = custom_resource()
    create(server, {name: made[name] for name in ("Worker", "Function")})
    topic = {"Type": "AWS::SNS::Topic", "DependsOn": "Function", "Properties": {"TopicName": "other"}}
    assert update(server, {**made, "Other": topic}) == "UPDATE_FAILED"
    assert failure(server) == ("Marker", f"{function_arn()} answered: no such bucket")


def function_arn() -> str:
    return "arn:aws:lambda:us-east-1:123456789012:function:marker"


def test_an_answer_to_another_request_is_refused(server: StackServer) -> None:
    server.answer = lambda event: {**succeed(event), "RequestId": "guessed"}
    create(server, custom_resource())
    assert status(server) == "ROLLBACK_COMPLETE"


def test_a_stack_that_cannot_be_created_takes_back_what_it_made(server: StackServer) -> None:
    server.client("s3").create_bucket(Bucket="assets")
    machine = state_machine("missing.json")
    assert create(server, {**machine, "Data": bucket(BucketName="pictures")}) == "ROLLBACK_COMPLETE"
    assert failure(server)[0] == "Machine"
    assert [found["Name"] for found in server.client("s3").list_buckets()["Buckets"]] == ["assets"]


def test_an_update_that_fails_goes_on_at_the_next_one(server: StackServer) -> None:
    first = {"Data": bucket(BucketName="pictures")}
    create(server, first)
    server.client("s3").create_bucket(Bucket="assets")
    second = {**first, **state_machine("definition.json", Breed="collie")}
    assert update(server, second) == "UPDATE_FAILED"
    assert failure(server)[0] == "Machine"
    put_definition(server, "${Breed}")
    assert update(server, second) == "UPDATE_COMPLETE"
    assert said(server) == "collie"


def test_an_update_that_changes_a_parameter_and_fails_is_tried_again(server: StackServer) -> None:
    resources = state_machine(put_definition(server, "${Breed}", key="1.json"), Breed="collie")
    resources["Machine"]["Properties"]["DefinitionS3Location"]["Key"] = {"Ref": "Key"}
    template = {"Parameters": {"Key": {"Type": "String"}}}
    create(server, resources, **template, values={"Key": "1.json"})
    assert update(server, resources, **template, values={"Key": "2.json"}) == "UPDATE_FAILED"
    put_definition(server, "another ${Breed}", key="2.json")
    assert update(server, resources, **template, values={"Key": "2.json"}) == "UPDATE_COMPLETE"
    assert said(server) == "another collie"


def test_a_resource_that_left_the_template_can_come_back(server: StackServer) -> None:
    data, other = bucket(BucketName="pictures"), bucket(BucketName="other")
    create(server, {"Data": data, "Other": other})
    update(server, {"Other": other})
    assert [found["Name"] for found in server.client("s3").list_buckets()["Buckets"]] == ["other"]
    assert update(server, {"Data": data, "Other": other}) == "UPDATE_COMPLETE"
    assert {found["Name"] for found in server.client("s3").list_buckets()["Buckets"]} == {"other", "pictures"}


def test_a_retained_bucket_outlives_its_stack(server: StackServer) -> None:
    kept = {**bucket(BucketName="kept"), "DeletionPolicy": "RetainExceptOnCreate"}
    create(server, {"Kept": kept, "Gone": bucket(BucketName="gone")})
    server.client("cloudformation").delete_stack(StackName="dogs")
    assert [found["Name"] for found in server.client("s3").list_buckets()["Buckets"]] == ["kept"]


def test_a_type_that_nobody_implements_is_listed(server: StackServer) -> None:
    assert create(server, {"Fleet": {"Type": "AWS::GameLift::Fleet", "Properties": {}}}) == "CREATE_COMPLETE"
    assert "AWS::GameLift::Fleet" in cloudformation.stand_ins()


def test_a_type_that_only_moto_implements_is_made_by_moto(server: StackServer) -> None:
    parameter = {"Type": "AWS::SSM::Parameter", "Properties": {"Name": "breed", "Type": "String", "Value": "kelpie"}}
    create(server, {"Parameter": parameter})
    assert server.client("ssm").get_parameter(Name="breed")["Parameter"]["Value"] == "kelpie"
    assert "AWS::SSM::Parameter" not in cloudformation.stand_ins()
    server.client("cloudformation").delete_stack(StackName="dogs")
    assert server.client("ssm").describe_parameters()["Parameters"] == []
