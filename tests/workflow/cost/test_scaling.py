"""Training on more instances, on paper."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training import reading
from workflow.cost import scaling
from workflow.cost.scaling import Measured, Work, estimates, job_seconds, table, worthwhile

WORK = Work(picture_count=1600, epochs=2, batch_size=32)
MEASURED = Measured(
    start_seconds=10,
    end_seconds=20,
    seconds_per_picture=0.1,
    seconds_per_step=0.01,
    message_bytes=1000,
    latency_seconds=0.001,
    bytes_per_second=1e6,
)
MODES: tuple[scaling.Mode, ...] = ("features", "finetune")
numbers = st.floats(1e-4, 10)


def test_features_are_shared_out_and_the_head_is_not() -> None:
    # 30 s at both ends, 160 s of features, 100 steps of the head; then 100 messages of 2 ms, half of them to the other
    assert job_seconds("features", MEASURED, WORK, 1) == pytest.approx(30 + 160 + 1)
    assert job_seconds("features", MEASURED, WORK, 2) == pytest.approx(30 + 80 + 50 * 0.002 + 1)


def test_fine_tuning_goes_through_the_pictures_in_each_epoch_and_talks_in_each_step() -> None:
    assert job_seconds("finetune", MEASURED, WORK, 1) == pytest.approx(30 + 100 * (3.2 + 0.01))
    assert job_seconds("finetune", MEASURED, WORK, 8) == pytest.approx(30 + 100 * (0.4 + 0.01 + 7 * 0.002))


def test_time_costs_what_all_instances_cost() -> None:
    alone, two = estimates("features", MEASURED, WORK, usd_per_hour=3.6, instance_counts=(1, 2))
    assert (alone.usd, alone.efficiency) == (pytest.approx(0.191), 1)
    assert two.usd == pytest.approx(2 * two.seconds / 1000)
    assert two.efficiency == pytest.approx(191 / (2 * two.seconds))


def test_more_instances_stop_paying_where_the_rest_is_not_shared() -> None:
    def most(mode: scaling.Mode, measured: Measured, work: Work = WORK) -> int:
        return worthwhile(estimates(mode, measured, work, 1.0))

    # 160 s to share and 31 s not to: with 8, 51 s at 6 times the price of 191 s
    assert most("features", MEASURED) == 4
    assert most("features", MEASURED, replace(WORK, picture_count=100_000)) == 32
    assert most("features", MEASURED, replace(WORK, picture_count=32)) == 1
    assert most("finetune", replace(MEASURED, bytes_per_second=1e3)) == 1


def test_a_batch_is_not_shared_between_more_instances_than_it_has_pictures() -> None:
    found = estimates("finetune", MEASURED, replace(WORK, batch_size=8), 1.0)
    assert [one.instance_count for one in found] == [1, 2, 4, 8]


@given(*[numbers] * 6, st.integers(1, 10**6), st.integers(1, 100_000), st.sampled_from(MODES))
def test_no_estimate_is_better_than_perfect(
    start: float, end: float, picture: float, step: float, latency: float, rate: float, size: int, count: int,
    mode: scaling.Mode,
) -> None:  # fmt: skip
    measured = Measured(start, end, picture, step, size, latency, rate * 1e6)
    found = estimates(mode, measured, Work(count, 3, 32), 1.0)
    assert all(0 < one.efficiency <= 1 + 1e-9 for one in found)
    assert found[0].usd == pytest.approx(min(one.usd for one in found))
    assert worthwhile(found) in [one.instance_count for one in found]


def test_the_table_marks_the_most_that_pay() -> None:
    text = table(estimates("features", MEASURED, WORK, 3.6))
    assert "| 1 | 191 | 0.1910 | 100% | |\n" in text
    assert text.count("the most that pay") == 1
    assert "| 4 | 71 |" in text.split("the most that pay")[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [("latency_seconds", None), ("start_seconds", -1), ("message_bytes", "x"), ("bytes_per_second", 0)],
)
def test_measurements_that_make_no_sense_are_refused_by_name(key: str, value: object) -> None:
    document = {**vars(MEASURED), "more": "ignored"}
    assert Measured.from_json(document) == MEASURED
    with pytest.raises(ValueError, match=f"{key} must be"):
        Measured.from_json({**document, key: value})


def test_a_block_has_as_many_pictures_as_training_makes_of_it() -> None:
    assert scaling.BLOCK_PICTURES == reading.BLOCK
