"""What has ended wakes whoever waits for it, before and after."""

from __future__ import annotations

import threading
import time

from workflow.local.endings import Endings


def test_an_ending_wakes_whoever_waits_for_it() -> None:
    endings = Endings()
    waiting = threading.Thread(target=endings.wait, args=("job", 60.0))
    waiting.start()
    endings.announce("another")
    waiting.join(0.1)
    assert waiting.is_alive()
    endings.announce("job")
    waiting.join(10)
    assert not waiting.is_alive()


def test_an_ending_before_the_wait_is_not_missed() -> None:
    endings = Endings()
    endings.announce("job")
    begun = time.monotonic()
    endings.wait("job", 60.0)
    assert time.monotonic() - begun < 30


def test_a_wait_ends_without_an_ending_too() -> None:
    Endings().wait("job", 0.01)
