"""What the state machine needs of the stack, and what the stack gives it: the same."""

from __future__ import annotations

import re
from typing import Any

import pytest

from workflow import config, definition
from workflow.deployment import template

RESOURCES: dict[str, Any] = template.parse(template.TEMPLATE_FILE.read_text())["Resources"]

# The IAM actions behind each integration of the definition. Source: aws-sdk integrations need the action of the same
# name; the optimised ones, Step Functions developer guide, "Integrate with SageMaker AI", read 2026-11.
ACTIONS = {
    "lambda:invoke": {"lambda:InvokeFunction"},
    "dynamodb:getItem": {"dynamodb:GetItem"},
    "dynamodb:putItem": {"dynamodb:PutItem"},
    "dynamodb:updateItem": {"dynamodb:UpdateItem"},
    "sns:publish": {"sns:Publish"},
    "sagemaker:createTrainingJob.sync": {
        "sagemaker:CreateTrainingJob",
        "sagemaker:DescribeTrainingJob",
        "sagemaker:StopTrainingJob",
        "sagemaker:AddTags",
        "sagemaker:ListTags",
        "events:PutRule",
        "events:PutTargets",
        "events:DescribeRule",
        "iam:PassRole",
    },
    "sagemaker:createModel": {"sagemaker:CreateModel", "sagemaker:AddTags", "iam:PassRole"},
    "sagemaker:createEndpointConfig": {"sagemaker:CreateEndpointConfig", "sagemaker:AddTags"},
    "sagemaker:createEndpoint": {"sagemaker:CreateEndpoint", "sagemaker:AddTags"},
    "aws-sdk:sagemaker:createModelPackage": {"sagemaker:CreateModelPackage"},
    "aws-sdk:sagemaker:describeModelPackage": {"sagemaker:DescribeModelPackage"},
    "aws-sdk:sagemaker:updateModelPackage": {"sagemaker:UpdateModelPackage"},
    "aws-sdk:sagemaker:describeTrainingJob": {"sagemaker:DescribeTrainingJob"},
    "aws-sdk:sagemaker:describeEndpoint": {"sagemaker:DescribeEndpoint"},
    "aws-sdk:sagemaker:describeEndpointConfig": {"sagemaker:DescribeEndpointConfig"},
    "aws-sdk:sagemaker:updateEndpoint": {"sagemaker:UpdateEndpoint"},
    "aws-sdk:sfn:describeExecution": {"states:DescribeExecution"},
    "aws-sdk:s3:copyObject": {"s3:GetObject", "s3:PutObject"},
    "aws-sdk:applicationautoscaling:describeScalableTargets": {"application-autoscaling:DescribeScalableTargets"},
    "aws-sdk:applicationautoscaling:describeScalingPolicies": {"application-autoscaling:DescribeScalingPolicies"},
    "aws-sdk:applicationautoscaling:deregisterScalableTarget": {"application-autoscaling:DeregisterScalableTarget"},
    "aws-sdk:applicationautoscaling:putScalingPolicy": {"application-autoscaling:PutScalingPolicy"},
    # The caller needs what scaling will do. Source: SageMaker developer guide, auto scaling prerequisites.
    "aws-sdk:applicationautoscaling:registerScalableTarget": {
        "application-autoscaling:RegisterScalableTarget",
        "sagemaker:DescribeEndpoint",
        "sagemaker:DescribeEndpointConfig",
        "sagemaker:UpdateEndpointWeightsAndCapacities",
        "cloudwatch:PutMetricAlarm",
        "cloudwatch:DescribeAlarms",
        "cloudwatch:DeleteAlarms",
        "iam:CreateServiceLinkedRole",
    },
}
# Everything at rest is under one key: reading and writing objects, messages, volumes.
KEY_ACTIONS = {"kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey", "kms:CreateGrant"}
# The state machine's own log and traces. Source: Step Functions developer guide, "Using CloudWatch Logs to log
# execution history" and "Tracing requests with AWS X-Ray", read 2026-11.
LOG_ACTIONS = {
    "logs:CreateLogDelivery",
    "logs:GetLogDelivery",
    "logs:UpdateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:DescribeResourcePolicies",
    "logs:DescribeLogGroups",
}
TRACE_ACTIONS = {
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
}


@pytest.fixture(scope="module")
def tasks() -> dict[str, dict[str, Any]]:
    """The Task states of the definition."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        states = definition.build(config.Config())["States"]
    return {name: state for name, state in states.items() if state["Type"] == "Task"}


def granted() -> set[str]:
    [policy] = RESOURCES["StateMachineRole"]["Properties"]["Policies"]
    actions: set[str] = set()
    for statement in policy["PolicyDocument"]["Statement"]:
        action = statement["Action"]
        actions |= set(action if isinstance(action, list) else [action])
    return actions


def test_the_state_machines_role_allows_exactly_what_its_states_call(tasks: dict[str, dict[str, Any]]) -> None:
    integrations = {re.sub(r"^arn:[^:]+:states:::", "", task["Resource"]) for task in tasks.values()}
    needed = set().union(*(ACTIONS[integration] for integration in integrations))
    assert granted() == needed | KEY_ACTIONS | LOG_ACTIONS | TRACE_ACTIONS


def test_the_stack_supplies_exactly_the_values_that_the_definition_uses() -> None:
    supplied = RESOURCES["StateMachine"]["Properties"]["DefinitionSubstitutions"]
    assert set(supplied) == definition.SUBSTITUTIONS


def test_every_lambda_that_the_definition_invokes_may_be_invoked() -> None:
    [policy] = RESOURCES["StateMachineRole"]["Properties"]["Policies"]
    [statement] = [
        statement
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Action"] == "lambda:InvokeFunction"
    ]
    allowed = {resource["Ref"] for resource in statement["Resource"]}
    assert allowed == {f"{name}Alias" for name in definition.FUNCTIONS}


def test_the_definition_calls_the_lambdas_by_their_aliases() -> None:
    supplied = RESOURCES["StateMachine"]["Properties"]["DefinitionSubstitutions"]
    for name in definition.FUNCTIONS:
        assert supplied[f"{name}FunctionArn"] == {"Ref": f"{name}Alias"}


def test_a_task_waits_longer_than_its_lambda_may_run(tasks: dict[str, dict[str, Any]]) -> None:
    checked = 0
    for name, task in tasks.items():
        if task["Resource"].endswith("lambda:invoke"):
            [function] = re.findall(r"\$\{(\w+)Arn\}", task["Parameters"]["FunctionName"])
            assert task["TimeoutSeconds"] > RESOURCES[function]["Properties"]["Timeout"], name
            checked += 1
    assert checked >= 6
