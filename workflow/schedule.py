"""The schedule as it is in the account, when it fires next, and switching it on and off."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from workflow import schedule_times
from workflow.account import Account, flag
from workflow.deployment.cloudformation import CloudFormationStack, OnEvent, ignore
from workflow.errors import KelpieError

STATE_PARAMETER = "ScheduleState"


@dataclass(frozen=True)
class Schedule:
    """EventBridge Scheduler's schedule of a project."""

    name: str
    enabled: bool
    expression: str
    time_zone: str
    flexible_window_minutes: int
    """It may fire that much later; 0: on time."""
    start: datetime | None = None
    end: datetime | None = None

    def next_times(self, count: int, after: datetime | None = None) -> list[datetime]:
        """When it fires next, in its time zone; fewer than `count` when it ends before. Enabled or not."""
        now = after or datetime.now(UTC)
        return schedule_times.next_times(self.expression, self.time_zone, now, count, start=self.start, end=self.end)


def read(account: Account, name: str) -> Schedule:
    """The schedule of this name.

    Raises:
        KelpieError: the stack has none.
    """
    if not name:
        raise KelpieError(
            "The stack has no schedule",
            "It was deployed by an earlier version.",
            f"kelpie deploy{flag(account)}",
        )
    described = account.client("scheduler").get_schedule(Name=name)
    return Schedule(
        name=name,
        enabled=described["State"] == "ENABLED",
        expression=described["ScheduleExpression"],
        time_zone=described.get("ScheduleExpressionTimezone") or "UTC",
        flexible_window_minutes=described["FlexibleTimeWindow"].get("MaximumWindowInMinutes", 0),
        start=described.get("StartDate"),
        end=described.get("EndDate"),
    )


def switch(account: Account, project: str, *, enabled: bool, on_event: OnEvent = ignore) -> bool:
    """Switch it on or off; False when it was so already.

    It is an update of the stack with its own template, its own parameters and one other value, so that the stack goes
    on saying what is so.
    """
    stack = CloudFormationStack(account, project, on_event)
    if not stack.prepare():
        raise KelpieError(
            f"The stack {project} is not deployed in {account.region}", fix=f"kelpie deploy{flag(account)}"
        )
    given = [
        {"ParameterKey": name, "ParameterValue": "ENABLED" if enabled else "DISABLED"}
        if name == STATE_PARAMETER
        else {"ParameterKey": name, "UsePreviousValue": True}
        for name in stack.parameters()
    ]
    proposed = stack.propose(given, UsePreviousTemplate=True)
    if proposed is None:
        return False
    stack.execute(proposed)
    return True
