"""The training job: the estimator, and the state that runs it.

The only module that imports the SageMaker SDK. What its estimator holds, TrainingStep renders; what TrainingStep
drops without a word (environment, network isolation, encryption between hosts, retries) and what is known only when
the execution runs (names, settings) is given as `parameters`, which are merged over what it renders. Call these
functions inside `guarded()`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from workflow import names
from workflow.config import Config
from workflow.instances import has_local_storage
from workflow.sdk import Expr, TrainingStep
from workflow.words import retry

METRICS = {
    "train:loss": "mean loss of the training pictures since the last report, at a step",
    "valid:accuracy": "share of the validation pictures classified correctly, after an epoch",
    "valid:loss": "mean loss of the validation pictures, after an epoch",
    "test:accuracy": "share of the test pictures classified correctly by the finished model; the quality gate reads it",
    "champion:test_accuracy": "the same of the model that serves now, on the same test pictures; missing without one",
}
"""Metrics that training prints as `name=value`, and that SageMaker reads from its log."""

HYPERPARAMETERS = (
    "backbone",
    "weights",
    "trainable",
    "epochs",
    "batch_size",
    "image_size",
    "learning_rate",
    "seed",
    "checkpoint_interval_steps",
    "max_bad_share",
    "precision",
)
"""The keys of `[training]` that reach the training script, as flags with hyphens."""

GATE_HYPERPARAMETERS = ("min_agreement",)
"""The same of `[gate]`: what is decided while the model is exported."""

_PATHS = {key: f"$.settings.training.{key}" for key in HYPERPARAMETERS} | {
    key: f"$.settings.gate.{key}" for key in GATE_HYPERPARAMETERS
}

CODE_ARCHIVE = "/opt/ml/input/data/code/sourcedir.tar.gz"
"""Where the code lies in the container. Under network isolation the container cannot fetch it from S3 itself."""

CHECKPOINTS = "/opt/ml/checkpoints"

ENVIRONMENT = {"PYTHONUNBUFFERED": "1"}

FINGERPRINT, CHAMPION = "KELPIE_FINGERPRINT", "KELPIE_CHAMPION"
"""Environment variables that a training job carries for whoever wants to go on from it; training does not read them."""

START_AND_END_SECONDS = 3600
"""Time that a job may take besides waiting and training: starting, downloading, uploading."""


def training_step(state_id: str, config: Config, *, spot: bool, comment: str) -> TrainingStep:
    """The state that trains, on managed spot capacity or on demand, and waits for the end of the job.

    Its result is what DescribeTrainingJob answers. A job that ends Stopped may or may not fail the state: Step
    Functions does not document it, so what follows must look at TrainingJobStatus.
    """
    return TrainingStep(
        state_id,
        estimator=_estimator(config, spot=spot),
        job_name=Expr(names.training_job()),
        output_data_config_path=Expr("$.names.output_s3_uri"),
        tags={"kelpie:project": config.project.name, "kelpie:run": Expr("$.names.run")},
        parameters=_parameters(config, spot=spot),
        timeout_seconds_path="$.limits.spot_seconds" if spot else "$.limits.on_demand_seconds",
        retry=retry("sagemaker"),
        result_path="$.train",
        comment=comment,
    )


def training_fingerprint() -> str:
    """Intrinsic: the SHA-256 of everything that makes the trained model what it is.

    Code, weights and wheels lie below keys that contain the hash of their content. What says only where and how long
    training runs is left out: neither the kind nor the number of machines makes it another model.
    """
    values = ["$.data.manifest_sha256", *_PATHS.values()]
    template = " ".join(
        ["${TrainingImage} ${CodeChannelUri} ${WeightsChannelUri} ${WheelsChannelUri}", *["{}"] * len(values)]
    )
    return f"States.Hash(States.Format('{template}', {', '.join(values)}), 'SHA-256')"


def subnets(config: Config) -> list[str]:
    """Where the network interfaces of training hosts and models are: none, the stack's own subnets, or yours."""
    return ["${PrivateSubnetA}", "${PrivateSubnetB}"] if config.vpc.create else list(config.vpc.subnet_ids)


def security_groups(config: Config) -> list[str]:
    """The security groups of these interfaces."""
    return ["${TrainingSecurityGroup}"] if config.vpc.create else list(config.vpc.security_group_ids)


def trained_model(config: Config) -> Any:
    """What the training job leaves behind, as the SDK's ModelStep wants it: archive, image and role."""
    from sagemaker.model import Model

    return Model(
        image_uri=Expr("$.artifacts.serving_image"),
        model_data=Expr("$.artifacts.model_s3_uri"),
        role="${HostingRoleArn}",
        sagemaker_session=_session(config.aws.region),
    )


@cache
def _session(region: str) -> Any:
    import boto3
    from sagemaker.session import Session

    session = Session(
        boto_session=boto3.Session(region_name=region),
        default_bucket="${ArtifactBucket}",
        # Otherwise a file in the user's home folder could change the definition.
        sagemaker_config={"SchemaVersion": "1.0"},
    )
    # The SDK validates even an empty config against its schema, at every look at it: seconds in all.
    session.sagemaker_config = {}
    return session


def _estimator(config: Config, *, spot: bool) -> Any:
    from sagemaker.estimator import Estimator

    training = config.training
    return Estimator(
        image_uri="${TrainingImage}",
        role="${TrainingRoleArn}",
        instance_type=training.instance_type,
        instance_count=training.instance_count,
        volume_size=training.volume_size_gb,
        output_path="s3://${ArtifactBucket}/runs",
        output_kms_key="${KmsKeyArn}",
        volume_kms_key=None if has_local_storage(training.instance_type) else "${KmsKeyArn}",
        use_spot_instances=spot,
        max_run=training.max_runtime_seconds,
        max_wait=training.max_runtime_seconds + training.max_spot_wait_seconds if spot else None,
        checkpoint_s3_uri="s3://${ArtifactBucket}/checkpoints",
        checkpoint_local_path=CHECKPOINTS,
        subnets=[*subnets(config)] or None,
        security_group_ids=[*security_groups(config)] or None,
        metric_definitions=[{"Name": name, "Regex": f"{name}=([0-9.eE+-]+)"} for name in METRICS],
        hyperparameters={"sagemaker_program": "train.py", "sagemaker_submit_directory": CODE_ARCHIVE},
        environment=dict(ENVIRONMENT),
        enable_network_isolation=True,
        # The debugger's hook is retired, and crashed jobs that have checkpoints.
        debugger_hook_config=False,
        disable_profiler=True,
        sagemaker_session=_session(config.aws.region),
    )


def _parameters(config: Config, *, spot: bool) -> dict[str, Any]:
    stopping = {"MaxRuntimeInSeconds": Expr("$.settings.training.max_runtime_seconds")}
    if spot:
        stopping["MaxWaitTimeInSeconds"] = Expr("$.limits.max_wait_seconds")
    parameters: dict[str, Any] = {
        "HyperParameters": {
            key.replace("_", "-"): Expr(f"States.Format('{{}}', {path})") for key, path in _PATHS.items()
        },
        "InputDataConfig": [
            _channel("data", Expr("$.settings.data.s3_uri")),
            _channel("champion", "s3://${ArtifactBucket}/champion/"),
            _channel("weights", "${WeightsChannelUri}"),
            _channel("wheels", "${WheelsChannelUri}"),
            _channel("code", "${CodeChannelUri}"),
        ],
        "ResourceConfig": {
            "InstanceType": Expr("$.settings.training.instance_type"),
            "InstanceCount": Expr("$.settings.training.instance_count"),
            "VolumeSizeInGB": Expr("$.settings.training.volume_size_gb"),
        },
        "StoppingCondition": stopping,
        "CheckpointConfig": {"S3Uri": Expr("$.names.checkpoint_s3_uri")},
        "Environment": {
            **ENVIRONMENT,
            FINGERPRINT: Expr("$.fingerprint.training"),
            CHAMPION: Expr("$.fingerprint.champion"),
        },
        "EnableNetworkIsolation": True,
    }
    if config.unproven.retry_attempts:
        parameters["RetryStrategy"] = {"MaximumRetryAttempts": config.unproven.retry_attempts}
    if config.unproven.encrypt_inter_container_traffic:
        parameters["EnableInterContainerTrafficEncryption"] = True
    return parameters


def _channel(name: str, s3_uri: str | Expr) -> dict[str, Any]:
    """A folder in S3 that every host gets whole: each computes for itself which pictures are its share."""
    source = {"S3DataType": "S3Prefix", "S3Uri": s3_uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}
