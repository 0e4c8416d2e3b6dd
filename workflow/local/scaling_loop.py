"""The loop that does what AWS's target tracking does, in scaled time.

It reads targets and policies from moto and data points from CloudWatch, lets target_tracking.py choose a count, and
changes it through the endpoint's own API.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from moto.applicationautoscaling.models import ApplicationAutoscalingBackend, applicationautoscaling_backends
from moto.core.utils import utcnow
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.models import sagemaker_backends

from workflow.local import metrics
from workflow.local.engine import Engine
from workflow.local.loop import Loop
from workflow.local.target_tracking import Capacity, Policy, Since, decide

HOOKS: tuple[str, ...] = (
    *metrics.HOOKS,
    "moto.applicationautoscaling.models.applicationautoscaling_backends",
    "moto.applicationautoscaling.models.ApplicationAutoscalingBackend.describe_scalable_targets",
    "moto.core.utils.utcnow",
    "moto.sagemaker.models.sagemaker_backends",
)

NAMESPACE = "sagemaker"
DIMENSION = "sagemaker:variant:DesiredInstanceCount"
PERIOD_AWS_SECONDS = 60.0
"""Source: SageMaker developer guide, "Define a scaling policy", Nov 2026: invocations per instance and minute."""

_TICKS_PER_PERIOD = 4
_KEPT_PERIODS = 20

_log = logging.getLogger(__name__)


@dataclass
class _Watch:
    """What the loop remembers of one scalable target; times are monotonic."""

    scaled_out_at: float | None = None
    scaled_in_at: float | None = None
    activities: list[dict[str, Any]] = field(default_factory=list)


class AutoScaler:
    """The loop, and the activities that it has carried out."""

    def __init__(self, engine: Engine) -> None:
        """Nothing runs until `start`."""
        self._engine = engine
        self._lock = threading.Lock()
        self._watches: dict[str, _Watch] = {}
        interval_seconds = engine.clock.scaled(PERIOD_AWS_SECONDS) / _TICKS_PER_PERIOD
        self._loop = Loop("autoscaling", self.tick, interval_seconds)

    def start(self) -> None:
        """Look at all targets several times each scaled minute."""
        self._loop.start()

    def close(self) -> None:
        """End the loop."""
        self._loop.close()

    def activities(self, wanted_resource_id: str | None) -> list[dict[str, Any]]:
        """What DescribeScalingActivities returns, newest first."""
        with self._lock:
            found = [
                dict(activity)
                for key, watch in self._watches.items()
                if wanted_resource_id in (None, key)
                for activity in watch.activities
            ]
        return sorted(found, key=lambda activity: activity["StartTime"], reverse=True)

    def tick(self) -> None:
        """Look at every target once, and change what has to change."""
        backend = applicationautoscaling_backends[self._engine.account_id][self._engine.region]
        for target in backend.describe_scalable_targets(NAMESPACE, None, DIMENSION):
            endpoint = self._endpoint(target.resource_id)
            if endpoint is not None and endpoint.endpoint_status == "InService":
                self._consider(backend, target, endpoint)

    def _consider(self, backend: ApplicationAutoscalingBackend, target: Any, endpoint: Any) -> None:
        variant_name = target.resource_id.split("/")[3]
        variant = next((each for each in endpoint.production_variants if each["VariantName"] == variant_name), None)
        if variant is None:
            return
        with self._lock:
            watch = self._watches.setdefault(target.resource_id, _Watch())
            self._complete(watch)
        current = variant["DesiredInstanceCount"]
        policies = [
            policy
            for policy in list(backend.policies.values())
            if policy.resource_id == target.resource_id and policy.scalable_dimension == DIMENSION
        ]
        decision = decide(
            current,
            Capacity.of(target),
            [Policy.of(each.policy_name, each.target_tracking_scaling_policy_configuration) for each in policies],
            [self._points(each, endpoint.endpoint_name, variant_name) for each in policies],
            Since(self._aws_seconds_since(watch.scaled_out_at), self._aws_seconds_since(watch.scaled_in_at)),
        )
        if decision.count == current:
            return
        try:
            sagemaker_backends[self._engine.account_id][self._engine.region].update_endpoint_weights_and_capacities(
                endpoint_name=endpoint.endpoint_name,
                desired_weights_and_capacities=[{"VariantName": variant_name, "DesiredInstanceCount": decision.count}],
            )
        except ValidationError:  # an update has begun meanwhile; scaling is paused until it ends
            return
        with self._lock:
            if decision.count > current:
                watch.scaled_out_at = time.monotonic()
            else:
                watch.scaled_in_at = time.monotonic()
            watch.activities.append(_activity(target.resource_id, decision.count, decision.cause))

    def _points(self, policy: Any, endpoint_name: str, variant: str) -> list[float]:
        """The metric's values in the complete scaled minutes, oldest first; minutes without data are left out."""
        config = policy.target_tracking_scaling_policy_configuration or {}
        custom = config.get("CustomizedMetricSpecification") or {}
        namespace = custom.get("Namespace", "AWS/SageMaker")
        name = custom.get("MetricName", "InvocationsPerInstance")
        statistic = custom.get("Statistic", "Sum")
        wanted = custom.get("Dimensions") or [
            {"Name": "EndpointName", "Value": endpoint_name},
            {"Name": "VariantName", "Value": variant},
        ]
        values = metrics.complete_periods(
            self._engine,
            namespace,
            name,
            {each["Name"]: each["Value"] for each in wanted},
            statistic,
            PERIOD_AWS_SECONDS,
            _KEPT_PERIODS,
        )
        return [value for value in values if value is not None]

    def _aws_seconds_since(self, then: float | None) -> float | None:
        if then is None:
            return None
        return (time.monotonic() - then) / self._engine.clock.scaled(1.0)

    def _endpoint(self, wanted_resource_id: str) -> Any:
        name = wanted_resource_id.split("/")[1]
        return sagemaker_backends[self._engine.account_id][self._engine.region].endpoints.get(name)

    @staticmethod
    def _complete(watch: _Watch) -> None:
        """The endpoint is InService again: what was in progress has succeeded."""
        for activity in watch.activities:
            if activity["StatusCode"] == "InProgress":
                activity["StatusCode"] = "Successful"
                activity["StatusMessage"] = (
                    f"Successfully {activity['Description'].replace('Setting', 'set').rstrip('.')}. "
                    "Change successfully fulfilled by sagemaker."
                )
                activity["EndTime"] = utcnow()


def _activity(wanted: str, count: int, cause: str) -> dict[str, Any]:
    return {
        "ActivityId": secrets.token_hex(16),
        "ServiceNamespace": NAMESPACE,
        "ResourceId": wanted,
        "ScalableDimension": DIMENSION,
        "Description": f"Setting desired instance count to {count}.",
        "Cause": cause,
        "StartTime": utcnow(),
        "StatusCode": "InProgress",
    }
