"""The local cloud's sense of time: how AWS's waits become short ones on a laptop, and what time of day it is."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

TIME_SCALE_HEADER = "x-kelpie-time-scale"
"""Response header that carries the factor; AWS does not send it, which means 1."""


@dataclass(frozen=True)
class Clock:
    """Divides Wait states, retry intervals, cooldowns, metric periods and bake times by `time_scale`.

    Never use it for the timeout of real work: a training job is not faster here than its processor is.
    """

    time_scale: float

    def __post_init__(self) -> None:
        """Refuse a factor that would lengthen time or stop it.

        Raises:
            ValueError: if `time_scale` is below 1.
        """
        if not self.time_scale >= 1:
            raise ValueError(f"Invalid time_scale {self.time_scale!r}, expected a number of 1 or more")

    def scaled(self, aws_seconds: float) -> float:
        """Return the local seconds that stand for `aws_seconds`."""
        return aws_seconds / self.time_scale

    def sleep(self, aws_seconds: float) -> None:
        """Sleep for the local equivalent of `aws_seconds`."""
        time.sleep(self.scaled(aws_seconds))


class WallClock:
    """The time of day that schedules go by: the machine's own, which is never scaled, until somebody moves it.

    Moving it moves schedules only. What the services write as dates (of executions, objects, logs) stays real.
    """

    def __init__(self) -> None:
        """It goes right."""
        self._lock = threading.Lock()
        self._offset = timedelta(0)

    def now(self) -> datetime:
        """The time, in UTC."""
        with self._lock:
            return datetime.now(UTC) + self._offset

    @property
    def offset(self) -> timedelta:
        """By how much it is ahead of the machine's."""
        with self._lock:
            return self._offset

    def move(self, instant: datetime) -> None:
        """Set it; it goes on from there.

        Raises:
            ValueError: if `instant` does not say in which time zone it is.
        """
        if instant.tzinfo is None:
            raise ValueError(
                f"Invalid time {instant.isoformat()!r}, expected one with a time zone: 2026-12-24T18:00:00Z"
            )
        with self._lock:
            self._offset = instant - datetime.now(UTC)

    def reset(self) -> None:
        """Let it go right again."""
        with self._lock:
            self._offset = timedelta(0)
