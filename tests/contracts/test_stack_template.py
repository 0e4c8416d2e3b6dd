"""stack.yaml: valid, complete, readable by both sides, and its parts fit to each other."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from cfnlint.api import lint
from contracts.stack_template import BODY, LAMBDA_NAMES, RESOURCES, TEMPLATE, as_list, of_type
from moto.cloudformation.models import Stack

from workflow import config, execution_input, names
from workflow.definition import hosting
from workflow.deployment import packaging, template
from workflow.local import cloudformation

BOOTSTRAP = {
    *("Key", "ArtifactBucket", "ArtifactBucketPolicy", "LogBucket", "LogBucketPolicy"),
    *("ServingRepository", "ImageBuild", "ImageBuildRole", "ImageBuildLog"),
}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(BODY, id="whole", marks=pytest.mark.slow),  # `make check` does it too
        pytest.param(json.dumps(template.bootstrap(TEMPLATE)), id="first phase"),
    ],
)
def test_cfn_lint_finds_nothing(text: str) -> None:
    assert [str(match) for match in lint(text)] == []


def test_the_template_fits_behind_a_url_and_its_first_phase_into_a_request() -> None:
    assert len(BODY.encode()) <= template.URL_LIMIT_BYTES
    assert len(json.dumps(template.bootstrap(TEMPLATE)).encode()) <= template.BODY_LIMIT_BYTES


def test_the_short_forms_mean_what_moto_takes_them_for() -> None:
    assert Stack.parse_template(BODY) == TEMPLATE


def test_the_first_phase_is_where_assets_and_images_go_and_what_that_depends_on() -> None:
    first = template.bootstrap(TEMPLATE)
    assert set(first["Resources"]) == BOOTSTRAP
    assert set(first["Parameters"]) == {"ProjectName"}
    assert set(first["Outputs"]) == {"ArtifactBucket", "KmsKeyArn", "ServingRepository", "ImageBuild"}
    assert all(RESOURCES[name] == resource for name, resource in first["Resources"].items())


def test_every_parameter_is_described_and_has_a_default_unless_the_deployment_knows_it() -> None:
    for name, parameter in TEMPLATE["Parameters"].items():
        assert parameter["Description"].endswith("."), name
        known = re.search("(Code|Definition|Layer)Key|(Channel|Image)Uri", name)
        assert ("Default" in parameter) != (known is not None)


def test_every_condition_and_parameter_is_used() -> None:
    everything = json.dumps({**RESOURCES, "conditions": TEMPLATE["Conditions"]})
    for name in TEMPLATE["Parameters"]:
        assert f'"Ref": "{name}"' in everything or f"${{{name}}}" in everything, name
    for name in TEMPLATE["Conditions"]:
        assert f'"Condition": "{name}"' in everything or f'"Fn::If": ["{name}"' in everything, name


def test_the_local_cloud_says_of_every_resource_type_what_it_does_with_it() -> None:
    used = {resource["Type"] for resource in RESOURCES.values()}
    assert used == set(cloudformation.RESOURCE_TYPES)
    assert set(cloudformation.RESOURCE_TYPES.values()) == {"executed", "validated"}


def test_every_lambda_has_its_function_role_log_version_alias_and_code() -> None:
    parts = ("Function", "Role", "Log", "Version", "Alias")
    for name in LAMBDA_NAMES:
        assert {f"{name}{part}" for part in parts} <= set(RESOURCES)
        function = RESOURCES[f"{name}Function"]["Properties"]
        assert function["Code"] == {"S3Bucket": {"Ref": "ArtifactBucket"}, "S3Key": {"Ref": f"{name}CodeKey"}}
        assert function["Layers"] == [{"Ref": "PowertoolsLayer"}]
        assert function["Role"] == {"Fn::GetAtt": [f"{name}Role", "Arn"]}
        assert function["LoggingConfig"] == {"LogGroup": {"Ref": f"{name}Log"}}
        log = RESOURCES[f"{name}Log"]["Properties"]
        assert log["LogGroupName"]["Fn::Sub"] == f"/aws/lambda/{function['FunctionName']['Fn::Sub']}"
        alias = RESOURCES[f"{name}Alias"]["Properties"]
        assert alias["FunctionVersion"] == {"Fn::GetAtt": [f"{name}Version", "Version"]}
        assert (alias["Name"], alias["FunctionName"]) == ("live", {"Ref": f"{name}Function"})
    assert len(of_type("AWS::Lambda::Function")) == len(LAMBDA_NAMES)


def test_the_one_layer_is_the_packed_one_and_nobody_elses() -> None:
    [(name, layer)] = of_type("AWS::Lambda::LayerVersion").items()
    assert name == "PowertoolsLayer"
    assert layer["Content"] == {"S3Bucket": {"Ref": "ArtifactBucket"}, "S3Key": {"Ref": "PowertoolsLayerKey"}}
    assert {found["Runtime"] for found in of_type("AWS::Lambda::Function").values()} == set(layer["CompatibleRuntimes"])


def configuration_hash(function: dict[str, Any]) -> str:
    """Of what a version freezes besides its code. A version is published only when its own properties change."""
    frozen = {
        key: value
        for key, value in function.items()
        if key not in ("Code", "FunctionName", "ReservedConcurrentExecutions")
    }
    return hashlib.sha256(json.dumps(frozen, sort_keys=True).encode()).hexdigest()[:8]


@pytest.mark.parametrize("name", LAMBDA_NAMES)
def test_a_version_is_published_whenever_code_or_configuration_changes(name: str) -> None:
    function = RESOURCES[f"{name}Function"]["Properties"]
    expected = f"${{{name}CodeKey}} ${{PowertoolsLayerKey}} configuration {configuration_hash(function)}"
    assert RESOURCES[f"{name}Version"]["Properties"] == {
        "FunctionName": {"Ref": f"{name}Function"},
        "Description": {"Fn::Sub": expected},
    }, f"{name}Function was changed; write into {name}Version: Description: !Sub {expected}"


def test_whoever_calls_a_lambda_calls_its_alias() -> None:
    callers = {name: resource for name, resource in RESOURCES.items() if resource["Type"] != "AWS::Lambda::Version"}
    text = json.dumps(
        {name: resource for name, resource in callers.items() if not name.endswith(("Alias", "Alarm", "Dashboard"))}
    )
    by_name = re.findall(r'"(?:Ref|Fn::GetAtt)": \[?"(\w+)Function"', text)
    # What takes the alias as a qualifier of its own, and the trail, which records every call.
    assert sorted(by_name) == ["Classify", "Classify", "Sweep"]


def test_timeouts_and_memory_are_those_that_the_lambdas_state() -> None:
    for name, logical_name in zip(packaging.LAMBDAS, LAMBDA_NAMES, strict=True):
        source = (Path(packaging.SOURCE_ROOT) / "lambdas" / name / "handler.py").read_text()
        stated = re.search(r"Timeout (\d+) s, memory (\d+) MB", source)
        assert stated, name
        function = RESOURCES[f"{logical_name}Function"]["Properties"]
        assert (function["Timeout"], function["MemorySize"]) == (int(stated[1]), int(stated[2])), name


def test_a_lambda_gets_the_environment_that_it_reads() -> None:
    for name, logical_name in zip(packaging.LAMBDAS, LAMBDA_NAMES, strict=True):
        source = (Path(packaging.SOURCE_ROOT) / "lambdas" / name / "handler.py").read_text()
        read = set(re.findall(r"os\.environ\[\"(\w+)\"\]", source))
        given = set(RESOURCES[f"{logical_name}Function"]["Properties"]["Environment"]["Variables"])
        assert given - {"POWERTOOLS_SERVICE_NAME"} == read, name


def test_a_project_name_that_the_config_takes_is_one_that_the_template_takes() -> None:
    rules = config.ProjectSettings.model_json_schema()["properties"]["name"]
    parameter = TEMPLATE["Parameters"]["ProjectName"]
    assert f"^{parameter['AllowedPattern']}$" == rules["pattern"]
    assert (parameter["MaxLength"], parameter["Default"]) == (rules["maxLength"], rules["default"])


def test_names_stay_legal_for_the_longest_project_name() -> None:
    # Source: botocore 1.44.5, the service models of these types.
    limits = {
        "FunctionName": 64,
        "RepositoryName": 256,
        "QueueName": 80,
        "DashboardName": 255,
        "PolicyName": 128,
        "StateMachineName": 80,
        "TrailName": 128,
        "Name": 64,
    }
    longest = "k" * TEMPLATE["Parameters"]["ProjectName"]["MaxLength"]
    seen = set()
    for resource in RESOURCES.values():
        for key, value in resource.get("Properties", {}).items():
            if key in limits and isinstance(value, dict) and ("Fn::Sub" in value or value == {"Ref": "ProjectName"}):
                name = value.get("Fn::Sub", "${ProjectName}").replace("${ProjectName}", longest)
                assert "$" not in name, name
                assert len(name) <= limits[key], name
                seen.add(key)
    assert len(seen) > 5


@pytest.mark.parametrize(
    ("section", "key", "parameter"),
    [
        ("schedule", "expression", "ScheduleExpression"),
        ("schedule", "time_zone", "ScheduleTimeZone"),
        ("schedule", "flexible_window_minutes", "ScheduleFlexibleWindowMinutes"),
        ("triggers", "on_new_data", "StartOnNewData"),
        ("notifications", "email", "NotificationEmail"),
        ("budget", "monthly_usd", "MonthlyBudgetUsd"),
        ("concurrency", "classify_reserved", "ClassifyReservedConcurrency"),
        ("concurrency", "classify_provisioned_min", "ClassifyProvisionedMin"),
        ("concurrency", "classify_provisioned_max", "ClassifyProvisionedMax"),
        ("vpc", "create", "CreateVpc"),
        ("trail", "enabled", "CreateTrail"),
        ("images", "training_tag", "TrainingImageTag"),
    ],
)
def test_a_parameter_has_the_default_of_its_setting(section: str, key: str, parameter: str) -> None:
    default = getattr(getattr(config.Config(), section), key)
    shown = str(default).lower() if isinstance(default, bool) else str(default)
    assert str(TEMPLATE["Parameters"][parameter]["Default"]) == shown


def test_data_models_logs_and_their_key_outlive_the_stack() -> None:
    kept = {name for name, resource in RESOURCES.items() if resource.get("DeletionPolicy") == "RetainExceptOnCreate"}
    buckets = {"DataBucket", "ArtifactBucket", "LogBucket", "TrailBucket"}
    # A bucket that stays keeps its guards: TLS only, and this key only.
    assert kept == {"Key", *buckets, *(f"{bucket}Policy" for bucket in buckets)}
    assert all(RESOURCES[name]["UpdateReplacePolicy"] == "Retain" for name in kept)


def test_checkpoints_expire_after_any_training_job_and_nothing_that_a_run_leaves_behind_does() -> None:
    rules = RESOURCES["ArtifactBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    expiring = {rule.get("Prefix"): rule["ExpirationInDays"] for rule in rules if "ExpirationInDays" in rule}
    assert set(expiring) == {"checkpoints/", "captures/"}
    training = execution_input.execution_input_schema()["properties"]["training"]["properties"]
    longest = training["max_runtime_seconds"]["maximum"] + training["max_spot_wait_seconds"]["maximum"]
    assert expiring["checkpoints/"] == 14
    assert expiring["checkpoints/"] * execution_input.ONE_DAY > longest


def test_no_file_of_the_data_bucket_ever_expires() -> None:
    rules = RESOURCES["DataBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    assert not [rule for rule in rules if "ExpirationInDays" in rule]


def test_the_rollback_alarms_watch_the_variant_that_the_definition_deploys() -> None:
    for name in ("EndpointErrorsAlarm", "EndpointLatencyAlarm"):
        alarm = RESOURCES[name]["Properties"]
        dimensions = {dimension["Name"]: dimension["Value"] for dimension in alarm["Dimensions"]}
        assert dimensions == {"EndpointName": {"Ref": "ProjectName"}, "VariantName": names.VARIANT}


def test_one_failed_request_rolls_nothing_back_and_one_instance_that_fails_all_does_in_time() -> None:
    alarm = RESOURCES["EndpointErrorsAlarm"]["Properties"]
    assert (alarm["MetricName"], alarm["Statistic"]) == ("Invocation5XXErrors", "Average")
    most_instances = execution_input.execution_input_schema()["properties"]["hosting"]["properties"][
        "max_instance_count"
    ]["maximum"]
    assert alarm["Threshold"] <= 1 / most_instances, "traffic is dealt evenly, and one instance is the canary"
    assert alarm["DatapointsToAlarm"] >= 2
    assert 60 * alarm["EvaluationPeriods"] < hosting.BAKE_SECONDS


def test_the_two_subnets_are_in_two_zones_and_lead_nowhere() -> None:
    subnets = of_type("AWS::EC2::Subnet")
    assert len({json.dumps(subnet["AvailabilityZone"]) for subnet in subnets.values()}) == len(subnets) == 2
    assert not [name for name in RESOURCES if RESOURCES[name]["Type"] in ("AWS::EC2::Route", "AWS::EC2::NatGateway")]


def test_training_hosts_may_talk_to_each_other_on_any_port() -> None:
    group = {"Ref": "TrainingSecurityGroup"}
    [within] = of_type("AWS::EC2::SecurityGroupIngress").values()
    [outwards] = of_type("AWS::EC2::SecurityGroupEgress").values()
    assert (within["GroupId"], within["SourceSecurityGroupId"], within["IpProtocol"]) == (group, group, "-1")
    assert (outwards["GroupId"], outwards["DestinationSecurityGroupId"], outwards["IpProtocol"]) == (group, group, "-1")


def test_what_is_optional_is_so_as_a_whole() -> None:
    optional = {
        "CreatesVpc": "AWS::EC2::",
        "CreatesTrail": "AWS::CloudTrail::",
        "HasBudget": "AWS::Budgets::",
        "ProvisionsConcurrency": "AWS::ApplicationAutoScaling::",
    }
    for condition, prefix in optional.items():
        found = {resource.get("Condition") for resource in RESOURCES.values() if resource["Type"].startswith(prefix)}
        assert found == {condition}


def test_every_finding_of_checkov_that_stays_has_its_reason() -> None:
    skipped = [
        skip
        for resource in RESOURCES.values()
        for skip in as_list(resource.get("Metadata", {}).get("checkov", {}).get("skip", []))
    ]
    assert skipped
    assert all(re.fullmatch(r"CKV2?_AWS_\d+", skip["id"]) and len(skip["comment"]) > 20 for skip in skipped)
