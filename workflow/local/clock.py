"""The local cloud's sense of time: how AWS's waits become short ones on a laptop."""

from __future__ import annotations

import time
from dataclasses import dataclass

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
