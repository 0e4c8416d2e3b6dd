"""What a person needs in IAM to run Kelpie on AWS, as policy documents: docs/reference/*-policy*.json.

`python tests/deployer_policy.py` writes them. They follow from the resource types of stack.yaml (`RESOURCE_TYPES`: what
CloudFormation calls in the caller's name to create, read, change and delete one) and from the calls that the commands
make themselves (`COMMANDS`). Several documents, because a managed policy has at most 6,144 characters and not everybody
needs all.

Sources: the permissions that the resource types' schemas name for their handlers (CloudFormation registry; seen for log
groups, repositories, roles, topics, queues and state machines), else the API reference of the service; Amazon ECR user
guide, "Encryption at rest" (grants); IAM user guide, quotas; read 2026-11. Nobody has tried them on AWS.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
LIMIT_CHARACTERS = 6_144
"""Of a managed policy, without white space. Source: IAM user guide, "IAM and AWS STS quotas"."""


def actions(service: str, *names: str) -> frozenset[str]:
    """`actions("s3", "GetObject")` is `{"s3:GetObject"}`."""
    return frozenset(f"{service}:{name}" for name in names)


_KEY_OF_A_REPOSITORY = actions("kms", "DescribeKey", "CreateGrant", "RetireGrant")
_PASS_ROLE = actions("iam", "PassRole")

RESOURCE_TYPES: Mapping[str, frozenset[str]] = {
    "AWS::CloudWatch::Alarm": actions("cloudwatch", "PutMetricAlarm", "DescribeAlarms", "DeleteAlarms"),
    "AWS::CloudWatch::Dashboard": actions("cloudwatch", "PutDashboard", "GetDashboard", "DeleteDashboards"),
    "AWS::CodeBuild::Project": actions(
        "codebuild", "CreateProject", "UpdateProject", "DeleteProject", "BatchGetProjects"
    )
    | _PASS_ROLE,
    "AWS::DynamoDB::Table": actions(
        "dynamodb",
        *("CreateTable", "DescribeTable", "UpdateTable", "DeleteTable"),
        *("UpdateContinuousBackups", "DescribeContinuousBackups"),
    ),
    "AWS::ECR::Repository": actions(
        "ecr",
        *("CreateRepository", "DescribeRepositories", "DeleteRepository"),
        *("PutLifecyclePolicy", "GetLifecyclePolicy", "PutImageScanningConfiguration", "PutImageTagMutability"),
        *("GetRepositoryPolicy", "ListTagsForResource", "ListImages", "BatchDeleteImage"),
    )
    | _KEY_OF_A_REPOSITORY,
    "AWS::Events::Rule": actions("events", "PutRule", "DescribeRule", "DeleteRule", "PutTargets", "RemoveTargets")
    | actions("events", "ListTargetsByRule")
    | _PASS_ROLE,
    "AWS::IAM::Role": actions(
        "iam",
        *("CreateRole", "GetRole", "UpdateRole", "UpdateRoleDescription", "UpdateAssumeRolePolicy", "DeleteRole"),
        *("PutRolePolicy", "GetRolePolicy", "DeleteRolePolicy", "ListRolePolicies", "ListAttachedRolePolicies"),
    ),
    "AWS::KMS::Alias": actions("kms", "CreateAlias", "UpdateAlias", "DeleteAlias", "ListAliases"),
    "AWS::KMS::Key": actions(
        "kms",
        *("CreateKey", "DescribeKey", "UpdateKeyDescription", "ScheduleKeyDeletion", "PutKeyPolicy", "GetKeyPolicy"),
        *("EnableKeyRotation", "GetKeyRotationStatus", "ListResourceTags", "TagResource"),
    ),
    "AWS::Lambda::Alias": actions("lambda", "CreateAlias", "GetAlias", "UpdateAlias", "DeleteAlias"),
    "AWS::Lambda::EventInvokeConfig": actions(
        "lambda",
        *("PutFunctionEventInvokeConfig", "GetFunctionEventInvokeConfig"),
        *("UpdateFunctionEventInvokeConfig", "DeleteFunctionEventInvokeConfig"),
    ),
    "AWS::Lambda::Function": actions(
        "lambda",
        *("CreateFunction", "GetFunction", "GetFunctionConfiguration", "DeleteFunction"),
        *("UpdateFunctionCode", "UpdateFunctionConfiguration", "PutFunctionConcurrency", "DeleteFunctionConcurrency"),
    )
    | actions("s3", "GetObject", "GetObjectVersion")
    | actions("kms", "Decrypt")
    | _PASS_ROLE,
    "AWS::Lambda::LayerVersion": actions("lambda", "PublishLayerVersion", "GetLayerVersion", "DeleteLayerVersion")
    | actions("s3", "GetObject"),
    "AWS::Lambda::Permission": actions("lambda", "AddPermission", "GetPolicy", "RemovePermission"),
    "AWS::Lambda::Url": actions(
        "lambda",
        *("CreateFunctionUrlConfig", "GetFunctionUrlConfig", "UpdateFunctionUrlConfig", "DeleteFunctionUrlConfig"),
    ),
    "AWS::Lambda::Version": actions("lambda", "PublishVersion", "ListVersionsByFunction", "DeleteFunction"),
    "AWS::Logs::LogGroup": actions(
        "logs",
        *("CreateLogGroup", "DescribeLogGroups", "DeleteLogGroup", "PutRetentionPolicy", "AssociateKmsKey"),
        *("ListTagsForResource", "GetDataProtectionPolicy"),
    ),
    "AWS::S3::Bucket": actions(
        "s3",
        *("CreateBucket", "DeleteBucket", "PutBucketVersioning", "PutEncryptionConfiguration"),
        *("PutBucketPublicAccessBlock", "PutBucketLogging", "PutBucketNotification", "PutLifecycleConfiguration"),
        *("PutBucketOwnershipControls", "PutBucketTagging", "GetBucketTagging"),
    ),
    "AWS::S3::BucketPolicy": actions("s3", "PutBucketPolicy", "GetBucketPolicy", "DeleteBucketPolicy"),
    "AWS::SNS::Subscription": actions("sns", "Subscribe", "GetSubscriptionAttributes", "Unsubscribe"),
    "AWS::SNS::Topic": actions(
        "sns",
        *("CreateTopic", "GetTopicAttributes", "SetTopicAttributes", "DeleteTopic"),
        *("ListTagsForResource", "ListSubscriptionsByTopic", "GetDataProtectionPolicy"),
    ),
    "AWS::SNS::TopicPolicy": actions("sns", "SetTopicAttributes"),
    "AWS::SQS::Queue": actions(
        "sqs", "CreateQueue", "GetQueueAttributes", "SetQueueAttributes", "DeleteQueue", "GetQueueUrl", "ListQueueTags"
    ),
    "AWS::SQS::QueuePolicy": actions("sqs", "SetQueueAttributes"),
    "AWS::SageMaker::ModelPackageGroup": actions(
        "sagemaker",
        *("CreateModelPackageGroup", "DescribeModelPackageGroup", "DeleteModelPackageGroup"),
        *("GetModelPackageGroupPolicy", "ListTags"),
    ),
    "AWS::Scheduler::Schedule": actions(
        "scheduler", "CreateSchedule", "GetSchedule", "UpdateSchedule", "DeleteSchedule"
    )
    | _PASS_ROLE,
    "AWS::StepFunctions::StateMachine": actions(
        "states",
        *("CreateStateMachine", "DescribeStateMachine", "UpdateStateMachine", "DeleteStateMachine"),
        "ListTagsForResource",
    )
    | actions("s3", "GetObject")
    | _PASS_ROLE,
    "AWS::StepFunctions::StateMachineAlias": actions(
        "states",
        *("CreateStateMachineAlias", "DescribeStateMachineAlias", "UpdateStateMachineAlias", "DeleteStateMachineAlias"),
    ),
    "AWS::StepFunctions::StateMachineVersion": actions(
        "states",
        *("PublishStateMachineVersion", "ListStateMachineVersions", "DeleteStateMachineVersion"),
    ),
    "Custom::ChampionMarker": actions("lambda", "InvokeFunction"),
}
"""For the resource types that every deployment makes."""

OPTIONAL_RESOURCE_TYPES: Mapping[str, frozenset[str]] = {
    "AWS::ApplicationAutoScaling::ScalableTarget": actions(
        "application-autoscaling", "RegisterScalableTarget", "DescribeScalableTargets", "DeregisterScalableTarget"
    )
    | actions("lambda", "PutProvisionedConcurrencyConfig", "GetProvisionedConcurrencyConfig")
    | actions("lambda", "DeleteProvisionedConcurrencyConfig")
    | actions("iam", "CreateServiceLinkedRole"),
    "AWS::ApplicationAutoScaling::ScalingPolicy": actions(
        "application-autoscaling", "PutScalingPolicy", "DescribeScalingPolicies", "DeleteScalingPolicy"
    ),
    "AWS::Budgets::Budget": actions("budgets", "ModifyBudget", "ViewBudget"),
    "AWS::CloudTrail::Trail": actions(
        "cloudtrail",
        *("CreateTrail", "GetTrail", "UpdateTrail", "DeleteTrail", "StartLogging", "StopLogging", "GetTrailStatus"),
        *("PutEventSelectors", "GetEventSelectors", "DescribeTrails"),
    ),
    "AWS::EC2::FlowLog": actions("ec2", "CreateFlowLogs", "DescribeFlowLogs", "DeleteFlowLogs") | _PASS_ROLE,
    "AWS::EC2::RouteTable": actions("ec2", "CreateRouteTable", "DescribeRouteTables", "DeleteRouteTable", "CreateTags"),
    "AWS::EC2::SecurityGroup": actions(
        "ec2",
        *("CreateSecurityGroup", "DescribeSecurityGroups", "DeleteSecurityGroup", "CreateTags"),
        *("AuthorizeSecurityGroupIngress", "RevokeSecurityGroupIngress"),
        *("AuthorizeSecurityGroupEgress", "RevokeSecurityGroupEgress"),
    ),
    "AWS::EC2::SecurityGroupEgress": actions("ec2", "AuthorizeSecurityGroupEgress", "RevokeSecurityGroupEgress")
    | actions("ec2", "DescribeSecurityGroupRules"),
    "AWS::EC2::SecurityGroupIngress": actions("ec2", "AuthorizeSecurityGroupIngress", "RevokeSecurityGroupIngress")
    | actions("ec2", "DescribeSecurityGroupRules"),
    "AWS::EC2::Subnet": actions(
        "ec2", "CreateSubnet", "DescribeSubnets", "DeleteSubnet", "CreateTags", "DescribeAvailabilityZones"
    ),
    "AWS::EC2::SubnetRouteTableAssociation": actions("ec2", "AssociateRouteTable", "DisassociateRouteTable"),
    "AWS::EC2::VPC": actions(
        "ec2", "CreateVpc", "DescribeVpcs", "ModifyVpcAttribute", "DescribeVpcAttribute", "DeleteVpc", "CreateTags"
    ),
    "AWS::EC2::VPCEndpoint": actions(
        "ec2", "CreateVpcEndpoint", "DescribeVpcEndpoints", "ModifyVpcEndpoint", "DeleteVpcEndpoints"
    ),
    "AWS::IAM::Policy": actions("iam", "PutRolePolicy", "GetRolePolicy", "DeleteRolePolicy"),
}
"""For those that only the sections [vpc], [trail], [budget] and [concurrency] of kelpie.toml ask for."""

COMMANDS: Mapping[str, frozenset[str]] = {
    "deploy": actions(
        "cloudformation",
        *("DescribeStacks", "DescribeStackEvents", "ListStackResources", "GetTemplate", "DeleteStack"),
        *("CreateChangeSet", "DescribeChangeSet", "ExecuteChangeSet", "DeleteChangeSet", "ContinueUpdateRollback"),
    )
    | actions("s3", "ListBucket", "GetObject", "PutObject", "AbortMultipartUpload")
    | actions("kms", "GenerateDataKey", "Decrypt")
    | actions("ecr", "DescribeImages", "DescribeRepositories")
    | actions("codebuild", "StartBuild", "BatchGetBuilds"),
    "schedule": actions("scheduler", "GetSchedule"),
}
"""What the commands that change the stack call themselves."""

OPERATION: Mapping[str, frozenset[str]] = {
    "preflight": actions("states", "ValidateStateMachineDefinition")
    | actions("servicequotas", "ListServiceQuotas")
    | actions("lambda", "GetAccountSettings", "GetFunctionConcurrency")
    | actions("ec2", "DescribeSubnets", "DescribeSecurityGroups")
    | actions("pricing", "GetProducts")
    | actions("iam", "SimulatePrincipalPolicy")
    | actions("ecr", "BatchGetImage", "DescribeImages", "DescribeImageScanFindings"),
    "start, resume, rollback, stop": actions("states", "StartExecution", "StopExecution")
    | actions("states", "ListStateMachines", "ListExecutions", "DescribeExecution", "GetExecutionHistory")
    | actions("states", "DescribeStateMachine", "DescribeStateMachineForExecution")
    | actions("cloudformation", "DescribeStacks")
    | actions("s3", "ListBucket", "GetObject", "PutObject", "AbortMultipartUpload")
    | actions("kms", "GenerateDataKey", "Decrypt"),
    "watch, describe, logs, report, models, predict": actions(
        "sagemaker",
        *("DescribeTrainingJob", "DescribeEndpoint", "DescribeModelPackage", "ListModelPackages", "InvokeEndpoint"),
    )
    | actions("logs", "DescribeLogStreams", "GetLogEvents", "FilterLogEvents")
    | actions("lambda", "GetFunctionConfiguration")
    | actions("dynamodb", "GetItem"),
    "destroy": actions(
        "sagemaker",
        *("ListTrainingJobs", "StopTrainingJob", "ListEndpoints", "DeleteEndpoint"),
        *("ListEndpointConfigs", "DeleteEndpointConfig", "ListModels", "DeleteModel", "DeleteModelPackage"),
    )
    | actions("cloudformation", "ListStacks", "ListStackResources")
    | actions("application-autoscaling", "DescribeScalableTargets", "DeregisterScalableTarget")
    | actions("cloudwatch", "DescribeAlarms", "DeleteAlarms")
    | actions("logs", "DescribeLogGroups", "DeleteLogGroup", "DeleteLogStream")
    | actions("ecr", "DescribeRepositories")
    | actions("kms", "DescribeKey", "ListGrants")
    | actions("tag", "GetResources")
    | actions("events", "DisableRule")
    | actions("scheduler", "GetSchedule", "UpdateSchedule")
    | _PASS_ROLE,
    "destroy --delete-data": actions(
        "s3",
        *("ListBucket", "ListBucketVersions", "DeleteObject", "DeleteObjectVersion", "DeleteBucket"),
        *("ListBucketMultipartUploads", "AbortMultipartUpload"),
    )
    | actions("kms", "ScheduleKeyDeletion"),
}
"""What the other commands call; resources as in the stack's names, and those that executions make."""

UNSCOPED: Mapping[str, str] = {
    "cloudformation:ListStacks": "has no resources",
    "cloudtrail:DescribeTrails": "has no resources",
    "cloudwatch:DescribeAlarms": "is asked by prefix",
    "kms:ListAliases": "has no resources",
    "logs:DescribeLogGroups": "has no resources",
    "tag:GetResources": "has no resources",
    "sagemaker:ListEndpointConfigs": "has no resources",
    "sagemaker:ListEndpoints": "has no resources",
    "sagemaker:ListModels": "has no resources",
    "sagemaker:ListTrainingJobs": "has no resources",
    "sns:GetSubscriptionAttributes": "has no resources",
    "sns:Unsubscribe": "has no resources",
    "states:ListStateMachines": "has no resources",
    "states:ValidateStateMachineDefinition": "has no resources",
    "servicequotas:ListServiceQuotas": "has no resources",
    "lambda:GetAccountSettings": "has no resources",
    "pricing:GetProducts": "has no resources",
    "ecr:BatchGetImage": "of AWS's own registry, whose account differs by Region",
    "application-autoscaling:DescribeScalableTargets": "has no resources",
    "application-autoscaling:DescribeScalingPolicies": "has no resources",
    **{
        f"ec2:{name}": "has no resources"
        for name in (
            *("DescribeAvailabilityZones", "DescribeFlowLogs", "DescribeRouteTables", "DescribeSecurityGroups"),
            *("DescribeSecurityGroupRules", "DescribeSubnets", "DescribeVpcEndpoints", "DescribeVpcs"),
        )
    },
}
"""Actions on every resource, with the reason."""

_HERE = "REGION:ACCOUNT_ID"
SCOPES: Mapping[str, tuple[str, ...]] = {
    "application-autoscaling": (f"arn:aws:application-autoscaling:{_HERE}:scalable-target/*",),
    "budgets": ("arn:aws:budgets::ACCOUNT_ID:budget/PROJECT-monthly",),
    "cloudformation": (f"arn:aws:cloudformation:{_HERE}:stack/PROJECT/*",),
    "cloudtrail": (f"arn:aws:cloudtrail:{_HERE}:trail/PROJECT",),
    "cloudwatch": (
        f"arn:aws:cloudwatch:{_HERE}:alarm:PROJECT-*",
        f"arn:aws:cloudwatch:{_HERE}:alarm:TargetTracking-endpoint/PROJECT/*",
        "arn:aws:cloudwatch::ACCOUNT_ID:dashboard/PROJECT",
    ),
    "codebuild": (f"arn:aws:codebuild:{_HERE}:project/PROJECT-serving",),
    "dynamodb": (f"arn:aws:dynamodb:{_HERE}:table/PROJECT-*",),
    "ec2": (f"arn:aws:ec2:{_HERE}:*",),
    "ecr": (f"arn:aws:ecr:{_HERE}:repository/PROJECT-serving",),
    "events": (f"arn:aws:events:{_HERE}:rule/PROJECT-*",),
    "iam": ("arn:aws:iam::ACCOUNT_ID:role/PROJECT-*",),
    "kms": (f"arn:aws:kms:{_HERE}:key/*",),
    "lambda": (f"arn:aws:lambda:{_HERE}:function:PROJECT-*", f"arn:aws:lambda:{_HERE}:layer:PROJECT-*"),
    "logs": (
        f"arn:aws:logs:{_HERE}:log-group:/aws/*/PROJECT*",
        f"arn:aws:logs:{_HERE}:log-group:/aws/sagemaker/TrainingJobs:*",
    ),
    "s3": ("arn:aws:s3:::PROJECT-*", "arn:aws:s3:::PROJECT-*/*"),
    "sagemaker": tuple(f"arn:aws:sagemaker:{_HERE}:*/PROJECT{end}" for end in ("", "-*", "/*")),
    "scheduler": (f"arn:aws:scheduler:{_HERE}:schedule/default/PROJECT",),
    "sns": (f"arn:aws:sns:{_HERE}:PROJECT-*",),
    "sqs": (f"arn:aws:sqs:{_HERE}:PROJECT-dead-letters",),
    "states": (
        f"arn:aws:states:{_HERE}:stateMachine:PROJECT",
        f"arn:aws:states:{_HERE}:stateMachine:PROJECT:*",
        f"arn:aws:states:{_HERE}:execution:PROJECT:*",
    ),
}
"""On which resources a service's actions are allowed. Names that CloudFormation makes begin with the stack's."""

TAG = "kelpie:project"
CONDITIONS: Mapping[str, Mapping[str, Any]] = {"kms": {"StringEquals": {f"aws:ResourceTag/{TAG}": "PROJECT"}}}
"""Keys have no names. Who has the right tag on it is the project's; stack.yaml puts it there.

Source: KMS developer guide, "ABAC for AWS KMS", "Use tags to control access to KMS keys", Nov 2026.
"""

ALIASES = actions("kms", "CreateAlias", "UpdateAlias", "DeleteAlias")
"""These need the alias as well as its key. An alias has no tags."""

MAKE_KEYS = actions("kms", "CreateKey", "TagResource")
"""Who may put the tag on a key may use it. So only CloudFormation does, and only this project's tag.

To tag a key while it is made is allowed on every key or not at all. Source: KMS developer guide, "Control access to
tags", Nov 2026.
"""
MAKE_KEYS_CONDITION: Mapping[str, Any] = {
    "StringEquals": {f"aws:RequestTag/{TAG}": "PROJECT"},
    "ForAllValues:StringEquals": {"aws:TagKeys": [TAG]},
    "ForAnyValue:StringEquals": {"aws:CalledVia": ["cloudformation.amazonaws.com"]},
}

SCALING_ROLE = (
    "arn:aws:iam::ACCOUNT_ID:role/aws-service-role/lambda.application-autoscaling.amazonaws.com/"
    "AWSServiceRoleForApplicationAutoScaling_LambdaConcurrency"
)
PASSED_TO = ("codebuild", "events", "lambda", "scheduler", "states")
PASSED_TO_OPTIONALLY = ("vpc-flow-logs",)
PASSED_TO_BY_OPERATORS = ("scheduler",)
"""UpdateSchedule, which `kelpie destroy` disables the schedule with, passes the schedule's role again."""


def document(needed: Iterable[frozenset[str]], passed_to: Iterable[str] = ()) -> dict[str, Any]:
    """The policy that allows these actions: a statement for each service, and one for what cannot be narrowed down."""
    wanted = frozenset().union(*needed)
    alone = _PASS_ROLE | MAKE_KEYS | actions("iam", "CreateServiceLinkedRole")
    statements = [
        {
            "Sid": "".join(word.capitalize() for word in service.split("-")),
            "Effect": "Allow",
            "Action": sorted(names),
            "Resource": list(scope),
            **({"Condition": CONDITIONS[service]} if service in CONDITIONS else {}),
        }
        for service, scope in SCOPES.items()
        if (names := {one for one in wanted - alone - UNSCOPED.keys() if one.startswith(f"{service}:")})
    ]
    if wanted & ALIASES:
        alias = {"Sid": "KmsAlias", "Effect": "Allow", "Action": sorted(wanted & ALIASES)}
        statements.append({**alias, "Resource": [f"arn:aws:kms:{_HERE}:alias/PROJECT"]})
    if wanted & MAKE_KEYS:
        make: dict[str, Any] = {"Sid": "MakeKeys", "Effect": "Allow", "Action": sorted(wanted & MAKE_KEYS)}
        statements.append({**make, "Resource": ["*"], "Condition": MAKE_KEYS_CONDITION})
    if wanted & _PASS_ROLE:
        services = {"StringEquals": {"iam:PassedToService": [f"{service}.amazonaws.com" for service in passed_to]}}
        statements.append(
            {
                "Sid": "PassRolesOfTheStack",
                "Effect": "Allow",
                "Action": sorted(_PASS_ROLE),
                "Resource": list(SCOPES["iam"]),
                "Condition": services,
            }
        )
    if "iam:CreateServiceLinkedRole" in wanted:
        name = {"StringEquals": {"iam:AWSServiceName": "lambda.application-autoscaling.amazonaws.com"}}
        statements.append(
            {
                "Sid": "RoleOfScaling",
                "Effect": "Allow",
                "Action": ["iam:CreateServiceLinkedRole"],
                "Resource": [SCALING_ROLE],
                "Condition": name,
            }
        )
    if everywhere := sorted(wanted & UNSCOPED.keys()):
        statements.append({"Sid": "NoResources", "Effect": "Allow", "Action": everywhere, "Resource": ["*"]})
    return {"Version": "2012-10-17", "Statement": statements}


def is_base(resource_type: str) -> bool:
    """Whether a type is storage, key, role or image, and not what works with them."""
    return resource_type.split("::")[1] in ("CodeBuild", "DynamoDB", "ECR", "IAM", "KMS", "Logs", "S3", "SNS", "SQS")


DOCUMENTS: Mapping[str, dict[str, Any]] = {
    "deployer-policy-base.json": document(
        [*COMMANDS.values(), *(needs for kind, needs in RESOURCE_TYPES.items() if is_base(kind))], PASSED_TO[:1]
    ),
    "deployer-policy-workflow.json": document(
        (needs for kind, needs in RESOURCE_TYPES.items() if not is_base(kind)), PASSED_TO[1:]
    ),
    "deployer-policy-options.json": document(OPTIONAL_RESOURCE_TYPES.values(), PASSED_TO_OPTIONALLY),
    "operator-policy.json": document(OPERATION.values(), PASSED_TO_BY_OPERATORS),
}


def filled_in(policy: Mapping[str, Any], project: str, region: str, account_id: str) -> str:
    """A document for an account, as JSON."""
    text = json.dumps(policy)
    for name, value in (("PROJECT", project), ("REGION", region), ("ACCOUNT_ID", account_id)):
        text = text.replace(name, value)
    return text


if __name__ == "__main__":
    for name, policy in DOCUMENTS.items():
        (FOLDER / name).write_text(json.dumps(policy, indent=2) + "\n", encoding="utf-8")
