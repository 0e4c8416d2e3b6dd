"""The loop of schedules and scaling."""

from __future__ import annotations

import threading

import pytest

from workflow.local.loop import Loop


def test_it_ticks_until_it_is_closed_and_a_failing_tick_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    ticks: list[int] = []
    enough = threading.Event()

    def tick() -> None:
        ticks.append(len(ticks))
        if len(ticks) == 3:
            enough.set()
        if len(ticks) == 1:
            raise ValueError("the first one")

    loop = Loop("dogs", tick, 0.001)
    loop.start()
    assert enough.wait(10)
    loop.close()
    after = len(ticks)
    enough.clear()
    assert not enough.wait(0.05)
    assert len(ticks) == after
    assert "The loop dogs failed" in caplog.text


def test_it_can_be_closed_before_it_was_started() -> None:
    Loop("dogs", lambda: None, 0.001).close()
