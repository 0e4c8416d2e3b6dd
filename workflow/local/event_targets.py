"""How a rule or a schedule reaches its target: with its role or the target's own policy, again and again, or never.

What cannot be delivered goes to the dead-letter queue. Waits between attempts, and the age at which they end, are
AWS's seconds and scaled.

Source: EventBridge user guide, "How EventBridge retries delivering events" and "Using dead-letter queues";
EventBridge Scheduler user guide, "Configuring a schedule's dead-letter queue", Nov 2026. AWS does not publish the
intervals of its retries: here 1, 2, 4, ... seconds and at most a minute.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from workflow.local.authorization import AccessDenied, authorize_service
from workflow.local.engine import Engine
from workflow.local.identity import AccessDenied as NotTrusted

DEFAULT_ATTEMPTS = 185
DEFAULT_AGE_SECONDS = 86_400
_LONGEST_WAIT_SECONDS = 60.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Delivery:
    """Something that is to reach a target."""

    service: str
    """Who delivers: "events.amazonaws.com" or "scheduler.amazonaws.com"."""
    source_arn: str
    """The rule or schedule."""
    target_arn: str
    role_arn: str | None
    """Whose permissions count; None: those that the target's own policy gives to the service."""
    payload: Callable[[int], str]
    """What the target gets, by the number of the attempt, from 1."""
    maximum_retries: int = DEFAULT_ATTEMPTS
    maximum_age_seconds: float = DEFAULT_AGE_SECONDS
    execution_name: str | None = None
    """The name of the execution that is started, if the service gives one."""
    message_group_id: str | None = None
    dead_letter_arn: str | None = None
    dead_letter_body: str = ""
    dead_letter_attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(eq=False)
class Refused(Exception):
    """Why an attempt failed, and whether another one may do better."""

    code: str
    message: str
    passing: bool


def deliver(engine: Engine, delivery: Delivery) -> None:
    """Try until it arrives, in a thread of its own."""
    threading.Thread(target=_deliver, args=(engine, delivery), name="event-delivery", daemon=True).start()


def _deliver(engine: Engine, delivery: Delivery) -> None:
    began, wait_seconds, retries = time.monotonic(), 1.0, 0
    while True:
        try:
            _attempt(engine, delivery, delivery.payload(retries + 1))
            return
        except Refused as refusal:
            refused = refusal
        except Exception as error:
            _log.exception("A delivery to %s failed", delivery.target_arn)
            refused = Refused("INTERNAL_ERROR", str(error), passing=False)
        age_seconds = (time.monotonic() - began) / engine.clock.scaled(1.0)
        exhausted = (
            ""
            if not refused.passing
            else "MaximumRetryAttempts"
            if retries >= delivery.maximum_retries
            else "MaximumEventAgeInSeconds"
            if age_seconds + wait_seconds > delivery.maximum_age_seconds
            else None
        )
        if exhausted is not None:
            break
        engine.clock.sleep(wait_seconds)
        retries, wait_seconds = retries + 1, min(2 * wait_seconds, _LONGEST_WAIT_SECONDS)
    _log.warning("%s did not reach %s: %s", delivery.source_arn, delivery.target_arn, refused.message)
    _bury(engine, delivery, refused, retries, exhausted)


def _attempt(engine: Engine, delivery: Delivery, payload: str) -> None:
    """Call the target once. Raises: Refused."""
    service = delivery.target_arn.split(":")[2]
    if service not in _CALLS:
        raise Refused("INVALID_PARAMETER", f"The local cloud delivers nothing to {delivery.target_arn}", passing=False)
    action, call = _CALLS[service]
    client_name = "stepfunctions" if service == "states" else service
    try:
        if delivery.role_arn:
            client = engine.identity.client(
                client_name, delivery.role_arn, delivery.service, max_attempts=1, source_arn=delivery.source_arn
            )
        elif service == "states":
            raise Refused("NO_PERMISSIONS", "A target that is a state machine needs a role", passing=False)
        else:
            authorize_service(
                engine.identity, delivery.service, action, delivery.target_arn, source_arn=delivery.source_arn
            )
            client = _own_client(engine, client_name)
        call(client, delivery, payload, engine)
    except NotTrusted as error:
        raise Refused("FAILED_TO_ASSUME_ROLE", str(error), passing=False) from None
    except AccessDenied as error:
        raise Refused("NO_PERMISSIONS", str(error), passing=False) from None
    except ClientError as error:
        raise _refused(error) from None
    except BotoCoreError as error:
        raise Refused("CONNECTION_FAILURE", str(error), passing=True) from None


def _refused(error: ClientError) -> Refused:
    code = str(error.response["Error"]["Code"])
    message = str(error.response["Error"].get("Message", error))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    throttled = status == 429 or any(word in code for word in ("Throttl", "TooManyRequests", "LimitExceeded"))
    return Refused(code, message, passing=throttled or status >= 500)


def _start_execution(client: Any, delivery: Delivery, payload: str, _: Engine) -> None:
    named = {"name": delivery.execution_name} if delivery.execution_name else {}
    client.start_execution(stateMachineArn=delivery.target_arn, input=payload, **named)


def _invoke(client: Any, delivery: Delivery, payload: str, _: Engine) -> None:
    client.invoke(FunctionName=delivery.target_arn, InvocationType="Event", Payload=payload.encode())


def _send_message(client: Any, delivery: Delivery, payload: str, engine: Engine) -> None:
    group = {"MessageGroupId": delivery.message_group_id} if delivery.message_group_id else {}
    client.send_message(QueueUrl=_queue_url(engine, delivery.target_arn), MessageBody=payload, **group)


def _publish(client: Any, delivery: Delivery, payload: str, _: Engine) -> None:
    client.publish(TopicArn=delivery.target_arn, Message=payload)


_CALLS: Mapping[str, tuple[str, Callable[[Any, Delivery, str, Engine], None]]] = {
    "states": ("states:StartExecution", _start_execution),
    "lambda": ("lambda:InvokeFunction", _invoke),
    "sqs": ("sqs:SendMessage", _send_message),
    "sns": ("sns:Publish", _publish),
}
"""By the service in the target's ARN: what must be allowed, and the call."""


def _bury(engine: Engine, delivery: Delivery, refused: Refused, retries: int, exhausted: str) -> None:
    """Send to the dead-letter queue: a rule by the queue's policy, a schedule with its role."""
    if delivery.dead_letter_arn is None:
        return
    attributes = {
        **delivery.dead_letter_attributes,
        "TARGET_ARN": delivery.target_arn,
        "ERROR_CODE": _rule_code(refused.code) if delivery.service == "events.amazonaws.com" else refused.code,
        "ERROR_MESSAGE": refused.message,
        "RETRY_ATTEMPTS": str(retries),
        **({"EXHAUSTED_RETRY_CONDITION": exhausted} if exhausted else {}),
    }
    try:
        if delivery.service == "scheduler.amazonaws.com":
            client = engine.identity.client(
                "sqs", str(delivery.role_arn), delivery.service, source_arn=delivery.source_arn
            )
        else:
            authorize_service(
                engine.identity,
                delivery.service,
                "sqs:SendMessage",
                delivery.dead_letter_arn,
                source_arn=delivery.source_arn,
            )
            client = _own_client(engine, "sqs")
        client.send_message(
            QueueUrl=_queue_url(engine, delivery.dead_letter_arn),
            MessageBody=delivery.dead_letter_body,
            MessageAttributes={
                name: {"DataType": "String", "StringValue": value or "-"} for name, value in attributes.items()
            },
        )
    except (AccessDenied, NotTrusted, BotoCoreError, ClientError) as error:
        _log.warning("The dead letter of %s is lost: %s", delivery.source_arn, error)


def _rule_code(code: str) -> str:
    """What a rule calls an error of its target."""
    for words, name in (
        (("AccessDenied", "NotAuthorized", "AuthorizationError"), "NO_PERMISSIONS"),
        (("NotFound", "DoesNotExist", "NonExistent"), "NO_RESOURCE"),
        (("Throttl", "TooManyRequests", "LimitExceeded"), "THROTTLING"),
        (("Invalid", "Validation"), "INVALID_PARAMETER"),
    ):
        if any(word in code for word in words):
            return name
    return code if code.isupper() else "ERROR_FROM_TARGET"


def _queue_url(engine: Engine, arn: str) -> str:
    return str(_own_client(engine, "sqs").get_queue_url(QueueName=arn.rsplit(":", 1)[-1])["QueueUrl"])


def _own_client(engine: Engine, service: str) -> Any:
    """A client of the service that delivers; what it may do is asked of the target's policy before."""
    keys = engine.identity.root_access_key_id, engine.identity.root_secret_access_key
    return _client(service, engine.region, engine.endpoint_url, *keys)


@lru_cache
def _client(service: str, region: str, endpoint_url: str, key_id: str, secret: str) -> Any:
    session: Any = boto3.Session(key_id, secret, region_name=region)  # Any: its type lists every service by name
    return session.client(service, endpoint_url=endpoint_url, config=Config(retries={"total_max_attempts": 1}))
