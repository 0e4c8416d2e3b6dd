"""EventBridge Scheduler, for real: a loop that fires the schedules that moto keeps, by the wall clock.

The same loop fires the scheduled rules of EventBridge (scheduled_rules.py).

The wall clock is the machine's, never scaled; tests and the control endpoint `clock` move it, and every time that it
passes fires. When a schedule fires is schedule_times.py's business, how it reaches its target event_targets.py's.

Source: EventBridge Scheduler user guide, "Schedule types", "Configuring flexible time windows", "Adding context
attributes"; API reference, CreateSchedule, Nov 2026. That a schedule which is enabled or changed counts anew, as one
that is created does, is not documented.
"""

from __future__ import annotations

import logging
import secrets
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.scheduler.exceptions import ValidationException
from moto.scheduler.models import EventBridgeSchedulerBackend, Schedule, scheduler_backends

from workflow import schedule_times
from workflow.local import event_targets
from workflow.local.authorization import replace
from workflow.local.engine import Engine
from workflow.local.event_targets import Delivery
from workflow.local.identity import AccessDenied
from workflow.local.loop import Loop
from workflow.local.scheduled_rules import ScheduledRules

HOOKS: tuple[str, ...] = (
    "moto.scheduler.exceptions.ValidationException",
    "moto.scheduler.models.EventBridgeSchedulerBackend.create_schedule",
    "moto.scheduler.models.EventBridgeSchedulerBackend.schedule_groups",
    "moto.scheduler.models.EventBridgeSchedulerBackend.update_schedule",
    "moto.scheduler.models.Schedule.start_date",
    "moto.scheduler.models.scheduler_backends",
)

SERVICE = "scheduler.amazonaws.com"
_TICK_SECONDS = 0.5
_INSTANT = timedelta(microseconds=1)
_log = logging.getLogger(__name__)
_original_create: Any = EventBridgeSchedulerBackend.create_schedule
_original_update: Any = EventBridgeSchedulerBackend.update_schedule


@dataclass
class _Watch:
    """What the loop knows of one enabled schedule."""

    settings: tuple[Any, ...]
    times: Iterator[datetime]
    window_seconds: float
    due: datetime | None = None
    """The next scheduled time."""
    fires_at: datetime | None = None
    """When, within its flexible window, it really fires."""
    fired: int = field(default=0)

    def advance(self) -> None:
        """Go on to the next scheduled time, or to the end."""
        self.due = next(self.times, None)
        delay = timedelta(seconds=secrets.SystemRandom().uniform(0, self.window_seconds))
        self.fires_at = None if self.due is None else self.due + delay


class Scheduler:
    """The loop, and the schedules that it watches."""

    def __init__(self, engine: Engine) -> None:
        """Nothing runs until `start`."""
        self._engine = engine
        self._lock = threading.RLock()
        self._watches: dict[str, _Watch] = {}
        self._rules = ScheduledRules(engine)
        self._loop = Loop("scheduler", self.tick, _TICK_SECONDS)

    def start(self) -> None:
        """Look at all schedules twice a second."""
        self._loop.start()

    def close(self) -> None:
        """End the loop."""
        self._loop.close()

    def move_clock(self, instant: datetime | None) -> None:
        """Set the wall clock, or let it go right again (None); all that is due on the way has fired on return.

        Raises:
            ValueError: for a time without a time zone.
        """
        with self._lock:
            self.tick()
            before = self._engine.wall_clock.now()
            if instant is None:
                self._engine.wall_clock.reset()
            else:
                self._engine.wall_clock.move(instant)
            if self._engine.wall_clock.now() < before:
                self._watches.clear()
                self._rules.forget()
            self.tick()

    def describe(self) -> dict[str, Any]:
        """The wall clock, and when each schedule fires next."""
        with self._lock:
            self.tick()
            schedules = [
                {
                    "name": schedule.name,
                    "state": schedule.state,
                    "next": watch.due.isoformat() if (watch := self._watches.get(schedule.arn)) and watch.due else None,
                }
                for schedule in self._schedules()
            ]
            clock = self._engine.wall_clock
            return {
                "now": clock.now().isoformat(),
                "offset_seconds": round(clock.offset.total_seconds(), 3),
                "schedules": schedules,
                "rules": self._rules.describe(),
            }

    def tick(self) -> None:
        """Fire all that is due."""
        with self._lock:
            now = self._engine.wall_clock.now()
            schedules = self._schedules()
            enabled = {schedule.arn for schedule in schedules if schedule.state == "ENABLED"}
            for arn in self._watches.keys() - enabled:
                del self._watches[arn]
            for schedule in schedules:
                if schedule.arn in enabled:
                    self._consider(schedule, now)
            self._rules.tick(now)

    def _schedules(self) -> list[Schedule]:
        backend = scheduler_backends[self._engine.account_id][self._engine.region]
        return [
            schedule for group in list(backend.schedule_groups.values()) for schedule in list(group.schedules.values())
        ]

    def _consider(self, schedule: Schedule, now: datetime) -> None:
        settings = _settings(schedule)
        watch = self._watches.get(schedule.arn)
        if watch is None or watch.settings != settings:
            watch = self._watches[schedule.arn] = _watch(schedule, settings, now)
        while watch.due is not None and watch.fires_at is not None and watch.fires_at <= now:
            _log.info("Schedule %s fires for %s", schedule.name, watch.due.isoformat())
            event_targets.deliver(self._engine, _delivery(schedule, watch.due))
            watch.fired += 1
            watch.advance()
        if watch.due is None and watch.fired and schedule.action_after_completion == "DELETE":
            backend = scheduler_backends[self._engine.account_id][self._engine.region]
            backend.delete_schedule(schedule.group_name, schedule.name)
            del self._watches[schedule.arn]


def install(engine: Engine) -> None:
    """Check schedules when they are made, and fire them from now on."""

    def check(request: Mapping[str, Any]) -> None:
        try:
            schedule_times.parse(request["schedule_expression"], request.get("schedule_expression_timezone") or "UTC")
        except ValueError as error:
            raise ValidationException(str(error)) from None
        try:
            engine.identity.check_trust(request["target"]["RoleArn"], SERVICE)
        except AccessDenied:
            raise ValidationException(
                "The execution role you provide must allow AWS EventBridge Scheduler to assume the role."
            ) from None

    def create(backend: EventBridgeSchedulerBackend, **request: Any) -> Schedule:
        check(request)
        created: Schedule = _original_create(backend, **request)
        return created

    def update(backend: EventBridgeSchedulerBackend, **request: Any) -> Schedule:
        check(request)
        updated: Schedule = _original_update(backend, **request)
        updated.state = updated.state or "ENABLED"  # UpdateSchedule sets what is not given to its default
        return updated

    replace(EventBridgeSchedulerBackend, "create_schedule", create)
    replace(EventBridgeSchedulerBackend, "update_schedule", update)
    engine.scheduler = Scheduler(engine)
    engine.scheduler.start()


def _settings(schedule: Schedule) -> tuple[Any, ...]:
    window = schedule.flexible_time_window
    return (
        schedule.schedule_expression,
        schedule.schedule_expression_timezone,
        schedule.start_date,
        schedule.end_date,
        window.get("Mode"),
        window.get("MaximumWindowInMinutes"),
    )


def _watch(schedule: Schedule, settings: tuple[Any, ...], now: datetime) -> _Watch:
    """Count anew: a rate without a start date begins at once, all others at their next time."""
    parsed = schedule_times.parse(schedule.schedule_expression, schedule.schedule_expression_timezone or "UTC")
    start, end = _instant(schedule.start_date), _instant(schedule.end_date)
    after = now
    if parsed.kind == "rate" and start is None:
        start, after = now, now - _INSTANT
    window = schedule.flexible_time_window
    minutes = int(window.get("MaximumWindowInMinutes") or 0) if window.get("Mode") == "FLEXIBLE" else 0
    watch = _Watch(settings, parsed.times(after, start, end), minutes * 60.0)
    watch.advance()
    return watch


def _instant(value: Any) -> datetime | None:
    """A date as moto keeps it, seconds since 1970."""
    return None if value is None else datetime.fromtimestamp(float(value), UTC)


def _delivery(schedule: Schedule, due: datetime) -> Delivery:
    target, execution_id = schedule.target, str(uuid.uuid4())
    policy = target.get("RetryPolicy", {})
    scheduled = due.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    text = str(target.get("Input") or "{}")

    def payload(attempt: int) -> str:
        filled = text
        for name, value in (
            ("schedule-arn", schedule.arn),
            ("scheduled-time", scheduled),
            ("execution-id", execution_id),
            ("attempt-number", str(attempt)),
        ):
            filled = filled.replace(f"<aws.scheduler.{name}>", value)
        return filled

    return Delivery(
        service=SERVICE,
        source_arn=schedule.arn,
        target_arn=target["Arn"],
        role_arn=target["RoleArn"],
        payload=payload,
        maximum_retries=int(policy.get("MaximumRetryAttempts", event_targets.DEFAULT_ATTEMPTS)),
        maximum_age_seconds=float(policy.get("MaximumEventAgeInSeconds", event_targets.DEFAULT_AGE_SECONDS)),
        message_group_id=target.get("SqsParameters", {}).get("MessageGroupId"),
        dead_letter_arn=target.get("DeadLetterConfig", {}).get("Arn"),
        dead_letter_body=text,
        dead_letter_attributes={
            "SCHEDULE_ARN": schedule.arn,
            "SCHEDULED_TIME": scheduled,
            "EXECUTION_ID": execution_id,
            "IS_PAYLOAD_TRUNCATED": "false",
        },
    )
