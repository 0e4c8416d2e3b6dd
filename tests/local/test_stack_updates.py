"""Updates of stacks: replacements, what follows from them, conditions that flip, and every type of stack.yaml."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from stack_server import StackServer, stack_server

from workflow.deployment import template
from workflow.local import cloudformation, stack_updates

ACCOUNT = "123456789012"


@pytest.fixture(scope="module")
def running_server() -> Iterator[StackServer]:
    with stack_server() as running:
        yield running


@pytest.fixture
def server(running_server: StackServer) -> StackServer:
    """An account with nothing but a bucket of code and definitions, and roles."""
    running_server.reset()
    s3 = running_server.client("s3")
    s3.create_bucket(Bucket="code")
    for key in ("1.zip", "2.zip"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("handler.py", f"# {key}")
        s3.put_object(Bucket="code", Key=key, Body=buffer.getvalue())
    for key in ("1.json", "2.json"):
        state = {"Type": "Pass", "Result": key, "End": True}
        s3.put_object(Bucket="code", Key=key, Body=json.dumps({"StartAt": "A", "States": {"A": state}}))
    return running_server


def trust(service: str) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return {"Version": "2012-10-17", "Statement": [statement]}


def role(service: str) -> dict[str, Any]:
    return {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": trust(service)}}


def versioned(key: str) -> dict[str, Any]:
    """A function and a state machine with a version and an alias each; `key` is that of their code."""
    code = {"S3Bucket": "code", "S3Key": f"{key}.zip"}
    function = {"FunctionName": "f", "Handler": "handler.handler", "Runtime": "python3.12", "Code": code}
    definition = {"Bucket": "code", "Key": f"{key}.json"}
    return {
        "FunctionRole": role("lambda.amazonaws.com"),
        "Function": {
            "Type": "AWS::Lambda::Function",
            "Properties": {**function, "Role": {"Fn::GetAtt": ["FunctionRole", "Arn"]}},
        },
        "Version": {
            "Type": "AWS::Lambda::Version",
            "Properties": {"FunctionName": {"Ref": "Function"}, "Description": key},
        },
        "Alias": {
            "Type": "AWS::Lambda::Alias",
            "Properties": {
                "Name": "live",
                "FunctionName": {"Ref": "Function"},
                "FunctionVersion": {"Fn::GetAtt": ["Version", "Version"]},
            },
        },
        "MachineRole": role("states.amazonaws.com"),
        "Machine": {
            "Type": "AWS::StepFunctions::StateMachine",
            "Properties": {
                "StateMachineName": "m",
                "RoleArn": {"Fn::GetAtt": ["MachineRole", "Arn"]},
                "DefinitionS3Location": definition,
            },
        },
        "MachineVersion": {
            "Type": "AWS::StepFunctions::StateMachineVersion",
            "Properties": {
                "StateMachineArn": {"Ref": "Machine"},
                "StateMachineRevisionId": {"Fn::GetAtt": ["Machine", "StateMachineRevisionId"]},
            },
        },
        "MachineAlias": {
            "Type": "AWS::StepFunctions::StateMachineAlias",
            "Properties": {
                "Name": "live",
                "RoutingConfiguration": [{"StateMachineVersionArn": {"Ref": "MachineVersion"}, "Weight": 100}],
            },
        },
    }


def deploy(server: StackServer, resources: dict[str, Any], values: dict[str, str] | None = None, **more: Any) -> str:
    """Create the stack, or update it; its status."""
    client = server.client("cloudformation")
    exists = any(stack["StackStatus"] != "DELETE_COMPLETE" for stack in client.list_stacks()["StackSummaries"])
    given = [{"ParameterKey": key, "ParameterValue": value} for key, value in (values or {}).items()]
    body = json.dumps({"Resources": resources, **more})
    (client.update_stack if exists else client.create_stack)(StackName="dogs", TemplateBody=body, Parameters=given)
    return str(client.describe_stacks(StackName="dogs")["Stacks"][0]["StackStatus"])


def changed(server: StackServer, since: int) -> list[str]:
    """The resources of which there are events, without the first `since`, oldest first."""
    events = server.client("cloudformation").describe_stack_events(StackName="dogs")["StackEvents"]
    steps = [event for event in reversed(events) if event["ResourceType"] != "AWS::CloudFormation::Stack"]
    return [f"{event['ResourceStatus'].split('_')[0]} {event['LogicalResourceId']}" for event in steps[since:]]


def physical_ids(server: StackServer) -> dict[str, str]:
    listed = server.client("cloudformation").describe_stack_resources(StackName="dogs")["StackResources"]
    return {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in listed}


def test_new_code_makes_new_versions_and_the_aliases_follow_before_the_old_ones_go(server: StackServer) -> None:
    assert deploy(server, versioned("1")) == "CREATE_COMPLETE"
    before, steps = physical_ids(server), len(changed(server, 0))
    assert deploy(server, versioned("2")) == "UPDATE_COMPLETE"
    order = changed(server, steps)
    assert {"UPDATE Function", "CREATE Version", "UPDATE Alias", "DELETE Version"} <= set(order)
    assert order.index("CREATE Version") < order.index("UPDATE Alias") < order.index("DELETE Version")
    assert (
        order.index("CREATE MachineVersion") < order.index("UPDATE MachineAlias") < order.index("DELETE MachineVersion")
    )
    assert not {"FunctionRole", "MachineRole"} & {step.split()[1] for step in order}
    lambda_, after = server.client("lambda"), physical_ids(server)
    assert lambda_.get_alias(FunctionName="f", Name="live")["FunctionVersion"] == "2"
    assert [v["Version"] for v in lambda_.list_versions_by_function(FunctionName="f")["Versions"]] == ["$LATEST", "2"]
    states = server.client("stepfunctions")
    alias = states.describe_state_machine_alias(stateMachineAliasArn=after["MachineAlias"])
    assert alias["routingConfiguration"] == [{"stateMachineVersionArn": after["MachineVersion"], "weight": 100}]
    assert after["MachineVersion"] != before["MachineVersion"]
    assert after["MachineAlias"] == before["MachineAlias"]


def test_a_changed_layer_is_another_version_and_reaches_function_and_alias_before_the_old_one_goes(
    server: StackServer,
) -> None:
    def with_layer(key: str) -> dict[str, Any]:
        resources = versioned("1")
        content = {"S3Bucket": "code", "S3Key": f"{key}.zip"}
        resources["Layer"] = {
            "Type": "AWS::Lambda::LayerVersion",
            "Properties": {"LayerName": "shared", "Content": content},
        }
        resources["Function"]["Properties"]["Layers"] = [{"Ref": "Layer"}]
        resources["Version"]["Properties"]["Description"] = key
        return resources

    assert deploy(server, with_layer("1")) == "CREATE_COMPLETE"
    before, steps = physical_ids(server), len(changed(server, 0))
    assert before["Layer"].endswith(":layer:shared:1")
    assert deploy(server, with_layer("2")) == "UPDATE_COMPLETE"
    order = changed(server, steps)
    assert order.index("CREATE Layer") < order.index("UPDATE Function") < order.index("UPDATE Alias")
    assert order.index("UPDATE Alias") < order.index("DELETE Layer")
    lambda_ = server.client("lambda")
    layers = [lambda_.get_function_configuration(FunctionName=name)["Layers"] for name in ("f", "f:live")]
    after = physical_ids(server)["Layer"]
    assert [[layer["Arn"] for layer in found] for found in layers] == [[after], [after]]
    assert [one["Version"] for one in lambda_.list_layer_versions(LayerName="shared")["LayerVersions"]] == [2]
    assert deploy(server, versioned("2")) == "UPDATE_COMPLETE"
    assert lambda_.get_function_configuration(FunctionName="f").get("Layers", []) == []
    assert lambda_.list_layers()["Layers"] == []


def test_numbers_of_versions_never_come_again(server: StackServer) -> None:
    for key in ("1", "2", "1", "2"):
        deploy(server, versioned(key))
    assert server.client("lambda").get_alias(FunctionName="f", Name="live")["FunctionVersion"] == "4"


def test_an_update_that_changes_nothing_touches_nothing(server: StackServer) -> None:
    deploy(server, versioned("1"))
    steps = len(changed(server, 0))
    assert deploy(server, versioned("1"), Description="other words") == "UPDATE_COMPLETE"
    assert changed(server, steps) == []


def test_another_description_alone_is_no_new_version_and_fails_as_on_aws(server: StackServer) -> None:
    deploy(server, versioned("1"))
    resources = versioned("1")
    resources["Version"]["Properties"]["Description"] = "other"
    assert deploy(server, resources) == "UPDATE_FAILED"
    events = server.client("cloudformation").describe_stack_events(StackName="dogs")["StackEvents"]
    [why] = [event["ResourceStatusReason"] for event in events if event["ResourceStatus"] == "CREATE_FAILED"]
    assert "A version for this Lambda function exists" in why
    assert server.client("lambda").get_alias(FunctionName="f", Name="live")["FunctionVersion"] == "1"
    assert deploy(server, versioned("2")) == "UPDATE_COMPLETE", "the next deployment goes on from there"


def test_a_condition_that_flips_makes_and_removes(server: StackServer) -> None:
    resources = {
        "Queue": {"Type": "AWS::SQS::Queue", "Condition": "Wanted", "Properties": {"QueueName": "q"}},
        "Topic": {
            "Type": "AWS::SNS::Topic",
            "Properties": {"DisplayName": {"Fn::If": ["Wanted", {"Fn::GetAtt": ["Queue", "QueueName"]}, "none"]}},
        },
    }
    sections = {
        "Parameters": {"Wanted": {"Type": "String"}},
        "Conditions": {"Wanted": {"Fn::Equals": [{"Ref": "Wanted"}, "yes"]}},
    }

    def state(wanted: str) -> tuple[list[str], str]:
        assert deploy(server, copy.deepcopy(resources), {"Wanted": wanted}, **sections).endswith("_COMPLETE")
        urls = server.client("sqs").list_queues().get("QueueUrls", [])
        [topic] = server.client("sns").list_topics()["Topics"]
        attributes = server.client("sns").get_topic_attributes(TopicArn=topic["TopicArn"])["Attributes"]
        return [url.rsplit("/", 1)[-1] for url in urls], attributes["DisplayName"]

    assert state("no") == ([], "none")
    assert state("yes") == (["q"], "q")
    assert state("no") == ([], "none")
    assert state("yes") == (["q"], "q")


def test_a_resource_that_is_retained_stays_when_it_leaves_the_template(server: StackServer) -> None:
    queue = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "q"}}
    kept = {"Type": "AWS::SQS::Queue", "DeletionPolicy": "Retain", "Properties": {"QueueName": "kept"}}
    topic = {"Type": "AWS::SNS::Topic", "Properties": {}}
    deploy(server, {"Queue": queue, "Kept": kept, "Topic": topic})
    deploy(server, {"Topic": topic})
    assert [url.rsplit("/", 1)[-1] for url in server.client("sqs").list_queues()["QueueUrls"]] == ["kept"]


def test_what_would_change_is_known_before_and_creates_nothing(server: StackServer) -> None:
    deploy(server, versioned("1"))
    resources = versioned("2")
    resources["Queue"] = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "new"}}
    resources["Topic"] = {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": {"Fn::GetAtt": ["Queue", "Arn"]}}}
    client = server.client("cloudformation")
    client.create_change_set(
        StackName="dogs",
        ChangeSetName="next",
        ChangeSetType="UPDATE",
        TemplateBody=json.dumps({"Resources": resources}),
    )
    changes = client.describe_change_set(StackName="dogs", ChangeSetName="next")["Changes"]
    found = {(each["ResourceChange"]["Action"], each["ResourceChange"]["LogicalResourceId"]) for each in changes}
    expected = {("Modify", name) for name in ("Function", "Version", "Alias", "Machine")} | {
        ("Add", "Queue"),
        ("Add", "Topic"),
    }
    assert expected <= found
    assert "QueueUrls" not in server.client("sqs").list_queues()


def test_the_order_follows_references_of_every_kind() -> None:
    described: dict[str, Any] = {
        "A": {"Properties": {"x": {"Fn::Sub": "a ${B.Arn} ${!Literal} ${AWS::Region}"}}},
        "B": {"Properties": {"x": [{"Fn::GetAtt": ["C", "Arn"]}]}},
        "C": {"DependsOn": "D", "Properties": {"x": {"Fn::Sub": ["${y}", {"y": {"Ref": "E"}}]}}},
        "D": {"DependsOn": ["E"]},
        "E": {"Properties": {"self": {"Ref": "E"}, "parameter": {"Ref": "P"}}},
    }
    assert stack_updates.in_order(described) == ["E", "D", "C", "B", "A"]


def test_custom_resources_and_what_they_need_come_first() -> None:
    described: dict[str, Any] = {
        "Bucket": {"Type": "AWS::S3::Bucket"},
        "Machine": {"Type": "AWS::StepFunctions::StateMachine", "Properties": {"x": {"Ref": "Function"}}},
        "Function": {"Type": "AWS::Lambda::Function", "Properties": {"x": {"Fn::GetAtt": ["Role", "Arn"]}}},
        "Marker": {"Type": "Custom::Marker", "Properties": {"ServiceToken": {"Ref": "Function"}, "x": {"Ref": "P"}}},
        "Role": {"Type": "AWS::IAM::Role"},
        "After": {"Type": "AWS::SNS::Topic", "DependsOn": "Marker"},
    }
    order = stack_updates.custom_first(described)
    assert order[:3] == ["Role", "Function", "Marker"]
    assert sorted(order) == sorted(described)
    whole = template.parse(template.TEMPLATE_FILE.read_text(encoding="utf-8"))["Resources"]
    made: set[str] = set()
    for name in stack_updates.custom_first(whole):
        assert {other for other in stack_updates._needed(whole[name]) if other in whole and other != name} <= made
        made.add(name)
    assert made == set(whole)


def test_every_type_of_the_template_is_one_of_ours() -> None:
    body = template.parse(template.TEMPLATE_FILE.read_text(encoding="utf-8"))
    types = {resource["Type"] for resource in body["Resources"].values()}
    assert types <= set(cloudformation.RESOURCE_TYPES)


# ---- Each type: made, changed, removed -------------------------------------------------------------------------------

Check = Callable[[StackServer], Any]


def attribute(service: str, operation: str, path: str, **request: Any) -> Check:
    """What an operation answers at a path of keys; the name of the error where there is one."""

    def look(server: StackServer) -> Any:
        client = server.client(service)
        try:
            found = getattr(client, operation)(**request)
        except client.exceptions.ClientError as error:
            return error.response["Error"]["Code"]
        for key in path.split("."):
            found = found[int(key) if key.isdigit() else key] if found else None
        return found

    return look


def both(resource_type: str, made: Callable[[Any], dict[str, Any]], *values: Any) -> tuple[dict[str, Any], ...]:
    """The resource with the first value, and with the second."""
    return tuple({"Type": resource_type, "Properties": made(value)} for value in values)


def budget(amount: int) -> dict[str, Any]:
    limit = {"Amount": amount, "Unit": "USD"}
    return {"Budget": {"BudgetName": "b", "BudgetType": "COST", "TimeUnit": "MONTHLY", "BudgetLimit": limit}}


def rule(name: str) -> dict[str, Any]:
    target = {"Id": name, "Arn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:q"}
    return {"Name": "r", "EventPattern": {"source": [name]}, "Targets": [target]}


def rules(server: StackServer) -> list[tuple[list[str], list[str]]]:
    events = server.client("events")
    return [
        (
            json.loads(each["EventPattern"])["source"],
            [target["Id"] for target in events.list_targets_by_rule(Rule=each["Name"])["Targets"]],
        )
        for each in events.list_rules()["Rules"]
    ]


def schedule(expression: str) -> dict[str, Any]:
    target = {"Arn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:q", "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/r"}
    window = {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": "5"}
    return {"Name": "s", "ScheduleExpression": expression, "FlexibleTimeWindow": window, "Target": target}


def retention(server: StackServer) -> str | None:
    sqs = server.client("sqs")
    urls = sqs.list_queues().get("QueueUrls", [])
    found = [sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"] for url in urls]
    return found[0]["MessageRetentionPeriod"] if found else None


VPCS = [{"Name": "cidr", "Values": ["10.1.0.0/16", "10.2.0.0/16"]}]
TYPES: list[tuple[tuple[dict[str, Any], ...], Check, Any, Any]] = [
    (
        both("AWS::CloudWatch::Dashboard", lambda body: {"DashboardName": "d", "DashboardBody": body}, "{}", "[]"),
        attribute("cloudwatch", "get_dashboard", "DashboardBody", DashboardName="d"),
        "{}",
        "[]",
    ),
    (
        both("AWS::Budgets::Budget", budget, 5, 9),
        attribute("budgets", "describe_budget", "Budget.BudgetLimit.Amount", AccountId=ACCOUNT, BudgetName="b"),
        "5",
        "9",
    ),
    (
        both(
            "AWS::ECR::Repository",
            lambda kind: {"RepositoryName": "dogs", "ImageTagMutability": kind},
            "MUTABLE",
            "IMMUTABLE",
        ),
        attribute("ecr", "describe_repositories", "repositories.0.imageTagMutability", repositoryNames=["dogs"]),
        "MUTABLE",
        "IMMUTABLE",
    ),
    (
        both("AWS::EC2::VPC", lambda block: {"CidrBlock": block}, "10.1.0.0/16", "10.2.0.0/16"),
        attribute("ec2", "describe_vpcs", "Vpcs.0.CidrBlock", Filters=VPCS),
        "10.1.0.0/16",
        "10.2.0.0/16",
    ),
    (
        both("AWS::SQS::Queue", lambda seconds: {"QueueName": "q", "MessageRetentionPeriod": seconds}, 60, 120),
        retention,
        "60",
        "120",
    ),
    (both("AWS::Events::Rule", rule, "a", "b"), rules, [(["a"], ["a"])], [(["b"], ["b"])]),
    (
        both("AWS::Scheduler::Schedule", schedule, "rate(1 day)", "rate(2 days)"),
        attribute("scheduler", "get_schedule", "ScheduleExpression", Name="s"),
        "rate(1 day)",
        "rate(2 days)",
    ),
]


@pytest.mark.parametrize(("types", "look", "first", "second"), TYPES, ids=[t[0][0]["Type"] for t in TYPES])
def test_a_type_is_made_changed_and_removed(
    server: StackServer, types: tuple[dict[str, Any], ...], look: Check, first: Any, second: Any
) -> None:
    other = {"Type": "AWS::SNS::Topic", "Properties": {}}
    before, after = copy.deepcopy(types)
    assert deploy(server, {"It": before, "Other": other}) == "CREATE_COMPLETE"
    assert look(server) == first
    assert deploy(server, {"It": after, "Other": other}) == "UPDATE_COMPLETE"
    assert look(server) == second
    assert deploy(server, {"Other": other}) == "UPDATE_COMPLETE"
    assert look(server) not in (first, second)
    assert before["Type"] not in cloudformation.stand_ins()
