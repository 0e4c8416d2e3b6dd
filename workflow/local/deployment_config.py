"""UpdateEndpoint's DeploymentConfig: what it allows, and the steps that it means. Pure: no servers, no clock.

Source: SageMaker developer guide, "Deployment guardrails" (blue/green, canary, linear, auto-rollback), and the ranges
of botocore 1.44.5, Nov 2026.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moto.sagemaker.exceptions import ValidationError

HOOKS: tuple[str, ...] = ("moto.sagemaker.exceptions.ValidationError",)

_MAX_WAIT_SECONDS = 3600
_EXECUTION_SECONDS = (600, 28_800)
_LINEAR_SHARES = (0.1, 0.5)
_MAX_CANARY_SHARE = 0.5


@dataclass(frozen=True)
class UpdatePolicy:
    """How traffic moves to the new fleet; times in AWS seconds."""

    shares: tuple[float, ...] = (1.0,)
    """The new fleet's share of the traffic after each step; the last one is 1."""
    bake_seconds: float = 0.0
    """How long the alarms are watched after every step."""
    termination_wait_seconds: float = 0.0
    """How long the old fleet stands by after the last bake."""
    maximum_execution_seconds: float = math.inf
    alarms: tuple[str, ...] = ()

    @property
    def waiting_seconds(self) -> float:
        """All waits together."""
        return len(self.shares) * self.bake_seconds + self.termination_wait_seconds

    @classmethod
    def of(cls, config: Mapping[str, Any] | None, counts: Mapping[str, int]) -> UpdatePolicy:
        """From a DeploymentConfig (None: all at once, no bake) and the new instance count of every variant.

        Raises:
            ValidationError: as AWS would refuse it, or for a rolling update, which the local cloud lacks.
        """
        if not config:
            return cls()
        if config.get("RollingUpdatePolicy"):
            raise ValidationError("The local cloud serves BlueGreenUpdatePolicy, not RollingUpdatePolicy.")
        alarms = tuple(
            alarm["AlarmName"] for alarm in (config.get("AutoRollbackConfiguration") or {}).get("Alarms") or ()
        )
        blue_green = config.get("BlueGreenUpdatePolicy")
        if not blue_green:
            return cls(alarms=alarms)
        routing = blue_green["TrafficRoutingConfiguration"]
        policy = cls(
            _shares(routing, counts),
            _seconds("WaitIntervalInSeconds", routing.get("WaitIntervalInSeconds", 0), 0, _MAX_WAIT_SECONDS),
            _seconds("TerminationWaitInSeconds", blue_green.get("TerminationWaitInSeconds", 0), 0, _MAX_WAIT_SECONDS),
            _execution_seconds(blue_green.get("MaximumExecutionTimeoutInSeconds")),
            alarms,
        )
        if policy.maximum_execution_seconds <= policy.waiting_seconds:
            raise ValidationError(
                f"MaximumExecutionTimeoutInSeconds ({policy.maximum_execution_seconds:g}) must be larger than the "
                f"total waiting time of the deployment ({policy.waiting_seconds:g})."
            )
        return policy


def _shares(routing: Mapping[str, Any], counts: Mapping[str, int]) -> tuple[float, ...]:
    kind = routing["Type"]
    if kind == "ALL_AT_ONCE":
        return (1.0,)
    if kind == "CANARY":
        return (_share("CanarySize", routing.get("CanarySize"), counts, 0.0, _MAX_CANARY_SHARE), 1.0)
    if kind == "LINEAR":
        step = _share("LinearStepSize", routing.get("LinearStepSize"), counts, *_LINEAR_SHARES)
        steps = math.ceil(1 / step - 1e-9)
        return (*(step * number for number in range(1, steps)), 1.0)
    raise ValidationError(f"Invalid TrafficRoutingConfiguration Type {kind!r}, expected ALL_AT_ONCE, CANARY or LINEAR.")


def _share(name: str, size: Mapping[str, Any] | None, counts: Mapping[str, int], low: float, high: float) -> float:
    """The share that a CapacitySize is of every variant, by the smallest one where variants differ.

    One instance has no half: a fleet of one is refused (inferred from the limit of 50 %, no source says it).
    """
    if not size:
        raise ValidationError(f"{name} is required for this traffic routing type.")
    variant, count = min(counts.items(), key=lambda item: item[1])
    by_count = size["Type"] == "INSTANCE_COUNT"
    share = float(size["Value"]) / (count if by_count else 100)
    if count < 2 or not low <= share <= high:
        limits = f"{low:.0%} to {high:.0%}" if low else f"at most {high:.0%}"
        unit = "instance(s)" if by_count else "%"
        raise ValidationError(
            f"Invalid {name} of {size['Value']} {unit} for variant {variant} with {count} instance(s): it must be "
            f"{limits} of the variant's total instance count."
        )
    return share


def _seconds(name: str, value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise ValidationError(f"Invalid {name} {value}, expected {low:g} to {high:g}.")
    return float(value)


def _execution_seconds(value: float | None) -> float:
    return math.inf if value is None else _seconds("MaximumExecutionTimeoutInSeconds", value, *_EXECUTION_SECONDS)
