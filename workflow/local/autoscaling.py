"""Application Auto Scaling for endpoints: its APIs with AWS's checks, and the loop behind them.

Targets and policies are moto's. What the loop does is in scaling_loop.py, how it chooses a count in
target_tracking.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import moto.applicationautoscaling.urls
from moto.applicationautoscaling.models import ApplicationAutoscalingBackend, applicationautoscaling_backends
from moto.applicationautoscaling.responses import ApplicationAutoScalingResponse
from moto.core.exceptions import JsonRESTError
from moto.core.responses import ActionResult
from moto.sagemaker.exceptions import ValidationError
from moto.sagemaker.models import sagemaker_backends

from workflow.local import scaling_loop
from workflow.local.deployment import VariantPlan
from workflow.local.engine import Engine
from workflow.local.scaling_loop import DIMENSION, NAMESPACE, AutoScaler

HOOKS: tuple[str, ...] = (
    *scaling_loop.HOOKS,
    "moto.applicationautoscaling.models.applicationautoscaling_backends",
    "moto.applicationautoscaling.models.ApplicationAutoscalingBackend.deregister_scalable_target",
    "moto.applicationautoscaling.models.ApplicationAutoscalingBackend.describe_scalable_targets",
    "moto.applicationautoscaling.responses.ApplicationAutoScalingResponse",
    "moto.applicationautoscaling.responses.ApplicationAutoScalingResponse.deregister_scalable_target",
    "moto.applicationautoscaling.responses.ApplicationAutoScalingResponse.put_scaling_policy",
    "moto.applicationautoscaling.responses.ApplicationAutoScalingResponse.register_scalable_target",
    "moto.applicationautoscaling.urls.url_paths",
)

PREDEFINED_METRIC = "SageMakerVariantInvocationsPerInstance"

_BURSTABLE = re.compile(r"ml\.t\d")


def resource_id(endpoint_name: str, variant: str) -> str:
    """The ResourceId of a production variant."""
    return f"endpoint/{endpoint_name}/variant/{variant}"


def check_update(
    engine: Engine, endpoint_name: str, old: Sequence[Mapping[str, Any]], plans: Sequence[VariantPlan]
) -> None:
    """Refuse an update that removes a variant with a scalable target, or changes its instance type.

    Source: SageMaker developer guide, "Update endpoints that use automatic scaling", Nov 2026.

    Raises:
        ValidationError: naming the variants.
    """
    targets = _backend(engine).targets.get(DIMENSION, {})
    new_types = {plan.name: plan.config.get("InstanceType") for plan in plans}
    blocked = sorted(
        variant["VariantName"]
        for variant in old
        if resource_id(endpoint_name, variant["VariantName"]) in targets
        and new_types.get(variant["VariantName"]) != variant.get("InstanceType")
    )
    if blocked:
        raise ValidationError(
            f'The variant(s) "{", ".join(blocked)}" must be deregistered as scalable targets with AutoScaling '
            "before they can be removed or have their instance type updated."
        )


def forget_endpoint(engine: Engine, endpoint_name: str) -> None:
    """Deregister the endpoint's scalable targets, as DeleteEndpoint does."""
    backend = _backend(engine)
    prefix = resource_id(endpoint_name, "")
    for target in backend.describe_scalable_targets(NAMESPACE, None, DIMENSION):
        if target.resource_id.startswith(prefix):
            _deregister(backend, target.resource_id)


class LocalAutoScalingResponse(ApplicationAutoScalingResponse):
    """moto's operations with AWS's checks, and DescribeScalingActivities."""

    scaler: AutoScaler
    engine: Engine

    def register_scalable_target(self) -> str:
        """RegisterScalableTarget: the variant has to exist, on instances that may be scaled.

        Source: SageMaker developer guide, "Automatic scaling prerequisites": not on burstable (T) instances.
        """
        wanted = self._get_param("ResourceId")
        is_new = not self.applicationautoscaling_backend._scalable_target_exists(wanted, DIMENSION)
        lowest, highest = self._get_int_param("MinCapacity"), self._get_int_param("MaxCapacity")
        if self._get_param("ServiceNamespace") == NAMESPACE and is_new:
            if lowest is None or highest is None:
                raise JsonRESTError("ValidationException", "MinCapacity and MaxCapacity are required.")
            if not _variant_exists(self.engine, wanted):
                raise JsonRESTError("ValidationException", f"No production variant found for {wanted}.")
            instance_type = _instance_type(self.engine, wanted)
            if _BURSTABLE.match(instance_type):
                raise JsonRESTError(
                    "ValidationException",
                    f"Automatic scaling is not supported for the burstable instance type {instance_type} of {wanted}.",
                )
        if lowest is not None and highest is not None and lowest > highest:
            raise JsonRESTError("ValidationException", "Maximum capacity cannot be less than minimum capacity.")
        return super().register_scalable_target()

    def deregister_scalable_target(self) -> str:
        """DeregisterScalableTarget: the target's policies go with it."""
        wanted = self._get_param("ResourceId")
        self._require_target(wanted)
        if self._get_param("ServiceNamespace") == NAMESPACE:
            _deregister(self.applicationautoscaling_backend, wanted)
            return "{}"
        return super().deregister_scalable_target()

    def put_scaling_policy(self) -> str:
        """PutScalingPolicy: target tracking of what the loop can measure."""
        wanted = self._get_param("ResourceId")
        self._require_target(wanted)
        config = self._get_param("TargetTrackingScalingPolicyConfiguration") or {}
        predefined = (config.get("PredefinedMetricSpecification") or {}).get("PredefinedMetricType")
        if self._get_param("ServiceNamespace") == NAMESPACE and not (
            predefined == PREDEFINED_METRIC or (config.get("CustomizedMetricSpecification") or {}).get("MetricName")
        ):
            raise JsonRESTError(
                "ValidationException",
                "The local cloud serves TargetTrackingScaling policies with the predefined metric "
                f"{PREDEFINED_METRIC} or a customized metric.",
            )
        return super().put_scaling_policy()

    def describe_scaling_activities(self) -> ActionResult:
        """DescribeScalingActivities."""
        return ActionResult({"ScalingActivities": self.scaler.activities(self._get_param("ResourceId"))})

    def _require_target(self, wanted: str) -> None:
        dimension = self._get_param("ScalableDimension")
        if not self.applicationautoscaling_backend._scalable_target_exists(wanted, dimension):
            raise JsonRESTError(
                "ObjectNotFoundException",
                f"No scalable target registered for service namespace: {self._get_param('ServiceNamespace')}, "
                f"resource ID: {wanted}, scalable dimension: {dimension}",
            )


def install(engine: Engine) -> AutoScaler:
    """Put the loop behind moto's Application Auto Scaling, and start it."""
    scaler = AutoScaler(engine)
    LocalAutoScalingResponse.scaler = scaler
    LocalAutoScalingResponse.engine = engine
    moto.applicationautoscaling.urls.url_paths["{0}/$"] = LocalAutoScalingResponse.dispatch
    scaler.start()
    return scaler


def _backend(engine: Engine) -> ApplicationAutoscalingBackend:
    return applicationautoscaling_backends[engine.account_id][engine.region]


def _deregister(backend: ApplicationAutoscalingBackend, wanted: str) -> None:
    backend.deregister_scalable_target(NAMESPACE, wanted, DIMENSION)
    for key, policy in list(backend.policies.items()):
        if policy.resource_id == wanted and policy.service_namespace == NAMESPACE:
            del backend.policies[key]


def _variant_exists(engine: Engine, wanted: str) -> bool:
    parts = wanted.split("/")
    if len(parts) != 4 or parts[0] != "endpoint" or parts[2] != "variant":
        return False
    endpoint = sagemaker_backends[engine.account_id][engine.region].endpoints.get(parts[1])
    return endpoint is not None and any(variant["VariantName"] == parts[3] for variant in endpoint.production_variants)


def _instance_type(engine: Engine, wanted: str) -> str:
    _, name, _, variant = wanted.split("/")
    backend = sagemaker_backends[engine.account_id][engine.region]
    config = backend.endpoint_configs.get(backend.endpoints[name].endpoint_config_name)
    found = config.production_variants if config else []
    return next((str(each.get("InstanceType", "")) for each in found if each["VariantName"] == variant), "")
