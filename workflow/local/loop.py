"""A loop in a thread of its own: the schedules and the scaling of the local cloud run in one each."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_CLOSE_SECONDS = 5.0
_log = logging.getLogger(__name__)


class Loop:
    """Calls `tick` again and again until it is closed; one that fails is logged, and the next one comes anyway."""

    def __init__(self, name: str, tick: Callable[[], None], interval_seconds: float) -> None:
        """Nothing runs until `start`."""
        self._name = name
        self._tick = tick
        self._interval_seconds = interval_seconds
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """The first tick comes after one interval."""
        self._thread.start()

    def close(self) -> None:
        """End it, and wait for the tick that may be under way."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout=_CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._closing.wait(self._interval_seconds):
            try:
                self._tick()
            except Exception:
                _log.exception("The loop %s failed", self._name)
