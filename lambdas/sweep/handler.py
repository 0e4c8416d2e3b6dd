"""Finish what an execution that ended without its own way back left undone: clean up, release the lock, tell.

An abort, a timeout of the whole execution and a few errors of Step Functions itself skip every Catch. EventBridge hands
each execution's bad end to this Lambda; it does nothing when the lock is not that execution's, because one whose
failure was caught has cleaned up, released its lock and told already.

Environment: PROJECT_NAME, LOCK_TABLE, CLEAN_UP_FUNCTION (the ARN of CleanUp's alias), NOTIFICATION_TOPIC (an ARN).
IAM: dynamodb:GetItem and dynamodb:DeleteItem on the lock table; states:GetExecutionHistory on
     `execution:<project>:*`; lambda:InvokeFunction on CleanUp's alias; sns:Publish on the topic, and kms:Decrypt
     and kms:GenerateDataKey on its key. Lambda itself sends what failed for good with sqs:SendMessage.
Timeout 900 s, memory 256 MB; invoked asynchronously.

Event: "Step Functions Execution Status Change" with status FAILED, TIMED_OUT or ABORTED.
Returns {"swept", "reason", "actions"}; nobody reads it but the log.
Errors: NotYetClean (there is still something to wait for when the time is over: Lambda tries twice more, and then the
dead-letter queue gets the event), CleanUpBroken (CleanUp itself failed). The lock stays held in both cases, so that no
other execution builds on what is half undone; one that starts may take it over.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
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
_RESERVE_MILLISECONDS = 1000 * (CLEAN_UP_SECONDS + 15)
_ENDS = {"ABORTED": "was aborted", "TIMED_OUT": "timed out", "FAILED": "failed"}
_ERRORS = {"ABORTED": "ExecutionAborted", "TIMED_OUT": "States.Timeout", "FAILED": "ExecutionFailed"}
_LONGEST_CAUSE = 4000


class NotYetClean(Exception):
    """There is still something to wait for, and no time left."""


class CleanUpBroken(Exception):
    """CleanUp raised, or did not answer as agreed."""


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
    """Sweep after one execution.

    Raises:
        NotYetClean, CleanUpBroken: see the module's docstring.
    """
    detail = event.get("detail") if isinstance(event, dict) else None
    if not isinstance(detail, dict) or detail.get("status") not in _ENDS or not detail.get("executionArn"):
        logger.error("not an event about the bad end of an execution")
        return {"swept": False, "reason": "not an event about the bad end of an execution", "actions": []}
    execution = str(detail["executionArn"])
    if lock_owner() != execution:
        logger.info("nothing to sweep", extra={"execution": execution})
        return {"swept": False, "reason": "the execution does not hold the lock", "actions": []}
    answer = clean_up(execution, with_failure(*last_state(execution), detail), context)
    released = release_lock(execution)
    if released:
        client("sns").publish(TopicArn=os.environ["NOTIFICATION_TOPIC"], Message=message(execution, detail, answer))
    result = {
        "swept": released,
        "reason": "" if released else "another execution took the lock over meanwhile",
        "actions": answer["actions"],
    }
    logger.info("swept", extra={"execution": execution, **result})
    return result


def lock_owner() -> str:
    """Return the ARN of the execution that holds the lock, "" if none does."""
    key = {"pk": {"S": os.environ["PROJECT_NAME"]}}
    answer = client("dynamodb").get_item(TableName=os.environ["LOCK_TABLE"], Key=key, ConsistentRead=True)
    return str(answer.get("Item", {}).get("owner", {}).get("S", ""))


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


def with_failure(name: str, state: dict[str, Any], detail: dict[str, Any]) -> dict[str, Any]:
    """Return the state data with the execution's end noted as a Catch would have noted it, for CleanUp to explain."""
    status = str(detail["status"])
    error = str(detail.get("error") or _ERRORS[status])
    if status == "ABORTED":
        error = _ERRORS[status]  # the error that a person gives to StopExecution is part of the cause
    told = ": ".join(str(detail[key]) for key in ("error", "cause") if detail.get(key))
    cause = f"the execution {_ENDS[status]} there" + (f" ({told[:_LONGEST_CAUSE]})" if told else "")
    failed = state.get("failed") if isinstance(state.get("failed"), dict) else {}
    others = {key: value for key, value in (failed or {}).items() if key != name}
    return {**state, "failed": {**others, name or "The execution": {"Error": error, "Cause": cause}}}


def clean_up(execution: str, state: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Call CleanUp until it is done, and return its last answer."""
    request = {"execution_id": execution, "project": os.environ["PROJECT_NAME"], "lock_table": os.environ["LOCK_TABLE"]}
    while True:
        answer = _call_clean_up({**request, "state": state})
        if answer["done"]:
            return answer
        state = {**state, "clean_up": answer}
        if context.get_remaining_time_in_millis() < _RESERVE_MILLISECONDS + 1000 * LAP_SECONDS:
            raise NotYetClean(f"{execution}: {'; '.join(map(str, answer['actions']))}")
        time.sleep(LAP_SECONDS)


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
    return {"actions": [], "error": "", "cause": "", **answer}


def release_lock(execution: str) -> bool:
    """Delete the lock if it is still this execution's; return False when another one has it, or none is there."""
    try:
        client("dynamodb").delete_item(
            TableName=os.environ["LOCK_TABLE"],
            Key={"pk": {"S": os.environ["PROJECT_NAME"]}},
            ConditionExpression="#owner = :me",
            ExpressionAttributeNames={"#owner": "owner"},
            ExpressionAttributeValues={":me": {"S": execution}},
        )
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == "ConditionalCheckFailedException":
            return False
        raise
    return True


def message(execution: str, detail: dict[str, Any], answer: dict[str, Any]) -> str:
    """Return what people are told, in the words in which the state machine tells of a failure."""
    _, _, _, region, account, *_ = execution.split(":")
    project, end = os.environ["PROJECT_NAME"], _ENDS[str(detail["status"])]
    return f"{project} ({region}, account {account}): execution {execution} {end}. {answer['error']}: {answer['cause']}"
