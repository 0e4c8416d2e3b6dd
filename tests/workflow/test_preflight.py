"""Preflight: each check finds what it is for, says where and why and how to mend it, and is silent otherwise."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from workflow import definition, names, preflight
from workflow.config import Config
from workflow.cost import costs
from workflow.names import MAX_PROJECT_LENGTH
from workflow.preflight import costs as cost_checks
from workflow.preflight import images, naming, network, parameters, permissions, quotas, service, settings, tasks
from workflow.preflight.findings import Check, Finding, Severity, Subject, info

TODAY = datetime.date(2026, 11, 22)
VPC = {"vpc": {"subnet_ids": ["subnet-1", "subnet-2"], "security_group_ids": ["sg-1"]}}


@cache
def _default() -> Subject:
    return preflight.subject_of(Config(), today=TODAY)


def subject(values: dict[str, Any] | None = None, **changes: Any) -> Subject:
    """What is checked for these settings, with the definition of the default ones; `changes` replaces fields of it."""
    config, default = Config.model_validate(values or {}), copy.deepcopy(_default())
    planned = costs.planned_parameters(config, default.template)
    return dataclasses.replace(default, **{"config": config, "parameters": planned, **changes})


def rendered(values: dict[str, Any]) -> Subject:
    """The same with the definition that these settings make."""
    return subject(values, definition=definition.build(Config.model_validate(values)))


def found(check: Check, about: Subject, *severities: Severity) -> list[Finding]:
    return [one for one in check(about) if one.severity in (severities or (Severity.ERROR, Severity.WARNING))]


class Refusal(Exception):
    """What a fake client raises for a resource that is not there."""


class Client:
    """A client that answers as it is told; an answer that is an exception is raised."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.exceptions = type("exceptions", (), {"ResourceNotFoundException": Refusal})

    def __getattr__(self, operation: str) -> Any:
        def call(**request: Any) -> Any:
            self.asked.append((operation, request))
            answer = self.answers[operation]
            if callable(answer) and not isinstance(answer, type):
                answer = answer(**request)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    def get_paginator(self, operation: str) -> Any:
        return type("Pages", (), {"paginate": lambda _self, **request: [getattr(self, operation)(**request)]})()


class FakeAccount:
    """An account of AWS with the clients that a test gives it."""

    region, account_id, endpoint_url = "us-east-1", "123456789012", None
    partition, dns_suffix = "aws", "amazonaws.com"

    def __init__(self, **clients: Client) -> None:
        self.clients = clients

    def client(self, service: str, region: str | None = None) -> Any:
        return self.clients[service.replace("-", "_")]


def refused(code: str, message: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Operation")


def test_the_default_settings_are_clean_and_need_no_account() -> None:
    findings = preflight.check(Config(), today=TODAY)
    assert [one for one in findings if one.severity is not Severity.INFO] == []
    assert any("costs at most" in one.what for one in findings)
    assert sum(one.what.startswith("not asked") for one in findings) >= 5


@pytest.mark.parametrize("values", [VPC, {"vpc": {"create": True}}, {"trail": {"enabled": True}}], ids=str)
def test_other_sound_settings_are_clean_too(values: dict[str, Any]) -> None:
    checks = [check for name, check in preflight.CHECKS.items() if name != "images"]
    about = rendered(values)
    assert [one for check in checks for one in found(check, about)] == []


def test_the_worst_comes_first_and_everything_says_where_and_why() -> None:
    sick = {"hosting": {"instance_type": "ml.c6g.large"}, "training": {"weights": "hub"}, "cost": {}}
    findings = preflight.check(Config.model_validate(sick), today=datetime.date(2030, 1, 1))
    order = [list(Severity).index(one.severity) for one in findings]
    assert order == sorted(order)
    assert {one.severity for one in findings} == set(Severity)
    for one in findings:
        assert one.what
        assert one.where
        assert one.why
        assert one.fix or one.severity is Severity.INFO


@pytest.mark.parametrize(
    ("values", "severity", "words"),
    [
        ({"training": {"instance_type": "ml.g5.xlarge"}}, Severity.WARNING, "has a GPU, and the training image is for"),
        ({"hosting": {"instance_type": "ml.g5.xlarge"}}, Severity.WARNING, "the serving image runs on CPUs"),
        ({"hosting": {"instance_type": "ml.c6g.large"}}, Severity.ERROR, "ARM processor"),
        ({"hosting": {"instance_type": "ml.inf2.xlarge"}}, Severity.ERROR, "neither image can use"),
        ({"training": {"instance_type": "ml.c99.xlarge"}}, Severity.ERROR, "no instance type that SageMaker offers"),
        ({"training": {"weights": "hub"}}, Severity.WARNING, "network isolation"),
        ({"training": {"managed_spot": False}}, Severity.INFO, "runs on demand"),
        ({"hosting": {"max_instance_count": 1}}, Severity.INFO, "never has more than one"),
        ({"training": {"instance_type": "ml.c5d.xlarge"}}, Severity.INFO, "disks of its own"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_settings_that_do_not_fit_together(values: dict[str, Any], severity: Severity, words: str) -> None:
    if "c5d" in str(values):  # an endpoint's type only
        values = {"hosting": values["training"]}
    assert [one for one in found(settings.check, subject(values), severity) if words in one.what]


def test_a_head_s_learning_rate_for_the_whole_network_is_a_warning() -> None:
    (told,) = found(settings.check, subject({"training": {"trainable": "all"}}))
    assert (told.where, told.severity) == ("training.learning_rate", Severity.WARNING)
    assert "0.006" in told.what
    assert told.why
    advised = {"trainable": "all", "learning_rate": settings.RATE_FOR_ALL}
    assert f"learning_rate = {settings.RATE_FOR_ALL:g} " in told.fix
    for right in (advised, {"trainable": "head"}, {"trainable": "head", "learning_rate": 0.1}):
        assert found(settings.check, subject({"training": right})) == []


def test_a_gpu_type_is_right_for_the_image_that_uses_it() -> None:
    gpu_type = {"training": {"instance_type": "ml.g5.xlarge"}}
    (advice,) = found(settings.check, subject(gpu_type))
    tag = advice.fix.split()[-1].rstrip(".")
    gpu_image = {"images": {"training_tag": tag}}
    assert found(settings.check, subject(gpu_type | gpu_image)) == []
    assert "none of the tags" not in str(found(images.check, subject(gpu_image)))
    (one,) = found(settings.check, subject(gpu_image))
    assert "has no GPU" in one.what
    assert Config().images.training_tag in one.fix


def test_every_fault_of_a_task_is_found_with_its_place() -> None:
    about = subject()
    states: Any = about.definition["States"]
    states["Train"]["Parameters"]["Colour"] = "red"
    states["CreateModel"]["Resource"] = "arn:aws:states:::sagemaker:createCake"
    states["UpdateEndpoint"]["Parameters"]["DeploymentConfig"]["BlueGreenUpdatePolicy"]["TerminationWaitInSeconds"] = -1
    wheres = {(one.where, one.severity) for one in found(tasks.check, about)}
    assert {("Train", Severity.ERROR), ("CreateModel", Severity.ERROR), ("UpdateEndpoint", Severity.ERROR)} <= wheres
    assert ("Train.Colour", Severity.WARNING) in wheres


def test_unproven_fields_that_are_switched_on_are_a_warning() -> None:
    told = found(tasks.check, rendered({"unproven": {"retry_attempts": 2}}))
    assert {one.where for one in told} == {"Train.RetryStrategy", "TrainOnDemand.RetryStrategy"}
    assert {one.severity for one in told} == {Severity.WARNING}
    assert "kelpie verify-aws" in told[0].fix


@given(st.text(max_size=80), st.integers(-10, 10_000_000))
def test_names_and_numbers_are_refused_exactly_when_botocores_model_refuses_them(name: str, wait: int) -> None:
    task = {"Resource": "arn:aws:states:::sagemaker:createEndpoint"}
    shape = tasks.input_shape(task)
    assert shape is not None
    legal = tasks.faults({"EndpointName": name, "EndpointConfigName": "c"}, shape, "T") == []
    expected = re.fullmatch("[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", name) is not None and len(name) <= 63
    assert legal == (expected or "${" in name)
    update = tasks.input_shape({"Resource": "arn:aws:states:::aws-sdk:sagemaker:updateEndpoint"})
    assert update is not None
    parameters_ = {
        "EndpointName": "e",
        "EndpointConfigName": "c",
        "DeploymentConfig": {
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": wait}
            }
        },
    }
    assert (tasks.faults(parameters_, update, "T") == []) == (0 <= wait <= 3600)


def test_parameters_are_checked_as_cloudformation_would() -> None:
    slot = {"Type": "String", "AllowedPattern": "[a-z]+", "MaxLength": 3}
    assert parameters.faults("abc", slot) == []
    assert len(parameters.faults("ABCD", slot)) == 2
    assert parameters.faults("maybe", {"Type": "String", "AllowedValues": ["true", "false"]})
    assert parameters.faults("x", {"Type": "Number"}) == ["it is no number"]
    assert parameters.faults("7", {"Type": "Number", "MinValue": 0, "MaxValue": 5}) == ["allowed: 0 to 5"]
    assert parameters.faults("", {"Type": "String"}) == ["nothing gives it a value"]
    about = subject(parameters={**subject().parameters, "ProjectName": "Not Allowed"})
    assert [one.where for one in found(parameters.check, about)] == ["workflow/stack.yaml, Parameters.ProjectName"]


def test_a_substitution_that_the_stack_lacks_is_found() -> None:
    about = subject()
    del about.template["Resources"]["StateMachine"]["Properties"]["DefinitionSubstitutions"]["LockTable"]
    assert ["${LockTable}" in one.what for one in found(parameters.check, about)] == [True]


def test_the_longest_project_name_is_legal_everywhere() -> None:
    assert found(naming.check, subject({"project": {"name": "k" * MAX_PROJECT_LENGTH}})) == []


def test_the_names_of_the_template_are_looked_at() -> None:
    about = subject()
    seen = {where for where, _, _ in naming.made_by_the_stack(about.template, "kelpie")}
    assert {"StateMachine.StateMachineName", "ClassifyFunction.FunctionName"} <= seen
    function: Any = about.template["Resources"]["ClassifyFunction"]["Properties"]
    function["FunctionName"] = {"Fn::Sub": "${ProjectName}-" + "classify" * 8}
    (one,) = found(naming.check, about)
    assert "ClassifyFunction.FunctionName" in one.where
    assert "71 characters; allowed: 64" in one.what


def test_a_name_of_an_execution_that_is_too_long_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "longest_training_job_name", lambda project: f"{project}-{'f' * 60}")
    (one,) = found(naming.check, subject())
    assert one.severity is Severity.ERROR
    assert "TrainingJobName" in one.what


def test_every_action_of_every_task_is_needed_of_the_role() -> None:
    about = subject()
    needed = {action for task in about.tasks().values() for action in permissions.needed(task)}
    assert len(needed) > 20
    role: Any = about.template["Resources"]["StateMachineRole"]["Properties"]
    statements = role["Policies"][0]["PolicyDocument"]["Statement"]
    before = [[one["Action"]] if isinstance(one["Action"], str) else one["Action"] for one in statements]
    for action in sorted(needed):
        for statement, actions in zip(statements, before, strict=True):
            statement["Action"] = [one for one in actions if one != action]
        assert any(action in one.what for one in found(permissions.check, about)), action


def test_the_training_image_and_its_end_of_patches() -> None:
    end = datetime.date.fromisoformat(images.table()["pytorch-training"]["2.10"]["end_of_patch"])
    long_before = end - datetime.timedelta(days=images.WARN_DAYS)
    assert list(images.check(subject(today=long_before))) == []
    assert [one.severity for one in images.check(subject(today=end))] == [Severity.INFO]
    (after,) = images.check(subject(today=end + datetime.timedelta(days=1)))
    assert after.severity is Severity.WARNING
    assert "no security patches any more" in after.what
    for tag, words in (("2.10.0-cpu-py313", "none of the tags"), ("7.0.0-cpu", "does not know")):
        about = subject(today=long_before, parameters={**subject().parameters, "TrainingImageTag": tag})
        assert [words in one.what for one in images.check(about)] == [True]


def test_the_registries_of_the_training_image_are_those_of_the_sdk() -> None:
    package = find_spec("sagemaker")
    assert package is not None
    assert package.submodule_search_locations is not None
    file = Path(package.submodule_search_locations[0], "image_uri_config", "pytorch.json")
    versions = json.loads(file.read_text(encoding="utf-8"))["training"]["versions"]
    newest = versions[max(versions, key=lambda version: [int(part) for part in version.split(".")])]
    assert newest["repository"] == "pytorch-training"
    mapped = subject().template["Mappings"]["TrainingImageRegistry"]
    assert mapped == {region: {"AccountId": account} for region, account in newest["registries"].items()}


@pytest.mark.parametrize("region", ["us-east-1", "eu-south-1", "cn-north-1", "us-gov-west-1"])
def test_a_region_with_a_registry_of_its_own_is_not_refused(region: str) -> None:
    assert [one for one in found(images.check, subject({"aws": {"region": region}})) if one.where == "aws.region"] == []


def test_a_region_without_a_known_registry_is_refused_and_the_accounts_region_counts() -> None:
    account: Any = FakeAccount()
    account.region = "eu-nowhere-1"
    (told,) = found(images.check, subject(account=account), Severity.ERROR)
    assert told.what == "No account of AWS with the image pytorch-training is known for eu-nowhere-1."
    assert "eu-south-1" in told.fix
    assert found(images.check, subject({"aws": {"region": "eu-nowhere-1"}}), Severity.ERROR) != []


def test_the_registry_of_the_accounts_region_is_asked() -> None:
    ecr = Client(batch_get_image={"failures": []})
    none = Client(describe_stacks=refused("ValidationError", "Stack with id kelpie does not exist"))
    account: Any = FakeAccount(ecr=ecr, cloudformation=none)
    account.region = "eu-south-1"
    list(images.check_registry(subject(account=account)))
    assert [request["registryId"] for _, request in ecr.asked] == ["692866216735"]


def test_the_registry_is_asked_for_both_images() -> None:
    digest = f"sha256:{'a' * 64}"
    uri = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/kelpie-serving@{digest}"
    given_ = [{"ParameterKey": "ServingImageUri", "ParameterValue": uri}]
    stacks = Client(describe_stacks={"Stacks": [{"Parameters": given_}]})
    missing = {"failures": [{"failureReason": "Requested image not found"}]}
    ecr = Client(batch_get_image=lambda registryId, **_: missing if registryId == "123456789012" else {"failures": []})
    (one,) = images.check_registry(subject(account=FakeAccount(ecr=ecr, cloudformation=stacks)))
    assert one.severity is Severity.ERROR
    assert digest in one.what
    assert [request["repositoryName"] for _, request in ecr.asked] == ["pytorch-training", "kelpie-serving"]
    none = Client(describe_stacks=refused("ValidationError", "Stack with id kelpie does not exist"))
    (told,) = images.check_registry(subject(account=FakeAccount(ecr=Client(batch_get_image={}), cloudformation=none)))
    assert told.what == "not asked: the serving image"


DIGEST = f"sha256:{'b' * 64}"


def deployed_image(**scan: Any) -> tuple[Any, Client]:
    """An account with a deployed serving image, 61 days old, and its registry."""
    uri = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/kelpie-serving@{DIGEST}"
    stacks = {"Stacks": [{"Parameters": [{"ParameterKey": "ServingImageUri", "ParameterValue": uri}]}]}
    pushed = datetime.datetime.combine(TODAY, datetime.time(), datetime.UTC) - datetime.timedelta(days=61)
    ecr = Client(describe_images={"imageDetails": [{"imagePushedAt": pushed}]}, **scan)
    ecr.exceptions = type("exceptions", (), {"ScanNotFoundException": Refusal})
    return FakeAccount(ecr=ecr, cloudformation=Client(describe_stacks=stacks)), ecr


def test_an_old_serving_image_is_a_warning_and_a_young_one_is_not() -> None:
    account, ecr = deployed_image(describe_image_scan_findings={"imageScanStatus": {"status": "COMPLETE"}})
    (told,) = images.check_patches(subject(account=account))
    assert (told.severity, told.what) == (Severity.WARNING, "The serving image was built 61 days ago.")
    assert "kelpie deploy --aws --rebuild-image" in told.fix
    assert {request["repositoryName"] for _, request in ecr.asked} == {"kelpie-serving"}
    yesterday = TODAY - datetime.timedelta(days=1)
    assert list(images.check_patches(subject(account=account, today=yesterday))) == []


@pytest.mark.parametrize(
    ("scan", "severity", "what"),
    [
        (
            {
                "imageScanStatus": {"status": "COMPLETE"},
                "imageScanFindings": {"findingSeverityCounts": {"CRITICAL": 1, "HIGH": 2, "LOW": 9}},
            },
            Severity.WARNING,
            "ECR's scan found weaknesses in the serving image: 1 CRITICAL, 2 HIGH.",
        ),
        (
            {"imageScanStatus": {"status": "UNSUPPORTED_IMAGE"}},
            Severity.INFO,
            "ECR's scan of the serving image is UNSUPPORTED_IMAGE.",
        ),
        (Refusal(), Severity.INFO, "The serving image was not scanned."),
    ],
    ids=["found", "unsupported", "not scanned"],
)
def test_what_a_scan_of_the_serving_image_found_is_told(scan: Any, severity: Severity, what: str) -> None:
    account, _ = deployed_image(describe_image_scan_findings=scan)
    found_ = list(images.check_patches(subject(account=account, today=TODAY - datetime.timedelta(days=30))))
    assert [(one.severity, one.what) for one in found_] == [(severity, what)]


def test_the_local_cloud_scans_no_image_and_an_undeployed_stack_has_none() -> None:
    account, ecr = deployed_image()
    account.endpoint_url = "http://127.0.0.1:1"
    said = [one.what for one in images.check_patches(subject(account=account))]
    assert said == [
        "The serving image was built 61 days ago.",
        "not asked: what a scan finds in the serving image",
    ]
    assert [operation for operation, _ in ecr.asked] == ["describe_images"]
    none = Client(describe_stacks=refused("ValidationError", "Stack with id kelpie does not exist"))
    assert list(images.check_patches(subject(account=FakeAccount(cloudformation=none)))) == []


SUBNETS = [
    {"VpcId": "vpc-1", "AvailabilityZone": "us-east-1a", "AvailableIpAddressCount": 200},
    {"VpcId": "vpc-1", "AvailabilityZone": "us-east-1b", "AvailableIpAddressCount": 200},
]
ITSELF = {"IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535, "UserIdGroupPairs": [{"GroupId": "sg-1"}]}
GROUP = {"VpcId": "vpc-1", "GroupId": "sg-1", "IpPermissions": [ITSELF]}


def told_of_network(subnets: list[dict[str, Any]], group: dict[str, Any]) -> list[str]:
    ec2 = Client(describe_subnets={"Subnets": subnets}, describe_security_groups={"SecurityGroups": [group]})
    return [one.what for one in network.check_account(subject(VPC, account=FakeAccount(ec2=ec2)))]


def test_the_network_is_looked_at_in_the_account() -> None:
    assert told_of_network(SUBNETS, GROUP) == []
    assert told_of_network(SUBNETS, {**GROUP, "IpPermissions": [{**ITSELF, "IpProtocol": "-1"}]}) == []
    one_zone = [{**one, "AvailabilityZone": "us-east-1a"} for one in SUBNETS]
    assert told_of_network(one_zone, GROUP) == ["All subnets are in us-east-1a."]
    assert "2 VPCs" in told_of_network(SUBNETS, {**GROUP, "VpcId": "vpc-2"})[0]
    full = [{**one, "AvailableIpAddressCount": 3} for one in SUBNETS]
    assert "6 free addresses" in told_of_network(full, GROUP)[0]
    for permissions_ in ([], [{**ITSELF, "FromPort": 443, "ToPort": 443}], [{**ITSELF, "UserIdGroupPairs": []}]):
        assert told_of_network(SUBNETS, {**GROUP, "IpPermissions": permissions_}) == [
            "No security group admits its own members."
        ]


def test_half_a_network_and_one_subnet_are_found_without_an_account() -> None:
    assert found(network.check, subject()) == []
    half = subject().config.vpc.model_copy(update={"subnet_ids": ("subnet-1",)})
    about = subject(config=subject().config.model_copy(update={"vpc": half}))
    assert [one.severity for one in found(network.check, about)] == [Severity.ERROR, Severity.WARNING]


def told_of_quotas(values: dict[str, Any], **limits: float) -> list[tuple[Severity, str]]:
    listed = [{"QuotaName": name, "Value": value} for name, value in limits.items()]
    account = FakeAccount(service_quotas=Client(list_service_quotas={"Quotas": listed}))
    return [(one.severity, one.what) for one in quotas.check_instances(subject(values, account=account))]


ENOUGH = {
    "ml.c5.xlarge for spot training job usage": 2.0,
    "ml.c5.xlarge for training job usage": 2.0,
    "ml.c5.large for endpoint usage": 6.0,
}


def test_quotas_of_instances() -> None:
    assert told_of_quotas({}, **ENOUGH) == []
    ((severity, what),) = told_of_quotas({}, **{**ENOUGH, "ml.c5.xlarge for spot training job usage": 1})
    assert severity is Severity.ERROR
    assert "1 of 'ml.c5.xlarge for spot training job usage'; 2 are wanted" in what
    ((severity, _),) = told_of_quotas({}, **{**ENOUGH, "ml.c5.xlarge for training job usage": 0})
    assert severity is Severity.WARNING  # only the fall-back needs it
    on_demand = {"training": {"managed_spot": False}}
    ((severity, _),) = told_of_quotas(on_demand, **{**ENOUGH, "ml.c5.xlarge for training job usage": 0})
    assert severity is Severity.ERROR
    told = told_of_quotas({}, **{**ENOUGH, "ml.c5.large for endpoint usage": 4})
    assert [severity for severity, _ in told] == [Severity.WARNING]  # two fleets during an update
    told = told_of_quotas({}, **{**ENOUGH, "ml.c5.large for endpoint usage": 0})
    assert [severity for severity, _ in told] == [Severity.ERROR, Severity.WARNING]
    assert "lists no" in told_of_quotas({}, **{k: v for k, v in ENOUGH.items() if "spot" not in k})[0][1]


@pytest.mark.parametrize(
    ("wanted", "own", "free", "refusal"),
    [(0, 0, 10, False), (50, 0, 150, False), (51, 0, 150, True), (60, 50, 110, False), (61, 50, 110, True)],
)
def test_a_reservation_must_leave_a_hundred_executions(wanted: int, own: int, free: int, refusal: bool) -> None:
    limits = {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": free}
    concurrency = {"ReservedConcurrentExecutions": own} if own else Refusal()
    client = Client(get_account_settings={"AccountLimit": limits}, get_function_concurrency=concurrency)
    about = subject(account=FakeAccount(**{"lambda": client}))
    about = dataclasses.replace(about, parameters={**about.parameters, "ClassifyReservedConcurrency": str(wanted)})
    assert [one.severity for one in quotas.check_functions(about)] == ([Severity.ERROR] if refusal else [])


@pytest.mark.parametrize(
    ("lowest", "highest", "reserved", "own", "free", "severities"),
    [
        (0, 0, 0, 0, 10, []),
        (10, 50, 0, 0, 150, []),
        (10, 51, 0, 0, 150, [Severity.WARNING]),
        (51, 51, 0, 0, 150, [Severity.ERROR]),
        (10, 60, 0, 50, 110, []),  # the reservation that is given up comes back first
        (10, 50, 50, 0, 150, []),  # it comes out of the function's own reservation
    ],
)
def test_provisioned_concurrency_must_leave_a_hundred_executions_too(
    lowest: int, highest: int, reserved: int, own: int, free: int, severities: list[Severity]
) -> None:
    limits = {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": free}
    concurrency = {"ReservedConcurrentExecutions": own} if own else Refusal()
    client = Client(get_account_settings={"AccountLimit": limits}, get_function_concurrency=concurrency)
    wanted = {
        "classify_provisioned_min": lowest,
        "classify_provisioned_max": highest,
        "classify_reserved": reserved,
    }
    about = subject({"concurrency": wanted}, account=FakeAccount(**{"lambda": client}))
    told = list(quotas.check_functions(about))
    assert [one.severity for one in told] == severities
    assert all(f"Provision at most {free + own - 100}," in one.fix for one in told)


def test_step_functions_diagnostics_become_findings() -> None:
    said = [
        {"severity": "ERROR", "code": "SCHEMA_VALIDATION_FAILED", "message": "m", "location": "/States/Train"},
        {"severity": "WARNING", "code": "NO_DOLLAR", "message": "n", "location": "/States/Other"},
    ]
    client = Client(validate_state_machine_definition={"result": "FAIL", "diagnostics": said})
    told = list(service.check(subject(account=FakeAccount(stepfunctions=client))))
    assert [(one.severity, one.where) for one in told] == [
        (Severity.ERROR, "/States/Train"),
        (Severity.WARNING, "/States/Other"),
    ]
    sent = client.asked[0][1]["definition"]
    assert "${" not in sent
    assert json.loads(sent)["States"].keys() == subject().definition["States"].keys()


def test_step_functions_is_shown_addresses_of_the_accounts_partition() -> None:
    account: Any = FakeAccount()
    account.region, account.partition, account.dns_suffix = "cn-north-1", "aws-cn", "amazonaws.com.cn"
    sent = service.rendered({"A": "${TrainingImage} ${ServingImage} ${KmsKeyArn} ${XRoleArn}"}, "kelpie", account)
    assert sent.count(".dkr.ecr.cn-north-1.amazonaws.com.cn/") == 2
    assert re.findall("arn:([^:]+):", sent) == ["aws-cn", "aws-cn"]


def test_an_account_that_does_not_answer_is_reported_and_not_taken_for_a_yes() -> None:
    for failure, words in (
        (refused("AccessDeniedException"), "refused"),
        (refused("500", "<!doctype html><html>"), "has no such API"),
        (refused("ThrottlingException"), "ThrottlingException"),
        (EndpointConnectionError(endpoint_url="http://nowhere"), "gave no answer"),
    ):
        client = Client(list_service_quotas=failure)
        (one,) = quotas.check_instances(subject(account=FakeAccount(service_quotas=client)))
        assert (one.severity, one.what) == (Severity.INFO, "not asked: the quotas of instances")
        assert words in one.why
    assert "servicequotas:ListServiceQuotas" in info("", "servicequotas:ListServiceQuotas", "").where


def test_the_ceiling_holds_for_the_figure_that_is_shown() -> None:
    most = costs.total(costs.execution_at_most(Config()))
    assert most is not None
    for limit, severities in ((most + 0.01, []), (most - 0.01, [Severity.ERROR])):
        about = subject({"cost": {"max_usd_per_execution": round(limit, 4)}})
        assert [one.severity for one in found(cost_checks.check, about)] == severities
    unknown = subject({"cost": {"max_usd_per_execution": 5.0}, "training": {"instance_type": "ml.r5.large"}})
    assert {one.severity for one in found(cost_checks.check, unknown)} == {Severity.WARNING, Severity.ERROR}


def test_prices_of_another_region_are_said_to_be_so() -> None:
    told = [one.what for one in cost_checks.check(subject({"aws": {"region": "eu-central-1"}}))]
    assert any("eu-central-1" in what for what in told)


def test_the_evidence_of_proven_fields_is_dated() -> None:
    text = Path(tasks.__file__).with_name("proven_fields.json").read_text(encoding="utf-8")
    assert datetime.date.fromisoformat(json.loads(text)["dated"]) <= TODAY
    assert all(evidence for fields in tasks.proven_fields().values() for evidence in fields.values())
