"""What SageMaker refuses at once: names, roles and training jobs that cannot work."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from moto.sagemaker.exceptions import ValidationError

from workflow.local import channels, transfers
from workflow.local.engine import Engine
from workflow.local.identity import AccessDenied
from workflow.local.logs import TrainingMetrics
from workflow.local.training_host import CONTAINER_BASE

SERVICE = "sagemaker.amazonaws.com"
MAX_NAME_CHARACTERS = 63
MAX_HYPERPARAMETERS = MAX_ENVIRONMENT = 100
MAX_HYPERPARAMETER_CHARACTERS = 2500
MAX_ENVIRONMENT_CHARACTERS = 512
"""All: Source: botocore 1.44.5, sagemaker service model."""

_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")
_RESERVED = ("input", "model", "output", "code")


def check_name(field: str, name: str) -> None:
    """Raises: ValidationError unless `name` is legal for a job, model, endpoint config or endpoint."""
    if len(name) > MAX_NAME_CHARACTERS or not _NAME.fullmatch(name):
        raise ValidationError(
            f"1 validation error detected: Value '{name}' at '{field}' failed to satisfy constraint: Member must "
            f"have length less than or equal to {MAX_NAME_CHARACTERS} and satisfy regular expression pattern: "
            "^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
        )


def check_role(engine: Engine, role_arn: str | None) -> None:
    """Raises: ValidationError unless SageMaker may assume the role."""
    if not role_arn:
        raise ValidationError("The execution role ARN is missing.")
    try:
        engine.identity.check_trust(role_arn, SERVICE)
    except AccessDenied as error:
        raise ValidationError(str(error)) from error


def check_training_job(engine: Engine, request: Mapping[str, Any]) -> None:
    """Raises: ValidationError for a CreateTrainingJob request that SageMaker would refuse at once."""
    check_name("trainingJobName", request["TrainingJobName"])
    _check_limits("HyperParameters", request, MAX_HYPERPARAMETERS, MAX_HYPERPARAMETER_CHARACTERS)
    _check_limits("Environment", request, MAX_ENVIRONMENT, MAX_ENVIRONMENT_CHARACTERS)
    _check_times(request)
    _check_checkpoints(request.get("CheckpointConfig"))
    if not request["AlgorithmSpecification"].get("TrainingImage"):
        raise ValidationError("AlgorithmSpecification has no TrainingImage; the local cloud runs images only.")
    if (request["ResourceConfig"].get("InstanceCount") or 0) < 1:
        raise ValidationError("ResourceConfig.InstanceCount must be 1 or more.")
    try:
        TrainingMetrics("", request["AlgorithmSpecification"].get("MetricDefinitions") or [])
    except re.error as error:
        raise ValidationError(f"Invalid regular expression in MetricDefinitions: {error}") from error
    role_arn = request["RoleArn"]
    check_role(engine, role_arn)
    s3 = engine.identity.client("s3", role_arn, SERVICE)
    try:
        transfers.split_uri(request["OutputDataConfig"]["S3OutputPath"])
        for channel in channels.by_name(request.get("InputDataConfig") or []).values():
            channels.check_objects(s3, channel, role_arn, engine.region)
    except (channels.InvalidChannel, transfers.TransferFailed) as error:
        raise ValidationError(str(error)) from error


def _check_times(request: Mapping[str, Any]) -> None:
    """Spot needs a limit of waiting plus running that is longer than that of running.

    Source: SageMaker developer guide, "Managed Spot Training", Nov 2026.
    """
    condition = request.get("StoppingCondition") or {}
    runtime, wait = condition.get("MaxRuntimeInSeconds", 86_400), condition.get("MaxWaitTimeInSeconds")
    if runtime < 1:
        raise ValidationError(f"Invalid MaxRuntimeInSeconds {runtime}. It must be 1 or more.")
    if not request.get("EnableManagedSpotTraining"):
        if wait is not None:
            raise ValidationError(
                "Invalid MaxWaitTimeInSeconds. It can only be present when EnableManagedSpotTraining is true"
            )
    elif wait is None or wait <= runtime:
        raise ValidationError(
            "Invalid MaxWaitTimeInSeconds. It must be present and be greater than MaxRuntimeInSeconds"
        )


def _check_checkpoints(config: Mapping[str, Any] | None) -> None:
    if not config:
        return
    uri = str(config.get("S3Uri") or "")
    if not re.fullmatch(r"s3://[^/]+(/.*)?", uri):
        raise ValidationError(f"Invalid CheckpointConfig.S3Uri {uri!r}, expected s3://bucket/prefix")
    path = PurePosixPath(config.get("LocalPath") or CONTAINER_BASE / "checkpoints")
    inside = path.is_relative_to(CONTAINER_BASE) and path != CONTAINER_BASE and ".." not in path.parts
    if not inside or path.relative_to(CONTAINER_BASE).parts[0] in _RESERVED:
        raise ValidationError(
            f"Invalid CheckpointConfig.LocalPath {str(path)!r}, expected a folder of its own below /opt/ml"
        )


def _check_limits(field: str, request: Mapping[str, Any], count: int, characters: int) -> None:
    values = request.get(field) or {}
    if len(values) > count:
        raise ValidationError(f"{field} has {len(values)} entries, at most {count} are allowed")
    for name, value in values.items():
        if len(value) > characters:
            raise ValidationError(f"{field}.{name} has {len(value)} characters, at most {characters} are allowed")
