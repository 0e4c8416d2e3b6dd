from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.quality_gate.handler import InvalidGate, handler

shares = st.floats(0, 1)


def as_float32(value: float) -> float:
    """What SageMaker makes of a metric."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def a_training_job(**metrics: Any) -> dict[str, Any]:
    names = {"test": "test:accuracy", "champion": "champion:test_accuracy"}
    return {
        "TrainingJobName": "kelpie-1-0",
        "FinalMetricDataList": [
            {"MetricName": names[key], "Value": value, "Timestamp": 1} for key, value in metrics.items()
        ],
    }


def verdict(context: Any, job: Any, min_test_accuracy: Any = 0.9, max_regression: Any = 0.02) -> dict[str, Any]:
    gate = {"min_test_accuracy": min_test_accuracy, "max_regression": max_regression}
    result = handler({"training_job": job, "gate": gate}, context)
    assert isinstance(result, dict)
    return result


class NoContext:
    function_name = memory_limit_in_mb = invoked_function_arn = aws_request_id = "x"


def test_a_model_at_the_threshold_passes_although_its_metric_is_a_32_bit_float(context: Any) -> None:
    assert as_float32(0.9) != 0.9
    result = verdict(context, a_training_job(test=as_float32(0.9)))
    assert result["passed"]
    assert result["test_accuracy"] == 0.9


@given(shares)
def test_every_threshold_is_reached_by_the_same_number_as_a_32_bit_float(threshold: float) -> None:
    assert verdict(NoContext(), a_training_job(test=as_float32(threshold)), threshold)["passed"]


@given(st.integers(1, 1500), st.integers(1, 1500), st.floats(0, 1))
def test_a_model_passes_exactly_if_its_share_of_right_answers_reaches_the_threshold(
    right: int, count: int, threshold: float
) -> None:
    accuracy = min(right, count) / count
    passed = verdict(NoContext(), a_training_job(test=as_float32(accuracy)), threshold)["passed"]
    assert passed == (as_float32(accuracy) >= as_float32(threshold))


def test_a_model_below_the_threshold_is_refused_with_both_numbers(context: Any) -> None:
    result = verdict(context, a_training_job(test=as_float32(0.893)))
    assert not result["passed"]
    assert "0.893" in result["reason"]
    assert "gate.min_test_accuracy 0.9" in result["reason"]


def test_a_regression_of_exactly_the_tolerance_passes(context: Any) -> None:
    job = a_training_job(test=as_float32(0.9), champion=as_float32(0.92))
    result = verdict(context, job)
    assert result["passed"]
    assert result["comparable"]
    assert result["champion_test_accuracy"] == 0.92


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000))
def test_the_tolerance_is_applied_exactly(test: int, champion: int, tolerance: int) -> None:
    job = a_training_job(test=as_float32(test / 1000), champion=as_float32(champion / 1000))
    assert verdict(NoContext(), job, 0, tolerance / 1000)["passed"] == (test >= champion - tolerance)


def test_a_model_worse_than_the_champion_is_refused_with_both_numbers(context: Any) -> None:
    result = verdict(context, a_training_job(test=as_float32(0.92), champion=as_float32(0.97)))
    assert not result["passed"]
    assert "0.92" in result["reason"]
    assert "0.97" in result["reason"]


def test_without_a_champion_the_threshold_decides_and_the_reason_says_so(context: Any) -> None:
    result = verdict(context, a_training_job(test=0.95))
    assert result["passed"]
    assert not result["comparable"]
    assert result["champion_test_accuracy"] is None
    assert "not comparable" in result["reason"]


@pytest.mark.parametrize(
    "job",
    [
        {},
        {"FinalMetricDataList": None},
        {"FinalMetricDataList": []},
        {"FinalMetricDataList": ["test:accuracy"]},
        a_training_job(champion=0.5),
        a_training_job(test=None),
        a_training_job(test="0.99"),
        a_training_job(test=True),
        a_training_job(test=float("nan")),
        a_training_job(test=float("inf")),
        a_training_job(test=93.0),
        a_training_job(test=10**400),
    ],
)
def test_a_missing_or_impossible_metric_never_passes(job: dict[str, Any], context: Any) -> None:
    result = verdict(context, job, min_test_accuracy=0, max_regression=1)
    assert not result["passed"]
    assert "test:accuracy" in result["reason"]


@pytest.mark.parametrize("threshold", [None, "0.9", 1.1, -0.1, True])
def test_a_threshold_that_is_no_share_is_an_error_that_names_it(threshold: Any, context: Any) -> None:
    with pytest.raises(InvalidGate, match=r"gate\.min_test_accuracy"):
        verdict(context, a_training_job(test=1.0), min_test_accuracy=threshold)
