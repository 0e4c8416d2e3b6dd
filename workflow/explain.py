"""Why an execution did not succeed: one sentence, the log of what failed first, what to do, and the command to run.

The sentence is the one that the state machine gave to the Fail state and to the notification. An abort or a timeout
runs no Catch, so for these it is made here. Everything is read through AWS APIs.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from typing import Any

from workflow import executions, logs
from workflow.account import Account, flag
from workflow.executions import Execution

LINES_SHOWN = 8
# Source: AWS Lambda developer guide, "Sending Lambda function logs to CloudWatch Logs", read 2026-11.
_INVOCATION_BEGINS = "START RequestId: "
_PLATFORM_LINE = re.compile(r"(INIT_START|START RequestId:|END RequestId:|REPORT RequestId:)")
_TRACEBACK = "Traceback (most recent call last):"
_DEPLOYING = ("CreateEndpoint", "UpdateEndpoint")
_ENDPOINT_ERRORS = ("EndpointNotReady", "UpdateRolledBack")
# Going on from the same model would end in the same place.
_SAME_AGAIN = ("QualityGateRefused", "LockHeld")
_TAKEN_OVER = (
    "start again: the lock that this one left is swept, and if it is not, the next execution takes over the lock"
)


@dataclass(frozen=True)
class Explanation:
    """Why an execution did not succeed. `log_tail` is empty where the state that failed writes no log."""

    state: str
    sentence: str
    log_tail: tuple[str, ...]
    fix: str
    run: str


def explain(account: Account, execution: Execution, job: dict[str, Any]) -> Explanation | None:
    """Explain an execution that has ended; None when it succeeded, or runs.

    Args:
        account: Where it ran.
        execution: The execution with its timeline.
        job: DescribeTrainingJob of its training job; empty when there is none.
    """
    if execution.status not in ("FAILED", "ABORTED", "TIMED_OUT"):
        return None
    state = failed_state(execution)
    sentence, fix = _sentence(execution, state)
    tail = tuple(_log_tail(account, execution, state, job))
    return Explanation(state, sentence, tail, fix, _command(account, execution, job))


def failed_state(execution: Execution) -> str:
    """The state that ended the execution: the one that its cause names, else the last that failed or ran."""
    names = [visit.name for visit in execution.visits]
    named = re.match(r"(\w+) failed: ", execution.cause)
    if named and named[1] in names:
        return named[1]
    if execution.status == "FAILED":
        names = [v.name for v in execution.visits if v.status in ("CAUGHT", "FAILED") and v.type != "Fail"] or names
    return names[-1] if names else ""


def _sentence(execution: Execution, state: str) -> tuple[str, str]:
    where = f"in state {state}" if state else "before its first state"
    if execution.status == "ABORTED":
        said = ": ".join(filter(None, (execution.error, execution.cause)))
        return f"The execution was stopped {where}{f' ({said})' if said else ''}", _TAKEN_OVER
    if execution.status == "TIMED_OUT":
        return f"The execution took longer than the state machine's TimeoutSeconds, {where}", _TAKEN_OVER
    fix = re.search(r"; to fix it, (.*?)(?:; left undone: |$)", execution.cause, re.DOTALL)
    return execution.cause or execution.error or f"The execution failed {where}", fix[1] if fix else ""


def _command(account: Account, execution: Execution, job: dict[str, Any]) -> str:
    where = flag(account)
    brought_back = execution.input.get("rollback", {}).get("model_package_arn")
    if brought_back:
        return f"kelpie rollback {brought_back}{where}"
    if job and execution.error not in _SAME_AGAIN and _something_trained(account, job):
        return f"kelpie resume {execution.name}{where}"
    given = {name: value for name, value in execution.input.items() if name not in ("Comment", "resume")}
    parts = ["kelpie", "start", "--local" if account.endpoint_url else "--aws"]
    return shlex.join([*parts, *(["--input", json.dumps(given)] if given else [])])


def _something_trained(account: Account, job: dict[str, Any]) -> bool:
    """Whether the job has completed, or left checkpoints."""
    uri = job.get("CheckpointConfig", {}).get("S3Uri", "")
    if job.get("TrainingJobStatus") == "Completed" or not uri:
        return job.get("TrainingJobStatus") == "Completed"
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    listed = account.client("s3").list_objects_v2(Bucket=bucket, Prefix=f"{prefix.rstrip('/')}/", MaxKeys=1)
    return bool(listed.get("KeyCount"))


def _log_tail(account: Account, execution: Execution, state: str, job: dict[str, Any]) -> list[str]:
    """The last lines of the process that failed first: a training host, a function's invocation, a model server."""
    if state.startswith("Train") and job.get("TrainingJobStatus") == "Failed":
        host = re.search(r"\((algo-\d+)\)", job.get("FailureReason", ""))
        return executions.training_log(account, job["TrainingJobName"], host[1] if host else "algo-1")[-LINES_SHOWN:]
    deploying = execution.error in _ENDPOINT_ERRORS or state in _DEPLOYING
    wanted = _DEPLOYING if deploying else (state,)
    found = [source for source in logs.sources(account, execution) if source.state in wanted]
    if not found:
        return []
    lines = logs.read(account, found[-1])
    if deploying:
        return [line.message for line in _of_new_server(account, found[-1], lines)][-LINES_SHOWN:]
    messages = [line.message for line in lines]
    starts = [number for number, message in enumerate(messages) if message.startswith(_INVOCATION_BEGINS)]
    last_invocation = messages[starts[-1] :] if starts else messages
    written = [message for message in last_invocation if not _PLATFORM_LINE.match(message)]
    return [line for message in written for line in _said(message, execution.error)][-LINES_SHOWN:]


def _said(message: str, error: str) -> list[str]:
    """The lines of a message; without the frames when a function raised the error on purpose: its text says it all."""
    lines = message.splitlines()
    if _TRACEBACK in lines and any(line.strip().startswith(f"raise {error}(") for line in lines):
        return lines[: lines.index(_TRACEBACK)]
    return lines


def _of_new_server(account: Account, source: logs.Source, lines: list[logs.Line]) -> list[logs.Line]:
    """The lines of the first server that was started for the change; servers of the old config write on meanwhile."""
    pages = account.client("logs").get_paginator("describe_log_streams").paginate(logGroupName=source.group)
    since = source.since.timestamp() * 1000
    new = {
        stream["logStreamName"] for page in pages for stream in page["logStreams"] if stream["creationTime"] >= since
    }
    first = next((line.writer for line in lines if line.writer in new), None)
    return [line for line in lines if line.writer == first]
