"""The names of everything that Kelpie creates, and the limits of AWS that they keep.

Names that belong to one execution are made inside the state machine, because only there is the execution known:
these functions return the intrinsic expressions that make them. An execution may be named by a person (80 characters
of nearly anything), by EventBridge (73 characters with an underscore) or by nobody (a UUID), so its name is never used
itself: the MD5 of its ARN always has 32 hexadecimal digits.
"""

from __future__ import annotations

import re

MAX_PROJECT_LENGTH = 24
"""Longest project name: leaves room for the longest name made from it (see `longest_training_job_name`)."""

MAX_SAGEMAKER_NAME_LENGTH = 63
"""Longest name of a training job, model, endpoint config or endpoint.

Source: botocore 1.44.5, sagemaker service model (TrainingJobName, ModelName, EndpointConfigName, EndpointName).
"""

MAX_ATTEMPT = 9
"""Largest attempt number of a training job within one execution."""

VARIANT = "AllTraffic"
"""The production variant. It never changes: blue/green updates need the same variant name in both configs.

Source: SageMaker developer guide, deployment guardrails exclusions, read 2026-11.
"""

RUN = "States.Hash($$.Execution.Id, 'MD5')"
"""Intrinsic: the 32 hexadecimal digits that stand for an execution in every name."""

SCALABLE_DIMENSION = "sagemaker:variant:DesiredInstanceCount"

_SAGEMAKER_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*")


def is_sagemaker_name(name: str) -> bool:
    """Whether SageMaker accepts `name` for a training job, model, endpoint config, endpoint or variant.

    Source: botocore 1.44.5. The pattern there does not bound the length (hyphens are free), so length is tested apart.
    """
    return len(name) <= MAX_SAGEMAKER_NAME_LENGTH and _SAGEMAKER_NAME.fullmatch(name) is not None


def of_run(project: str) -> str:
    """Intrinsic: the name of this run's model, of its endpoint config, and the base of its training job names."""
    return f"States.Format('{project}-{{}}', {RUN})"


def training_job() -> str:
    """Intrinsic: the name of the current attempt's training job (reads `$.names` and `$.attempt`)."""
    return "States.Format('{}-{}', $.names.training_job, $.attempt.number)"


def output_s3_uri() -> str:
    """Intrinsic: the S3 URI below which the training jobs of this run leave what they made."""
    return f"States.Format('s3://${{ArtifactBucket}}/runs/{{}}/output', {RUN})"


def checkpoint_s3_uri() -> str:
    """Intrinsic: the S3 URI of this run's checkpoints: apart from what it leaves behind, because they expire."""
    return f"States.Format('s3://${{ArtifactBucket}}/checkpoints/{{}}/', {RUN})"


def artifact_s3_uri(file: str) -> str:
    """Intrinsic: the S3 URI of a file that the current attempt's training job leaves behind.

    SageMaker writes `model.tar.gz` and `output.tar.gz` to {S3OutputPath}/{job name}/output/.
    """
    return (
        f"States.Format('{{}}/{{}}-{{}}/output/{file}', $.names.output_s3_uri, $.names.training_job, $.attempt.number)"
    )


def evidence_s3_uri_of(description: str) -> str:
    """Intrinsic: the S3 URI of what a training job left behind besides its model, from DescribeTrainingJob's answer."""
    return (
        f"States.Format('{{}}/{{}}/output/output.tar.gz', "
        f"{description}.OutputDataConfig.S3OutputPath, {description}.TrainingJobName)"
    )


def copy_source_of(model_s3_uri: str) -> str:
    """Intrinsic: a model archive of any run of this project as `bucket/key`, as S3 CopyObject names its source.

    No intrinsic cuts a text, so the URI is taken apart at its slashes and the parts that differ are counted from its
    end: .../runs/{run}/output/{job}/output/model.tar.gz.
    """
    parts = f"States.StringSplit({model_s3_uri}, '/')"
    run, job = (f"States.ArrayGetItem({parts}, States.MathAdd(States.ArrayLength({parts}), {n}))" for n in (-5, -3))
    return f"States.Format('${{ArtifactBucket}}/runs/{{}}/output/{{}}/output/model.tar.gz', {run}, {job})"


def longest_training_job_name(project: str) -> str:
    """An example of the longest training job name of a project."""
    return f"{project}-{'f' * 32}-{MAX_ATTEMPT}"


def scalable_resource(project: str) -> str:
    """The ResourceId that Application Auto Scaling knows the endpoint's variant by."""
    return f"endpoint/{project}/variant/{VARIANT}"


def serving_pointer(project: str) -> str:
    """Key of the item in the lock table that says what serves now, and what served before it."""
    return f"{project}#serving"
