"""Executions of the state machine: start, stop, describe, and their history as a typed timeline.

Everything is read through AWS APIs, so it says the same of a real account and of the local cloud.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from botocore.exceptions import ConnectionError, HTTPClientError

from workflow.account import Account, flag
from workflow.errors import KelpieError

TRAINING_LOG_GROUP = "/aws/sagemaker/TrainingJobs"
_LOST_SECONDS = 300.0
"""How long a lost connection is waited for."""
_LOSS_LINE = re.compile(r"step=(?P<step>\d+).*\btrain:loss=(?P<loss>[0-9.eE+-]+)")


@dataclass
class StateVisit:
    """One visit of one state. `status` is RUNNING, SUCCEEDED, CAUGHT (a Catch took over) or FAILED."""

    name: str
    type: str
    entered: datetime
    exited: datetime | None = None
    status: str = "RUNNING"
    attempts: int = 0
    error: str = ""
    cause: str = ""

    def seconds(self, now: datetime | None = None) -> float:
        """Seconds from entry to exit, or until `now` while it runs."""
        end = self.exited or now or datetime.now(self.entered.tzinfo)
        return (end - self.entered).total_seconds()


@dataclass(frozen=True)
class Execution:
    """What DescribeExecution and GetExecutionHistory say of one execution."""

    arn: str
    name: str
    status: str
    started: datetime
    stopped: datetime | None
    input: dict[str, Any]
    output: dict[str, Any] | None
    error: str
    cause: str
    time_scale: float
    events: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    """The history, oldest first."""

    @cached_property
    def visits(self) -> tuple[StateVisit, ...]:
        """The states that were entered, in order."""
        return tuple(timeline(self.events))

    @cached_property
    def data(self) -> dict[str, Any]:
        """The state data after the last state that was left; {} before there is any."""
        for event in reversed(self.events):
            output = event.get("stateExitedEventDetails", {}).get("output")
            if output:
                value = json.loads(output)
                return value if isinstance(value, dict) else {}
        return {}

    @property
    def training_job(self) -> str | None:
        """The name of the newest training job that it created, or None before there is one."""
        for event in reversed(self.events):
            details = event.get("taskScheduledEventDetails") or {}
            if details.get("resource", "").startswith("createTrainingJob"):
                return str(json.loads(details["parameters"])["TrainingJobName"])
        return None

    @property
    def running(self) -> bool:
        """Whether the execution has not ended."""
        return self.status == "RUNNING"

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the start, or of the whole execution once it ended."""
        return ((self.stopped or datetime.now(self.started.tzinfo)) - self.started).total_seconds()

    def seconds_by_state(self) -> dict[str, float]:
        """Seconds in each state, summed over its visits, in order of first entry."""
        seconds: dict[str, float] = {}
        for visit in self.visits:
            seconds[visit.name] = round(seconds.get(visit.name, 0.0) + visit.seconds(), 3)
        return seconds

    def statuses(self) -> dict[str, str]:
        """The status of the last visit of each state."""
        return {visit.name: visit.status for visit in self.visits}


def start(account: Account, state_machine_arn: str, execution_input: dict[str, Any], name: str | None = None) -> str:
    """Start an execution and return its ARN. The name defaults to a UUID, as in the console."""
    response = account.client("stepfunctions").start_execution(
        stateMachineArn=state_machine_arn,
        name=name or str(uuid.uuid4()),
        input=json.dumps(execution_input),
    )
    return str(response["executionArn"])


def stop(account: Account, execution_arn: str, cause: str = "Stopped by kelpie stop") -> None:
    """Abort an execution.

    AWS skips Catch on an abort. The Lambda `sweep`, which the end of the execution starts, cleans up and releases its
    lock; if it cannot, the next start takes the lock over.
    """
    account.client("stepfunctions").stop_execution(executionArn=execution_arn, error="StoppedByUser", cause=cause)


def find(account: Account, state_machine_arn: str, execution: str | None, *, running: bool = False) -> str:
    """Return the ARN for an ARN, a name, or None: the latest execution, or the one that runs.

    With `running`, one that has ended is refused.

    Raises:
        KelpieError: no such execution; the message lists the newest names.
    """
    listed = account.client("stepfunctions").list_executions(stateMachineArn=state_machine_arn, maxResults=1000)[
        "executions"
    ]
    listed.sort(key=lambda item: item["startDate"], reverse=True)
    named = [item for item in listed if execution in (None, item["name"], item["executionArn"])]
    for item in named:
        if not running or item["status"] == "RUNNING":
            return str(item["executionArn"])
    newest = ", ".join(f"{item['name']} ({item['status']})" for item in listed[:5]) or "none yet"
    if named and running:
        what = f"execution {execution!r} has ended: {named[0]['status']}" if execution else "no execution is running"
    else:
        what = f"there is no execution {execution!r}" if execution else "nothing was executed yet"
    raise KelpieError(
        what,
        detail=f"newest executions: {newest}",
        fix=f"start one with: kelpie start{flag(account) or ' --local'} --data build/demo/dogs",
    )


def describe(account: Account, execution_arn: str) -> Execution:
    """Read one execution with its whole timeline."""
    client = account.client("stepfunctions")
    response = client.describe_execution(executionArn=execution_arn)
    headers = response["ResponseMetadata"]["HTTPHeaders"]
    return Execution(
        arn=response["executionArn"],
        name=response["name"],
        status=response["status"],
        started=response["startDate"],
        stopped=response.get("stopDate") if response["status"] != "RUNNING" else None,
        input=json.loads(response.get("input") or "{}"),
        output=json.loads(response["output"]) if response.get("output") else None,
        error=response.get("error") or "",
        cause=response.get("cause") or "",
        # The local cloud divides AWS's waits by this factor and says so; AWS sends no such header.
        time_scale=float(headers.get("x-kelpie-time-scale", 1)),
        events=tuple(history(account, execution_arn)),
    )


def history(account: Account, execution_arn: str) -> list[dict[str, Any]]:
    """All events of an execution, oldest first."""
    client = account.client("stepfunctions")
    events: list[dict[str, Any]] = []
    token: dict[str, str] = {}
    while True:
        page = client.get_execution_history(executionArn=execution_arn, maxResults=1000, **token)
        events.extend(page["events"])
        if not page.get("nextToken"):
            return events
        token = {"nextToken": page["nextToken"]}


def definition(account: Account, execution_arn: str) -> dict[str, Any]:
    """The state machine as it was when the execution started, in the Amazon States Language."""
    described = account.client("stepfunctions").describe_state_machine_for_execution(executionArn=execution_arn)
    found: dict[str, Any] = json.loads(described["definition"])
    return found


def timeline(events: Sequence[dict[str, Any]]) -> list[StateVisit]:
    """Turn history events into visits of states, in order of entry.

    Source: Step Functions API reference, HistoryEvent (read 2026-11): <Type>StateEntered and <Type>StateExited carry
    the name; task events in between carry errors.
    """
    visits: list[StateVisit] = []
    current: StateVisit | None = None
    for event in events:
        kind: str = event["type"]
        if kind.endswith("StateEntered"):
            details = event["stateEnteredEventDetails"]
            current = StateVisit(details["name"], kind.removesuffix("StateEntered"), event["timestamp"])
            if current.type == "Fail":
                current.status = "FAILED"
            visits.append(current)
        elif current is None:
            continue
        elif kind in {"TaskScheduled", "LambdaFunctionScheduled"}:
            current.attempts += 1
        elif kind.endswith(("Failed", "TimedOut", "Aborted")) and not kind.startswith("Execution"):
            failures = [value for key, value in event.items() if key.endswith("EventDetails")]
            current.error = failures[0].get("error", kind) if failures else kind
            current.cause = failures[0].get("cause", "") if failures else ""
            current.status = "FAILED"
        elif kind.endswith("StateExited"):
            current.exited = event["timestamp"]
            if current.type != "Fail":
                caught = current.status == "FAILED"
                current.status = "CAUGHT" if caught else "SUCCEEDED"
        elif kind.startswith("Execution") and kind != "ExecutionStarted" and current.exited is None:
            current.exited = event["timestamp"]
            ended_well = kind == "ExecutionSucceeded"
            current.status = "SUCCEEDED" if ended_well else "FAILED"
        if kind.endswith("Succeeded") and not kind.startswith("Execution"):
            current.status = "RUNNING" if current.exited is None else current.status
    return visits


def follow(
    account: Account, execution_arn: str, poll_seconds: float = 1.0, on_lost: Callable[[], None] = lambda: None
) -> Iterator[Execution]:
    """Yield the execution again and again until it has ended (the last one yielded has ended).

    A lost connection is tried again; `on_lost` is called when it is lost.

    Raises:
        KelpieError: nothing answered for five minutes. The execution does not depend on who follows it.
    """
    lost_at: float | None = None
    while True:
        try:
            execution = describe(account, execution_arn)
        except (ConnectionError, HTTPClientError) as error:
            if lost_at is None:
                lost_at = time.monotonic()
                on_lost()
            elif time.monotonic() - lost_at > _LOST_SECONDS:
                raise KelpieError(
                    f"nothing has answered for {_LOST_SECONDS:.0f} s; the execution goes on without being watched",
                    detail=str(error),
                    fix=f"kelpie watch {execution_arn.rpartition(':')[2]}{flag(account)}",
                ) from error
        else:
            lost_at = None
            yield execution
            if not execution.running:
                return
        time.sleep(poll_seconds)


def training_log(account: Account, job_name: str, host: str = "algo-1") -> list[str]:
    """The log lines that one host of a training job has written so far; empty before it has written any."""
    client = account.client("logs")
    lines: list[str] = []
    try:
        streams = client.describe_log_streams(
            logGroupName=TRAINING_LOG_GROUP, logStreamNamePrefix=f"{job_name}/{host}"
        )["logStreams"]
    except client.exceptions.ResourceNotFoundException:
        return lines
    for stream in sorted(streams, key=lambda stream: stream["logStreamName"]):
        token: dict[str, str] = {}
        while True:
            page = client.get_log_events(
                logGroupName=TRAINING_LOG_GROUP,
                logStreamName=stream["logStreamName"],
                startFromHead=True,
                **token,
            )
            lines.extend(event["message"] for event in page["events"])
            # Source: CloudWatch Logs API reference, GetLogEvents (2026-11): the same token again means the end.
            if not page["events"] or page["nextForwardToken"] == token.get("nextToken"):
                break
            token = {"nextToken": page["nextForwardToken"]}
    return lines


def loss_curve(log: list[str]) -> list[tuple[int, float]]:
    """(step, training loss) pairs in order of steps, from the lines of a training log."""
    losses = (_LOSS_LINE.search(line) for line in log)
    return sorted({int(match["step"]): float(match["loss"]) for match in losses if match}.items())
