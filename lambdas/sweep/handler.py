"""Finish what an execution that ended without its own way back left undone: clean up, release the lock, tell.

An abort, a timeout of the whole execution and a few errors of Step Functions itself skip every Catch: the lock is still
held, and what was made still stands. EventBridge calls this Lambda at each execution's bad end, and every 15 minutes,
because an event may be lost and an endpoint may take longer to settle than one call may last. Either way it looks at
the lock and not at the event:

- Its owner runs: there is nothing to do, and nothing is touched.
- Its owner has ended: clean up as the state machine would have, release the lock, tell.
- Nobody holds it, but `unswept` names executions from which others have taken it over: the same for each of them, with
  the lock held in its name. While another execution runs, an endpoint config that was left behind may be the one to
  which that other goes back; so it has to wait.

Environment: PROJECT_NAME, LOCK_TABLE, CLEAN_UP_FUNCTION (the ARN of CleanUp's alias), NOTIFICATION_TOPIC (an ARN).
IAM: dynamodb:GetItem and dynamodb:UpdateItem on the lock table; states:DescribeExecution and
     states:GetExecutionHistory on `execution:<project>:*`; lambda:InvokeFunction on CleanUp's alias; sns:Publish on the
     topic, and kms:Decrypt and kms:GenerateDataKey on its key. Lambda itself sends what failed for good with
     sqs:SendMessage.
Timeout 900 s, memory 256 MB; invoked asynchronously.

Event: "Step Functions Execution Status Change", "Scheduled Event", or anything else.
Returns {"swept": ARNs, "reason": why no more, "actions"}; nobody reads it but the log.
Errors: NotYetClean (there is still something to wait for, two hours after the end), CleanUpBroken (CleanUp itself
failed). Lambda tries twice more, and then the dead-letter queue gets the event; a quarter of an hour later all is tried
again. The lock stays held in both cases, so that no other execution builds on what is half undone; one that starts
may take it over.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config
from botocore.exceptions import ClientError

logger = Logger(service="sweep")

LAP_SECONDS = 5.0
"""Between two calls of CleanUp."""
CLEAN_UP_SECONDS = 60
"""CleanUp's own timeout in stack.yaml."""
OVERDUE_SECONDS = 7200
"""After which a person should look. An endpoint that cannot start has been seen to need an hour to say so.

Source: aws/amazon-sagemaker-examples issue 3432.
"""
LOOKS = 12
"""How often, a lap apart, an execution that is said to have ended is looked at: DescribeExecution may lag behind.

Source: Step Functions API reference, DescribeExecution ("eventually consistent"), Nov 2026.
"""
_RESERVE_MILLISECONDS = 1000 * (CLEAN_UP_SECONDS + 15)
_RUNNING = ("RUNNING", "PENDING_REDRIVE")
_ENDS = {"ABORTED": "was aborted", "TIMED_OUT": "timed out", "FAILED": "failed"}
"""Every other end needs no sweep: SUCCEEDED, or an execution that Step Functions has forgotten after 90 days."""
_ERRORS = {"ABORTED": "ExecutionAborted", "TIMED_OUT": "States.Timeout", "FAILED": "ExecutionFailed"}
_FORGOTTEN = "FORGOTTEN"
_PROMOTED = "RecordServing"
"""The state after which a new model is the one that serves."""
_TOLD = "ExecutionFailed"
"""The state that comes after the message about a failure."""
_LONGEST_CAUSE = 4000


class NotYetClean(Exception):
    """There is still something to wait for, long after the execution's end."""


class CleanUpBroken(Exception):
    """CleanUp raised, or did not answer as agreed."""


@dataclass(frozen=True)
class Lock:
    """The lock's item."""

    owner: str
    """ARN of an execution, "" for none."""
    acquired_at: str
    """ISO 8601, "" for none."""
    unswept: tuple[str, ...]
    """ARNs of executions that the lock was taken over from."""


@cache
def client(service: Literal["dynamodb", "lambda", "sns", "stepfunctions"]) -> Any:
    """Return the client of one AWS service, made once per container and not at import."""
    # A call of CleanUp that is repeated because its answer came late would only do the same again.
    attempts, read_seconds = (1, CLEAN_UP_SECONDS + 10) if service == "lambda" else (5, 10)
    return boto3.client(
        service,
        config=Config(
            connect_timeout=5, read_timeout=read_seconds, retries={"mode": "standard", "max_attempts": attempts}
        ),
    )


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Sweep until there is nothing more that may be swept.

    Raises:
        NotYetClean, CleanUpBroken: see the module's docstring.
    """
    detail = event.get("detail") if isinstance(event, dict) else None
    told = str(detail.get("executionArn") or "") if isinstance(detail, dict) else ""
    swept: list[str] = []
    actions: list[str] = []
    while True:
        lock = read_lock()
        execution, end, reason = choose(lock, told)
        if swept and _is_over(context):
            reason = reason or "the time is over"
        if not reason:
            answer = clean_up(execution, end, lock, context)
            actions += answer["actions"]
            if not answer["done"]:
                reason = f"{execution} is not yet clean"
            elif release_lock(execution):
                swept.append(execution)
                tell(execution, end, answer)
            else:
                reason = f"another execution took the lock over from {execution} meanwhile"
        if reason:
            result = {"swept": swept, "reason": reason, "actions": actions}
            logger.info("swept" if swept else "nothing swept", extra=result)
            return result


def choose(lock: Lock, told: str) -> tuple[str, dict[str, Any], str]:
    """Return whom to sweep, and how it ended; or the reason why nobody is to be swept."""
    if lock.owner:
        end = describe(lock.owner, LOOKS if lock.owner == told else 1)
        return lock.owner, end, f"{lock.owner} runs" if end["status"] in _RUNNING else ""
    for execution in lock.unswept:
        end = describe(execution)
        if end["status"] in _RUNNING:  # a person has redriven it
            continue
        return execution, end, "" if take_lock(execution) else "another execution took the lock"
    return "", {}, "nobody left anything behind"


def read_lock() -> Lock:
    """Return who holds the lock, and from whom it was taken over."""
    key = {"pk": {"S": os.environ["PROJECT_NAME"]}}
    item = client("dynamodb").get_item(TableName=os.environ["LOCK_TABLE"], Key=key, ConsistentRead=True).get("Item", {})
    return Lock(
        str(item.get("owner", {}).get("S", "")),
        str(item.get("acquired_at", {}).get("S", "")),
        tuple(sorted(map(str, item.get("unswept", {}).get("SS", [])))),
    )


def describe(execution: str, looks: int = 1) -> dict[str, Any]:
    """Return what DescribeExecution says; while it says that the execution runs, look so many times."""
    for look in range(looks):
        if look:
            time.sleep(LAP_SECONDS)
        try:
            found: dict[str, Any] = client("stepfunctions").describe_execution(executionArn=execution)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "ExecutionDoesNotExist":
                raise
            found = {"status": _FORGOTTEN}
        if found["status"] not in _RUNNING:
            break
    return found


def last_state(execution: str) -> tuple[str, dict[str, Any]]:
    """Return the name of the state that the execution was in last, and its whole state data there."""
    for entry in _history_backwards(execution):
        details, data = entry.get("stateEnteredEventDetails"), "input"
        if details is None:
            details, data = entry.get("stateExitedEventDetails"), "output"
        if details is not None:
            try:
                state = json.loads(details.get(data) or "{}")
            except ValueError:  # cut off, because it was too large
                state = {}
            return str(details["name"]), state if isinstance(state, dict) else {}
    return "", {}


def _history_backwards(execution: str) -> Iterator[dict[str, Any]]:
    token: dict[str, str] = {}
    while True:
        page = client("stepfunctions").get_execution_history(executionArn=execution, reverseOrder=True, **token)
        yield from page["events"]
        if not page.get("nextToken"):
            return
        token = {"nextToken": page["nextToken"]}


def with_failure(name: str, state: dict[str, Any], end: dict[str, Any]) -> dict[str, Any]:
    """Return the state data with the execution's end noted as a Catch would have noted it, for CleanUp to explain."""
    status = str(end["status"])
    error = str(end.get("error") or _ERRORS[status])
    if status == "ABORTED":
        error = _ERRORS[status]  # the error that a person gives to StopExecution is part of the cause
    told = ": ".join(str(end[key]) for key in ("error", "cause") if end.get(key))
    cause = f"the execution {_ENDS[status]} there" + (f" ({told[:_LONGEST_CAUSE]})" if told else "")
    failed = state.get("failed") if isinstance(state.get("failed"), dict) else {}
    others = {key: value for key, value in (failed or {}).items() if key != name}
    return {**state, "failed": {**others, name or "The execution": {"Error": error, "Cause": cause}}}


def clean_up(execution: str, end: dict[str, Any], lock: Lock, context: LambdaContext) -> dict[str, Any]:
    """Call CleanUp until it is done or time is over, and return its last answer.

    Raises:
        NotYetClean: if it should have been done long ago.
    """
    nothing: dict[str, Any] = {"done": True, "error": "", "cause": "", "actions": [], "told": True}
    if end["status"] not in _ENDS:
        return nothing
    name, state = last_state(execution)
    told = {"told": name == _TOLD}
    if execution in lock.unswept and was_promoted(execution):
        # What serves now is a later one's business; the model that this one promoted is a version like any other.
        cause = "its model was promoted before, and stays a version"
        return {**nothing, **told, "error": _ERRORS[str(end["status"])], "cause": cause}
    state = with_failure(name, state, end)
    request = {"execution_id": execution, "project": os.environ["PROJECT_NAME"], "lock_table": os.environ["LOCK_TABLE"]}
    overdue = lock.owner == execution and is_overdue(end, lock)  # else it has just been taken
    while True:
        answer = {**_call_clean_up({**request, "state": state}), **told}
        if answer["done"]:
            return answer
        if overdue:
            raise NotYetClean(f"{execution}: {'; '.join(map(str, answer['actions']))}")
        state = {**state, "clean_up": answer}
        if _is_over(context):
            return answer
        time.sleep(LAP_SECONDS)


def _is_over(context: LambdaContext) -> bool:
    """Whether the time that is left is too short for another call of CleanUp."""
    return context.get_remaining_time_in_millis() < _RESERVE_MILLISECONDS + 1000 * LAP_SECONDS


def is_overdue(end: dict[str, Any], lock: Lock) -> bool:
    """Whether the execution ended, or its lock was taken for the sweep, more than two hours ago."""
    since = [instant for instant in (end.get("stopDate"), _instant(lock.acquired_at)) if instant is not None]
    return bool(since) and (datetime.now(UTC) - max(since)).total_seconds() > OVERDUE_SECONDS


def _instant(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def was_promoted(execution: str) -> bool:
    """Whether the execution had already made its model the one that serves."""
    exits = (entry.get("stateExitedEventDetails") for entry in _history_backwards(execution))
    return any(details and details["name"] == _PROMOTED for details in exits)


def _call_clean_up(request: dict[str, Any]) -> dict[str, Any]:
    response = client("lambda").invoke(
        FunctionName=os.environ["CLEAN_UP_FUNCTION"], Payload=json.dumps(request).encode()
    )
    payload = response["Payload"].read().decode("utf-8", "replace")
    try:
        answer = json.loads(payload)
    except ValueError:
        answer = None
    if response.get("FunctionError") or not isinstance(answer, dict) or "done" not in answer:
        raise CleanUpBroken(f"CleanUp answered: {payload[:1000]}")
    actions = answer.get("actions")
    return {"error": "", "cause": "", **answer, "actions": actions if isinstance(actions, list) else []}


def take_lock(execution: str) -> bool:
    """Hold the free lock in the name of an execution that is still to be swept; return False when it is not free."""
    return _update_lock(
        "SET #owner = :me, acquired_at = :now",
        "attribute_not_exists(#owner) AND contains(unswept, :me)",
        {":me": {"S": execution}, ":now": {"S": datetime.now(UTC).isoformat()}},
    )


def release_lock(execution: str) -> bool:
    """Let go of the lock if it is still this execution's; return False when another one has it, or nobody."""
    return _update_lock(
        "REMOVE #owner, acquired_at DELETE unswept :swept",
        "#owner = :me",
        {":me": {"S": execution}, ":swept": {"SS": [execution]}},
    )


def _update_lock(update: str, condition: str, values: dict[str, Any]) -> bool:
    """Return False if the condition does not hold."""
    try:
        client("dynamodb").update_item(
            TableName=os.environ["LOCK_TABLE"],
            Key={"pk": {"S": os.environ["PROJECT_NAME"]}},
            UpdateExpression=update,
            ConditionExpression=condition,
            ExpressionAttributeNames={"#owner": "owner"},
            ExpressionAttributeValues=values,
        )
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == "ConditionalCheckFailedException":
            return False
        raise
    return True


def tell(execution: str, end: dict[str, Any], answer: dict[str, Any]) -> None:
    """Send the message, unless the execution has sent its own."""
    if not answer["told"]:
        client("sns").publish(TopicArn=os.environ["NOTIFICATION_TOPIC"], Message=message(execution, end, answer))


def message(execution: str, end: dict[str, Any], answer: dict[str, Any]) -> str:
    """Return what people are told, in the words in which the state machine tells of a failure."""
    _, _, _, region, account, *_ = execution.split(":")
    project, ended = os.environ["PROJECT_NAME"], _ENDS[str(end["status"])]
    told = f"{answer['error']}: {answer['cause']}"
    return f"{project} ({region}, account {account}): execution {execution} {ended}. {told}"
