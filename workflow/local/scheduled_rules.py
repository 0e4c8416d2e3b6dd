"""Rules of the default bus with a schedule expression: what moto keeps of them, fired by the wall clock.

A rate begins to count when the rule is there and enabled; cron expressions are in UTC. A clock that is moved past
several times of a rule fires it once: what looks around every few minutes would otherwise do so hundreds of times at
once. Schedules of EventBridge Scheduler fire each time (scheduler.py).

Source: EventBridge user guide, "Creating a scheduled rule" and "Scheduled events", Nov 2026.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from moto.events.models import Rule, events_backends

from workflow import schedule_times
from workflow.local import event_bus

if TYPE_CHECKING:
    from workflow.local.engine import Engine

HOOKS: tuple[str, ...] = ("moto.events.models.Rule", "moto.events.models.events_backends")

_log = logging.getLogger(__name__)


@dataclass
class _Watch:
    """What is known of one enabled rule."""

    expression: str
    times: Iterator[datetime]
    due: datetime | None
    """The next time."""


class ScheduledRules:
    """Knows when each rule is due. Not safe to use from several threads: the scheduler's lock is held."""

    def __init__(self, engine: Engine) -> None:
        """No rule is known yet."""
        self._engine = engine
        self._watches: dict[str, _Watch] = {}

    def forget(self) -> None:
        """Count anew, because the clock was set back."""
        self._watches.clear()

    def tick(self, now: datetime) -> None:
        """Fire what is due."""
        rules = {rule.arn: rule for rule in self._rules() if rule.state == "ENABLED"}
        for arn in self._watches.keys() - rules.keys():
            del self._watches[arn]
        for arn, rule in rules.items():
            watch = self._watches.get(arn)
            if watch is None or watch.expression != rule.scheduled_expression:
                times = schedule_times.parse(str(rule.scheduled_expression), "UTC").times(now)
                watch = self._watches[arn] = _Watch(str(rule.scheduled_expression), times, next(times, None))
            if watch.due is None or watch.due > now:
                continue
            while watch.due is not None and watch.due <= now:
                watch.due = next(watch.times, None)
            _log.info("Rule %s fires", rule.name)
            event_bus.fire(self._engine, rule)

    def describe(self) -> list[dict[str, Any]]:
        """Each rule, and when it fires next."""
        return [
            {
                "name": rule.name,
                "state": rule.state,
                "next": watch.due.isoformat() if (watch := self._watches.get(rule.arn)) and watch.due else None,
            }
            for rule in self._rules()
        ]

    def _rules(self) -> list[Rule]:
        bus = events_backends[self._engine.account_id][self._engine.region].event_buses["default"]
        return [rule for rule in list(bus.rules.values()) if rule.scheduled_expression]
