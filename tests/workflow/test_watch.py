"""Watching an execution: what is printed, and what happens when the connection is lost."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from rich.console import Console

from workflow import executions
from workflow.errors import KelpieError
from workflow.watch import watch

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Account:
    """An account with one execution, which has ended, behind a connection that fails `failures` times first."""

    endpoint_url = "http://127.0.0.1:1"

    def __init__(self, failures: int = 0, events: list[dict[str, Any]] | None = None) -> None:
        self.failures, self.events = failures, events or []

    def client(self, service: str) -> Account:
        return self

    def describe_execution(self, executionArn: str) -> dict[str, Any]:
        if self.failures:
            self.failures -= 1
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")
        return {
            "executionArn": executionArn,
            "name": "e",
            "status": "SUCCEEDED",
            "startDate": NOW,
            "stopDate": NOW,
            "output": json.dumps({"done": True}),
            "ResponseMetadata": {"HTTPHeaders": {}},
        }

    def get_execution_history(self, **_: Any) -> dict[str, Any]:
        return {"events": self.events}


def printed(account: Account, **console: Any) -> str:
    text = io.StringIO()
    watch(account, "arn:e", Console(file=text, width=100, **console))  # type: ignore[arg-type]
    return text.getvalue()


def visit(kind: str, name: str, at: int) -> list[dict[str, Any]]:
    """The events of a state of this type that takes a second."""
    entered, exited = NOW + timedelta(seconds=at), NOW + timedelta(seconds=at + 1)
    return [
        {"type": f"{kind}StateEntered", "timestamp": entered, "stateEnteredEventDetails": {"name": name}},
        {"type": f"{kind}StateExited", "timestamp": exited, "stateExitedEventDetails": {"name": name}},
    ]


def test_the_laps_of_a_waiting_loop_are_not_printed_one_by_one() -> None:
    events = [*visit("Wait", "WaitForEndpoint", 0), *visit("Task", "SmokeTest", 1)]
    said = printed(Account(events=events))
    assert "SUCCEEDED SmokeTest 1.0 s" in said
    assert "WaitForEndpoint" not in said


@pytest.mark.parametrize("terminal", [False, True])
def test_a_lost_connection_is_said_once_and_tried_again(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    monkeypatch.setattr(executions.time, "sleep", lambda _: None)
    said = printed(Account(failures=3), force_terminal=terminal)
    assert "SUCCEEDED" in said
    if not terminal:
        assert said.count("the connection is lost") == 1


def test_a_connection_that_stays_lost_ends_the_watching_and_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100_000, 100))
    monkeypatch.setattr(executions.time, "sleep", lambda _: None)
    monkeypatch.setattr(executions.time, "monotonic", lambda: float(next(clock)))
    with pytest.raises(KelpieError) as error:
        printed(Account(failures=1000))
    assert "kelpie watch" in error.value.fix
