"""stack.yaml: valid, complete, the same text in both places, and least privilege by its looks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cfnlint.api import lint
from moto.cloudformation.models import Stack

from workflow import config, names, packaging, template
from workflow.local import cloudformation

BODY = template.TEMPLATE_FILE.read_text()
TEMPLATE = template.parse(BODY)
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]
LAMBDA_NAMES = ["".join(map(str.capitalize, name.split("_"))) for name in packaging.LAMBDAS]

# Where IAM knows no resource, or only one that does not exist yet. Everything else names its resources.
WITHOUT_RESOURCES = {
    "application-autoscaling:DescribeScalableTargets",
    "application-autoscaling:DescribeScalingPolicies",
    "cloudwatch:PutMetricData",
    "ecr:GetAuthorizationToken",
    "sagemaker:AddTags",
    "sagemaker:ListTags",
    "sagemaker:ListEndpointConfigs",
    "sagemaker:ListModelPackages",
    "sagemaker:ListModels",
}


def statements() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every statement of every role, with the role's name."""
    for name, resource in RESOURCES.items():
        if resource["Type"] == "AWS::IAM::Role":
            for policy in resource["Properties"]["Policies"]:
                for statement in policy["PolicyDocument"]["Statement"]:
                    yield name, statement
        if resource["Type"] == "AWS::IAM::Policy":
            for statement in resource["Properties"]["PolicyDocument"]["Statement"]:
                yield name, statement


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def of_type(resource_type: str) -> dict[str, dict[str, Any]]:
    return {name: found["Properties"] for name, found in RESOURCES.items() if found["Type"] == resource_type}


@pytest.mark.parametrize("text", [BODY, json.dumps(template.bootstrap(TEMPLATE))], ids=["whole", "first phase"])
def test_cfn_lint_finds_nothing(text: str) -> None:
    assert [str(match) for match in lint(text)] == []


def test_the_template_fits_into_one_request() -> None:
    assert len(BODY.encode()) <= template.BODY_LIMIT_BYTES


def test_the_short_forms_mean_what_moto_takes_them_for() -> None:
    assert Stack.parse_template(BODY) == TEMPLATE


def test_the_first_phase_is_the_artifact_bucket_and_what_it_depends_on() -> None:
    first = template.bootstrap(TEMPLATE)
    assert set(first["Resources"]) == {"ArtifactBucket", "ArtifactBucketPolicy", "Key"}
    assert set(first["Parameters"]) == {"ProjectName"}
    assert all(RESOURCES[name] == resource for name, resource in first["Resources"].items())


def test_the_local_cloud_says_of_every_resource_type_what_it_does_with_it() -> None:
    used = {resource["Type"] for resource in RESOURCES.values()}
    assert used == set(cloudformation.RESOURCE_TYPES)
    assert set(cloudformation.RESOURCE_TYPES.values()) == {"executed", "validated"}


def test_every_lambda_has_its_function_role_log_and_code() -> None:
    for name in LAMBDA_NAMES:
        assert {f"{name}Function", f"{name}Role", f"{name}Log"} <= set(RESOURCES)
        assert f"{name}CodeKey" in TEMPLATE["Parameters"]
    assert len(of_type("AWS::Lambda::Function")) == len(LAMBDA_NAMES)


def test_no_two_principals_share_a_role() -> None:
    users = [found["Role"]["Fn::GetAtt"][0] for found in of_type("AWS::Lambda::Function").values()]
    users.append(RESOURCES["StateMachine"]["Properties"]["RoleArn"]["Fn::GetAtt"][0])
    assert len(users) == len(set(users))
    assert set(of_type("AWS::IAM::Role")) == {*users, "TrainingRole", "HostingRole"}


def test_timeouts_and_memory_are_those_that_the_lambdas_state() -> None:
    for name, logical_name in zip(packaging.LAMBDAS, LAMBDA_NAMES, strict=True):
        source = (Path(packaging.SOURCE_ROOT) / "lambdas" / name / "handler.py").read_text()
        stated = re.search(r"Timeout (\d+) s, memory (\d+) MB", source)
        assert stated, name
        function = RESOURCES[f"{logical_name}Function"]["Properties"]
        assert (function["Timeout"], function["MemorySize"]) == (int(stated[1]), int(stated[2])), name


@pytest.mark.parametrize(("role", "statement"), list(statements()), ids=lambda value: getattr(value, "get", str)("Sid"))
def test_a_statement_allows_named_actions_on_named_resources(role: str, statement: dict[str, Any]) -> None:
    actions = as_list(statement["Action"])
    assert not [action for action in actions if "*" in action]
    if "*" in as_list(statement["Resource"]) and role != "NetworkInterfacesPolicy":
        assert set(actions) <= WITHOUT_RESOURCES


def test_roles_are_passed_to_sagemaker_alone() -> None:
    [statement] = [statement for _, statement in statements() if "iam:PassRole" in as_list(statement["Action"])]
    assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


def test_only_the_service_that_needs_a_role_may_assume_it() -> None:
    expected = {"StateMachineRole": "states", "TrainingRole": "sagemaker", "HostingRole": "sagemaker"}
    for name, role in of_type("AWS::IAM::Role").items():
        [statement] = role["AssumeRolePolicyDocument"]["Statement"]
        assert statement["Principal"] == {"Service": f"{expected.get(name, 'lambda')}.amazonaws.com"}


def test_buckets_are_encrypted_versioned_private_and_tls_only() -> None:
    policies = of_type("AWS::S3::BucketPolicy").values()
    for name, properties in of_type("AWS::S3::Bucket").items():
        [rule] = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["ServerSideEncryptionByDefault"]["KMSMasterKeyID"] == {"Fn::GetAtt": ["Key", "Arn"]}
        assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
        assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
        [policy] = [policy for policy in policies if policy["Bucket"] == {"Ref": name}]
        [statement] = policy["PolicyDocument"]["Statement"]
        assert (statement["Effect"], statement["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


def test_the_rollback_alarms_watch_the_variant_that_the_definition_deploys() -> None:
    for alarm in of_type("AWS::CloudWatch::Alarm").values():
        dimensions = {dimension["Name"]: dimension["Value"] for dimension in alarm["Dimensions"]}
        assert dimensions == {"EndpointName": {"Ref": "ProjectName"}, "VariantName": names.VARIANT}
        assert alarm["TreatMissingData"] == "notBreaching"


def test_a_project_name_that_the_config_takes_is_one_that_the_template_takes() -> None:
    rules = config.ProjectSettings.model_json_schema()["properties"]["name"]
    parameter = TEMPLATE["Parameters"]["ProjectName"]
    assert f"^{parameter['AllowedPattern']}$" == rules["pattern"]
    assert (parameter["MaxLength"], parameter["Default"]) == (rules["maxLength"], rules["default"])


def test_data_models_and_their_key_outlive_the_stack() -> None:
    kept = {name for name, resource in RESOURCES.items() if resource.get("DeletionPolicy") == "RetainExceptOnCreate"}
    assert kept == {"Key", "DataBucket", "ArtifactBucket"}


def test_checkpoints_expire_after_any_training_job_and_nothing_that_a_run_leaves_behind_does() -> None:
    rules = RESOURCES["ArtifactBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    expiring = {rule.get("Prefix"): rule["ExpirationInDays"] for rule in rules if "ExpirationInDays" in rule}
    assert set(expiring) == {"checkpoints/", "captures/"}
    training = config.execution_input_schema()["properties"]["training"]["properties"]
    longest = training["max_runtime_seconds"]["maximum"] + training["max_spot_wait_seconds"]["maximum"]
    assert expiring["checkpoints/"] == 14
    assert expiring["checkpoints/"] * config.ONE_DAY > longest


def test_training_reads_and_deletes_its_checkpoints_and_only_writes_what_it_leaves_behind() -> None:
    [policy] = RESOURCES["TrainingRole"]["Properties"]["Policies"]
    by_folder: dict[str, set[str]] = {}
    for statement in policy["PolicyDocument"]["Statement"]:
        for resource in as_list(statement["Resource"]):
            found = re.search(r"\{ArtifactBucket\.Arn\}/(\w+)/", str(resource))
            if found:
                by_folder.setdefault(found[1], set()).update(as_list(statement["Action"]))
    write = {"s3:PutObject", "s3:AbortMultipartUpload"}
    assert by_folder == {
        "assets": {"s3:GetObject"},
        "champion": {"s3:GetObject"},
        "runs": write,
        "checkpoints": write | {"s3:GetObject", "s3:DeleteObject"},
    }
