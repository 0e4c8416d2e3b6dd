"""When a schedule fires: EventBridge Scheduler's expressions, rate(), cron() and at(), as instants.

Pure: no AWS, no clock. `kelpie schedule` shows what it returns, and the local cloud fires by it. The cron dialect is
parsed by aws-croniter; docs/decisions/0009-aws-cron-library.md says why, and what is added to it here.

Source: EventBridge Scheduler user guide, "Schedule types in EventBridge Scheduler", and EventBridge user guide, "Cron
expressions reference", Nov 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from aws_croniter import AwsCroniter  # type: ignore[import-untyped]

LAST_YEAR = 2199
"""The last year of AWS's cron expressions."""
_FIELDS = "minutes hours day-of-month month day-of-week year"
_UNITS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(hours=24)}
_FORMS = "rate(VALUE UNIT), cron(MINUTES HOURS DAY-OF-MONTH MONTH DAY-OF-WEEK YEAR) or at(YYYY-MM-DDTHH:MM:SS)"
_LONGEST_RATE_DAYS = 365_000


@dataclass(frozen=True)
class Schedule:
    """A schedule expression in its time zone."""

    expression: str
    time_zone: ZoneInfo
    kind: Literal["rate", "cron", "at"]
    period: timedelta | None = None
    """Of a rate."""
    _cron: AwsCroniter | None = None
    _at: datetime | None = None

    def times(self, after: datetime, start: datetime | None = None, end: datetime | None = None) -> Iterator[datetime]:
        """The instants strictly after `after`, in the schedule's time zone, from `start` to `end` (both included).

        A rate counts from `start`, and has its first instant there; without one it counts from `after`. A time of day
        that the clocks jump over is left out; one that they pass twice counts the first time only.
        """
        for instant in self._all(after, start):
            if end is not None and instant > end:
                return
            if instant > after and (start is None or instant >= start):
                yield instant.astimezone(self.time_zone)

    def _all(self, after: datetime, start: datetime | None) -> Iterator[datetime]:
        """Instants in order, some perhaps before the wanted range."""
        if self.period is not None:
            anchor = start if start is not None else after
            elapsed = max((after - anchor) // self.period, 0)
            instant = anchor.astimezone(UTC) + elapsed * self.period
            while instant.year <= LAST_YEAR:
                yield instant
                instant += self.period
        elif self._at is not None:
            yield from self._instant(self._at)
        else:
            begin = max(after, start) if start is not None else after
            # A whole day earlier: the local time of day may stand still or go back in between.
            for local in self._local_cron_times(begin.astimezone(self.time_zone).replace(tzinfo=None)):
                yield from self._instant(local)

    def _local_cron_times(self, begin: datetime) -> Iterator[datetime]:
        """Times of day without a zone, from a day before `begin` on, in order.

        The library gives up after ten steps through months without a day that fits, so it is asked again from the
        next new year on.
        """
        assert self._cron is not None
        cursor = max(begin - timedelta(days=1), datetime(1970, 1, 1)).replace(second=0, microsecond=0, tzinfo=UTC)
        while cursor.year <= LAST_YEAR:
            found = self._cron.get_next(cursor, inclusive=True)[0]
            if found is None:
                cursor = datetime(cursor.year + 1, 1, 1, tzinfo=UTC)
            else:
                yield found.replace(tzinfo=None)
                cursor = found + timedelta(minutes=1)

    def _instant(self, local: datetime) -> Iterator[datetime]:
        """The instant of a local time: none when the clocks jump over it, the first when they pass it twice."""
        instant = local.replace(tzinfo=self.time_zone, fold=0)
        if instant.astimezone(UTC).astimezone(self.time_zone).replace(tzinfo=None) == local:
            yield instant


def parse(expression: str, time_zone: str = "UTC") -> Schedule:
    """Read a schedule expression in an IANA time zone such as "Europe/Berlin".

    Raises:
        ValueError: naming what is wrong and what is allowed.
    """
    try:
        zone = ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"Invalid time zone {time_zone!r}, expected an IANA name such as Europe/Berlin") from None
    match = re.fullmatch(r"(rate|cron|at)\((.*)\)", expression)
    if match is None:
        raise ValueError(f"Invalid schedule expression {expression!r}, expected {_FORMS}")
    kind, text = match.groups()
    if kind == "rate":
        return Schedule(expression, zone, "rate", period=_rate(expression, text))
    if kind == "at":
        return Schedule(expression, zone, "at", _at=_one_time(expression, text))
    return Schedule(expression, zone, "cron", _cron=_cron(expression, text))


def next_times(
    expression: str,
    time_zone: str,
    after: datetime,
    count: int,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
) -> list[datetime]:
    """The next `count` instants strictly after `after`, in `time_zone`; fewer when the schedule ends before.

    `after`, `start` and `end` know their own time zones. See `Schedule.times`.

    Raises:
        ValueError: for an expression or a time zone that is none.
    """
    return list(islice(parse(expression, time_zone).times(after, start, end), count))


def _rate(expression: str, text: str) -> timedelta:
    match = re.fullmatch(r"([1-9][0-9]*) +(minute|hour|day)s?", text)
    if match is None:
        raise ValueError(
            f"Invalid rate {expression!r}, expected a whole number of 1 or more and minutes, hours or days, as in "
            "rate(6 hours)"
        )
    unit = _UNITS[match[2]]
    if int(match[1]) * unit.total_seconds() > _LONGEST_RATE_DAYS * 86_400:
        raise ValueError(f"Invalid rate {expression!r}, expected at most {_LONGEST_RATE_DAYS} days")
    return int(match[1]) * unit


def _one_time(expression: str, text: str) -> datetime:
    if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", text):
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
    raise ValueError(f"Invalid one-time expression {expression!r}, expected at(YYYY-MM-DDTHH:MM:SS)")


def _cron(expression: str, text: str) -> AwsCroniter:
    fields = text.split()
    if len(fields) != 6:
        raise ValueError(
            f"Invalid cron expression {expression!r}: {len(fields)} fields, expected six: {_FIELDS} (AWS's dialect "
            "has a year and no seconds)"
        )
    if fields[4] == "L":
        fields[4] = "7"  # "the last day of the week"; the library would look for a day that never comes
    if fields[2] == "LW":
        raise ValueError(f"Invalid cron expression {expression!r}: LW is not in AWS's documented dialect")
    if any(re.search(r"/0+(,|$)", field) for field in fields):
        raise ValueError(f"Invalid cron expression {expression!r}: an increment of 0, expected 1 or more")
    try:
        return AwsCroniter(" ".join(fields))
    except ValueError as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"Invalid cron expression {expression!r}: {reason}; expected {_FIELDS}") from None
