"""The logs of an execution: what its training hosts, its functions and its endpoint wrote, by state."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from workflow import executions
from workflow.account import Account
from workflow.executions import TRAINING_LOG_GROUP, Execution

ENDPOINT_LOG_GROUP = "/aws/sagemaker/Endpoints/"
_DEPLOYING = ("CreateEndpoint", "UpdateEndpoint")
_POLL_SECONDS = 1.0
_LATE_SECONDS = 5.0
"""Log events arrive some time after what they tell."""


@dataclass(frozen=True)
class Source:
    """Where a state's log lies: a group, the beginning of its streams' names, and a span of time.

    `until` is None while the state runs.
    """

    state: str
    group: str
    stream_prefix: str
    since: datetime
    until: datetime | None


@dataclass(frozen=True)
class Line:
    """One log event. `writer` is the host, function or instance that wrote it."""

    event_id: str
    milliseconds: int
    state: str
    writer: str
    message: str


def sources(account: Account, execution: Execution) -> list[Source]:
    """The logs that an execution has written so far, in the order of its states."""
    found: dict[tuple[str, str, str], Source] = {}
    for task in _tasks(execution.events):
        group, prefix, until = "", "", task.left
        if task.resource.startswith("createTrainingJob"):
            group, prefix = TRAINING_LOG_GROUP, f"{task.parameters['TrainingJobName']}/"
        elif task.resource.startswith("invoke"):
            group = _function_log_group(account, task.parameters["FunctionName"])
        elif task.state in _DEPLOYING:
            group, until = f"{ENDPOINT_LOG_GROUP}{task.parameters['EndpointName']}", execution.stopped
        if group:
            # A later visit of the same state goes on where the earlier one ended.
            earlier = found.get((task.state, group, prefix))
            since = earlier.since if earlier else task.entered
            found[task.state, group, prefix] = Source(task.state, group, prefix, since, until)
    return list(found.values())


def read(account: Account, source: Source) -> list[Line]:
    """All lines of one source, oldest first; none when nothing was written yet."""
    client = account.client("logs")
    query: dict[str, Any] = {"logGroupName": source.group, "startTime": _milliseconds(source.since)}
    if source.stream_prefix:
        query["logStreamNamePrefix"] = source.stream_prefix
    if source.until is not None:
        query["endTime"] = _milliseconds(source.until) + round(_LATE_SECONDS * 1000)
    lines: list[Line] = []
    try:
        for page in client.get_paginator("filter_log_events").paginate(**query):
            lines += [_line(event, source) for event in page["events"]]
    except client.exceptions.ResourceNotFoundException:
        return []
    return sorted(lines, key=lambda line: line.milliseconds)


def follow(account: Account, execution_arn: str, state: str | None = None) -> Iterator[Line]:
    """The lines of an execution (of one state, if given) as they are written, until it has ended."""
    seen: set[str] = set()
    while True:
        execution = executions.describe(account, execution_arn)
        for source in sources(account, execution):
            if state in (None, source.state):
                for line in read(account, source):
                    if line.event_id not in seen:
                        seen.add(line.event_id)
                        yield line
        if not execution.running:
            return
        time.sleep(_POLL_SECONDS)


@dataclass
class _Task:
    state: str
    resource: str
    parameters: dict[str, Any]
    entered: datetime
    left: datetime | None = None


def _tasks(events: Sequence[dict[str, Any]]) -> Iterator[_Task]:
    state, entered, tasks = "", None, list[_Task]()
    for event in events:
        if "stateEnteredEventDetails" in event:
            state, entered = event["stateEnteredEventDetails"]["name"], event["timestamp"]
        details = event.get("taskScheduledEventDetails")
        if details and entered:
            tasks.append(_Task(state, details["resource"], json.loads(details["parameters"]), entered))
        if "stateExitedEventDetails" in event or event["type"].startswith("Execution"):
            for task in tasks:
                task.left = task.left or event["timestamp"]
    yield from tasks


def _function_log_group(account: Account, function: str) -> str:
    configuration = account.client("lambda").get_function_configuration(FunctionName=function)
    own = configuration.get("LoggingConfig", {}).get("LogGroup")
    return str(own or f"/aws/lambda/{configuration['FunctionName']}")


def _line(event: dict[str, Any], source: Source) -> Line:
    # Source: names of the streams in the SageMaker developer guide, "Log groups and streams", read 2026-11:
    # JOB/HOST-NUMBER for training, VARIANT/INSTANCE for endpoints; a function's is DATE[VERSION]ID.
    stream = event["logStreamName"]
    if source.group == TRAINING_LOG_GROUP:
        writer = stream.rpartition("/")[2].rpartition("-")[0]
    elif source.group.startswith(ENDPOINT_LOG_GROUP):
        writer = stream
    else:
        writer = source.group.rpartition("/")[2]
    return Line(event["eventId"], event["timestamp"], source.state, writer, event["message"].rstrip("\n"))


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
