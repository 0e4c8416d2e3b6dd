"""Schedules and rules on the running local cloud: they fire, by their roles; what is refused becomes a dead letter."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.conftest import World, wait_until
from workflow.errors import KelpieError

ACCOUNT = "123456789012"
EVERYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}
MONDAY = datetime(2031, 1, 6, tzinfo=UTC)
PASS = json.dumps({"StartAt": "A", "States": {"A": {"Type": "Pass", "End": True}}})
OFF = {"Mode": "OFF"}


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


class Events:
    """Queues, roles, rules and schedules of one test."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sqs, self.sfn = world.client("sqs"), world.client("stepfunctions")
        self.rules, self.scheduler = world.client("events"), world.client("scheduler")
        self.suffix = uuid.uuid4().hex[:8]
        self.made: list[str] = []

    def role(self, service: str, *statements: dict[str, Any]) -> str:
        iam, name = self.world.client("iam"), f"events-{uuid.uuid4().hex[:8]}"
        trust = policy({"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"})
        arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        if statements:
            iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=policy(*statements))
        return arn

    def queue(self, name: str, *statements: dict[str, Any]) -> tuple[str, str]:
        """URL and ARN of a queue with a policy."""
        arn = f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}-{self.suffix}"
        attributes = {"Policy": policy(*({**s, "Resource": arn} for s in statements))} if statements else {}
        url = self.sqs.create_queue(QueueName=f"{name}-{self.suffix}", Attributes=attributes)["QueueUrl"]
        return url, arn

    def received(self, url: str, count: int = 1, seconds: float = 20) -> list[dict[str, Any]]:
        """So many messages, and no more."""
        found: list[dict[str, Any]] = []

        def enough() -> bool:
            found.extend(self.now_in(url))
            return len(found) >= count

        wait_until(enough, seconds)
        found += self.now_in(url)
        assert len(found) == count
        return found

    def now_in(self, url: str) -> list[dict[str, Any]]:
        answer = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"])
        return [
            {
                "body": message["Body"],
                **{name: value["StringValue"] for name, value in message.get("MessageAttributes", {}).items()},
            }
            for message in answer.get("Messages", [])
        ]

    def machine(self) -> str:
        role = self.role("states.amazonaws.com", EVERYTHING)
        made = self.sfn.create_state_machine(name=f"m-{uuid.uuid4().hex[:8]}", definition=PASS, roleArn=role)
        return str(made["stateMachineArn"])

    def schedule(self, expression: str, target: dict[str, Any], **more: Any) -> str:
        name = f"schedule-{uuid.uuid4().hex[:8]}"
        request = {"FlexibleTimeWindow": OFF, **more}
        self.scheduler.create_schedule(Name=name, ScheduleExpression=expression, Target=target, **request)
        self.made.append(name)
        return name

    def to_queue(self, **more: Any) -> tuple[str, dict[str, Any]]:
        """URL of a queue and a schedule's target that sends to it."""
        url, arn = self.queue(f"q{len(self.made)}")
        role = self.role("scheduler.amazonaws.com", {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": arn})
        return url, {"Arn": arn, "RoleArn": role, "Input": '"woof"', **more}

    def rule(self, pattern: dict[str, Any], target: dict[str, Any]) -> str:
        name = f"rule-{uuid.uuid4().hex[:8]}"
        arn: str = self.rules.put_rule(Name=name, EventPattern=json.dumps(pattern))["RuleArn"]
        answer = self.rules.put_targets(Rule=name, Targets=[{"Id": "t", **target}])
        assert answer["FailedEntryCount"] == 0
        return arn

    def put(self, source: str, detail: dict[str, Any]) -> str:
        entry = {"Source": source, "DetailType": "bark", "Detail": json.dumps(detail)}
        return str(self.rules.put_events(Entries=[entry])["Entries"][0]["EventId"])

    def set_clock(self, instant: datetime) -> None:
        self.world.connection.control("POST", "clock", {"now": instant.isoformat()})

    def next_of(self, name: str) -> str | None:
        listed = self.world.connection.control("GET", "clock")["schedules"]
        [found] = [each["next"] for each in listed if each["name"] == name]
        return found


@pytest.fixture
def events(world: World) -> Iterator[Events]:
    """The clock at a Monday's first minute; afterwards right again, and no schedule left."""
    made = Events(world)
    made.set_clock(MONDAY)
    yield made
    for name in made.made:
        try:
            made.scheduler.delete_schedule(Name=name)
        except made.scheduler.exceptions.ResourceNotFoundException:
            continue
    world.connection.control("DELETE", "clock")


def test_a_cron_fires_at_each_of_its_times_that_the_clock_passes(events: Events) -> None:
    url, target = events.to_queue()
    events.schedule("cron(0 3 ? * MON-FRI *)", target)
    events.set_clock(MONDAY + timedelta(hours=2, minutes=59))
    assert events.now_in(url) == []
    events.set_clock(MONDAY + timedelta(hours=3))
    assert events.received(url)[0]["body"] == '"woof"'
    events.set_clock(MONDAY + timedelta(days=6))
    assert len(events.received(url, 4)) == 4


def test_a_schedule_runs_by_itself_in_real_time(events: Events) -> None:
    url, target = events.to_queue()
    events.set_clock(MONDAY + timedelta(seconds=58))
    events.schedule("cron(1 * * * ? *)", target)
    events.received(url)


def test_a_rate_fires_at_once_and_then_at_its_rate(events: Events) -> None:
    url, target = events.to_queue()
    name = events.schedule("rate(6 hours)", target)
    events.received(url)
    assert (events.next_of(name) or "")[:13] == "2031-01-06T06"
    events.set_clock(MONDAY + timedelta(hours=13))
    events.received(url, 2)


def test_a_time_zone_and_its_shift_are_kept(events: Events) -> None:
    """Berlin's clocks jump from 2:00 to 3:00 on 2031-03-30."""
    url, target = events.to_queue()
    events.set_clock(datetime(2031, 3, 29, tzinfo=UTC))
    name = events.schedule("cron(30 2 * * ? *)", target, ScheduleExpressionTimezone="Europe/Berlin")
    assert events.next_of(name) == "2031-03-29T02:30:00+01:00"
    events.set_clock(datetime(2031, 3, 31, 0, tzinfo=UTC))
    events.received(url)
    assert events.next_of(name) == "2031-03-31T02:30:00+02:00"


def test_a_flexible_window_is_kept(events: Events) -> None:
    url, target = events.to_queue()
    window = {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 30}
    events.schedule("cron(0 3 * * ? *)", target, FlexibleTimeWindow=window)
    events.set_clock(MONDAY + timedelta(hours=2, minutes=59))
    assert events.now_in(url) == []
    events.set_clock(MONDAY + timedelta(hours=3, minutes=30))
    events.received(url)


def test_start_and_end_dates_are_kept(events: Events) -> None:
    url, target = events.to_queue()
    dates = {"StartDate": MONDAY + timedelta(days=2), "EndDate": MONDAY + timedelta(days=3)}
    name = events.schedule("cron(0 3 * * ? *)", target, **dates)
    assert (events.next_of(name) or "")[:13] == "2031-01-08T03"
    events.set_clock(MONDAY + timedelta(days=20))
    events.received(url)
    assert events.next_of(name) is None


def test_a_disabled_schedule_fires_only_once_it_is_enabled(events: Events) -> None:
    url, target = events.to_queue()
    name = events.schedule("cron(0 3 * * ? *)", target, State="DISABLED")
    events.set_clock(MONDAY + timedelta(days=1))
    assert (events.next_of(name), events.now_in(url)) == (None, [])
    request = {"Name": name, "ScheduleExpression": "cron(0 4 * * ? *)", "Target": target, "FlexibleTimeWindow": OFF}
    events.scheduler.update_schedule(**request, State="ENABLED")
    assert (events.next_of(name) or "")[:13] == "2031-01-07T04"
    events.set_clock(MONDAY + timedelta(days=1, hours=4))
    events.received(url)


def test_a_one_time_schedule_fires_once_and_may_delete_itself(events: Events) -> None:
    url, target = events.to_queue()
    name = events.schedule("at(2031-01-06T05:00:00)", target, ActionAfterCompletion="DELETE")
    events.set_clock(MONDAY + timedelta(days=400))
    events.received(url)
    with pytest.raises(ClientError, match="does not exist"):
        events.scheduler.get_schedule(Name=name)


def test_the_context_of_a_schedule_is_put_into_its_input(events: Events) -> None:
    url, target = events.to_queue(
        Input='{"at": "<aws.scheduler.scheduled-time>", "of": "<aws.scheduler.schedule-arn>"}'
    )
    name = events.schedule("cron(0 3 * * ? *)", target, ScheduleExpressionTimezone="Asia/Tokyo")
    events.set_clock(MONDAY + timedelta(hours=18))
    [message] = events.received(url)
    given = json.loads(message["body"])
    assert given == {"at": "2031-01-06T18:00:00Z", "of": events.scheduler.get_schedule(Name=name)["Arn"]}


def test_a_schedule_starts_an_execution_through_an_alias(events: Events) -> None:
    machine = events.machine()
    version = events.sfn.publish_state_machine_version(stateMachineArn=machine)["stateMachineVersionArn"]
    routing = [{"stateMachineVersionArn": version, "weight": 100}]
    alias = events.sfn.create_state_machine_alias(name="live", routingConfiguration=routing)["stateMachineAliasArn"]
    allowed = {
        "Effect": "Allow",
        "Action": "states:StartExecution",
        "Resource": machine,
        "Condition": {"StringEquals": {"states:StateMachineQualifier": "live"}},
    }
    role = events.role("scheduler.amazonaws.com", allowed)
    events.schedule("cron(0 3 * * ? *)", {"Arn": alias, "RoleArn": role, "Input": '{"dog": 1}'})
    events.set_clock(MONDAY + timedelta(hours=3))
    [execution] = wait_until(lambda: events.sfn.list_executions(stateMachineArn=alias)["executions"])
    described = events.sfn.describe_execution(executionArn=execution["executionArn"])
    assert (described["input"], described["stateMachineAliasArn"]) == ('{"dog": 1}', alias)
    assert (described["stateMachineArn"], described["stateMachineVersionArn"]) == (machine, version)
    assert events.sfn.list_executions(stateMachineArn=machine)["executions"][0]["name"] == execution["name"]


def test_what_a_schedule_may_not_do_becomes_a_dead_letter_at_once(events: Events) -> None:
    url, dead = events.queue("dead")
    send = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": dead}
    target = {
        "Arn": events.machine(),
        "RoleArn": events.role("scheduler.amazonaws.com", send),
        "Input": "{}",
        "DeadLetterConfig": {"Arn": dead},
    }
    name = events.schedule("cron(0 3 * * ? *)", target)
    events.set_clock(MONDAY + timedelta(hours=3))
    [letter] = events.received(url)
    assert letter["ERROR_CODE"] == "AccessDeniedException"
    assert "not authorized to perform: states:StartExecution" in letter["ERROR_MESSAGE"]
    assert (letter["RETRY_ATTEMPTS"], letter["SCHEDULED_TIME"]) == ("0", "2031-01-06T03:00:00Z")
    assert letter["SCHEDULE_ARN"].endswith(name)
    assert "EXHAUSTED_RETRY_CONDITION" not in letter


def test_what_fails_for_now_is_tried_again_as_often_as_the_policy_says(events: Events) -> None:
    url, dead = events.queue("dead")
    role = events.role("scheduler.amazonaws.com", EVERYTHING)
    target = {
        "Arn": events.machine(),
        "RoleArn": role,
        "Input": "{}",
        "RetryPolicy": {"MaximumRetryAttempts": 2, "MaximumEventAgeInSeconds": 3600},
        "DeadLetterConfig": {"Arn": dead},
    }
    events.world.connection.fail_api("states:StartExecution", "ServiceUnavailable", count=3, caller="scheduler")
    events.schedule("cron(0 3 * * ? *)", target)
    events.set_clock(MONDAY + timedelta(hours=3))
    [letter] = events.received(url)
    assert (letter["RETRY_ATTEMPTS"], letter["EXHAUSTED_RETRY_CONDITION"]) == ("2", "MaximumRetryAttempts")
    events.world.connection.fail_api("states:StartExecution", "ServiceUnavailable", count=1, caller="scheduler")
    events.set_clock(MONDAY + timedelta(days=1, hours=3))
    wait_until(lambda: events.sfn.list_executions(stateMachineArn=target["Arn"])["executions"])
    assert events.now_in(url) == []


@pytest.mark.parametrize(
    ("expression", "zone", "named"),
    [("cron(0 3 * * *)", "UTC", "six"), ("rate(0 days)", "UTC", "rate"), ("rate(1 day)", "Mars/Olympus", "IANA")],
)
def test_a_schedule_that_is_none_is_refused(events: Events, expression: str, zone: str, named: str) -> None:
    _, target = events.to_queue()
    with pytest.raises(ClientError, match=named):
        events.schedule(expression, target, ScheduleExpressionTimezone=zone)


def test_a_role_that_the_scheduler_may_not_assume_is_refused(events: Events) -> None:
    _, target = events.to_queue()
    with pytest.raises(ClientError, match="must allow AWS EventBridge Scheduler to assume"):
        events.schedule("rate(1 day)", {**target, "RoleArn": events.role("events.amazonaws.com")})


@pytest.mark.parametrize(
    "body", [{}, {"now": "tomorrow"}, {"now": "2031-01-01T00:00:00"}, {"advance_seconds": "1"}, {"now": 1}, {"to": 1}]
)
def test_a_clock_cannot_be_set_to_anything_else(world: World, body: dict[str, Any]) -> None:
    with pytest.raises(KelpieError, match="Invalid"):
        world.connection.control("POST", "clock", body)


# ---- Rules -----------------------------------------------------------------------------------------------------------


def test_a_rule_starts_one_execution_whose_name_begins_with_the_events_id(events: Events) -> None:
    machine = events.machine()
    allowed = {"Effect": "Allow", "Action": "states:StartExecution", "Resource": machine}
    transformer = {"InputPathsMap": {"dog": "$.detail.dog"}, "InputTemplate": '{"it": "is <dog>"}'}
    target = {"Arn": machine, "RoleArn": events.role("events.amazonaws.com", allowed), "InputTransformer": transformer}
    source = f"test.{events.suffix}"
    events.rule({"source": [source], "detail": {"dog": [{"prefix": "k"}]}}, target)
    events.put(source, {"dog": "husky"})
    event_id = events.put(source, {"dog": "kelpie"})
    [execution] = wait_until(lambda: events.sfn.list_executions(stateMachineArn=machine)["executions"])
    assert execution["name"].startswith(f"{event_id}_")
    assert len(execution["name"]) == 73
    described = events.sfn.describe_execution(executionArn=execution["executionArn"])
    assert json.loads(described["input"]) == {"it": "is kelpie"}


def test_a_rule_sends_to_a_queue_whose_policy_lets_it(events: Events) -> None:
    source = f"test.{events.suffix}"
    lets = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    open_url, open_arn = events.queue("open", lets)
    _, closed_arn = events.queue("closed")
    dead_url, dead_arn = events.queue("dead", lets)
    events.rule({"source": [source]}, {"Arn": open_arn})
    refused = events.rule({"source": [source]}, {"Arn": closed_arn, "DeadLetterConfig": {"Arn": dead_arn}})
    event_id = events.put(source, {"a": 1})
    [message] = events.received(open_url)
    event = json.loads(message["body"])
    assert (event["id"], event["detail"], event["detail-type"]) == (event_id, {"a": 1}, "bark")
    assert event["time"].endswith("Z")
    [letter] = events.received(dead_url)
    assert (letter["ERROR_CODE"], letter["RULE_ARN"]) == ("NO_PERMISSIONS", refused)
    assert json.loads(letter["body"])["id"] == event_id


def test_a_rule_with_a_rate_fires_once_each_time_the_clock_passes_it(events: Events) -> None:
    """Once only when many of its times were passed, not before the first, and not while it is disabled."""
    lets = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    url, arn = events.queue("rate", lets)
    name = f"rule-{events.suffix}"
    rule = events.rules.put_rule(Name=name, ScheduleExpression="rate(15 minutes)")["RuleArn"]
    events.rules.put_targets(Rule=name, Targets=[{"Id": "t", "Arn": arn}])
    try:
        events.set_clock(MONDAY + timedelta(minutes=14))
        assert events.now_in(url) == []
        events.set_clock(MONDAY + timedelta(minutes=16))
        event = json.loads(events.received(url)[0]["body"])
        assert (event["detail-type"], event["source"], event["resources"]) == ("Scheduled Event", "aws.events", [rule])
        assert event["time"].startswith("2031-01-06T00:16")
        events.set_clock(MONDAY + timedelta(days=7, minutes=5))
        [second] = [json.loads(message["body"]) for message in events.received(url)]
        assert second["time"].startswith("2031-01-13")
        listed = events.world.connection.control("GET", "clock")["rules"]
        [shown] = [each for each in listed if each["name"] == name]
        assert shown["next"].startswith("2031-01-13T00:1")
        events.rules.disable_rule(Name=name)
        events.set_clock(MONDAY + timedelta(days=14))
        again = {json.loads(message["body"])["id"] for message in events.now_in(url)}  # visible again after 30 s
        assert again <= {event["id"], second["id"]}
    finally:
        events.rules.remove_targets(Rule=name, Ids=["t"])
        events.rules.delete_rule(Name=name)


def test_a_rule_that_is_disabled_or_has_another_source_is_not_met(events: Events) -> None:
    source = f"test.{events.suffix}"
    lets = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    url, arn = events.queue("open", lets)
    name = events.rule({"source": [source]}, {"Arn": arn}).rsplit("/", 1)[-1]
    events.rule({"source": ["other"]}, {"Arn": arn})
    events.rules.disable_rule(Name=name)
    events.put(source, {"a": 1})
    events.rules.enable_rule(Name=name)
    events.put(source, {"a": 2})
    [message] = events.received(url)
    assert json.loads(message["body"])["detail"] == {"a": 2}


def test_a_bucket_tells_of_new_objects_only_when_it_is_asked_to(events: Events) -> None:
    s3, bucket = events.world.s3, f"bucket-{events.suffix}"
    lets = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    url, arn = events.queue("open", lets)
    pattern = {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {"bucket": {"name": [bucket]}, "object": {"key": [{"suffix": "/_SUCCESS"}]}},
    }
    events.rule(pattern, {"Arn": arn})
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="a/_SUCCESS", Body=b"")
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}})
    s3.put_object(Bucket=bucket, Key="a/1.jpg", Body=b"x")
    s3.put_object(Bucket=bucket, Key="a b/ü/_SUCCESS", Body=b"xyz")
    s3.copy_object(Bucket=bucket, Key="c/_SUCCESS", CopySource={"Bucket": bucket, "Key": "a/1.jpg"})
    told = [json.loads(message["body"]) for message in events.received(url, 2)]
    by_key = {event["detail"]["object"]["key"]: event for event in told}
    assert set(by_key) == {"a b/ü/_SUCCESS", "c/_SUCCESS"}, "keys come as they are, not encoded for a URL"
    put, copied = by_key["a b/ü/_SUCCESS"], by_key["c/_SUCCESS"]
    assert (put["detail"]["reason"], copied["detail"]["reason"]) == ("PutObject", "CopyObject")
    assert (put["detail"]["object"]["size"], put["resources"]) == (3, [f"arn:aws:s3:::{bucket}"])
    assert put["id"] != copied["id"]
    assert put["detail"]["object"]["sequencer"] < copied["detail"]["object"]["sequencer"]


def test_step_functions_tells_how_executions_begin_and_end(events: Events) -> None:
    lets = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    url, arn = events.queue("open", lets)
    machine = events.machine()
    pattern = {
        "source": ["aws.states"],
        "detail-type": ["Step Functions Execution Status Change"],
        "detail": {"stateMachineArn": [machine]},
    }
    events.rule(pattern, {"Arn": arn})
    started = events.sfn.start_execution(stateMachineArn=machine, input='{"a": 1}')["executionArn"]
    waiting = json.dumps({"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 3600, "End": True}}})
    told = [json.loads(message["body"]) for message in events.received(url, 2)]
    by_status = {event["detail"]["status"]: event for event in told}  # events come in no certain order, as on AWS
    assert set(by_status) == {"RUNNING", "SUCCEEDED"}
    running, ended = by_status["RUNNING"], by_status["SUCCEEDED"]
    assert ended["resources"] == [started]
    assert json.loads(ended["detail"]["output"]) == {"a": 1}
    assert ended["detail"]["stopDate"] >= ended["detail"]["startDate"] > 1_700_000_000_000
    assert running["detail"]["stopDate"] is None
    events.sfn.update_state_machine(stateMachineArn=machine, definition=waiting)
    started = events.sfn.start_execution(stateMachineArn=machine)["executionArn"]
    events.received(url)
    events.sfn.stop_execution(executionArn=started, error="Tired", cause="enough")
    [message] = events.received(url)
    detail = json.loads(message["body"])["detail"]
    assert (detail["status"], detail["error"], detail["cause"]) == ("ABORTED", "Tired", "enough")
