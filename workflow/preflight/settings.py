"""Settings that are each allowed, and together do not work, cost more or do less than one thinks.

Ranges and unknown keys are refused when kelpie.toml is read (workflow/config.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from botocore.session import Session

from workflow import instances
from workflow.preflight import images
from workflow.preflight.findings import Finding, Subject, error, info, warning

RATE_FOR_ALL = 0.0003
HIGHEST_RATE_FOR_ALL = 0.001
"""Peak learning rates for AdamW and a pretrained backbone; the default, for a head alone, is twenty times the first."""


def check(subject: Subject) -> Iterator[Finding]:
    """Instance types, machines and images that do not fit together, and settings that switch something off."""
    config = subject.config
    yield from _types(subject)
    gpu_image = "gpu" in subject.parameters.get("TrainingImageTag", "")
    training = config.training.instance_type
    if instances.has_gpu(training) and not gpu_image:
        yield warning(
            f"{training} has a GPU, and the training image is for CPUs.",
            "training.instance_type",
            "The GPU would be paid for and not used.",
            f"Choose a CPU type, or set [images] training_tag to a tag for GPUs, such as {images.newest_tag('gpu')}.",
        )
    if gpu_image and not instances.has_gpu(training):
        yield warning(
            f"{training} has no GPU, and the training image is for GPUs.",
            "training.instance_type",
            "The image is several times larger than the one for CPUs, and each job loads it.",
            f"Choose a GPU type, or set [images] training_tag to a tag for CPUs, such as {images.newest_tag('cpu')}.",
        )
    if config.training.weights == "hub":
        yield warning(
            "weights = hub needs the internet, and training jobs on AWS have none: they run under network isolation.",
            "training.weights",
            "On AWS the training job fails.",
            'Set weights = "channel", and [weights] file to a file with the weights.',
        )
    if config.training.trainable == "all" and config.training.learning_rate > HIGHEST_RATE_FOR_ALL:
        yield warning(
            f"learning_rate = {config.training.learning_rate:g} suits a head, and trainable = all changes all weights.",
            "training.learning_rate",
            "Steps of this size destroy what the pretrained backbone knows: the loss grows, and the quality gate "
            "refuses the model after the whole training is paid for.",
            f'Set learning_rate = {RATE_FOR_ALL:g} in the section [training], or trainable = "head".',
        )
    if not config.training.managed_spot:
        yield info(
            "Training runs on demand, not on managed spot capacity.",
            "training.managed_spot",
            "Spot capacity costs less; an interruption costs at most the steps since the last checkpoint.",
        )
    if config.hosting.max_instance_count == 1:
        yield info(
            "The endpoint never has more than one instance.",
            "hosting.max_instance_count",
            "It cannot scale, and an update shifts all traffic at once: a canary needs two instances.",
        )


def _types(subject: Subject) -> Iterator[Finding]:
    uses = (
        ("training.instance_type", subject.config.training.instance_type, "TrainingInstanceType"),
        ("hosting.instance_type", subject.config.hosting.instance_type, "ProductionVariantInstanceType"),
    )
    for where, instance_type, shape in uses:
        if instance_type not in _known_types(shape):
            yield error(
                f"{instance_type} is no instance type that SageMaker offers for this.",
                where,
                "AWS refuses the request.",
                f"Choose another one, such as {'ml.c5.xlarge' if 'training' in where else 'ml.c5.large'}.",
            )
        if instances.has_other_accelerator(instance_type):
            yield error(
                f"{instance_type} has an accelerator that neither image can use.",
                where,
                "It needs the SDK of the accelerator, and a model compiled for it.",
                "Choose a CPU or GPU type.",
            )
        elif instances.is_arm(instance_type):
            yield error(
                f"{instance_type} has an ARM processor, and the images are built for x86_64.",
                where,
                "The container does not start.",
                "Choose a type without the g after the generation, such as ml.c6i.large for ml.c6g.large.",
            )
        if instances.has_local_storage(instance_type):
            yield info(
                f"{instance_type} has disks of its own.",
                where,
                "They are encrypted by their hardware: SageMaker refuses the project's KMS key for them, so it is left "
                "out. volume_size_gb has no effect.",
            )
    if instances.has_gpu(subject.config.hosting.instance_type):
        yield warning(
            f"{subject.config.hosting.instance_type} has a GPU, and the serving image runs on CPUs.",
            "hosting.instance_type",
            "The GPU would be paid for and not used.",
            "Choose a CPU type, such as ml.c5.large.",
        )


@cache
def _known_types(shape: str) -> frozenset[str]:
    model: Any = Session().get_service_model("sagemaker")
    return frozenset(model.shape_for(shape).enum)
