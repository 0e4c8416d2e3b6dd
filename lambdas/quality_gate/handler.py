"""Decide whether a trained model may be deployed.

Environment: none of its own.
IAM: none beyond its log group.
Timeout 15 s, memory 128 MB.

Event: {"training_job": DescribeTrainingJob's output, "gate": {"min_test_accuracy", "max_regression"}}.
Returns {"passed", "reason", "test_accuracy", "champion_test_accuracy", "comparable"}.
Errors: InvalidGate (the event is not what the definition sends; never retried).

Two rules: the accuracy on the test pictures reaches the threshold, and it is not worse than the champion's
on the same pictures by more than the tolerance. Where there is no champion to compare with, the threshold
decides alone. A missing or impossible metric never passes.

SageMaker keeps final metrics as 32-bit floats, so what training printed as 0.9 may arrive as
0.8999999761581421. Every number that went through such a float is read back as the shortest decimal that
stands for it, and decimals are compared.
Source: SageMaker API reference, MetricData.Value, type Float (service model of botocore 1.44.5, read
2026-11-21).
"""

from __future__ import annotations

import struct
from decimal import Decimal
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger(service="quality-gate")

TEST_ACCURACY = "test:accuracy"
CHAMPION_TEST_ACCURACY = "champion:test_accuracy"


class InvalidGate(Exception):
    """The event lacks the training job or a threshold between 0 and 1."""


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Return the gate's verdict.

    Raises:
        InvalidGate: the event is malformed.
    """
    given = event if isinstance(event, dict) else {}
    training_job, gate = given.get("training_job"), given.get("gate")
    if not isinstance(training_job, dict) or not isinstance(gate, dict):
        raise InvalidGate("Invalid event: expected the objects 'training_job' and 'gate'; deploy the stack again.")
    verdict = decide(training_job, _threshold(gate, "min_test_accuracy"), _threshold(gate, "max_regression"))
    logger.info("gate decided", extra=verdict)
    return verdict


def decide(training_job: dict[str, Any], min_test_accuracy: Decimal, max_regression: Decimal) -> dict[str, Any]:
    """Compare the job's metrics with the thresholds (all of them shares between 0 and 1)."""
    test = _metric(training_job, TEST_ACCURACY)
    champion = _metric(training_job, CHAMPION_TEST_ACCURACY)
    name = training_job.get("TrainingJobName", "the training job")
    if test is None:
        passed, reason = False, f"{name} reported no usable metric '{TEST_ACCURACY}'; without it no model passes"
    elif test < min_test_accuracy:
        passed, reason = False, f"test accuracy {test} is below gate.min_test_accuracy {min_test_accuracy}"
    elif champion is None:
        passed = True
        reason = (
            f"test accuracy {test} reaches gate.min_test_accuracy {min_test_accuracy}; "
            "not comparable with a champion, because none was scored on the same pictures"
        )
    elif test < champion - max_regression:
        passed = False
        reason = (
            f"test accuracy {test} is worse than the champion's {champion} on the same pictures "
            f"by more than gate.max_regression {max_regression}"
        )
    else:
        passed = True
        reason = (
            f"test accuracy {test} reaches gate.min_test_accuracy {min_test_accuracy} and the champion's "
            f"{champion} within gate.max_regression {max_regression}"
        )
    return {
        "passed": passed,
        "reason": reason,
        "test_accuracy": None if test is None else float(test),
        "champion_test_accuracy": None if champion is None else float(champion),
        "comparable": test is not None and champion is not None,
    }


def shortest_decimal(value: float) -> Decimal:
    """Return the decimal with the fewest digits that is the same 32-bit float as `value`, which lies within its range.

    Nine significant digits always tell two 32-bit floats apart, so the loop ends.
    """
    target = struct.pack("<f", value)
    (single,) = struct.unpack("<f", target)
    text = ""
    for digits in range(1, 10):
        text = f"{single:.{digits}g}"
        if struct.pack("<f", float(text)) == target:
            break
    return Decimal(text)


def _metric(training_job: dict[str, Any], name: str) -> Decimal | None:
    """Return the share reported under `name`, or None where it is missing or no share at all."""
    reported = training_job.get("FinalMetricDataList")
    for metric in reported if isinstance(reported, list) else []:
        if isinstance(metric, dict) and metric.get("MetricName") == name:
            return _share(metric.get("Value"))
    return None


def _threshold(gate: dict[str, Any], key: str) -> Decimal:
    share = _share(gate.get(key))
    if share is None:
        raise InvalidGate(
            f"Invalid gate.{key} {str(gate.get(key))[:80]!r}: expected a number from 0 to 1. "
            "Correct it in kelpie.toml or in the execution's input."
        )
    return share


def _share(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return shortest_decimal(value) if 0 <= value <= 1 else None
