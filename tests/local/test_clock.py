from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from workflow.local.clock import Clock, WallClock


def test_an_aws_wait_is_divided_by_the_time_scale() -> None:
    assert Clock(time_scale=30).scaled(300) == 10


def test_a_time_scale_of_one_is_real_time() -> None:
    assert Clock(time_scale=1).scaled(7.5) == 7.5


@pytest.mark.parametrize("time_scale", [0, -1, 0.5, float("nan")])
def test_a_time_scale_that_lengthens_or_stops_time_is_refused(time_scale: float) -> None:
    with pytest.raises(ValueError, match="Invalid time_scale"):
        Clock(time_scale=time_scale)


def test_sleep_takes_the_scaled_time() -> None:
    started = time.monotonic()
    Clock(time_scale=1000).sleep(50)
    assert 0.05 <= time.monotonic() - started < 1


def test_the_wall_clock_is_the_machines_until_it_is_moved() -> None:
    clock = WallClock()
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)
    christmas = datetime(2031, 12, 24, 18, tzinfo=timezone(timedelta(hours=1)))
    clock.move(christmas)
    assert timedelta(0) <= clock.now() - christmas < timedelta(seconds=5)
    clock.reset()
    assert clock.offset == timedelta(0)


def test_a_wall_clock_wants_to_know_the_time_zone() -> None:
    with pytest.raises(ValueError, match="with a time zone"):
        WallClock().move(datetime(2031, 12, 24))
