"""Sweep: what executions that ended badly left undone is finished, whether or not they still hold the lock."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lambdas.sweep import handler as sweep
from lambdas.sweep.handler import CleanUpBroken, NotYetClean, handler

ME = "arn:aws:states:us-east-1:123456789012:execution:kelpie:me"
OTHER = "arn:aws:states:us-east-1:123456789012:execution:kelpie:other"
THIRD = "arn:aws:states:us-east-1:123456789012:execution:kelpie:third"
DONE = {"done": True, "error": "ExecutionAborted", "cause": "Train failed: it was aborted", "actions": ["a: done"]}
WAITING = {"done": False, "error": "E", "cause": "c", "actions": ["stop training job x: done"]}


@dataclass
class Cloud:
    """The other services: CleanUp's answers in order, a history, and what was asked and told."""

    answers: list[Any] = field(default_factory=lambda: [DONE])
    history: list[dict[str, Any]] = field(default_factory=list)
    ends: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {ME: [{"status": "ABORTED"}]})
    """What DescribeExecution says of each execution, the last of it again and again."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    published: list[dict[str, str]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    function_error: str = ""

    def invoke(self, FunctionName: str, Payload: bytes) -> dict[str, Any]:
        assert FunctionName == "clean-up:live"
        self.asked.append(json.loads(Payload))
        answer = self.answers.pop(0)
        error = {"FunctionError": self.function_error} if self.function_error else {}
        return {"Payload": io.BytesIO(json.dumps(answer).encode()), **error}

    def describe_execution(self, executionArn: str) -> dict[str, Any]:
        if executionArn not in self.ends:
            raise ClientError({"Error": {"Code": "ExecutionDoesNotExist"}}, "DescribeExecution")
        ends = self.ends[executionArn]
        return ends.pop(0) if len(ends) > 1 else ends[0]

    def get_execution_history(self, executionArn: str, reverseOrder: bool, nextToken: str = "0") -> dict[str, Any]:
        """Two events a page."""
        assert executionArn in self.ends
        assert reverseOrder is True
        start, backwards = int(nextToken), self.history[::-1]
        more = {"nextToken": str(start + 2)} if start + 2 < len(backwards) else {}
        return {"events": backwards[start : start + 2], **more}

    def publish(self, **request: str) -> None:
        self.published.append(request)


@dataclass
class Context:
    milliseconds: list[int] = field(default_factory=lambda: [900_000])
    function_name: str = "sweep"
    memory_limit_in_mb: int = 256
    invoked_function_arn: str = "arn"
    aws_request_id: str = "id"

    def get_remaining_time_in_millis(self) -> int:
        return self.milliseconds.pop(0) if len(self.milliseconds) > 1 else self.milliseconds[0]


@pytest.fixture
def cloud(lock_table: Any, aws: Any, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """A cloud in which the execution `ME` holds the lock."""
    lock_table(pk="kelpie", owner=ME)
    made = Cloud(history=[entered("Train", {"attempt": {"number": 1}})])
    monkeypatch.setattr(sweep, "client", lambda service: aws("dynamodb") if service == "dynamodb" else made)
    monkeypatch.setattr(sweep.time, "sleep", made.slept.append)
    for name, value in {
        "PROJECT_NAME": "kelpie",
        "LOCK_TABLE": "kelpie-lock",
        "CLEAN_UP_FUNCTION": "clean-up:live",
        "NOTIFICATION_TOPIC": "arn:aws:sns:us-east-1:123456789012:told",
    }.items():
        monkeypatch.setenv(name, value)
    return made


def entered(name: str, state: Any) -> dict[str, Any]:
    return {"stateEnteredEventDetails": {"name": name, "input": json.dumps(state)}}


def exited(name: str, state: Any) -> dict[str, Any]:
    return {"stateExitedEventDetails": {"name": name, "output": json.dumps(state)}}


def event(execution: str = ME, status: str = "ABORTED") -> dict[str, Any]:
    return {"detail": {"executionArn": execution, "status": status}}


QUARTER_OF_AN_HOUR: dict[str, Any] = {"detail-type": "Scheduled Event", "source": "aws.events", "detail": {}}


def ended(status: str = "ABORTED", ago: timedelta = timedelta(), **more: str) -> dict[str, Any]:
    return {"status": status, "stopDate": datetime.now(UTC) - ago, **more}


def run(given: Any, context: Any = None) -> dict[str, Any]:
    result = handler(given, context or Context())
    assert json.loads(json.dumps(result)) == result
    return dict(result)


def lock(aws: Any) -> tuple[str, list[str]]:
    """The lock's owner, and from whom it was taken over."""
    item = aws("dynamodb").get_item(TableName="kelpie-lock", Key={"pk": {"S": "kelpie"}}).get("Item", {})
    return str(item.get("owner", {}).get("S", "")), item.get("unswept", {}).get("SS", [])


def take_over(aws: Any, *before: str, owner: str = "") -> None:
    """The lock as `TakeOverLock` leaves it, and as it is once that execution has let go of it."""
    item: dict[str, Any] = {"pk": {"S": "kelpie"}}
    if before:
        item["unswept"] = {"SS": list(before)}
    if owner:
        item["owner"] = {"S": owner}
    aws("dynamodb").put_item(TableName="kelpie-lock", Item=item)


@pytest.mark.parametrize("given", [event(), QUARTER_OF_AN_HOUR, {}, [], {"detail": {}}])
def test_it_cleans_up_releases_the_lock_and_tells(cloud: Cloud, aws: Any, given: Any) -> None:
    cloud.ends[ME] = [ended(cause="I changed my mind")]
    assert run(given)["swept"] == [ME]
    [asked] = cloud.asked
    assert {key: asked[key] for key in ("execution_id", "project", "lock_table")} == {
        "execution_id": ME,
        "project": "kelpie",
        "lock_table": "kelpie-lock",
    }
    assert asked["state"]["attempt"] == {"number": 1}
    assert "I changed my mind" in asked["state"]["failed"]["Train"]["Cause"]
    assert lock(aws) == ("", [])
    [told] = cloud.published
    assert told["TopicArn"].endswith(":told")
    assert told["Message"] == (
        f"kelpie (us-east-1, account 123456789012): execution {ME} was aborted. "
        "ExecutionAborted: Train failed: it was aborted"
    )


@pytest.mark.parametrize("given", [event(), event(OTHER, "FAILED"), QUARTER_OF_AN_HOUR])
@pytest.mark.parametrize("status", ["RUNNING", "PENDING_REDRIVE"])
@pytest.mark.parametrize("before", [[], [ME]])
def test_it_touches_nothing_while_the_owner_of_the_lock_runs(
    cloud: Cloud, aws: Any, given: Any, status: str, before: list[str]
) -> None:
    take_over(aws, *before, owner=OTHER)
    cloud.ends[OTHER] = [{"status": status}]
    assert run(given)["swept"] == []
    assert (cloud.asked, cloud.published, lock(aws)) == ([], [], (OTHER, before))


def test_with_nothing_to_do_it_reads_the_lock_once_and_asks_nobody(
    cloud: Cloud, aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws("dynamodb").delete_item(TableName="kelpie-lock", Key={"pk": {"S": "kelpie"}})
    used: list[str] = []

    def counted(service: str) -> Any:
        used.append(service)
        return aws("dynamodb")

    monkeypatch.setattr(sweep, "client", counted)
    assert run(QUARTER_OF_AN_HOUR)["reason"] == "nobody left anything behind"
    assert used == ["dynamodb"]


def test_what_was_taken_over_is_swept_when_the_lock_is_free_again(cloud: Cloud, aws: Any) -> None:
    take_over(aws, ME, owner=OTHER)
    cloud.ends[OTHER] = [{"status": "RUNNING"}]
    assert run(event())["swept"] == []
    assert (cloud.asked, cloud.published) == ([], [])
    take_over(aws, ME)
    holders: list[str] = []
    original = cloud.invoke

    def looked_at(**request: Any) -> Any:
        holders.append(lock(aws)[0])
        return original(**request)

    cloud.invoke = looked_at  # type: ignore[method-assign]
    assert run(QUARTER_OF_AN_HOUR)["swept"] == [ME]
    assert holders == [ME], "CleanUp touches what is the lock owner's only"
    assert lock(aws) == ("", [])
    assert [ME in told["Message"] for told in cloud.published] == [True]


def test_all_that_are_left_are_swept_one_after_the_other(cloud: Cloud, aws: Any) -> None:
    take_over(aws, ME, THIRD, owner=OTHER)
    cloud.ends |= {OTHER: [ended("TIMED_OUT")], THIRD: [ended("FAILED")]}
    cloud.answers = [DONE] * 3
    assert run(event(OTHER))["swept"] == [OTHER, ME, THIRD]
    assert [asked["execution_id"] for asked in cloud.asked] == [OTHER, ME, THIRD]
    assert (lock(aws), len(cloud.published)) == (("", []), 3)


def test_one_that_a_person_has_redriven_is_left_alone_and_remembered(cloud: Cloud, aws: Any) -> None:
    take_over(aws, ME, THIRD)
    cloud.ends |= {ME: [{"status": "RUNNING"}], THIRD: [ended()]}
    assert run(QUARTER_OF_AN_HOUR)["swept"] == [THIRD]
    assert lock(aws) == ("", [ME])


@pytest.mark.parametrize("given", [event(), QUARTER_OF_AN_HOUR])
def test_one_whose_model_was_promoted_before_it_was_taken_over_keeps_it(cloud: Cloud, aws: Any, given: Any) -> None:
    take_over(aws, ME)
    cloud.history = [exited("RecordServing", {}), entered("ApproveVersion", {}), {}, {}]
    assert run(given)["swept"] == [ME]
    assert (cloud.asked, lock(aws)) == ([], ("", []))
    assert "was promoted" in cloud.published[0]["Message"]


@pytest.mark.parametrize("taken_over", [False, True])
@pytest.mark.parametrize("end", [[ended("SUCCEEDED")], None])
def test_one_that_needs_no_clean_up_only_gives_the_lock_back(
    cloud: Cloud, aws: Any, taken_over: bool, end: list[Any] | None
) -> None:
    """It succeeded and could not release it; or nobody knows it any more."""
    if taken_over:
        take_over(aws, ME)
    cloud.ends = {ME: end} if end else {}
    assert run(QUARTER_OF_AN_HOUR)["swept"] == [ME]
    assert (cloud.asked, cloud.published, lock(aws)) == ([], [], ("", []))


def test_one_that_has_told_of_its_failure_is_not_told_of_again(cloud: Cloud, aws: Any) -> None:
    cloud.ends[ME] = [ended("FAILED")]
    cloud.history = [entered("NotifyFailure", {}), entered("ExecutionFailed", {})]
    assert run(event())["swept"] == [ME]
    assert (len(cloud.asked), cloud.published, lock(aws)) == (1, [], ("", []))


def test_an_end_that_step_functions_does_not_show_yet_is_waited_for(cloud: Cloud) -> None:
    cloud.ends[ME] = [{"status": "RUNNING"}, {"status": "RUNNING"}, ended()]
    assert run(event())["swept"] == [ME]
    assert cloud.slept == [sweep.LAP_SECONDS] * 2


def test_an_event_that_came_too_late_ends_no_execution_that_runs_again(cloud: Cloud, aws: Any) -> None:
    cloud.ends[ME] = [{"status": "RUNNING"}]
    assert run(event())["swept"] == []
    assert (cloud.asked, lock(aws)) == ([], (ME, []))
    assert sum(cloud.slept) < 120


def test_it_calls_again_after_a_wait_until_all_is_done(cloud: Cloud) -> None:
    cloud.answers = [WAITING, {**WAITING, "actions": ["more"]}, DONE]
    assert run(event())["swept"] == [ME]
    assert [asked["state"].get("clean_up", {}).get("actions") for asked in cloud.asked] == [
        None,
        WAITING["actions"],
        ["more"],
    ]
    assert cloud.slept == [sweep.LAP_SECONDS] * 2


def test_when_its_time_is_over_it_keeps_the_lock_and_the_next_call_goes_on(cloud: Cloud, aws: Any) -> None:
    """However often: an endpoint may need longer to settle than a call and its retries last."""
    for _ in range(5):
        cloud.answers, cloud.asked = [WAITING, WAITING], []
        assert run(QUARTER_OF_AN_HOUR, Context([900_000, 79_000]))["reason"] == f"{ME} is not yet clean"
        assert (len(cloud.asked), lock(aws), cloud.published) == (2, (ME, []), [])
    cloud.answers = [DONE]
    assert run(QUARTER_OF_AN_HOUR)["swept"] == [ME]


def test_what_is_not_clean_after_two_hours_is_somebody_s_business(cloud: Cloud, aws: Any) -> None:
    cloud.ends[ME] = [ended(ago=timedelta(hours=3))]
    cloud.answers = [WAITING, DONE]
    with pytest.raises(NotYetClean, match="stop training job x"):
        run(QUARTER_OF_AN_HOUR)
    assert (lock(aws), cloud.slept) == ((ME, []), [])
    assert run(QUARTER_OF_AN_HOUR)["swept"] == [ME]


def test_what_was_taken_over_has_its_two_hours_from_when_it_can_be_swept(cloud: Cloud, aws: Any) -> None:
    take_over(aws, ME)
    cloud.ends[ME] = [ended(ago=timedelta(days=3))]
    cloud.answers = [WAITING]
    for answers in ([WAITING], [WAITING], [DONE]):
        cloud.answers = list(answers)
        run(QUARTER_OF_AN_HOUR, Context([79_000]))
    assert lock(aws) == ("", [])


@pytest.mark.parametrize(
    ("answer", "error"), [("none", ""), ({"errorMessage": "no"}, "Unhandled"), (DONE, "Unhandled")]
)
def test_a_clean_up_that_fails_is_no_clean_up(cloud: Cloud, aws: Any, answer: Any, error: str) -> None:
    cloud.answers, cloud.function_error = [answer], error
    with pytest.raises(CleanUpBroken):
        run(event())
    assert lock(aws) == (ME, [])


def test_a_lock_that_is_taken_over_meanwhile_stays_and_names_who_is_not_swept(cloud: Cloud, aws: Any) -> None:
    original = cloud.invoke

    def taken_over(**request: Any) -> Any:
        take_over(aws, ME, owner=OTHER)
        return original(**request)

    cloud.invoke = taken_over  # type: ignore[method-assign]
    assert run(event())["swept"] == []
    assert (lock(aws), cloud.published) == ((OTHER, [ME]), [])


def test_a_free_lock_that_another_is_quicker_to_take_stays_theirs(
    cloud: Cloud, aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_over(aws, ME)
    describe = cloud.describe_execution

    def quicker(executionArn: str) -> dict[str, Any]:
        take_over(aws, ME, owner=OTHER)
        return describe(executionArn)

    monkeypatch.setattr(cloud, "describe_execution", quicker)
    assert run(QUARTER_OF_AN_HOUR)["swept"] == []
    assert (cloud.asked, lock(aws)) == ([], (OTHER, [ME]))


def test_a_broken_lock_table_is_no_free_lock(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCK_TABLE", "gone")
    with pytest.raises(ClientError):
        run(event())
    assert cloud.asked == []


@pytest.mark.parametrize(
    ("history", "name", "state"),
    [
        ([], "", {}),
        ([{"type": "ExecutionStarted"}], "", {}),
        ([entered("A", {"a": 1}), exited("A", {"a": 2})], "A", {"a": 2}),
        ([exited("A", {"a": 2}), entered("B", {"b": 1}), {"taskScheduledEventDetails": {}}], "B", {"b": 1}),
        ([entered("A", {"a": 1}), {}, {}, {}, {}], "A", {"a": 1}),
        ([entered("A", {"a": 1}), {"stateEnteredEventDetails": {"name": "B", "input": '{"cut o'}}], "B", {}),
        ([entered("A", ["no object"])], "A", {}),
    ],
)
def test_the_state_data_are_those_of_the_last_state(
    cloud: Cloud, history: list[Any], name: str, state: dict[str, Any]
) -> None:
    cloud.history = history
    assert sweep.last_state(ME) == (name, state)


@pytest.mark.parametrize(
    ("detail", "error", "cause"),
    [
        ({"status": "ABORTED"}, "ExecutionAborted", "the execution was aborted there"),
        (
            {"status": "ABORTED", "error": "Tired", "cause": "enough"},
            "ExecutionAborted",
            "the execution was aborted there (Tired: enough)",
        ),
        ({"status": "TIMED_OUT"}, "States.Timeout", "the execution timed out there"),
        (
            {"status": "FAILED", "error": "States.Runtime", "cause": "no such path"},
            "States.Runtime",
            "the execution failed there (States.Runtime: no such path)",
        ),
    ],
)
def test_the_end_is_noted_as_a_catch_would_note_it(detail: dict[str, Any], error: str, cause: str) -> None:
    earlier = {"Train": {"Error": "x"}, "CheckData": {"Error": "y"}}
    noted = sweep.with_failure("Train", {"failed": earlier, "names": {}}, detail)
    assert list(noted["failed"]) == ["CheckData", "Train"], "the last one is what CleanUp explains"
    assert noted["failed"]["Train"] == {"Error": error, "Cause": cause}
    assert earlier["Train"] == {"Error": "x"}
