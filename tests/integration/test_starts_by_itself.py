"""Nobody types a command: a schedule and new data start executions, and what ends badly is swept up after."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from integration.clouds import own_cloud
from integration.harness import SMALL, LocalCloud, Notifications, eventually, left_behind, lock_owner, run_of, unswept

from workflow.config import Config

pytestmark = pytest.mark.slow

SETTINGS = Config.model_validate(
    {
        **{name: {**section} for name, section in SMALL.items()},
        "schedule": {"expression": "cron(30 2 * * ? *)", "time_zone": "America/Los_Angeles"},
        "triggers": {"on_new_data": True},
    }
)


@pytest.fixture(scope="module")
def scheduled_cloud(tmp_path_factory: pytest.TempPathFactory, dogs_folder: Path) -> Iterator[LocalCloud]:
    """A local cloud whose defaults are small, because neither a schedule nor an event gives more than a folder."""
    with own_cloud(tmp_path_factory.mktemp("scheduled") / "local", SETTINGS, dogs_folder) as found:
        yield found


def set_parameter(local_cloud: LocalCloud, name: str, value: str) -> None:
    """Update the stack with its own template and one other parameter."""
    client = local_cloud.account.client("cloudformation")
    stack = client.describe_stacks(StackName="kelpie")["Stacks"][0]
    client.update_stack(
        StackName="kelpie",
        UsePreviousTemplate=True,
        Parameters=[
            {"ParameterKey": key, "ParameterValue": value}
            if key == name
            else {"ParameterKey": key, "UsePreviousValue": True}
            for key in (parameter["ParameterKey"] for parameter in stack["Parameters"])
        ],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"],
    )
    assert client.describe_stacks(StackName="kelpie")["Stacks"][0]["StackStatus"] == "UPDATE_COMPLETE"


def schedule(local_cloud: LocalCloud) -> dict[str, Any]:
    """The stack's schedule, as the clock knows it."""
    [found] = local_cloud.connection.control("GET", "clock")["schedules"]
    return dict(found)


def started(local_cloud: LocalCloud, known: set[str], timeout_seconds: float = 60) -> str:
    """The ARN of the one execution that was started since `known` were all."""
    eventually(lambda: bool(arns(local_cloud) - known), "an execution that nobody started", timeout_seconds)
    [arn] = arns(local_cloud) - known
    return arn


def arns(local_cloud: LocalCloud) -> set[str]:
    client = local_cloud.account.client("stepfunctions")
    listed = client.list_executions(stateMachineArn=local_cloud.outputs.state_machine_arn)["executions"]
    return {execution["executionArn"] for execution in listed}


def dead_letters(local_cloud: LocalCloud) -> list[dict[str, Any]]:
    """Takes all messages out of the stack's dead-letter queue."""
    sqs, url = local_cloud.account.client("sqs"), local_cloud.outputs.dead_letter_queue_url
    found: list[dict[str, Any]] = []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]).get(
        "Messages"
    ):
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            found.append(message)
    return found


def copy_data(local_cloud: LocalCloud, folder: str) -> None:
    """The uploaded pictures once more, under another folder of the data bucket."""
    s3, bucket = local_cloud.account.client("s3"), local_cloud.outputs.data_bucket
    prefix = local_cloud.data_s3_uri.removeprefix(f"s3://{bucket}/")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page["Contents"]:
            source = {"Bucket": bucket, "Key": item["Key"]}
            s3.copy_object(Bucket=bucket, Key=folder + item["Key"].removeprefix(prefix), CopySource=source)


def enter(local_cloud: LocalCloud, execution_arn: str, state: str) -> None:
    """Wait until an execution has entered a state."""

    def entered() -> bool:
        history = local_cloud.account.client("stepfunctions").get_execution_history(
            executionArn=execution_arn, reverseOrder=True, maxResults=20
        )["events"]
        return state in [event.get("stateEnteredEventDetails", {}).get("name") for event in history]

    eventually(entered, f"{execution_arn} to enter {state}", 240)


def test_the_schedule_fires_at_its_time_and_its_execution_succeeds(scheduled_cloud: LocalCloud) -> None:
    copy_data(scheduled_cloud, "datasets/default/")
    assert schedule(scheduled_cloud)["state"] == "DISABLED"
    set_parameter(scheduled_cloud, "ScheduleState", "ENABLED")
    fires_at = datetime.fromisoformat(schedule(scheduled_cloud)["next"])
    assert (fires_at.hour, fires_at.minute) == (2, 30)
    known = arns(scheduled_cloud)
    just_before = fires_at - timedelta(minutes=5)
    scheduled_cloud.connection.control("POST", "clock", {"now": just_before.isoformat()})
    assert arns(scheduled_cloud) == known
    scheduled_cloud.connection.control("POST", "clock", {"now": fires_at.isoformat()})
    arn = started(scheduled_cloud, known)
    set_parameter(scheduled_cloud, "ScheduleState", "DISABLED")
    scheduled_cloud.connection.control("DELETE", "clock")
    execution = scheduled_cloud.wait(arn)
    assert execution.status == "SUCCEEDED", f"{execution.error}: {execution.cause}"
    described = scheduled_cloud.account.client("stepfunctions").describe_execution(executionArn=arn)
    assert described["input"] == "{}"
    assert described["stateMachineAliasArn"] == scheduled_cloud.outputs.state_machine_alias_arn
    assert dead_letters(scheduled_cloud) == []


def test_a_complete_data_set_starts_one_execution_on_its_folder(scheduled_cloud: LocalCloud) -> None:
    known, bucket = arns(scheduled_cloud), scheduled_cloud.outputs.data_bucket
    copy_data(scheduled_cloud, "datasets/new-dogs/")
    assert arns(scheduled_cloud) == known
    marker = "datasets/new-dogs/_SUCCESS"
    scheduled_cloud.account.client("s3").put_object(Bucket=bucket, Key=marker, Body=b"")
    arn = started(scheduled_cloud, known)
    name = arn.rsplit(":", 1)[-1]
    assert len(name) == 73
    execution = scheduled_cloud.wait(arn)
    assert execution.status == "SUCCEEDED", f"{execution.error}: {execution.cause}"
    assert execution.input == {"data": {"s3_uri": f"s3://{bucket}/{marker}"}}
    assert execution.output is not None
    data = scheduled_cloud.training_job(execution)["InputDataConfig"]
    assert f"s3://{bucket}/datasets/new-dogs/" in [each["DataSource"]["S3DataSource"]["S3Uri"] for each in data]
    assert arns(scheduled_cloud) == {*known, arn}


@pytest.mark.parametrize("state", ["Train", "WaitForEndpoint"])
def test_after_an_abort_the_sweep_leaves_the_old_model_serving_and_tells(
    scheduled_cloud: LocalCloud, state: str
) -> None:
    serving = scheduled_cloud.endpoint()["EndpointConfigName"]
    notifications = Notifications(scheduled_cloud)
    arn = scheduled_cloud.start()
    enter(scheduled_cloud, arn, state)
    assert lock_owner(scheduled_cloud) == [arn]
    scheduled_cloud.account.client("stepfunctions").stop_execution(
        executionArn=arn, error="Tired", cause="I changed my mind"
    )
    execution = scheduled_cloud.wait(arn)
    assert execution.status == "ABORTED"
    eventually(lambda: lock_owner(scheduled_cloud) == [], "the lock to be released", 180)
    assert left_behind(scheduled_cloud, execution) == []
    endpoint = scheduled_cloud.endpoint()
    assert (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]) == ("InService", serving)
    eventually(lambda: bool(notifications.about(execution)), "a message", 30)
    [told] = notifications.about(execution)
    assert "was aborted" in told
    assert "I changed my mind" in told
    assert dead_letters(scheduled_cloud) == []


@contextmanager
def lost_events(local_cloud: LocalCloud) -> Iterator[None]:
    """Nobody hears of executions that end badly."""
    events = local_cloud.account.client("events")
    events.disable_rule(Name="kelpie-ended-badly")
    try:
        yield
    finally:
        events.enable_rule(Name="kelpie-ended-badly")


def let_a_quarter_of_an_hour_pass(local_cloud: LocalCloud) -> None:
    local_cloud.connection.control("POST", "clock", {"advance_seconds": 900})
    local_cloud.connection.control("DELETE", "clock")


def abort(local_cloud: LocalCloud, state: str) -> str:
    """The ARN of an execution that was aborted in a state."""
    arn = local_cloud.start()
    enter(local_cloud, arn, state)
    local_cloud.account.client("stepfunctions").stop_execution(executionArn=arn, cause="I changed my mind")
    assert local_cloud.wait(arn).status == "ABORTED"
    return arn


def test_an_aborted_execution_whose_event_is_lost_is_swept_within_a_quarter_of_an_hour(
    scheduled_cloud: LocalCloud,
) -> None:
    notifications = Notifications(scheduled_cloud)
    with lost_events(scheduled_cloud):
        arn = abort(scheduled_cloud, "Train")
        execution = scheduled_cloud.wait(arn)
        assert lock_owner(scheduled_cloud) == [arn]
        let_a_quarter_of_an_hour_pass(scheduled_cloud)
        eventually(lambda: lock_owner(scheduled_cloud) == [], "the lock to be released", 180)
    assert left_behind(scheduled_cloud, execution) == []
    eventually(lambda: bool(notifications.about(execution)), "a message", 30)
    assert "I changed my mind" in notifications.about(execution)[0]
    assert dead_letters(scheduled_cloud) == []


def test_what_an_aborted_execution_left_is_swept_after_the_one_that_took_its_lock_over(
    scheduled_cloud: LocalCloud,
) -> None:
    """It has changed the endpoint, and nobody has cleaned up, when the next one begins."""
    notifications = Notifications(scheduled_cloud)
    with lost_events(scheduled_cloud):
        aborted = abort(scheduled_cloud, "WaitForEndpoint")
        following = scheduled_cloud.start()
        enter(scheduled_cloud, following, "TakeOverLock")
        eventually(lambda: lock_owner(scheduled_cloud) == [following], "the lock to be taken over")
        assert unswept(scheduled_cloud) == [aborted]
        let_a_quarter_of_an_hour_pass(scheduled_cloud)
        ended = scheduled_cloud.wait(following)
        assert ended.status == "SUCCEEDED", f"{ended.error}: {ended.cause}"
        assert unswept(scheduled_cloud) == [aborted], "it waits while the other one runs"
        execution = scheduled_cloud.wait(aborted)
        assert left_behind(scheduled_cloud, execution) != []
        assert notifications.about(execution) == []
        let_a_quarter_of_an_hour_pass(scheduled_cloud)
        eventually(lambda: unswept(scheduled_cloud) == [], "the sweep", 180)
    assert left_behind(scheduled_cloud, execution) == []
    assert lock_owner(scheduled_cloud) == []
    serving = scheduled_cloud.endpoint()
    assert serving["EndpointStatus"] == "InService"
    assert run_of(ended) in serving["EndpointConfigName"]
    eventually(lambda: bool(notifications.about(execution)), "a message", 30)
    assert dead_letters(scheduled_cloud) == []


def test_what_its_role_may_not_start_becomes_a_dead_letter(scheduled_cloud: LocalCloud) -> None:
    known, bucket = arns(scheduled_cloud), scheduled_cloud.outputs.data_bucket
    with scheduled_cloud.without_action("NewDataRole", "states:StartExecution"):
        scheduled_cloud.account.client("s3").put_object(Bucket=bucket, Key="datasets/lost/_SUCCESS", Body=b"")
        letters: list[dict[str, Any]] = []

        def has_come() -> bool:
            letters.extend(dead_letters(scheduled_cloud))
            return bool(letters)

        eventually(has_come, "a dead letter", 60)
    [letter] = letters
    assert json.loads(letter["Body"])["detail"]["object"]["key"] == "datasets/lost/_SUCCESS"
    attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert attributes["ERROR_CODE"] == "NO_PERMISSIONS"
    assert "states:StartExecution" in attributes["ERROR_MESSAGE"]
    assert attributes["RULE_ARN"].endswith(":rule/kelpie-new-data")
    assert arns(scheduled_cloud) == known
