"""The typed timeline of an execution's history events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from workflow.executions import timeline

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
