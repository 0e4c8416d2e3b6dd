"""Data points read back from CloudWatch, minute by scaled minute.

moto keeps every data point that was put and aggregates in real time only; the local cloud's minutes are shorter.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any

from moto.cloudwatch.models import MetricAggregatedDatum, cloudwatch_backends

from workflow.local.engine import Engine

HOOKS: tuple[str, ...] = (
    "moto.cloudwatch.models.CloudWatchBackend.metric_data",
    "moto.cloudwatch.models.MetricAggregatedDatum",
    "moto.cloudwatch.models.cloudwatch_backends",
)

STATISTICS = ("Average", "Maximum", "Minimum", "SampleCount", "Sum")


def complete_periods(
    engine: Engine,
    namespace: str,
    name: str,
    dimensions: Mapping[str, str],
    statistic: str,
    period_aws_seconds: float,
    count: int,
) -> list[float | None]:
    """The metric's values in the last `count` complete periods, oldest first; None where there are no data."""
    period = engine.clock.scaled(period_aws_seconds)
    running = int(time.time() // period)
    found: dict[int, list[Any]] = {}
    for datum in reversed(list(cloudwatch_backends[engine.account_id][engine.region].metric_data)):
        index = int(datum.timestamp.replace(tzinfo=UTC).timestamp() // period)
        if index < running - count:
            break
        if (
            datum.name == name
            and datum.namespace == namespace
            and {each.name: each.value for each in datum.dimensions} == dimensions
        ):
            found.setdefault(index, []).append(datum)
    return [
        _statistic(statistic, found[index]) if index in found else None for index in range(running - count, running)
    ]


def _statistic(statistic: str, data: Sequence[Any]) -> float:
    """One statistic over data that may be single values or sets of statistics."""
    sets = [
        (each.sum, each.min, each.max, each.sample_count)
        if isinstance(each, MetricAggregatedDatum)
        else (each.value, each.value, each.value, 1.0)
        for each in data
    ]
    total, count = sum(each[0] for each in sets), sum(each[3] for each in sets)
    return float(
        {
            "Sum": total,
            "SampleCount": count,
            "Average": total / count if count else 0.0,
            "Minimum": min(each[1] for each in sets),
            "Maximum": max(each[2] for each in sets),
        }[statistic]
    )
