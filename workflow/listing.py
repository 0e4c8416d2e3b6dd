"""The list of executions: one row each, with what started it and how it went."""

from __future__ import annotations

import getpass
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from workflow.account import Account

_UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# Source: reports of EventBridge's names for the executions that its rules start, read 2026-11; not in AWS's docs.
_EVENTBRIDGE_NAME = re.compile(f"{_UUID}_{_UUID}")
# Source: what the Step Functions console proposes as input, read 2026-11.
_CONSOLE_COMMENT = "Insert your JSON here"


@dataclass(frozen=True)
class Row:
    """One execution. `test_accuracy` is 0 to 1, or None; `failure` is one line, or ''."""

    name: str
    status: str
    started_by: str
    started: datetime
    seconds: float
    test_accuracy: float | None
    failure: str


def rows(account: Account, state_machine_arn: str, limit: int) -> list[Row]:
    """The newest executions, newest first."""
    client = account.client("stepfunctions")
    listed = client.list_executions(stateMachineArn=state_machine_arn, maxResults=1000)["executions"]
    listed.sort(key=lambda item: item["startDate"], reverse=True)
    return [_row(client.describe_execution(executionArn=item["executionArn"])) for item in listed[:limit]]


def comment(command: str) -> str:
    """What `kelpie` writes into the input's `Comment`, so that `started_by` can tell."""
    return f"{command} by {getpass.getuser()}"


def started_by(name: str, execution_input: dict[str, Any]) -> str:
    """Who or what started an execution, as far as its name and input tell."""
    if _EVENTBRIDGE_NAME.fullmatch(name):
        return "EventBridge"
    told = str(execution_input.get("Comment", ""))
    if told.startswith(_CONSOLE_COMMENT):
        return "console"
    return told if told.startswith("kelpie ") else "API"


def _row(described: dict[str, Any]) -> Row:
    output = _object(described.get("output"))
    ended = described.get("stopDate") if described["status"] != "RUNNING" else None
    now = datetime.now(described["startDate"].tzinfo)
    accuracy = output.get("gate", {}).get("test_accuracy")
    return Row(
        name=described["name"],
        status=described["status"],
        started_by=started_by(described["name"], _object(described.get("input"))),
        started=described["startDate"],
        seconds=round(((ended or now) - described["startDate"]).total_seconds(), 1),
        test_accuracy=None if accuracy is None else round(float(accuracy), 4),
        failure=": ".join(filter(None, (described.get("error"), " ".join((described.get("cause") or "").split())))),
    )


def _object(text: str | None) -> dict[str, Any]:
    value = json.loads(text or "{}")
    return value if isinstance(value, dict) else {}
