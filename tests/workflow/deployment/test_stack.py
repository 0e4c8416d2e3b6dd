"""Deploying the stack: two phases, nothing done twice, failures that name the resource."""

from __future__ import annotations

import io
import itertools
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from stack_server import StackServer, stack_server, succeed

from workflow import schedule
from workflow.commands.stack import _Question
from workflow.config import Config
from workflow.deployment import cloudformation, packaging, serving_image, stack, template
from workflow.deployment.change_set import ChangeSet, Effect
from workflow.deployment.packaging import Asset, asset_of_bytes
from workflow.errors import KelpieError

CONFIG = Config()
IMAGE = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/kelpie-serving@sha256:{'0' * 64}"
SMALL = (
    *("StateMachineAlias", "Schedule", "DataBucket", "LockTable", "ModelPackageGroup", "ClassifyAlias"),
    *("ChampionMarker", "NotificationTopic"),
)
WHOLE = template.TEMPLATE_FILE
DEFINITION = {"StartAt": "Say", "States": {"Say": {"Type": "Pass", "Result": {"key": "${KmsKeyArn}"}, "End": True}}}


@pytest.fixture(scope="module")
def running_server() -> Iterator[StackServer]:
    with stack_server() as running:
        yield running


@cache
def small_template() -> str:
    """A fourth of stack.yaml, so that it is deployed in a fourth of the time: the state machine calls nothing."""
    whole = template.parse(template.TEMPLATE_FILE.read_text())
    resources = whole["Resources"]
    properties = resources["StateMachine"]["Properties"]
    properties["DefinitionSubstitutions"] = {"KmsKeyArn": properties["DefinitionSubstitutions"]["KmsKeyArn"]}
    resources["StateMachineRole"]["Properties"]["Policies"] = []
    resources["ClassifyRole"]["Properties"]["Policies"] = []
    del resources["DataBucket"]["Properties"]["LoggingConfiguration"]
    small = template.part(whole, [*template.BOOTSTRAP_RESOURCES, *SMALL])
    outputs = {key: one for key, one in whole["Outputs"].items() if key not in ("ClassifyUrl", "DashboardName")}
    small |= {"Parameters": whole["Parameters"], "Conditions": whole["Conditions"], "Outputs": outputs}
    return json.dumps(small)


@pytest.fixture
def server(running_server: StackServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StackServer:
    """An empty account, a template and assets that are small: the real ones need the SageMaker SDK and seconds."""
    small_file = tmp_path / "stack.yaml"
    small_file.write_text(small_template())
    monkeypatch.setattr(template, "TEMPLATE_FILE", small_file)
    monkeypatch.setattr(stack, "stack_assets", lambda config: small_assets())
    monkeypatch.setattr(serving_image, "ensure", lambda *_, **__: IMAGE)
    monkeypatch.setattr(cloudformation, "_pauses_seconds", lambda: itertools.repeat(0.0))
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
        "ServingContext": asset_of_bytes("serving-context.zip", code.getvalue()),
        "PowertoolsLayer": asset_of_bytes("powertools-layer.zip", code.getvalue()),
    }
    for name in packaging.LAMBDAS:
        assets["".join(map(str.capitalize, name.split("_")))] = asset_of_bytes(f"{name}.zip", code.getvalue())
    return {**assets, **changes}


def deploy(
    server: StackServer, approve: stack.Approve = lambda _: True, config: Config = CONFIG
) -> tuple[stack.StackOutputs, list[cloudformation.StackEvent]]:
    events: list[cloudformation.StackEvent] = []
    return stack.deploy(server.account, config, on_event=events.append, approve=approve), events


class Asked:
    """Keeps the change sets that it is asked about."""

    def __init__(self, *answers: bool) -> None:
        self.proposed: list[ChangeSet] = []
        self._answers = list(answers)

    def __call__(self, proposed: ChangeSet) -> bool:
        self.proposed.append(proposed)
        return self._answers.pop(0) if self._answers else True


def status(server: StackServer) -> str | None:
    return cloudformation.CloudFormationStack(server.account, "kelpie").status()


def resources_of(server: StackServer) -> set[str]:
    found = server.client("cloudformation").describe_stack_resources(StackName="kelpie")["StackResources"]
    return {resource["LogicalResourceId"] for resource in found}


def test_a_deployment_creates_every_resource_of_the_template(
    server: StackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template, "TEMPLATE_FILE", WHOLE)
    deploy(server)
    parsed = template.parse(WHOLE.read_text())
    unconditional = {name for name, resource in parsed["Resources"].items() if "Condition" not in resource}
    assert resources_of(server) >= unconditional


def test_the_bucket_exists_before_the_first_upload_and_the_rest_after_the_last(server: StackServer) -> None:
    _, events = deploy(server)
    steps = [event.resource for event in events if event.status in ("CREATE_COMPLETE", "UPLOADED")]
    uploads = [index for index, event in enumerate(events) if event.status == "UPLOADED"]
    assert steps.index("ArtifactBucket") < steps.index("state-machine.json") < steps.index("StateMachine")
    assert len(uploads) == len(small_assets()) + 2  # the template, and the content of the channel wheels


def test_the_serving_image_is_built_while_other_assets_are_still_uploaded(
    server: StackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded: list[str] = []
    built = threading.Event()
    put_object = server.account.client("s3").put_object

    def put(**values: Any) -> Any:
        if values["Key"].endswith("sourcedir.tar.gz"):
            assert built.wait(60)
        uploaded.append(values["Key"].rpartition("/")[2])
        return put_object(**values)

    def ensure(*_: Any, context: Asset, **__: Any) -> str:
        assert context.name in uploaded
        assert "sourcedir.tar.gz" not in uploaded
        built.set()
        return IMAGE

    monkeypatch.setattr(server.account.client("s3"), "put_object", put)
    monkeypatch.setattr(serving_image, "ensure", ensure)
    deploy(server)
    assert "sourcedir.tar.gz" in uploaded


def test_a_change_set_is_read_to_its_last_page(server: StackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    client = server.account.client("cloudformation")
    describe = client.describe_change_set

    def one_change_a_page(NextToken: str = "0", **names: str) -> Any:
        whole, number = describe(**names), int(NextToken)
        more = {"NextToken": str(number + 1)} if number + 1 < len(whole["Changes"]) else {}
        return {**whole, "Changes": whole["Changes"][number : number + 1], **more}

    monkeypatch.setattr(client, "describe_change_set", one_change_a_page)
    asked = Asked()
    deploy(server, asked)
    whole = template.parse(template.TEMPLATE_FILE.read_text())["Resources"]
    wanted = {name for name, resource in whole.items() if "Condition" not in resource}
    assert {change.resource for proposed in asked.proposed for change in proposed.changes} >= wanted


def test_a_failed_upload_changes_nothing_of_the_stack(server: StackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(**values: Any) -> Any:
        if values["Key"].endswith("classify.zip"):
            raise ClientError({"Error": {"Code": "SlowDown", "Message": "later"}}, "PutObject")
        return put_object(**values)

    s3 = server.account.client("s3")
    put_object = s3.put_object
    with monkeypatch.context() as failing:
        failing.setattr(s3, "put_object", put)
        with pytest.raises(ClientError, match="later"):
            deploy(server)
    assert "StateMachine" not in resources_of(server)
    deploy(server)
    assert "StateMachine" in resources_of(server)


def test_the_outputs_name_what_was_made(server: StackServer) -> None:
    outputs, _ = deploy(server)
    assert outputs == stack.outputs(server.account, CONFIG)
    assert outputs.endpoint_name == "kelpie"
    assert {found["Name"] for found in server.client("s3").list_buckets()["Buckets"]} > {
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
        ("ClassifyVersion", "CREATE_COMPLETE"),
        ("ClassifyAlias", "UPDATE_COMPLETE"),
        ("ClassifyVersion", "DELETE_COMPLETE"),
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


def test_a_stack_that_is_current_is_not_asked_about(server: StackServer) -> None:
    deploy(server)
    asked = Asked()
    deploy(server, asked)
    assert asked.proposed == []


def test_a_new_stack_is_proposed_in_two_parts_that_only_add(server: StackServer) -> None:
    asked = Asked()
    deploy(server, asked)
    first, rest = asked.proposed
    assert (first.creates_stack, rest.creates_stack) == (True, False)
    assert first.only_adds
    assert rest.only_adds
    assert {"ArtifactBucket", "ServingRepository", "ImageBuild"} <= {change.resource for change in first.changes}
    assert "StateMachine" in {change.resource for change in rest.changes}


def test_both_parts_of_a_new_stack_are_asked_about(
    server: StackServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def confirm(question: str) -> bool:
        asked.append(capsys.readouterr().out)
        return len(asked) == 1

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", confirm)
    with pytest.raises(stack.Declined):
        deploy(server, _Question(yes=False))
    first, rest = asked
    assert "ArtifactBucket" in first
    assert "StateMachine" not in first
    assert "StateMachine" in rest
    assert "ArtifactBucket" in resources_of(server)
    assert "StateMachine" not in resources_of(server)
    deploy(server, _Question(yes=True))
    assert len(asked) == 2
    assert "StateMachine" in resources_of(server)


def test_what_is_declined_leaves_no_stack_behind(server: StackServer) -> None:
    with pytest.raises(stack.Declined):
        deploy(server, Asked(False))
    assert status(server) is None
    assert deploy(server)[0].state_machine_arn


def test_a_declined_update_changes_nothing(server: StackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    before, _ = deploy(server)
    definition = asset_of_bytes("state-machine.json", json.dumps({**DEFINITION, "Comment": "another"}).encode())
    monkeypatch.setattr(stack, "stack_assets", lambda config: small_assets(Definition=definition))
    with pytest.raises(stack.Declined):
        deploy(server, Asked(False))
    machine = server.client("stepfunctions").describe_state_machine(stateMachineArn=before.state_machine_arn)
    assert "another" not in machine["definition"]
    asked = Asked()
    deploy(server, asked)
    [proposed] = asked.proposed
    changes = {change.resource: change for change in proposed.changes}
    assert changes["StateMachine"].effect is Effect.CHANGED
    assert changes["StateMachineVersion"].effect is Effect.MAY_BE_REPLACED
    assert [change.name for change in proposed.parameters] == ["DefinitionKey"]
    assert "ClassifyFunction" not in changes


def test_an_error_while_asking_leaves_no_change_set_behind(server: StackServer) -> None:
    def fail(_: ChangeSet) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploy(server, fail)
    assert status(server) is None
    assert not server.client("cloudformation").list_change_sets(StackName="kelpie")["Summaries"]


def test_what_an_interrupted_change_set_left_behind_is_removed_first(server: StackServer) -> None:
    body = json.dumps({"Resources": {"Data": {"Type": "AWS::S3::Bucket"}}})
    server.client("cloudformation").create_change_set(
        StackName="kelpie", ChangeSetName="interrupted", ChangeSetType="CREATE", TemplateBody=body
    )
    assert status(server) == "REVIEW_IN_PROGRESS"
    outputs, events = deploy(server)
    assert outputs.state_machine_arn
    assert events[0].status == "REVIEW_IN_PROGRESS"
    assert not server.client("cloudformation").list_change_sets(StackName="kelpie")["Summaries"]


def test_the_schedule_stays_switched_on_when_the_stack_is_deployed_again(
    server: StackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs, _ = deploy(server)
    assert not schedule.read(server.account, outputs.schedule_name).enabled
    assert schedule.switch(server.account, "kelpie", enabled=True)
    assert not schedule.switch(server.account, "kelpie", enabled=True)
    asked = Asked()
    deploy(server, asked)
    assert asked.proposed == []
    definition = asset_of_bytes("state-machine.json", json.dumps({**DEFINITION, "Comment": "another"}).encode())
    monkeypatch.setattr(stack, "stack_assets", lambda config: small_assets(Definition=definition))
    deploy(server)
    found = schedule.read(server.account, outputs.schedule_name)
    assert (found.enabled, found.expression, found.time_zone) == (True, CONFIG.schedule.expression, "UTC")
    assert schedule.switch(server.account, "kelpie", enabled=False)
    assert not schedule.read(server.account, outputs.schedule_name).enabled


def test_the_next_times_are_those_of_the_schedules_time_zone() -> None:
    found = schedule.Schedule("kelpie", True, "cron(30 8 ? * MON-FRI *)", "Europe/Berlin", 0)
    times = found.next_times(5, datetime(2026, 10, 23, 12, tzinfo=UTC))
    assert [f"{time:%a %d %H:%M %z}" for time in times] == [
        "Mon 26 08:30 +0100",  # the clocks went back on the day before
        *(f"{day} {number} 08:30 +0100" for day, number in (("Tue", 27), ("Wed", 28), ("Thu", 29), ("Fri", 30))),
    ]


def test_a_rollback_that_failed_is_continued_before_anything_else(
    server: StackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(server)
    client = server.client("cloudformation")
    statuses = {"now": "UPDATE_ROLLBACK_FAILED"}
    original = client.describe_stacks

    def describe(StackName: str) -> Any:
        answer = original(StackName=StackName)
        answer["Stacks"][0]["StackStatus"] = statuses["now"]
        return answer

    def go_on(StackName: str) -> None:
        statuses["now"] = "UPDATE_ROLLBACK_COMPLETE"

    monkeypatch.setattr(cloudformation, "_START_SECONDS", 0.0)
    monkeypatch.setattr(client, "describe_stacks", describe)
    monkeypatch.setattr(client, "continue_update_rollback", go_on)
    found = cloudformation.CloudFormationStack(server.account, "kelpie")
    assert found.prepare()
    assert found.status() == "UPDATE_ROLLBACK_COMPLETE"


@pytest.mark.parametrize(("state", "said"), [("DELETE_FAILED", "kelpie destroy"), ("UPDATE_IN_PROGRESS", "Wait")])
def test_states_from_which_nothing_can_start_say_what_to_do(
    server: StackServer, monkeypatch: pytest.MonkeyPatch, state: str, said: str
) -> None:
    busy = {"Stacks": [{"StackId": "kelpie", "StackStatus": state}]}
    monkeypatch.setattr(server.client("cloudformation"), "describe_stacks", lambda StackName: busy)
    with pytest.raises(KelpieError) as raised:
        cloudformation.CloudFormationStack(server.account, "kelpie").prepare()
    assert said in raised.value.fix


def event(resource: str, reason: str) -> cloudformation.StackEvent:
    return cloudformation.StackEvent(resource, "AWS::X::Y", "CREATE_FAILED", reason)


def test_the_cause_of_a_failure_is_not_what_followed_from_it() -> None:
    cancelled, real = event("A", "Resource creation cancelled"), event("B", "Access denied")
    summary = event("kelpie", "The following resource(s) failed to create: [A, B].")
    assert cloudformation.first_cause([cancelled, real, summary]) == real
    assert cloudformation.first_cause([cancelled, summary]) == cancelled
    assert cloudformation.first_cause([]) is None


def test_outputs_of_nothing_say_how_to_deploy(server: StackServer) -> None:
    with pytest.raises(KelpieError, match="is not deployed") as raised:
        stack.outputs(server.account, CONFIG)
    assert "kelpie local up" in raised.value.fix


def test_a_value_that_the_stack_does_not_supply_is_named_before_anything_is_created() -> None:
    definition = asset_of_bytes("state-machine.json", b'{"Comment": "${Region} ${Moon}"}')
    with pytest.raises(KelpieError, match="does not supply") as raised:
        stack.validate(template.TEMPLATE_FILE.read_text(), small_assets(Definition=definition))
    assert "Moon" in raised.value.detail
    assert "Region" not in raised.value.detail


def test_a_template_that_is_too_long_is_refused() -> None:
    body = template.TEMPLATE_FILE.read_text() + "#" * template.URL_LIMIT_BYTES
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
    event = cloudformation.StackEvent("StateMachine", "AWS::StepFunctions::StateMachine", "CREATE_COMPLETE")
    assert str(event) == "create complete StateMachine"
    assert str(replace(event, status="CREATE_FAILED", reason="why")) == "create failed StateMachine why"
