"""Rows, ratios and files of results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmark_results import table, write

from benchmarks.record import RecordError, Row, newest, percentile, read


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds() -> None:
    measured = table()
    # 50/10, 60/20, 150/30: not the ratio of the medians, 60/20.
    assert measured.times(measured.row("new"), "old") == 5.0


def test_with_other_numbers_of_rounds_the_medians_are_compared() -> None:
    measured = table(rows=(Row("old", (10.0,)), Row("new", (50.0, 70.0, 60.0))))
    assert measured.times(measured.row("new"), "old") == 6.0


def test_where_less_is_better_the_ratio_turns_round() -> None:
    measured = table(better="lower", rows=(Row("old", (10.0,)), Row("new", (2.0,), limit=1.0)))
    assert measured.times(measured.row("new"), "old") == 5.0
    assert measured.share_of_limit(measured.row("new")) == 0.5


def test_the_share_of_the_limit_is_the_median_s() -> None:
    measured = table()
    assert measured.share_of_limit(measured.row("new")) == 60.0 / 80.0
    assert measured.share_of_limit(measured.row("old")) is None


def test_what_was_not_measured_has_no_ratio() -> None:
    measured = table()
    assert measured.times(measured.row("absent"), "old") is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: Row("neither values nor a reason"),
        lambda: Row("both", (1.0,), missing="a reason"),
        lambda: Row("no number", (float("nan"),)),
        lambda: table(baselines=("stranger",)),
        lambda: table(headlines=("stranger",)),
        lambda: table(rows=(Row("old", (1.0,)), Row("old", (2.0,)))),
        lambda: table(better="bigger"),
    ],
)
def test_what_does_not_fit_together_is_refused(make: object) -> None:
    with pytest.raises(RecordError):
        make()  # type: ignore[operator]


def test_a_result_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = write(tmp_path)
    result = read(path)
    assert path.name == "2026-11-22-100000-serving.json"
    assert result.tables == (table(),)
    assert result.write(tmp_path / "again").read_bytes() == path.read_bytes()


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 0}))
    with pytest.raises(RecordError, match="format version 0"):
        read(path)


def test_the_newest_result_that_is_no_smoke_test_counts(tmp_path: Path) -> None:
    write(tmp_path, started="2026-11-21T10:00:00+00:00")
    write(tmp_path, started="2026-11-22T10:00:00+00:00")
    write(tmp_path, started="2026-11-23T10:00:00+00:00", quick=True)
    found = newest("serving", tmp_path)
    assert found is not None
    assert found.started.startswith("2026-11-22")
    assert newest("training", tmp_path) is None


def test_a_percentile_is_a_value_that_occurred() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50.0, 95.0, 99.0, 100.0]
    assert percentile([7.0], 0.99) == 7.0
    with pytest.raises(RecordError):
        percentile([], 0.5)
