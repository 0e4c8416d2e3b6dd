"""The typed timeline of an execution's history events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from workflow.errors import KelpieError
from workflow.executions import find, loss_curve, timeline
from workflow.watch import note

START = datetime(2026, 1, 1, tzinfo=UTC)


def events(*kinds: str | tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Events one second apart; `TaskStateEntered:Train` names the state."""
    made = []
    for second, item in enumerate(kinds):
        kind, details = item if isinstance(item, tuple) else (item, {})
        kind, _, state = kind.partition(":")
        event: dict[str, Any] = {
            "id": second + 1,
            "type": kind,
            "timestamp": START + timedelta(seconds=second),
        }
        if kind.endswith("StateEntered"):
            event["stateEnteredEventDetails"] = {"name": state}
        event.update(details)
        made.append(event)
    return made


FAILED = ("TaskFailed", {"taskFailedEventDetails": {"error": "SageMaker.Boom", "cause": "why"}})


def test_a_task_that_succeeds_has_its_seconds_and_one_attempt() -> None:
    (visit,) = timeline(
        events("ExecutionStarted", "TaskStateEntered:Train", "TaskScheduled", "TaskSucceeded", "TaskStateExited")
    )
    assert (visit.name, visit.type, visit.status, visit.attempts, visit.seconds()) == (
        "Train",
        "Task",
        "SUCCEEDED",
        1,
        3,
    )


def test_a_retried_task_that_then_succeeds_counts_its_attempts() -> None:
    (visit,) = timeline(
        events(
            "TaskStateEntered:Train",
            "TaskScheduled",
            FAILED,
            "TaskScheduled",
            "TaskSucceeded",
            "TaskStateExited",
        )
    )
    assert (visit.status, visit.attempts) == ("SUCCEEDED", 2)


def test_a_caught_failure_keeps_its_error_and_cause() -> None:
    train, clean_up = timeline(
        events("TaskStateEntered:Train", "TaskScheduled", FAILED, "TaskStateExited", "PassStateEntered:CleanUp")
    )
    assert (train.status, train.error, train.cause) == ("CAUGHT", "SageMaker.Boom", "why")
    assert clean_up.status == "RUNNING"
    assert clean_up.exited is None


def test_an_aborted_execution_ends_the_state_that_ran() -> None:
    (visit,) = timeline(events("TaskStateEntered:Train", "TaskScheduled", "ExecutionAborted"))
    assert visit.status == "FAILED"
    assert visit.seconds() == 2


def test_the_fail_state_is_failed() -> None:
    (visit,) = timeline(events("FailStateEntered:ExecutionFailed", "ExecutionFailed"))
    assert (visit.status, visit.seconds()) == ("FAILED", 1)


class Listing:
    """An account whose Step Functions has three executions; the first runs, the two after it were refused."""

    endpoint_url = "http://127.0.0.1:1"

    def client(self, _service: str) -> Listing:
        return self

    def list_executions(self, **_: Any) -> dict[str, Any]:
        names = {"first": "RUNNING", "second": "FAILED", "third": "FAILED"}
        return {
            "executions": [
                {
                    "name": name,
                    "executionArn": f"arn:x:{name}",
                    "status": status,
                    "startDate": START + timedelta(minutes=minute),
                }
                for minute, (name, status) in enumerate(names.items())
            ]
        }


def found(execution: str | None, *, running: bool = False) -> str:
    return find(Listing(), "arn:machine", execution, running=running)  # type: ignore[arg-type]


def test_without_a_name_the_latest_is_described_and_the_running_one_is_stopped() -> None:
    assert found(None) == "arn:x:third"
    assert found(None, running=True) == "arn:x:first"
    assert found("second") == found("arn:x:second") == "arn:x:second"


def test_one_that_has_ended_is_not_stopped_and_an_unknown_one_lists_the_newest() -> None:
    with pytest.raises(KelpieError, match="execution 'third' has ended: FAILED"):
        found("third", running=True)
    with pytest.raises(KelpieError, match="there is no execution 'fourth'") as error:
        found("fourth")
    assert "third (FAILED), second (FAILED), first (RUNNING)" in error.value.detail


def test_the_loss_curve_is_in_order_of_steps_and_a_repeated_step_counts_once() -> None:
    log = [
        "epoch=1 step=5 train:loss=2.5",
        "epoch=1 step=10 train:loss=1.5",
        "host=algo-1 resumed_step=5",
        "epoch=1 step=10 train:loss=1.25",
        "epoch=1 step=33 valid:loss=0.6 valid:accuracy=0.8",
    ]
    assert loss_curve(log) == [(5, 2.5), (10, 1.25)]


def test_an_error_that_is_an_answer_is_put_in_words_and_any_other_is_named() -> None:
    missing = ("TaskFailed", {"taskFailedEventDetails": {"error": "E", "cause": 'Could not find endpoint "x"'}})
    (expected,) = timeline(events("TaskStateEntered:DescribeEndpoint", "TaskScheduled", missing, "TaskStateExited"))
    (other,) = timeline(events("TaskStateEntered:Train", "TaskScheduled", FAILED, "TaskStateExited"))
    assert note(expected) == "there is no endpoint yet"
    assert note(other) == "SageMaker.Boom"
