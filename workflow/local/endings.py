"""What has ended, so that whoever waits for it knows at once."""

from __future__ import annotations

import threading


class Endings:
    """Training jobs that have ended, by name; safe to use from any thread."""

    def __init__(self) -> None:
        """Nothing has ended."""
        self._changed = threading.Condition()
        self._ended: set[str] = set()

    def announce(self, name: str) -> None:
        """It has ended."""
        with self._changed:
            self._ended.add(name)
            self._changed.notify_all()

    def wait(self, name: str, timeout_seconds: float) -> None:
        """Return when it has ended, or after this time."""
        with self._changed:
            self._changed.wait_for(lambda: name in self._ended, timeout_seconds)
