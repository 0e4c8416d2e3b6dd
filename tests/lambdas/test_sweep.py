"""Sweep: what an execution that ended badly left undone is finished by whoever still owns the lock in its name."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lambdas.sweep import handler as sweep
from lambdas.sweep.handler import CleanUpBroken, NotYetClean, handler

ME = "arn:aws:states:us-east-1:123456789012:execution:kelpie:me"
OTHER = "arn:aws:states:us-east-1:123456789012:execution:kelpie:other"
DONE = {"done": True, "error": "ExecutionAborted", "cause": "Train failed: it was aborted", "actions": ["a: done"]}
WAITING = {"done": False, "error": "E", "cause": "c", "actions": ["stop training job x: done"]}


@dataclass
class Cloud:
    """The other services: CleanUp's answers in order, a history, and what was asked and told."""

    answers: list[Any] = field(default_factory=lambda: [DONE])
    history: list[dict[str, Any]] = field(default_factory=list)
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

    def get_execution_history(self, executionArn: str, reverseOrder: bool, nextToken: str = "0") -> dict[str, Any]:
        """Two events a page."""
        assert (executionArn, reverseOrder) == (ME, True)
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


def event(status: str = "ABORTED", execution: str = ME, **more: Any) -> dict[str, Any]:
    return {"detail": {"executionArn": execution, "status": status, "error": None, "cause": None, **more}}


def run(given: Any, context: Any = None) -> dict[str, Any]:
    result = handler(given, context or Context())
    assert json.loads(json.dumps(result)) == result
    return dict(result)


def owner(aws: Any) -> str:
    item = aws("dynamodb").get_item(TableName="kelpie-lock", Key={"pk": {"S": "kelpie"}}).get("Item", {})
    return str(item.get("owner", {}).get("S", ""))


def test_it_cleans_up_releases_the_lock_and_tells(cloud: Cloud, aws: Any) -> None:
    assert run(event(cause="I changed my mind"))["swept"] is True
    [asked] = cloud.asked
    assert {key: asked[key] for key in ("execution_id", "project", "lock_table")} == {
        "execution_id": ME,
        "project": "kelpie",
        "lock_table": "kelpie-lock",
    }
    assert asked["state"]["attempt"] == {"number": 1}
    assert owner(aws) == ""
    [told] = cloud.published
    assert told["TopicArn"].endswith(":told")
    assert told["Message"] == (
        f"kelpie (us-east-1, account 123456789012): execution {ME} was aborted. "
        "ExecutionAborted: Train failed: it was aborted"
    )


@pytest.mark.parametrize("holder", ["", OTHER])
def test_it_does_nothing_for_an_execution_that_does_not_hold_the_lock(
    cloud: Cloud, aws: Any, lock_table: Any, holder: str
) -> None:
    aws("dynamodb").delete_item(TableName="kelpie-lock", Key={"pk": {"S": "kelpie"}})
    if holder:
        lock_table(pk="kelpie", owner=holder)
    assert run(event("FAILED"))["swept"] is False
    assert (cloud.asked, cloud.published, owner(aws)) == ([], [], holder)


@pytest.mark.parametrize("given", [{}, [], {"detail": {}}, event("SUCCEEDED"), event("RUNNING"), event(execution="")])
def test_another_event_is_left_alone(cloud: Cloud, aws: Any, given: Any) -> None:
    assert run(given)["swept"] is False
    assert (cloud.asked, owner(aws)) == ([], ME)


def test_it_calls_again_after_a_wait_until_all_is_done(cloud: Cloud) -> None:
    cloud.answers = [WAITING, {**WAITING, "actions": ["more"]}, DONE]
    assert run(event())["swept"] is True
    assert [asked["state"].get("clean_up", {}).get("actions") for asked in cloud.asked] == [
        None,
        WAITING["actions"],
        ["more"],
    ]
    assert cloud.slept == [sweep.LAP_SECONDS] * 2


def test_when_its_time_is_over_it_raises_and_keeps_the_lock(cloud: Cloud, aws: Any) -> None:
    cloud.answers = [WAITING, WAITING, DONE]
    with pytest.raises(NotYetClean, match="stop training job x"):
        run(event(), Context([900_000, 79_000]))
    assert (len(cloud.asked), owner(aws), cloud.published) == (2, ME, [])
    assert run(event())["swept"] is True, "the retry of the asynchronous invocation goes on"


@pytest.mark.parametrize(
    ("answer", "error"), [("none", ""), ({"errorMessage": "no"}, "Unhandled"), (DONE, "Unhandled")]
)
def test_a_clean_up_that_fails_is_no_clean_up(cloud: Cloud, aws: Any, answer: Any, error: str) -> None:
    cloud.answers, cloud.function_error = [answer], error
    with pytest.raises(CleanUpBroken):
        run(event())
    assert owner(aws) == ME


def test_a_lock_that_was_taken_over_meanwhile_stays(cloud: Cloud, aws: Any, lock_table: Any) -> None:
    original = cloud.invoke

    def taken_over(**request: Any) -> Any:
        lock_table(pk="kelpie", owner=OTHER)
        return original(**request)

    cloud.invoke = taken_over  # type: ignore[method-assign]
    assert run(event())["swept"] is False
    assert (owner(aws), cloud.published) == (OTHER, [])


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
