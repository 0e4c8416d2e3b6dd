"""How target tracking chooses an instance count. Pure: numbers in, a number and its cause out.

Source: Application Auto Scaling user guide, "Target tracking scaling policies", and the alarms that it makes for
SageMaker variants, Nov 2026: three one-minute data points above the target scale out, fifteen below 90 % of it
scale in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

POINTS_TO_SCALE_OUT = 3
POINTS_TO_SCALE_IN = 15
SCALE_IN_SHARE = 0.9
DEFAULT_COOLDOWN_SECONDS = 300.0
"""Source: Application Auto Scaling API reference, TargetTrackingScalingPolicyConfiguration, Nov 2026."""


@dataclass(frozen=True)
class Capacity:
    """What a scalable target allows."""

    lowest: int
    highest: int
    may_scale_out: bool = True
    may_scale_in: bool = True

    @classmethod
    def of(cls, target: Any) -> Capacity:
        """From moto's scalable target."""
        suspended: Mapping[str, bool] = target.suspended_state or {}
        return cls(
            target.min_capacity,
            target.max_capacity,
            not suspended.get("DynamicScalingOutSuspended"),
            not suspended.get("DynamicScalingInSuspended"),
        )


@dataclass(frozen=True)
class Policy:
    """One target tracking policy; cooldowns in AWS seconds."""

    name: str
    target: float
    scale_out_cooldown: float = DEFAULT_COOLDOWN_SECONDS
    scale_in_cooldown: float = DEFAULT_COOLDOWN_SECONDS
    may_scale_in: bool = True

    @classmethod
    def of(cls, name: str, config: Mapping[str, Any] | None) -> Policy:
        """From a TargetTrackingScalingPolicyConfiguration."""
        config = config or {}
        return cls(
            name,
            float(config["TargetValue"]),
            float(config.get("ScaleOutCooldown", DEFAULT_COOLDOWN_SECONDS)),
            float(config.get("ScaleInCooldown", DEFAULT_COOLDOWN_SECONDS)),
            not config.get("DisableScaleIn"),
        )


@dataclass(frozen=True)
class Since:
    """AWS seconds since the last activity in each direction; None: there was none."""

    scaled_out: float | None = None
    scaled_in: float | None = None


@dataclass(frozen=True)
class Decision:
    """The instance count from now on, and why."""

    count: int
    cause: str


def decide(
    current: int,
    capacity: Capacity,
    policies: Sequence[Policy],
    points: Sequence[Sequence[float]],
    since: Since,
) -> Decision:
    """The count for a variant that has `current` instances.

    `points`: for each policy the values of its metric, one a minute, oldest first. Every policy wants a count, the
    highest one wins, so that one policy scales out and all of them have to agree to scale in.
    """
    if current < capacity.lowest:
        return Decision(capacity.lowest, "minimum capacity was set")
    if current > capacity.highest:
        return Decision(capacity.highest, "maximum capacity was set")
    wanted = [
        _wanted(current, capacity, policy, values, since) for policy, values in zip(policies, points, strict=True)
    ]
    if not wanted:
        return Decision(current, "")
    best = max(wanted, key=lambda decision: decision.count)
    return Decision(min(max(best.count, capacity.lowest), capacity.highest), best.cause)


def _wanted(current: int, capacity: Capacity, policy: Policy, points: Sequence[float], since: Since) -> Decision:
    recent = points[-POINTS_TO_SCALE_OUT:]
    if len(recent) == POINTS_TO_SCALE_OUT and min(recent) > policy.target:
        if capacity.may_scale_out and _is_over(since.scaled_out, policy.scale_out_cooldown):
            return Decision(math.ceil(current * recent[-1] / policy.target), _cause(policy, "High"))
        return Decision(current, "")
    long = points[-POINTS_TO_SCALE_IN:]
    if len(long) == POINTS_TO_SCALE_IN and max(long) < SCALE_IN_SHARE * policy.target:
        may = capacity.may_scale_in and policy.may_scale_in
        if may and _is_over(since.scaled_in, policy.scale_in_cooldown):
            # By the highest of the fifteen, so that what remains would have carried all of them.
            return Decision(math.ceil(current * max(long) / policy.target), _cause(policy, "Low"))
    return Decision(current, "")


def _is_over(seconds: float | None, cooldown: float) -> bool:
    return seconds is None or seconds >= cooldown


def _cause(policy: Policy, alarm: str) -> str:
    return f"monitor alarm TargetTracking-Alarm{alarm} in state ALARM triggered policy {policy.name}"
