"""The cost model: what an execution cost, and what its endpoint costs while it waits for requests.

The price table, `prices.json`, is dated and names its source; a price that nobody could check is `unverified`. Prices
that `kelpie preflight --aws` has read from AWS's price list lie in a file of the project folder and take their place.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

SECONDS_PER_HOUR = 3600
HOURS_PER_MONTH = 730
MOST_TRANSITIONS = 3000
"""More states than any execution can enter, all waiting included; a test counts them in the definition."""


@dataclass(frozen=True)
class Prices:
    """The price table. Amounts are USD; `source` is a document, or `unverified`."""

    as_of: str
    source: str
    region: str
    usd_per_instance_hour: dict[str, dict[str, float]]
    usd_per_state_transition: float
    usd_per_unit: dict[str, float]

    def instance_hour(self, use: Literal["training", "hosting"], instance_type: str) -> float | None:
        """USD for one hour of one instance, or None when the table does not list the type."""
        return self.usd_per_instance_hour[use].get(instance_type)


@dataclass(frozen=True)
class Cost:
    """What one execution cost, in USD. A part is None when a price is not in the table."""

    training_usd: float | None
    transitions_usd: float
    endpoint_usd_per_month: float | None
    spot_saving_percent: float | None
    prices_as_of: str
    prices_source: str

    @property
    def total_usd(self) -> float | None:
        """Training and state transitions; the endpoint is a monthly figure of its own."""
        return None if self.training_usd is None else self.training_usd + self.transitions_usd


def refreshed_file() -> Path:
    """Where prices that were read from AWS lie: `$KELPIE_HOME/prices.json`, else `.kelpie/prices.json`."""
    return Path(os.environ.get("KELPIE_HOME") or ".kelpie") / "prices.json"


def load_prices() -> Prices:
    """The table that ships with Kelpie, with the prices that were read from AWS since, if any, in place of its own.

    A refreshed table holds the prices of one Region; what it lacks is of the table that ships with Kelpie.
    """
    shipped = shipped_prices()
    try:
        read = json.loads(refreshed_file().read_text(encoding="utf-8"))
        hours = {
            use: {**shipped.usd_per_instance_hour[use], **read["usd_per_instance_hour"].get(use, {})}
            for use in shipped.usd_per_instance_hour
        }
        return replace(
            shipped,
            as_of=str(read["as_of"]),
            source=str(read["source"]),
            region=str(read["region"]),
            usd_per_instance_hour=hours,
            usd_per_state_transition=float(read.get("usd_per_state_transition", shipped.usd_per_state_transition)),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or not one of ours
        return shipped


@cache
def shipped_prices() -> Prices:
    """The table that ships with Kelpie."""
    table = json.loads((Path(__file__).parent / "prices.json").read_text(encoding="utf-8"))
    table.pop("note")
    return Prices(**table)


@dataclass(frozen=True)
class Estimate:
    """What an execution can cost at most before it starts, in USD. A part is None when a price is not in the table."""

    training_usd: float | None
    transitions_usd: float
    endpoint_usd_per_month_from: float | None
    endpoint_usd_per_month_to: float | None
    prices_as_of: str
    prices_source: str

    @property
    def total_usd(self) -> float | None:
        """Training and state transitions; the endpoint is a monthly figure of its own."""
        return None if self.training_usd is None else self.training_usd + self.transitions_usd


def estimate(
    *,
    training_instance_type: str,
    training_instance_count: int,
    max_runtime_seconds: int,
    managed_spot: bool,
    hosting_instance_type: str,
    min_instance_count: int,
    max_instance_count: int,
    prices: Prices | None = None,
) -> Estimate:
    """The most that an execution with these settings can cost, at on-demand prices.

    A spot job that ran to its limit and was then stopped for lack of capacity is followed by an on-demand job of the
    same limit, so with managed spot the limit counts twice. What spot capacity saves is known afterwards only.
    `prices` of None takes the current ones.
    """
    prices = prices or load_prices()
    training_hour = prices.instance_hour("training", training_instance_type)
    hosting_hour = prices.instance_hour("hosting", hosting_instance_type)
    seconds = max_runtime_seconds * (2 if managed_spot else 1)

    def month(count: int) -> float | None:
        return None if hosting_hour is None else hosting_hour * count * HOURS_PER_MONTH

    return Estimate(
        training_usd=(
            None if training_hour is None else training_hour * training_instance_count * seconds / SECONDS_PER_HOUR
        ),
        transitions_usd=prices.usd_per_state_transition * MOST_TRANSITIONS,
        endpoint_usd_per_month_from=month(min_instance_count),
        endpoint_usd_per_month_to=month(max_instance_count),
        prices_as_of=prices.as_of,
        prices_source=prices.source,
    )


def execution_cost(
    *,
    training_instance_type: str,
    training_instance_count: int,
    training_seconds: int,
    billable_seconds: int,
    state_transitions: int,
    hosting_instance_type: str,
    hosting_instance_count: int,
) -> Cost:
    """Price an execution from its measured seconds.

    `billable_seconds` is DescribeTrainingJob's BillableTimeInSeconds, which is per instance: the charge is
    BillableTimeInSeconds x InstanceCount, and the managed-spot saving is (1 - billable / training) x 100, in which
    the number of instances cancels out. Source: botocore 1.44.5, DescribeTrainingJobResponse documentation.
    """
    prices = load_prices()
    training_hour = prices.instance_hour("training", training_instance_type)
    hosting_hour = prices.instance_hour("hosting", hosting_instance_type)
    return Cost(
        training_usd=(
            None
            if training_hour is None
            else training_hour * training_instance_count * billable_seconds / SECONDS_PER_HOUR
        ),
        transitions_usd=prices.usd_per_state_transition * state_transitions,
        endpoint_usd_per_month=(
            None if hosting_hour is None else hosting_hour * hosting_instance_count * HOURS_PER_MONTH
        ),
        spot_saving_percent=(None if training_seconds == 0 else (1 - billable_seconds / training_seconds) * 100),
        prices_as_of=prices.as_of,
        prices_source=prices.source,
    )
