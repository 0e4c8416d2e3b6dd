"""CloudWatch alarms, evaluated: moto keeps alarms and data points, and never looks from one to the other.

Periods are scaled. What an alarm watches here is one metric with a plain statistic; composite alarms, metric math and
percentiles are left in the state that they are in, and `check_watchable` says so to who wants to rely on them.

Source: CloudWatch user guide, "Configuring how CloudWatch alarms treat missing data", Nov 2026.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from moto.cloudwatch.models import cloudwatch_backends
from moto.sagemaker.exceptions import ValidationError

from workflow.local import metrics
from workflow.local.engine import Engine

HOOKS: tuple[str, ...] = (
    *metrics.HOOKS,
    "moto.cloudwatch.models.Alarm.state_value",
    "moto.cloudwatch.models.CloudWatchBackend.alarms",
    "moto.cloudwatch.models.CloudWatchBackend.set_alarm_state",
)

RANGE_BEYOND_PERIODS = 2
"""CloudWatch looks further back than the evaluation periods when data are missing; by two in the guide's examples."""

_COMPARISONS = {
    "GreaterThanOrEqualToThreshold": (operator.ge, "greater than or equal to"),
    "GreaterThanThreshold": (operator.gt, "greater than"),
    "LessThanThreshold": (operator.lt, "less than"),
    "LessThanOrEqualToThreshold": (operator.le, "less than or equal to"),
}


def evaluate_all(engine: Engine) -> None:
    """Give every alarm that can be evaluated its state of this moment."""
    backend = cloudwatch_backends[engine.account_id][engine.region]
    for alarm in list(backend.alarms.values()):
        if not _is_watchable(alarm):
            continue
        needed = int(alarm.evaluation_periods)
        values = metrics.complete_periods(
            engine,
            alarm.namespace,
            alarm.metric_name,
            {str(each.name): str(each.value) for each in alarm.dimensions},
            alarm.statistic,
            float(alarm.period),
            needed + RANGE_BEYOND_PERIODS,
        )
        compare, words = _COMPARISONS[alarm.comparison_operator]
        threshold = float(alarm.threshold)
        state = next_state(
            alarm.state_value,
            [None if value is None else compare(value, threshold) for value in values],
            needed,
            int(alarm.datapoints_to_alarm or needed),
            alarm.treat_missing_data or "missing",
        )
        if state != alarm.state_value:
            seen = [value for value in values if value is not None]
            reason = f"{alarm.statistic} {alarm.metric_name} {seen}, alarm when {words} {threshold}"
            backend.set_alarm_state(alarm.name, reason, json.dumps({"recentDatapoints": seen}), state)


def next_state(
    state: str, breaching: Sequence[bool | None], evaluation_periods: int, datapoints_to_alarm: int, missing: str
) -> str:
    """The state that follows from whether each period of the range was breaching (None: no data), oldest first."""
    real = [each for each in breaching if each is not None][-evaluation_periods:]
    bad, filled = sum(real), evaluation_periods - len(real)
    if missing == "breaching":
        return "ALARM" if bad + filled >= datapoints_to_alarm else "OK"
    if bad >= datapoints_to_alarm:
        return "ALARM"
    if missing == "notBreaching" or bad + filled < datapoints_to_alarm:
        return "OK"
    if missing == "ignore":
        return state
    if not real:
        return "INSUFFICIENT_DATA"
    return "ALARM" if bad == len(real) else "OK"


def check_watchable(engine: Engine, names: Iterable[str]) -> None:
    """Refuse alarms that a deployment cannot watch.

    Raises:
        ValidationError: naming those that do not exist, or that the local cloud cannot evaluate.
    """
    known: Mapping[str, Any] = cloudwatch_backends[engine.account_id][engine.region].alarms
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValidationError(f"Could not find CloudWatch alarm(s) {', '.join(unknown)}.")
    unwatchable = [name for name in names if not _is_watchable(known[name])]
    if unwatchable:
        raise ValidationError(
            f"The local cloud cannot evaluate CloudWatch alarm(s) {', '.join(unwatchable)}: expected one metric with "
            f"a statistic of {', '.join(metrics.STATISTICS)}."
        )


def _is_watchable(alarm: Any) -> bool:
    return (
        not alarm.rule
        and not alarm.metric_data_queries
        and alarm.statistic in metrics.STATISTICS
        and alarm.comparison_operator in _COMPARISONS
    )
