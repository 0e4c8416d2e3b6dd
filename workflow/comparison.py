"""What differs between two executions: their settings, data and code, and how their models did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workflow import executions
from workflow.account import Account
from workflow.summary import summarize

_MEASURES = (
    "status",
    "test_accuracy",
    "champion_test_accuracy",
    "smoke_test_accuracy",
    "interruptions",
    "training_seconds",
    "billable_seconds",
    "seconds_total",
    "cost_usd",
)


@dataclass(frozen=True)
class Difference:
    """One row: what it is called, and the values of both executions (None where one never got so far)."""

    name: str
    first: Any
    second: Any


@dataclass(frozen=True)
class Comparison:
    """`settings` holds only what differs; `measures` holds every measure."""

    settings: tuple[Difference, ...]
    measures: tuple[Difference, ...]


def compare(account: Account, first_arn: str, second_arn: str) -> Comparison:
    """Read two executions and set them side by side."""
    both = [executions.describe(account, arn) for arn in (first_arn, second_arn)]
    inputs = [dict(_flat(_what_it_ran_with(account, one))) for one in both]
    results = [_measures(summarize(account, one)) for one in both]
    names = list(dict.fromkeys(name for one in inputs for name in one))
    return Comparison(
        settings=tuple(
            Difference(name, inputs[0].get(name), inputs[1].get(name))
            for name in names
            if inputs[0].get(name) != inputs[1].get(name)
        ),
        measures=tuple(Difference(name, results[0][name], results[1][name]) for name in _MEASURES),
    )


def _what_it_ran_with(account: Account, execution: executions.Execution) -> dict[str, Any]:
    state = execution.data
    data = state.get("data", {})
    found: dict[str, Any] = {"settings": state.get("settings", {})}
    found["data"] = {key: data.get(key) for key in ("manifest_sha256", "image_count", "class_count")}
    if execution.training_job:
        job = account.client("sagemaker").describe_training_job(TrainingJobName=execution.training_job)
        channels = {channel["ChannelName"]: channel for channel in job.get("InputDataConfig", [])}
        for name in ("code", "weights"):
            found[name] = channels.get(name, {}).get("DataSource", {}).get("S3DataSource", {}).get("S3Uri")
    return found


def _measures(summary: dict[str, Any]) -> dict[str, Any]:
    smoke = summary["predictions"]
    right = [one["label"] == one["predicted"] for one in smoke]
    return {
        **{name: summary.get(name) for name in _MEASURES},
        "smoke_test_accuracy": round(sum(right) / len(right), 4) if right else None,
        "cost_usd": summary["cost_usd_estimate"]["total"],
    }


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        name = f"{prefix}{key}".removeprefix("settings.")
        if isinstance(inner, dict):
            yield from _flat(inner, f"{name}.")
        else:
            yield name, inner
