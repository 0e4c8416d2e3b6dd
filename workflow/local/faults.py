"""Faults that somebody asked the local cloud to produce, and that the engines take up when their moment comes.

Only the request is kept here; what a fault does belongs to the engine that takes it (a spot interruption is
carried out by `training_jobs`).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any


@dataclass
class SpotInterruption:
    """One reclaim of the spot instances of a managed-spot training job.

    after_checkpoints: it happens once this many checkpoint files of the running attempt are in S3.
    notice_seconds: real seconds between SIGTERM and SIGKILL.
    """

    after_checkpoints: int = 1
    notice_seconds: float = 2.0


@dataclass
class Faults:
    """The faults still to come. Safe to use from any thread."""

    _spot_interruptions: list[SpotInterruption] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def interrupt_spot(self, after_checkpoints: int = 1, count: int = 1, notice_seconds: float = 2.0) -> None:
        """Ask for `count` interruptions of the managed-spot job that runs now, or of the next one.

        Raises:
            ValueError: a negative or senseless number.
        """
        if after_checkpoints < 0 or count < 1 or not 0 <= notice_seconds <= 120:
            raise ValueError(
                f"Invalid spot interruption (after_checkpoints={after_checkpoints}, count={count}, "
                f"notice_seconds={notice_seconds}), expected after_checkpoints >= 0, count >= 1 and "
                "notice_seconds between 0 and 120"
            )
        with self._lock:
            self._spot_interruptions += [SpotInterruption(after_checkpoints, notice_seconds) for _ in range(count)]

    def take_spot_interruption(self, checkpoints: int) -> SpotInterruption | None:
        """The next interruption if its moment has come, given the checkpoints of this attempt; else None."""
        with self._lock:
            if self._spot_interruptions and self._spot_interruptions[0].after_checkpoints <= checkpoints:
                return self._spot_interruptions.pop(0)
            return None

    def pending(self) -> dict[str, Any]:
        """What is still to come, for the status page."""
        with self._lock:
            return {"spot_interruptions": len(self._spot_interruptions)}


def install(engine: Any) -> Faults:
    """Give the engine its `faults` if it has none, and return them."""
    if getattr(engine, "faults", None) is None:
        engine.faults = Faults()
    faults: Faults = engine.faults
    return faults
