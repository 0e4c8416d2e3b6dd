"""The default event bus: what S3 and Step Functions tell it, and what PutEvents does, reaches the rules' targets.

Rules, targets and the matching of patterns are moto's. Its own delivery knows neither states nor roles, makes S3's
events with constant ids, and tells nothing of Step Functions; that is here.

Source: S3 user guide, "EventBridge event message structure"; Step Functions developer guide, "Automating Step Functions
event delivery with EventBridge", Nov 2026. That a rule calls an execution `<event id>_<UUID>`, 73 characters, is seen
in public logs and not documented.
"""

from __future__ import annotations

import itertools
import json
import logging
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from moto.events.models import Rule, events_backends
from moto.s3 import notifications
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication, Execution

from workflow.local import event_targets
from workflow.local.authorization import replace
from workflow.local.engine import Engine
from workflow.local.event_targets import Delivery
from workflow.local.input_transformer import InvalidInput, target_input

HOOKS: tuple[str, ...] = (
    "moto.events.models.EventPattern.get_pattern",
    "moto.events.models.EventPattern.matches_event",
    "moto.events.models.Rule.send_to_targets",
    "moto.events.models.events_backends",
    "moto.s3.notifications._detail_type",
    "moto.s3.notifications._send_event_bridge_message",
    "moto.stepfunctions.parser.backend.execution.BaseExecutionWorkerCommunication.terminated",
    "moto.stepfunctions.parser.backend.execution.Execution.start",
)

SERVICE = "events.amazonaws.com"
_S3_REASONS = {
    "ObjectCreated:Put": "PutObject",
    "ObjectCreated:Post": "POST Object",
    "ObjectCreated:Copy": "CopyObject",
    "ObjectCreated:CompleteMultipartUpload": "CompleteMultipartUpload",
    "ObjectRemoved:Delete": "DeleteObject",
    "ObjectRemoved:DeleteMarkerCreated": "DeleteObject",
}
_original_start = Execution.start
_original_terminated = BaseExecutionWorkerCommunication.terminated
_log = logging.getLogger(__name__)


def install(engine: Engine) -> None:
    """Let the services of this engine tell the default bus what happens."""

    def send_to_targets(rule: Rule, original_event: Mapping[str, Any], transform_input: bool = True) -> None:  # noqa: ARG001
        """PutEvents of moto calls this for each rule of a bus, with the time as a number."""
        _send(engine, rule, _with_text_time(original_event))

    def send_event_bridge_message(_: str, bucket: Any, event_name: str, key: Any) -> None:
        put(
            engine,
            source="aws.s3",
            detail_type=notifications._detail_type(event_name),
            resources=[bucket.arn],
            detail=_s3_detail(engine, bucket, str(getattr(event_name, "value", event_name)), key),
        )

    def start(execution: Execution) -> None:
        _tell_of_execution(engine, execution, "RUNNING")  # a short one has ended when the original returns
        _original_start(execution)

    def terminated(communication: BaseExecutionWorkerCommunication) -> None:
        _original_terminated(communication)
        _tell_of_execution(engine, communication.execution, communication.execution.status)

    replace(Rule, "send_to_targets", send_to_targets)
    replace(notifications, "_send_event_bridge_message", send_event_bridge_message)
    replace(Execution, "start", start)
    replace(BaseExecutionWorkerCommunication, "terminated", terminated)


def put(engine: Engine, *, source: str, detail_type: str, resources: list[str], detail: Mapping[str, Any]) -> None:
    """Put an event of an AWS service on the default bus."""
    event = {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": detail_type,
        "source": source,
        "account": engine.account_id,
        "time": _text_time(time.time()),
        "region": engine.region,
        "resources": resources,
        "detail": detail,
    }
    bus = events_backends[engine.account_id][engine.region].event_buses["default"]
    for rule in list(bus.rules.values()):
        try:
            _send(engine, rule, event)
        except Exception:
            _log.exception("Rule %s failed", rule.name)


def fire(engine: Engine, rule: Rule) -> None:
    """Deliver the event of a rule that its schedule has fired."""
    event = {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": engine.account_id,
        "time": _text_time(engine.wall_clock.now().timestamp()),
        "region": engine.region,
        "resources": [rule.arn],
        "detail": {},
    }
    for target in list(rule.targets):
        event_targets.deliver(engine, _delivery(rule, target, event))


def _send(engine: Engine, rule: Rule, event: Mapping[str, Any]) -> None:
    """Deliver an event to the targets of one rule, if it is enabled and its pattern matches."""
    if rule.state == "DISABLED" or not rule.event_pattern.get_pattern():
        return
    if not rule.event_pattern.matches_event(event):  # type: ignore[arg-type]
        return
    for target in list(rule.targets):
        event_targets.deliver(engine, _delivery(rule, target, event))


def _delivery(rule: Rule, target: Mapping[str, Any], event: Mapping[str, Any]) -> Delivery:
    policy = target.get("RetryPolicy", {})

    def payload(_: int) -> str:
        try:
            return target_input(target, event, rule.arn)
        except InvalidInput as error:
            raise event_targets.Refused("INVALID_JSON", str(error), passing=False) from None

    return Delivery(
        service=SERVICE,
        source_arn=rule.arn,
        target_arn=target["Arn"],
        role_arn=target.get("RoleArn"),
        payload=payload,
        maximum_retries=int(policy.get("MaximumRetryAttempts", event_targets.DEFAULT_ATTEMPTS)),
        maximum_age_seconds=float(policy.get("MaximumEventAgeInSeconds", event_targets.DEFAULT_AGE_SECONDS)),
        execution_name=f"{event['id']}_{uuid.uuid4()}",
        message_group_id=target.get("SqsParameters", {}).get("MessageGroupId"),
        dead_letter_arn=target.get("DeadLetterConfig", {}).get("Arn"),
        dead_letter_body=json.dumps(event),
        dead_letter_attributes={"RULE_ARN": rule.arn},
    )


def _with_text_time(event: Mapping[str, Any]) -> dict[str, Any]:
    """The event as a target sees it."""
    given = event.get("time")
    seconds = float(str(given)) if str(given).replace(".", "").isdigit() else None
    shown = {key: value for key, value in event.items() if key != "ingestion-time"}
    return {**shown, "time": _text_time(seconds) if seconds is not None else given}


def _text_time(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def _sequence() -> Iterator[str]:
    """Numbers that grow, as S3 gives them to the events of a key."""
    for number in itertools.count(int(time.time() * 1000)):
        yield f"{number:018X}"


_sequencers = _sequence()


def _s3_detail(engine: Engine, bucket: Any, event_name: str, key: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"key": key.name}
    if hasattr(key, "etag"):
        described |= {"size": key.size, "etag": key.etag.strip('"')}
    if bucket.is_versioned and getattr(key, "version_id", None):
        described["version-id"] = key.version_id
    name = event_name.removeprefix("s3:")
    return {
        "version": "0",
        "bucket": {"name": bucket.name},
        "object": {**described, "sequencer": next(_sequencers)},
        "request-id": uuid.uuid4().hex[:16].upper(),
        "requester": engine.account_id,
        "source-ip-address": "127.0.0.1",
        "reason": _S3_REASONS.get(name, name),
    }


def _tell_of_execution(engine: Engine, execution: Execution, status: str) -> None:
    """Step Functions Execution Status Change, with the times in milliseconds."""
    qualified: str | None = getattr(execution, "qualified_arn", None)
    version: str | None = getattr(execution, "version_arn", None)
    output = None if execution.output is None else json.dumps(execution.output)
    detail = {
        "executionArn": execution.exec_arn,
        "stateMachineArn": execution.state_machine_arn,
        "stateMachineVersionArn": version,
        "stateMachineAliasArn": qualified if qualified != version else None,
        "name": execution.name,
        "status": status,
        "startDate": _milliseconds(execution.start_date),
        "stopDate": _milliseconds(execution.stop_date),
        "input": execution.execution_input,
        "inputDetails": {"included": True},
        "output": output,
        "outputDetails": None if output is None else {"included": True},
        "error": execution.error,
        "cause": execution.cause,
        "redriveCount": 0,
        "redriveDate": None,
        "redriveStatus": "NOT_REDRIVABLE",
    }
    put(
        engine,
        source="aws.states",
        detail_type="Step Functions Execution Status Change",
        resources=[execution.exec_arn],
        detail=detail,
    )


def _milliseconds(instant: datetime | None) -> int | None:
    return None if instant is None else int(instant.timestamp() * 1000)
