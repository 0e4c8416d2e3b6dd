"""moto's SageMaker backend with work behind its records.

It keeps moto's records, checks what SageMaker checks, and hands the work to training_jobs.py and endpoints.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import botocore.session
import moto.sagemaker.urls
from moto.sagemaker import models
from moto.sagemaker.exceptions import ResourceInUseException, ValidationError
from moto.sagemaker.models import SageMakerModelBackend

from workflow.local import admission, autoscaling
from workflow.local.deployment import VariantPlan
from workflow.local.endpoints import Endpoints
from workflow.local.engine import Engine
from workflow.local.model_registry import ModelRegistry
from workflow.local.training_jobs import TrainingJobRun

_IN_PROGRESS = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})


class EndpointConfig(models.FakeEndpointConfig):
    """moto's, with the instance types that botocore knows instead of moto's old list."""

    _instance_types: ClassVar[frozenset[str]] = frozenset()

    def validate_instance_type(self, instance_type: str) -> None:
        """Raises: ValidationError for a type that SageMaker does not host on."""
        if not EndpointConfig._instance_types:
            shape = botocore.session.get_session().get_service_model("sagemaker")
            EndpointConfig._instance_types = frozenset(
                shape.shape_for("ProductionVariantInstanceType").enum  # type: ignore[attr-defined]
            )
        if instance_type not in EndpointConfig._instance_types:
            raise ValidationError(
                f"1 validation error detected: Value '{instance_type}' at "
                "'productionVariants.1.member.instanceType' failed to satisfy constraint: Member must satisfy "
                "enum value set"
            )


class LocalSageMakerBackend(ModelRegistry):
    """moto's SageMaker backend, with processes."""

    engine: ClassVar[Engine]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As moto's; also called by `reset`."""
        super().__init__(*args, **kwargs)
        self.runs: dict[str, TrainingJobRun] = {}
        self.live_endpoints = Endpoints(self.engine)

    @property
    def _url_module(self) -> Any:
        return moto.sagemaker.urls

    def reset(self) -> None:
        """Forget everything, and end what runs."""
        self.live_endpoints.close()
        for run in self.runs.values():
            run.stop()
        super().reset()

    # Training jobs

    def start_training_job(self, request: Mapping[str, Any]) -> str:
        """What CreateTrainingJob does; returns the ARN."""
        name = request["TrainingJobName"]
        admission.check_training_job(self.engine, request)
        with self.lock:
            if name in self.training_jobs:
                raise ResourceInUseException(
                    "Training job names must be unique within an AWS account and region, and a training job with "
                    f"this name already exists ({self.training_jobs[name].arn})"
                )
            job = self.create_training_job(
                training_job_name=name,
                hyper_parameters=request.get("HyperParameters") or {},
                # moto overwrites the metric definitions in what it is given
                algorithm_specification=dict(request["AlgorithmSpecification"]),
                role_arn=request["RoleArn"],
                input_data_config=request.get("InputDataConfig") or [],
                output_data_config=request["OutputDataConfig"],
                resource_config=request["ResourceConfig"],
                vpc_config=request.get("VpcConfig"),  # type: ignore[arg-type]
                stopping_condition=request["StoppingCondition"],
                tags=request.get("Tags") or [],
                enable_network_isolation=request.get("EnableNetworkIsolation", False),
                enable_inter_container_traffic_encryption=request.get("EnableInterContainerTrafficEncryption", False),
                enable_managed_spot_training=request.get("EnableManagedSpotTraining", False),
                checkpoint_config=request.get("CheckpointConfig"),  # type: ignore[arg-type]
                debug_hook_config=request.get("DebugHookConfig"),  # type: ignore[arg-type]
                debug_rule_configurations=request.get("DebugRuleConfigurations"),  # type: ignore[arg-type]
                tensor_board_output_config=request.get("TensorBoardOutputConfig"),  # type: ignore[arg-type]
                experiment_config=request.get("ExperimentConfig"),  # type: ignore[arg-type]
            )
            job.algorithm_specification = dict(request["AlgorithmSpecification"])
            for attribute, key in (
                ("environment", "Environment"),
                ("retry_strategy", "RetryStrategy"),
                ("profiler_config", "ProfilerConfig"),
            ):
                setattr(job, attribute, request.get(key))
            run = self.runs[name] = TrainingJobRun(self.engine, job, request)
            run.start()
        return job.arn

    def stop_training_job(self, name: str) -> None:
        """What StopTrainingJob does."""
        with self.lock:
            status = self.describe_training_job(name)["TrainingJobStatus"]
            if status == "Stopping":
                return
            if status != "InProgress":
                raise ValidationError(f"The request was rejected because the training job is in status {status}.")
            self.runs[name].stop()

    # Models and endpoint configs

    def add_model(self, request: Mapping[str, Any]) -> str:
        """What CreateModel does; returns the ARN."""
        name = request["ModelName"]
        admission.check_name("modelName", name)
        admission.check_role(self.engine, request.get("ExecutionRoleArn"))
        with self.lock:
            if name in self._models:
                raise ValidationError(f'Cannot create already existing model "{self._models[name].arn}".')
            model = self.create_model(
                model_name=name,
                execution_role_arn=request["ExecutionRoleArn"],
                primary_container=request.get("PrimaryContainer"),
                vpc_config=request.get("VpcConfig"),
                containers=request.get("Containers"),
                tags=request.get("Tags"),
            )
            model.enable_network_isolation = bool(request.get("EnableNetworkIsolation"))
        return model.arn

    def create_endpoint_config(  # type: ignore[override]
        self, endpoint_config_name: str, production_variants: list[dict[str, Any]], **others: Any
    ) -> models.FakeEndpointConfig:
        """Refuse a name that exists, which moto would overwrite."""
        admission.check_name("endpointConfigName", endpoint_config_name)
        with self.lock:
            if endpoint_config_name in self.endpoint_configs:
                arn = self.endpoint_configs[endpoint_config_name].endpoint_config_arn
                raise ValidationError(f'Cannot create already existing endpoint configuration "{arn}".')
            self.validate_production_variants(production_variants)
            config = EndpointConfig(  # type: ignore[abstract]
                account_id=self.account_id,
                region_name=self.region_name,
                endpoint_config_name=endpoint_config_name,
                production_variants=production_variants,
                **others,
            )
            self.endpoint_configs[endpoint_config_name] = config
            return config

    # Endpoints

    def create_endpoint(
        self, endpoint_name: str, endpoint_config_name: str, tags: list[dict[str, str]]
    ) -> models.FakeEndpoint:
        """Make the record and start the servers."""
        admission.check_name("endpointName", endpoint_name)
        with self.lock:
            for existing in self.endpoints.values():
                if existing.endpoint_name.lower() == endpoint_name.lower():
                    raise ValidationError(f'Cannot create already existing endpoint "{existing.arn}".')
            plans = self._plans(endpoint_config_name)
            record = super().create_endpoint(endpoint_name, endpoint_config_name, tags)
            self.live_endpoints.create(record, plans)
            return record

    def update_endpoint(self, request: Mapping[str, Any]) -> str:
        """What UpdateEndpoint does; returns the ARN."""
        name, config_name = request["EndpointName"], request["EndpointConfigName"]
        with self.lock:
            record = self._idle_endpoint(name)
            plans = self._plans(config_name)
            old = self.endpoint_configs.get(record.endpoint_config_name)
            if old is not None:
                autoscaling.check_update(self.engine, name, old.production_variants, plans)
            if request.get("RetainAllVariantProperties"):
                excluded = {
                    item["VariantPropertyType"] for item in request.get("ExcludeRetainedVariantProperties") or []
                }
                plans = _retained(plans, record.production_variants, excluded)
            deployment_config = request.get("DeploymentConfig")
            if deployment_config is None and request.get("RetainDeploymentConfig"):
                deployment_config = record.last_deployment_config
            self.live_endpoints.update(name, config_name, plans, deployment_config)
            return str(record.arn)

    def update_endpoint_weights_and_capacities(
        self, endpoint_name: str, desired_weights_and_capacities: list[dict[str, Any]]
    ) -> str:
        """Change counts and weights by starting and ending servers."""
        with self.lock:
            record = self._idle_endpoint(endpoint_name)
            variants = {variant["VariantName"] for variant in record.production_variants}
            counts: dict[str, int] = {}
            weights: dict[str, float] = {}
            for wanted in desired_weights_and_capacities:
                variant = wanted["VariantName"]
                if variant not in variants:
                    raise ValidationError(
                        f'The variant name(s) "{variant}" is/are not present within endpoint configuration '
                        f'"{record.endpoint_config_name}".'
                    )
                if wanted.get("DesiredInstanceCount") is not None:
                    counts[variant] = wanted["DesiredInstanceCount"]
                if wanted.get("DesiredWeight") is not None:
                    weights[variant] = wanted["DesiredWeight"]
            self.live_endpoints.scale(endpoint_name, counts, weights)
            return str(record.arn)

    def delete_endpoint(self, endpoint_name: str) -> None:
        """End the servers; the record goes when they are gone."""
        with self.lock:
            record = self._idle_endpoint(endpoint_name)
            autoscaling.forget_endpoint(self.engine, endpoint_name)

            def forget() -> None:
                with self.lock:
                    if self.endpoints.get(endpoint_name) is record:
                        SageMakerModelBackend.delete_endpoint(self, endpoint_name)

            self.live_endpoints.delete(endpoint_name, forget)

    def _idle_endpoint(self, name: str) -> Any:
        self.describe_endpoint(name)  # raises if there is none
        record = self.endpoints[name]
        if record.endpoint_status in _IN_PROGRESS:
            raise ValidationError(f'Cannot update in-progress endpoint "{record.arn}".')
        return record

    def _plans(self, config_name: str) -> list[VariantPlan]:
        config = self.describe_endpoint_config(config_name)
        return [
            VariantPlan(
                variant,
                self.describe_model(variant["ModelName"]),
                variant.get("InitialInstanceCount") or 1,
                1.0 if variant.get("InitialVariantWeight") is None else variant["InitialVariantWeight"],
            )
            for variant in config["ProductionVariants"]
        ]


def _retained(plans: list[VariantPlan], running: list[dict[str, Any]], excluded: set[str]) -> list[VariantPlan]:
    """The plans with the counts and weights of the running variants of the same name."""
    by_name = {variant["VariantName"]: variant for variant in running}

    def retain(plan: VariantPlan) -> VariantPlan:
        now = {key: value for key, value in by_name.get(plan.name, {}).items() if key not in excluded}
        return replace(
            plan,
            count=now.get("DesiredInstanceCount", plan.count),
            weight=now.get("DesiredWeight", plan.weight),
        )

    return [retain(plan) for plan in plans]
