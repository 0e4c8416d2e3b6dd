"""When schedules fire: AWS's documented dialect, and a second reading of it that looks at every minute."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow.schedule_times import next_times, parse

SUNDAY = datetime(2026, 11, 22, tzinfo=UTC)


def shown(expression: str, count: int = 3, zone: str = "UTC", after: datetime = SUNDAY) -> list[str]:
    return [instant.isoformat(timespec="minutes") for instant in next_times(expression, zone, after, count)]


@pytest.mark.parametrize(
    ("expression", "first"),
    [
        # The table "Examples" of AWS's cron expressions reference.
        ("cron(0 10 * * ? *)", ["2026-11-22T10:00", "2026-11-23T10:00", "2026-11-24T10:00"]),
        ("cron(15 12 * * ? *)", ["2026-11-22T12:15", "2026-11-23T12:15", "2026-11-24T12:15"]),
        ("cron(0 18 ? * MON-FRI *)", ["2026-11-23T18:00", "2026-11-24T18:00", "2026-11-25T18:00"]),
        ("cron(0 8 1 * ? *)", ["2026-12-01T08:00", "2027-01-01T08:00", "2027-02-01T08:00"]),
        ("cron(0/15 * * * ? *)", ["2026-11-22T00:15", "2026-11-22T00:30", "2026-11-22T00:45"]),
        ("cron(0/10 * ? * MON-FRI *)", ["2026-11-23T00:00", "2026-11-23T00:10", "2026-11-23T00:20"]),
        ("cron(0/5 8-17 ? * MON-FRI *)", ["2026-11-23T08:00", "2026-11-23T08:05", "2026-11-23T08:10"]),
        ("cron(0/30 20-2 ? * MON-FRI *)", ["2026-11-23T00:00", "2026-11-23T00:30", "2026-11-23T01:00"]),
        # Its wildcards.
        ("cron(0 0 ? * 3#2 *)", ["2026-12-08T00:00", "2027-01-12T00:00", "2027-02-09T00:00"]),
        ("cron(0 0 L * ? *)", ["2026-11-30T00:00", "2026-12-31T00:00", "2027-01-31T00:00"]),
        ("cron(0 0 ? * L *)", ["2026-11-28T00:00", "2026-12-05T00:00", "2026-12-12T00:00"]),
        ("cron(0 0 ? * 6L *)", ["2026-11-27T00:00", "2026-12-25T00:00", "2027-01-29T00:00"]),
        ("cron(0 0 3W * ? *)", ["2026-12-03T00:00", "2027-01-04T00:00", "2027-02-03T00:00"]),
        ("cron(0 0 1 JAN,jul ? *)", ["2027-01-01T00:00", "2027-07-01T00:00", "2028-01-01T00:00"]),
        ("cron(0 0 1 1 ? 2030-2031)", ["2030-01-01T00:00", "2031-01-01T00:00"]),
        ("cron(0  10 *  * ? *)", ["2026-11-22T10:00", "2026-11-23T10:00", "2026-11-24T10:00"]),
        # Days that come seldom.
        ("cron(0 3 29 2 ? *)", ["2028-02-29T03:00", "2032-02-29T03:00", "2036-02-29T03:00"]),
        ("cron(0 3 29 2 ? 2097-2199)", ["2104-02-29T03:00", "2108-02-29T03:00", "2112-02-29T03:00"]),
        ("cron(0 0 ? 2 7#5 *)", ["2048-02-29T00:00", "2076-02-29T00:00", "2116-02-29T00:00"]),
        ("cron(0 0 30 2 ? *)", []),
        ("cron(0 0 1 1 ? 2000)", []),
    ],
)
def test_cron_means_what_aws_documents(expression: str, first: list[str]) -> None:
    assert shown(expression) == [f"{time}+00:00" for time in first]


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        ("cron(0 10 * * *)", "5 fields, expected six"),
        ("cron(0 10 * * * *)", "day-of-week"),
        ("cron(0 10 ? * ? *)", "day-of-week"),
        ("cron(60 10 * * ? *)", "minute"),
        ("cron(0 24 * * ? *)", "hour"),
        ("cron(0 10 ? * 0 *)", "day-of-week"),
        ("cron(0 10 ? * 3#1,6#3 *)", "day-of-week"),
        ("cron(0 10 ? * 3/2 *)", "day-of-week"),
        ("cron(0 10 LW * ? *)", "LW"),
        ("cron(0/0 10 * * ? *)", "increment of 0"),
        ("cron(0 10 * * ? 1969)", "year"),
        ("rate(0 hours)", "rate(6 hours)"),
        ("rate(5 weeks)", "minutes, hours or days"),
        ("rate(1.5 hours)", "whole number"),
        ("rate(99999999999999 days)", "at most"),
        ("at(2026-13-01T00:00:00)", "at(YYYY-MM-DDTHH:MM:SS)"),
        ("at(2026-12-01 00:00:00)", "at(YYYY-MM-DDTHH:MM:SS)"),
        ("every day", "rate(VALUE UNIT)"),
        ("", "rate(VALUE UNIT)"),
    ],
)
def test_what_is_no_expression_is_refused_by_name(expression: str, named: str) -> None:
    with pytest.raises(ValueError, match="Invalid") as refused:
        parse(expression)
    assert named in str(refused.value)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", "", "Europe"])
def test_a_time_zone_that_is_none_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="expected an IANA name"):
        parse("rate(1 hour)", zone)


def test_a_time_that_the_clocks_jump_over_is_left_out() -> None:
    """AWS's own example: 2:30 in Los Angeles, when 1:59 is followed by 3:00."""
    times = shown("cron(30 2 * * ? *)", 3, "America/Los_Angeles", datetime(2027, 3, 13, 0, tzinfo=UTC))
    assert times == ["2027-03-13T02:30-08:00", "2027-03-15T02:30-07:00", "2027-03-16T02:30-07:00"]


def test_a_time_that_the_clocks_pass_twice_counts_once_and_before_the_shift() -> None:
    times = shown("cron(30 1 * * ? *)", 3, "America/Los_Angeles", datetime(2027, 11, 6, 0, tzinfo=UTC))
    assert times == ["2027-11-06T01:30-07:00", "2027-11-07T01:30-07:00", "2027-11-08T01:30-08:00"]


def test_asking_in_the_repeated_hour_does_not_bring_a_time_again() -> None:
    between = datetime(2027, 11, 7, 9, 0, tzinfo=UTC)  # 1:00 for the second time
    assert shown("cron(30 1 * * ? *)", 1, "America/Los_Angeles", between) == ["2027-11-08T01:30-08:00"]


def test_a_rate_of_days_is_of_24_hours_across_a_shift() -> None:
    start = datetime(2027, 3, 13, 12, tzinfo=ZoneInfo("America/New_York"))
    times = next_times("rate(1 day)", "America/New_York", start, 2, start=start)
    assert [time.hour for time in times] == [13, 13]


def test_a_rate_counts_from_its_start_and_begins_with_it() -> None:
    start = datetime(2027, 1, 1, 0, 7, tzinfo=UTC)
    assert shown_from(start, SUNDAY) == ["2027-01-01T00:07", "2027-01-01T06:07"]
    assert shown_from(start, start) == ["2027-01-01T06:07", "2027-01-01T12:07"]
    assert shown_from(start, start + timedelta(days=1, minutes=1)) == ["2027-01-02T06:07", "2027-01-02T12:07"]


def shown_from(start: datetime, after: datetime) -> list[str]:
    return [t.strftime("%Y-%m-%dT%H:%M") for t in next_times("rate(6 hours)", "UTC", after, 2, start=start)]


def test_a_schedule_keeps_to_its_start_and_its_end() -> None:
    start, end = datetime(2026, 12, 24, 10, tzinfo=UTC), datetime(2026, 12, 26, 10, tzinfo=UTC)
    times = next_times("cron(0 10 * * ? *)", "UTC", SUNDAY, 9, start=start, end=end)
    assert [time.day for time in times] == [24, 25, 26]


@pytest.mark.parametrize(
    ("zone", "expected"), [("Europe/Berlin", ["2026-12-24T18:00+01:00"]), ("UTC", ["2026-12-24T18:00+00:00"])]
)
def test_a_one_time_schedule_fires_once_in_its_zone(zone: str, expected: list[str]) -> None:
    assert shown("at(2026-12-24T18:00:00)", 3, zone) == expected
    assert shown("at(2026-12-24T18:00:00)", 3, zone, datetime(2027, 1, 1, tzinfo=UTC)) == []


# ---- A second reading of the dialect, minute by minute ----------------------------------------------------------

NAMES = {name: number for number, name in enumerate(["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"], 1)}
numbers = {"minute": (0, 59), "hour": (0, 23), "month": (1, 12), "day": (1, 31), "weekday": (1, 7)}


@st.composite
def fields(draw: st.DrawFn, kind: str) -> str:
    low, high = numbers[kind]
    value = st.integers(low, high)
    forms = [st.just("*"), value.map(str), st.lists(value, min_size=1, max_size=3).map(lambda v: ",".join(map(str, v)))]
    forms.append(st.tuples(value, value).map(lambda pair: f"{min(pair)}-{max(pair)}"))
    if kind != "weekday":
        forms.append(st.tuples(value, st.integers(1, high)).map(lambda pair: f"{pair[0]}/{pair[1]}"))
    else:
        forms.append(st.sampled_from(sorted(NAMES)))
        forms.append(st.tuples(value, st.integers(1, 5)).map(lambda pair: f"{pair[0]}#{pair[1]}"))
        forms.append(value.map(lambda day: f"{day}L"))
        forms.append(st.just("L"))
    if kind == "day":
        forms += [st.just("L"), value.map(lambda day: f"{day}W")]
    return draw(st.one_of(forms))


@st.composite
def crons(draw: st.DrawFn) -> tuple[str, str, str, str, str]:
    minute, hour, month = (draw(fields(kind)) for kind in ("minute", "hour", "month"))
    if draw(st.booleans()):
        return minute, hour, draw(fields("day")), month, "?"
    return minute, hour, "?", month, draw(fields("weekday"))


def member(field: str, value: int, low: int, high: int) -> bool:
    for part in field.split(","):
        range_text, _, step = part.partition("/")
        first, _, last = range_text.partition("-")
        if first == "*":
            begin, end = low, high
        else:
            begin = int(NAMES.get(first, first))
            end = int(NAMES.get(last, last)) if last else high if step else begin
        if value in range(begin, end + 1, int(step or 1)):
            return True
    return False


def nearest_weekday(year: int, month: int, day: int) -> int | None:
    last = calendar.monthrange(year, month)[1]
    if day > last:
        return None
    candidates = [d for d in range(1, last + 1) if calendar.weekday(year, month, d) < 5]
    return min(candidates, key=lambda d: (abs(d - day), -d if abs(d - day) == 1 else d))


def falls_on(day_field: str, weekday_field: str, date: datetime) -> bool:
    last = calendar.monthrange(date.year, date.month)[1]
    weekday = date.isoweekday() % 7 + 1
    if weekday_field == "?":
        if day_field == "L":
            return date.day == last
        if day_field.endswith("W"):
            return date.day == nearest_weekday(date.year, date.month, int(day_field[:-1]))
        return member(day_field, date.day, 1, 31)
    if weekday_field == "L":
        return weekday == 7
    if weekday_field.endswith("L"):
        return weekday == int(weekday_field[:-1]) and date.day + 7 > last
    if "#" in weekday_field:
        wanted, number = map(int, weekday_field.split("#"))
        return weekday == wanted and (date.day - 1) // 7 + 1 == number
    return member(weekday_field, weekday, 1, 7)


@settings(deadline=None, max_examples=80)
@given(crons(), st.datetimes(datetime(2026, 1, 1), datetime(2030, 1, 1)))
def test_the_next_time_is_the_first_minute_that_matches(cron: tuple[str, str, str, str, str], moment: datetime) -> None:
    """Day by day for 40 days, then by the hour and minute: nothing that matches is left out, nothing else comes."""
    minute, hour, day, month, weekday = cron
    after = moment.replace(tzinfo=UTC)
    horizon = after + timedelta(days=40)
    expected: list[datetime] = []
    date = after.replace(hour=0, minute=0, second=0, microsecond=0)
    hours = [h for h in range(24) if member(hour, h, 0, 23)]
    minutes = [m for m in range(60) if member(minute, m, 0, 59)]
    while date < horizon and len(expected) < 5:
        if member(month, date.month, 1, 12) and falls_on(day, weekday, date):
            of_day = [date.replace(hour=h, minute=m) for h in hours for m in minutes]
            expected += [instant for instant in of_day if after < instant < horizon]
        date += timedelta(days=1)
    times = next_times(f"cron({minute} {hour} {day} {month} {weekday} *)", "UTC", after, 5)
    assert [time for time in times if time < horizon] == expected[:5]


@settings(deadline=None, max_examples=50)
@given(
    st.sampled_from(["Europe/Berlin", "America/Los_Angeles", "Australia/Lord_Howe", "Africa/Cairo", "UTC"]),
    st.datetimes(datetime(2026, 1, 1), datetime(2028, 1, 1)),
    st.integers(0, 59),
    st.integers(0, 23),
)
def test_in_any_zone_times_come_in_order_at_their_time_of_day(
    zone: str, moment: datetime, minute: int, hour: int
) -> None:
    after = moment.replace(tzinfo=UTC)
    times = next_times(f"cron({minute} {hour} * * ? *)", zone, after, 4)
    assert all((time.hour, time.minute) == (hour, minute) for time in times)
    instants = [time.astimezone(UTC) for time in times]
    assert after < instants[0]
    assert all(earlier < later for earlier, later in pairwise(instants))
    assert len({time.date() for time in times}) == 4
