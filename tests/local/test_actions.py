from __future__ import annotations

import re
from functools import cache

import pytest
from botocore.session import Session
from policy_sentry.querying.actions import get_action_data, get_actions_for_service

from workflow.local.action_tables import PASSED_ROLES, SERVICES
from workflow.local.actions import Account, Unmapped, needs

ACCOUNT = Account("123456789012", "us-east-1")
SAGEMAKER = "arn:aws:sagemaker:us-east-1:123456789012:"
MAPPED = [(service, operation) for service, entry in SERVICES.items() for operation in entry.operations]


@cache
def model(service):
    return Session().get_service_model(service)


@cache
def iam_actions(prefix):
    return {action.lower() for action in get_actions_for_service(prefix)}


def required(service, operation, **parameters):
    return [(need.action, need.resource) for need in needs(service, operation, parameters, ACCOUNT)]


def actions_of(service, operation):
    prefix = SERVICES[service].prefix
    for text in SERVICES[service].operations[operation]:
        action = text.rpartition(" ")[0] or operation
        yield action if ":" in action else f"{prefix}:{action}"


@pytest.mark.parametrize(("service", "operation"), MAPPED)
def test_every_mapped_operation_and_action_exists(service, operation):
    assert operation in model(service).operation_names
    for action in actions_of(service, operation):
        assert action.lower() in iam_actions(action.split(":")[0]), action


@pytest.mark.parametrize(("service", "operation"), MAPPED)
def test_a_row_names_a_resource_where_the_action_has_resources(service, operation):
    texts = SERVICES[service].operations[operation]
    for action, text in zip(actions_of(service, operation), texts, strict=True):
        prefix, name = action.split(":")
        forms = {row["resource_arn_format"] for row in get_action_data(prefix, name)[prefix]}
        if text.rpartition(" ")[2] == "*":
            assert "*" in forms, f"{action} can be limited to {forms}"
        else:
            assert forms != {"*"}, f"{action} has no resources"


NOT_FROM_THE_REQUEST = {"partition", "region", "account"}
DERIVED = {
    "AttachedLayers",
    "CopySource", "CopySourceVersion", "CurrentObject", "ObjectVersion", "DeletedObjects", "DeletedVersions",
    "IndexPath", "TableNames", "PutTables", "UpdateTables", "DeleteTables", "ConditionCheckTables",
    "NewModelPackage", "ListedModelPackages", "QualifierPath", "AlarmNames", "ScaledEndpoint", "EventBuses",
    "QueueName", "ScheduleGroup", "StateMachine", "BuiltProjects",
}  # fmt: skip


@pytest.mark.parametrize(("service", "operation"), MAPPED)
def test_every_placeholder_is_a_parameter_of_the_operation(service, operation):
    shape = model(service).operation_model(operation).input_shape
    members = set(shape.members) if shape else set()
    for text in SERVICES[service].operations[operation]:
        for alternatives in re.findall(r"\{([\w|]+)\}", text):
            names = set(alternatives.split("|"))
            assert names & (members | DERIVED | NOT_FROM_THE_REQUEST), (text, sorted(members))


def test_every_role_that_a_mapped_operation_takes_is_checked_for_pass_role():
    not_passed = {
        ("sts", "AssumeRole"): "it is what is asked for",
        ("stepfunctions", "CreateStateMachine"): None,
    }
    for service, operation in MAPPED:
        shape = model(service).operation_model(operation).input_shape
        roles = {name for name in (shape.members if shape else ()) if re.search(r"(?i)role(arn)?$", name)}
        if roles and not_passed.get((service, operation)) is None:
            assert PASSED_ROLES[service, operation][0] in roles


@pytest.mark.parametrize(
    ("service", "operation", "parameters", "expected"),
    [
        ("s3", "HeadObject", {"Bucket": "b", "Key": "a/b c"}, [("s3:GetObject", "arn:aws:s3:::b/a/b c")]),
        (
            "s3",
            "GetObject",
            {"Bucket": "b", "Key": "k", "VersionId": "1"},
            [("s3:GetObjectVersion", "arn:aws:s3:::b/k")],
        ),
        ("s3", "ListObjectsV2", {"Bucket": "b"}, [("s3:ListBucket", "arn:aws:s3:::b")]),
        ("s3", "HeadBucket", {"Bucket": "b"}, [("s3:ListBucket", "arn:aws:s3:::b")]),
        ("s3", "UploadPart", {"Bucket": "b", "Key": "k"}, [("s3:PutObject", "arn:aws:s3:::b/k")]),
        (
            "s3",
            "CopyObject",
            {"Bucket": "b", "Key": "k", "CopySource": "/other/a%20b"},
            [("s3:PutObject", "arn:aws:s3:::b/k"), ("s3:GetObject", "arn:aws:s3:::other/a b")],
        ),
        (
            "s3",
            "DeleteObjects",
            {"Bucket": "b", "Delete": {"Objects": [{"Key": "x"}, {"Key": "y", "VersionId": "1"}]}},
            [("s3:DeleteObject", "arn:aws:s3:::b/x"), ("s3:DeleteObjectVersion", "arn:aws:s3:::b/y")],
        ),
        (
            "s3",
            "PutObject",
            {"Bucket": "b", "Key": "k", "Tagging": "a=b"},
            [("s3:PutObject", "arn:aws:s3:::b/k"), ("s3:PutObjectTagging", "arn:aws:s3:::b/k")],
        ),
        (
            "codebuild",
            "StartBuild",
            {"projectName": "dogs-serving"},
            [("codebuild:StartBuild", "arn:aws:codebuild:us-east-1:123456789012:project/dogs-serving")],
        ),
        (
            "codebuild",
            "BatchGetBuilds",
            {"ids": ["dogs-serving:8f1c", "arn:aws:codebuild:us-east-1:123456789012:build/dogs-serving:9a2d"]},
            [("codebuild:BatchGetBuilds", "arn:aws:codebuild:us-east-1:123456789012:project/dogs-serving")],
        ),
        (
            "cloudformation",
            "ContinueUpdateRollback",
            {"StackName": "dogs", "RoleARN": "arn:aws:iam::123456789012:role/Deploy"},
            [
                (
                    "cloudformation:ContinueUpdateRollback",
                    "arn:aws:cloudformation:us-east-1:123456789012:stack/dogs/*",
                ),
                ("iam:PassRole", "arn:aws:iam::123456789012:role/Deploy"),
            ],
        ),
        (
            "sagemaker",
            "UpdateEndpoint",
            {"EndpointName": "Dogs", "EndpointConfigName": "Dogs-1"},
            [
                ("sagemaker:UpdateEndpoint", f"{SAGEMAKER}endpoint/dogs"),
                ("sagemaker:UpdateEndpoint", f"{SAGEMAKER}endpoint-config/dogs-1"),
            ],
        ),
        (
            "sagemaker",
            "CreateTrainingJob",
            {
                "TrainingJobName": "Job",
                "RoleArn": "arn:aws:iam::123456789012:role/Train",
                "Tags": [{"Key": "a", "Value": "b"}],
            },
            [
                ("sagemaker:CreateTrainingJob", f"{SAGEMAKER}training-job/job"),
                ("sagemaker:AddTags", f"{SAGEMAKER}training-job/job"),
                ("iam:PassRole", "arn:aws:iam::123456789012:role/Train"),
            ],
        ),
        (
            "sagemaker",
            "CreateModelPackage",
            {"ModelPackageGroupName": "dogs"},
            [
                ("sagemaker:CreateModelPackage", f"{SAGEMAKER}model-package/dogs/*"),
                ("sagemaker:CreateModelPackage", f"{SAGEMAKER}model-package-group/dogs"),
            ],
        ),
        (
            "sagemaker",
            "UpdateModelPackage",
            {"ModelPackageArn": f"{SAGEMAKER}model-package/dogs/3"},
            [("sagemaker:UpdateModelPackage", f"{SAGEMAKER}model-package/dogs/3")],
        ),
        (
            "sagemaker",
            "ListModelPackages",
            {"ModelPackageGroupName": "dogs"},
            [("sagemaker:ListModelPackages", f"{SAGEMAKER}model-package/dogs/*")],
        ),
        (
            "sagemaker-runtime",
            "InvokeEndpoint",
            {"EndpointName": "dogs"},
            [("sagemaker:InvokeEndpoint", f"{SAGEMAKER}endpoint/dogs")],
        ),
        (
            "lambda",
            "Invoke",
            {"FunctionName": "arn:aws:lambda:us-east-1:123456789012:function:gate:live"},
            [("lambda:InvokeFunction", "arn:aws:lambda:us-east-1:123456789012:function:gate:live")],
        ),
        (
            "lambda",
            "Invoke",
            {"FunctionName": "gate", "Qualifier": "live"},
            [("lambda:InvokeFunction", "arn:aws:lambda:us-east-1:123456789012:function:gate:live")],
        ),
        (
            "dynamodb",
            "Query",
            {"TableName": "t", "IndexName": "i"},
            [("dynamodb:Query", "arn:aws:dynamodb:us-east-1:123456789012:table/t/index/i")],
        ),
        (
            "dynamodb",
            "PutItem",
            {"TableName": "arn:aws:dynamodb:us-east-1:123456789012:table/t"},
            [("dynamodb:PutItem", "arn:aws:dynamodb:us-east-1:123456789012:table/t")],
        ),
        (
            "dynamodb",
            "TransactWriteItems",
            {"TransactItems": [{"Put": {"TableName": "a"}}, {"Delete": {"TableName": "b"}}]},
            [
                ("dynamodb:PutItem", "arn:aws:dynamodb:us-east-1:123456789012:table/a"),
                ("dynamodb:DeleteItem", "arn:aws:dynamodb:us-east-1:123456789012:table/b"),
            ],
        ),
        (
            "logs",
            "PutLogEvents",
            {"logGroupName": "/aws/lambda/f", "logStreamName": "s"},
            [("logs:PutLogEvents", "arn:aws:logs:us-east-1:123456789012:log-group:/aws/lambda/f:log-stream:s")],
        ),
        (
            "application-autoscaling",
            "RegisterScalableTarget",
            {"ServiceNamespace": "sagemaker", "ResourceId": "endpoint/Dogs/variant/AllTraffic"},
            [
                (
                    "application-autoscaling:RegisterScalableTarget",
                    "arn:aws:application-autoscaling:us-east-1:123456789012:scalable-target/*",
                ),
                ("sagemaker:DescribeEndpoint", f"{SAGEMAKER}endpoint/dogs"),
                ("sagemaker:UpdateEndpointWeightsAndCapacities", f"{SAGEMAKER}endpoint/dogs"),
            ],
        ),
        (
            "cloudwatch",
            "DescribeAlarms",
            {"AlarmNames": ["a", "b"]},
            [
                ("cloudwatch:DescribeAlarms", "arn:aws:cloudwatch:us-east-1:123456789012:alarm:a"),
                ("cloudwatch:DescribeAlarms", "arn:aws:cloudwatch:us-east-1:123456789012:alarm:b"),
            ],
        ),
        (
            "cloudwatch",
            "PutDashboard",
            {"DashboardName": "d"},
            [("cloudwatch:PutDashboard", "arn:aws:cloudwatch::123456789012:dashboard/d")],
        ),
        (
            "ssm",
            "GetParameter",
            {"Name": "/a/b"},
            [("ssm:GetParameter", "arn:aws:ssm:us-east-1:123456789012:parameter/a/b")],
        ),
        (
            "events",
            "PutTargets",
            {"Rule": "r", "Targets": [{"RoleArn": "arn:aws:iam::123456789012:role/E"}, {"Arn": "x"}]},
            [
                ("events:PutTargets", "arn:aws:events:us-east-1:123456789012:rule/r"),
                ("iam:PassRole", "arn:aws:iam::123456789012:role/E"),
            ],
        ),
        (
            "lambda",
            "UpdateFunctionConfiguration",
            {"FunctionName": "f", "Layers": ["arn:aws:lambda:us-east-1:123456789012:layer:shared:3"]},
            [
                ("lambda:UpdateFunctionConfiguration", "arn:aws:lambda:us-east-1:123456789012:function:f"),
                ("lambda:GetLayerVersion", "arn:aws:lambda:us-east-1:123456789012:layer:shared:3"),
            ],
        ),
        (
            "lambda",
            "DeleteLayerVersion",
            {"LayerName": "shared", "VersionNumber": 3},
            [("lambda:DeleteLayerVersion", "arn:aws:lambda:us-east-1:123456789012:layer:shared:3")],
        ),
        ("sts", "GetCallerIdentity", {}, []),
    ],
)
def test_a_request_needs_these_actions_on_these_resources(service, operation, parameters, expected):
    assert required(service, operation, **parameters) == expected


def test_passing_a_role_says_to_which_service():
    (_, passed) = needs("sagemaker", "CreateModel", {"ModelName": "m", "ExecutionRoleArn": "arn:r"}, ACCOUNT)
    assert passed.context == {"iam:PassedToService": "sagemaker.amazonaws.com"}


def test_a_listing_carries_its_prefix_as_context():
    (need,) = needs("s3", "ListObjectsV2", {"Bucket": "b", "Prefix": "datasets/"}, ACCOUNT)
    assert need.context == {"s3:prefix": "datasets/"}
    (whole,) = needs("s3", "ListObjectsV2", {"Bucket": "b"}, ACCOUNT)
    assert whole.context == {"s3:prefix": ""}


def test_tags_in_a_request_are_context():
    parameters = {"ModelName": "m", "Tags": [{"Key": "team", "Value": "dogs"}]}
    context = needs("sagemaker", "CreateModel", parameters, ACCOUNT)[0].context
    assert context == {"aws:RequestTag/team": "dogs", "aws:TagKeys": ["team"]}


@pytest.mark.parametrize(("service", "operation"), [("glue", "ListJobs"), ("sagemaker", "CreateApp")])
def test_what_is_not_in_the_tables_is_unmapped(service, operation):
    with pytest.raises(Unmapped):
        required(service, operation)
