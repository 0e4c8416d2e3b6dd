"""Deploying the stack: two phases, nothing done twice, failures that name the resource."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from stack_server import StackServer, stack_server, succeed

from workflow import packaging, stack, template
from workflow.config import Config
from workflow.errors import KelpieError
from workflow.packaging import Asset, asset_of_bytes

CONFIG = Config()
DEFINITION = {"StartAt": "Say", "States": {"Say": {"Type": "Pass", "Result": {"key": "${KmsKeyArn}"}, "End": True}}}


@pytest.fixture(scope="module")
def running_server() -> Iterator[StackServer]:
    with stack_server() as running:
        yield running


@pytest.fixture
def server(running_server: StackServer, monkeypatch: pytest.MonkeyPatch) -> StackServer:
    """An empty account, and assets that are small: the real ones need the SageMaker SDK and seconds."""
    monkeypatch.setattr(stack, "stack_assets", lambda config: small_assets())
    monkeypatch.setattr(stack, "_POLL_SECONDS", 0.0)
    running_server.reset()
    return running_server


def small_assets(**changes: Asset) -> dict[str, Asset]:
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr(zipfile.ZipInfo("handler.py"), "def handler(event, context): pass")
    assets = {
        "Definition": asset_of_bytes("state-machine.json", json.dumps(DEFINITION).encode()),
        "Code": asset_of_bytes("sourcedir.tar.gz", b"code"),
        "Weights": asset_of_bytes("weights.pth", b"weights"),
    }
    for name in packaging.LAMBDAS:
        assets["".join(map(str.capitalize, name.split("_")))] = asset_of_bytes(f"{name}.zip", code.getvalue())
    return {**assets, **changes}


def deploy(server: StackServer) -> tuple[stack.StackOutputs, list[stack.StackEvent]]:
    events: list[stack.StackEvent] = []
    return stack.deploy(server.account, CONFIG, on_event=events.append), events


def resources_of(server: StackServer) -> set[str]:
    found = server.client("cloudformation").describe_stack_resources(StackName="kelpie")["StackResources"]
    return {resource["LogicalResourceId"] for resource in found}


def test_a_deployment_creates_every_resource_of_the_template(server: StackServer) -> None:
    deploy(server)
    parsed = template.parse(template.TEMPLATE_FILE.read_text())
    unconditional = {name for name, resource in parsed["Resources"].items() if "Condition" not in resource}
    assert resources_of(server) >= unconditional


def test_the_bucket_exists_before_the_first_upload_and_the_rest_after_the_last(server: StackServer) -> None:
    _, events = deploy(server)
    steps = [event.resource for event in events if event.status in ("CREATE_COMPLETE", "UPLOADED")]
    uploads = [index for index, event in enumerate(events) if event.status == "UPLOADED"]
    assert steps.index("ArtifactBucket") < steps.index("state-machine.json") < steps.index("StateMachine")
    assert len(uploads) == 3 + len(packaging.LAMBDAS)


def test_the_outputs_name_what_was_made(server: StackServer) -> None:
    outputs, _ = deploy(server)
    assert outputs == stack.outputs(server.account, CONFIG)
    assert outputs.endpoint_name == "kelpie"
    assert {found["Name"] for found in server.client("s3").list_buckets()["Buckets"]} == {
        outputs.data_bucket,
        outputs.artifact_bucket,
    }
    machine = server.client("stepfunctions").describe_state_machine(stateMachineArn=outputs.state_machine_arn)
    assert machine["definition"] == json.dumps(DEFINITION).replace("${KmsKeyArn}", outputs.kms_key_arn)


def test_a_second_deployment_uploads_and_changes_nothing(server: StackServer) -> None:
    first, _ = deploy(server)
    second, events = deploy(server)
    assert second == first
    assert events == []


def test_a_changed_lambda_updates_that_lambda_alone(server: StackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(server)
    changed = small_assets()["Classify"]
    assert isinstance(changed.content, bytes)
    changed = asset_of_bytes("classify.zip", changed.content + b"\0\0")
    monkeypatch.setattr(stack, "stack_assets", lambda config: small_assets(Classify=changed))
    _, events = deploy(server)
    assert [(event.resource, event.status) for event in events if "::Stack" not in event.resource_type] == [
        ("classify.zip", "UPLOADED"),
        ("ClassifyFunction", "UPDATE_COMPLETE"),
    ]


def test_a_failed_deployment_names_the_resource_and_the_next_one_succeeds(server: StackServer) -> None:
    server.answer = lambda event: {**succeed(event), "Status": "FAILED", "Reason": "the bucket said no"}
    with pytest.raises(KelpieError, match="ChampionMarker") as raised:
        deploy(server)
    assert "the bucket said no" in raised.value.detail
    with pytest.raises(KelpieError, match="is not deployed"):
        stack.outputs(server.account, CONFIG)
    server.answer = succeed
    outputs, _ = deploy(server)
    assert outputs.classify_function == "kelpie-classify"


def test_a_stack_whose_creation_failed_is_made_anew(server: StackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps({"Resources": {"Data": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "Not a name"}}}})
    server.client("cloudformation").create_stack(StackName="kelpie", TemplateBody=body)
    [failed] = server.client("cloudformation").describe_stacks(StackName="kelpie")["Stacks"]
    assert failed["StackStatus"] == "ROLLBACK_COMPLETE"
    outputs, _ = deploy(server)
    assert outputs.state_machine_arn


def test_a_stack_that_somebody_else_is_changing_is_left_alone(
    server: StackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = {"Stacks": [{"StackId": "kelpie", "StackStatus": "UPDATE_IN_PROGRESS"}]}
    monkeypatch.setattr(server.client("cloudformation"), "describe_stacks", lambda StackName: busy)
    with pytest.raises(KelpieError, match="by somebody else"):
        deploy(server)


def test_an_update_without_changes_is_no_failure(server: StackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = deploy(server)

    def refuse(**_: Any) -> None:
        message = "No updates are to be performed."
        raise ClientError({"Error": {"Code": "ValidationError", "Message": message}}, "UpdateStack")

    monkeypatch.setattr(server.client("cloudformation"), "update_stack", refuse)
    assert deploy(server)[0] == first


def test_outputs_of_nothing_say_how_to_deploy(server: StackServer) -> None:
    with pytest.raises(KelpieError, match="is not deployed") as raised:
        stack.outputs(server.account, CONFIG)
    assert "kelpie local up" in raised.value.fix


def test_destroy_keeps_the_data(server: StackServer) -> None:
    outputs, _ = deploy(server)
    stack.destroy(server.account, CONFIG)
    assert {found["Name"] for found in server.client("s3").list_buckets()["Buckets"]} == {
        outputs.data_bucket,
        outputs.artifact_bucket,
    }
    assert not server.client("stepfunctions").list_state_machines()["stateMachines"]
    stack.destroy(server.account, CONFIG)  # there is nothing left, and that is fine


def test_a_value_that_the_stack_does_not_supply_is_named_before_anything_is_created() -> None:
    definition = asset_of_bytes("state-machine.json", b'{"Comment": "${Region} ${Moon}"}')
    with pytest.raises(KelpieError, match="does not supply") as raised:
        stack.validate(template.TEMPLATE_FILE.read_text(), small_assets(Definition=definition))
    assert "Moon" in raised.value.detail
    assert "Region" not in raised.value.detail


def test_a_template_that_is_too_long_is_refused() -> None:
    body = template.TEMPLATE_FILE.read_text() + "#" * template.BODY_LIMIT_BYTES
    with pytest.raises(KelpieError, match="too long"):
        stack.validate(body, small_assets())


def test_the_channels_are_prefixes_that_hold_one_file() -> None:
    values = stack.parameters(CONFIG, "artifacts", small_assets())
    code = small_assets()["Code"]
    assert values["CodeChannelUri"] + code.name == f"s3://artifacts/{code.key}"


def test_network_interfaces_are_only_allowed_when_there_are_subnets() -> None:
    config = CONFIG.model_copy(update={"vpc": CONFIG.vpc.model_copy(update={"subnet_ids": ("subnet-1",)})})
    assert stack.parameters(CONFIG, "artifacts", small_assets())["UsesVpc"] == "false"
    assert stack.parameters(config, "artifacts", small_assets())["UsesVpc"] == "true"


def test_without_weights_the_channel_still_has_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaging, "weights", lambda _: None)
    monkeypatch.setattr(packaging, "training_archive", lambda: asset_of_bytes("a", b""))
    monkeypatch.setattr(packaging, "lambda_archive", lambda name: asset_of_bytes(name, b""))
    monkeypatch.setitem(__import__("sys").modules, "workflow.definition", SimpleNamespace(render=lambda config: "{}"))
    assert stack.stack_assets(CONFIG)["Weights"].size_bytes > 0


def test_an_event_reads_as_a_line_of_progress() -> None:
    event = stack.StackEvent("StateMachine", "AWS::StepFunctions::StateMachine", "CREATE_COMPLETE")
    assert str(event) == "create complete StateMachine"
    assert str(replace(event, status="CREATE_FAILED", reason="why")) == "create failed StateMachine why"
