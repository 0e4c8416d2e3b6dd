"""The input of an execution: its sections, the JSON Schema of it, and its checks.

Each field has its unit, its range and its default here and nowhere else. `kelpie.toml` has most of these sections too,
see workflow/config.py: what stands there is the default of every execution, and an execution's input overrides it.
From this one source come the checks of both, the JSON Schema that the ResolveInput Lambda checks inputs with, and
docs/reference/settings.md. Importing this module is cheap: it needs no AWS library.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from workflow.errors import ConfigError
from workflow.instances import LOCAL_STORAGE
from workflow.names import MAX_SAGEMAKER_NAME_LENGTH
from workflow.section import FIX, Section, check_order, explain, section_schema

S3_FOLDER = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/([^/\s\x24{}][^\s\x24{}]*/)?(_SUCCESS)?$"
"""A bucket or a folder in it. The slash at the end is required: without it `dogs` would also match `dogs-old/`.

The marker object `_SUCCESS` in it stands for the folder: that is what an event about new data names.
"""

# Look-arounds would be clearer than "t and then no digit", but pydantic's regular expressions have none.
HOSTING_INSTANCE = r"^ml\.([a-su-z][a-z0-9-]*|t[a-z][a-z0-9-]*)\.[a-z0-9-]+$"
"""An instance type that can scale automatically: burstable ones (ml.t2, ml.t3, ...) cannot.

Source: SageMaker developer guide, automatic scaling prerequisites, read 2026-11.
"""

TRAINING_JOB = r"^([a-z][a-z0-9-]*-[0-9a-f]{32}-[0-9])?$"
"""The name of a training job of an execution, or nothing."""

MODEL_PACKAGE = r"^(arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:[0-9]{12}:model-package/[a-z][a-z0-9-]*/[0-9]+)?$"
"""The ARN of a version of a model package group, or nothing."""

PROGRAM = r"^(inference/([A-Za-z0-9_-]+/)*[A-Za-z0-9_-]+\.py)?$"
"""The path of a handler in the model archive's `code/`, or nothing."""

ONE_DAY = 86_400

ORDER_RULES: list[list[str]] = [
    ["hosting.min_instance_count", "<=", "hosting.max_instance_count"],
    ["training.instance_count", "<=", "training.batch_size"],
]
"""Rules between two settings, which JSON Schema cannot say."""

SAME_KIND_RULES: dict[str, str] = {
    "training.instance_type": LOCAL_STORAGE,
    "hosting.instance_type": LOCAL_STORAGE,
}
"""Settings that an execution's input may override by a value of the same kind only: if `kelpie.toml`'s matches the
pattern, the input's must, and if not, not. A volume's KMS key is in the definition or it is not; see
docs/decisions/0010-volume-keys.md."""


class DataSettings(Section):
    """The pictures to learn from."""

    s3_uri: Annotated[str, Field(pattern=S3_FOLDER, max_length=1024)] = "s3://${DataBucket}/datasets/default/"
    """Folder of the pictures, ending with a slash: `train/<class>/*`, `valid/`, `test/`, or just `<class>/*`.
    Default: the folder `datasets/default/` of the project's own data bucket."""


class TrainingSettings(Section):
    """The model, how it learns, and the machines it learns on."""

    backbone: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)] = "efficientnet_lite0"
    """Name of the network: `efficientnet_lite0` or one of torchvision's classification models."""
    weights: Literal["channel", "package", "hub", "none"] = "channel"
    """Where the pre-trained weights come from: the `weights` channel, an installed package, a hub (needs the
    internet, so not under network isolation), or nowhere."""
    trainable: Literal["head", "all"] = "head"
    """What is trained: only the classifier on top, so that each picture goes through the network once and more epochs
    cost little (mode `features`), or every layer (mode `finetune`)."""
    epochs: Annotated[int, Field(ge=1, le=1000)] = 3
    """How many times training goes through all pictures."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 32
    """Pictures per step over all hosts together; each host takes its share."""
    image_size: Annotated[int, Field(ge=32, le=1024, multiple_of=32)] = 160
    """Width and height, in pixels, that pictures are brought to."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.006
    """Step size of the optimiser at its peak."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    """Everything random is derived from this number."""
    checkpoint_interval_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """Steps between two checkpoints: what an interruption can cost at most. A step is a batch; in mode `features` each
    block of 16 pictures is a step too, before the batches."""
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of the files that may be unusable as pictures: they are left out and listed; above it, the job fails."""
    precision: Literal["float32", "bfloat16", "int8"] = "float32"
    """What the model is served in. The other two are faster and change a few answers: they are served only if
    `gate.min_agreement` holds, else float32 is. bfloat16 needs CPUs with AMX (ml.c7i, ml.m7i) or AMD's with AVX512_BF16
    (ml.c7a, ml.m7a), int8 ones with VNNI (those, ml.c6i, ml.m6i), to train on and to serve on."""
    instance_type: Annotated[str, Field(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9-]+$", max_length=63)] = "ml.c5.xlarge"
    """Instance type of each training host."""
    instance_count: Annotated[int, Field(ge=1, le=100)] = 2
    """Number of training hosts."""
    volume_size_gb: Annotated[int, Field(ge=1, le=16_384)] = 30
    """Size of each host's volume, in GB: the pictures and the checkpoints must fit."""
    managed_spot: bool = True
    """Train on spare capacity, which costs less and may be interrupted; training resumes from its checkpoint."""
    max_runtime_seconds: Annotated[int, Field(ge=60, le=5 * ONE_DAY)] = 7200
    """Longest time of training itself, in seconds; a job that takes longer is stopped and the execution fails."""
    max_spot_wait_seconds: Annotated[int, Field(ge=60, le=5 * ONE_DAY)] = 7200
    """Longest time to wait for spot capacity, in seconds, on top of `max_runtime_seconds`."""


class GateSettings(Section):
    """What a model must reach on the test pictures before it may be deployed."""

    min_test_accuracy: Annotated[float, Field(ge=0, le=1)] = 0.9
    """Smallest share of test pictures that must be classified correctly."""
    max_regression: Annotated[float, Field(ge=0, le=1)] = 0.02
    """By how much the accuracy may be lower than that of the model that serves now, on the same pictures."""
    min_agreement: Annotated[float, Field(ge=0, le=1)] = 0.98
    """Smallest share of the validation pictures (test pictures, if there are none) for which a model in bfloat16 or
    int8 must say the same class as in float32, to be served so."""


class HostingSettings(Section):
    """The machines behind the endpoint, and when there are more or fewer of them."""

    instance_type: Annotated[str, Field(pattern=HOSTING_INSTANCE, max_length=63)] = "ml.c5.large"
    """Instance type of the endpoint. Burstable types (ml.t2, ml.t3, ...) cannot scale automatically."""
    min_instance_count: Annotated[int, Field(ge=1, le=100)] = 1
    """Number of instances that always run; not above `max_instance_count`."""
    max_instance_count: Annotated[int, Field(ge=1, le=100)] = 3
    """Largest number of instances."""
    target_invocations_per_instance: Annotated[float, Field(gt=0, le=1_000_000)] = 600.0
    """Requests per instance and MINUTE that autoscaling aims at: more adds instances, fewer removes them."""
    scale_in_cooldown_seconds: Annotated[int, Field(ge=0, le=3600)] = 300
    """Time after removing instances before more are removed, in seconds."""
    scale_out_cooldown_seconds: Annotated[int, Field(ge=0, le=3600)] = 60
    """Time after adding instances before more are added, in seconds."""
    program: Annotated[str, Field(pattern=PROGRAM, max_length=256)] = ""
    """Python file below `inference/` with a `model_fn`, `input_fn`, `predict_fn` or `output_fn` of your own; empty:
    Kelpie's. It ships with the model, so a model that was trained before the file was there does not have it."""


class SmokeTestSettings(Section):
    """What the endpoint must answer for a few known pictures before the new model is promoted."""

    min_accuracy: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Smallest share of the known pictures that must be classified correctly."""
    max_latency_ms: Annotated[int, Field(ge=1, le=60_000)] = 5000
    """Longest time that an answer may take, in milliseconds."""


class SharedSections(Section):
    """The sections of `kelpie.toml` that the input of an execution may override, for this execution only."""

    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()
    gate: GateSettings = GateSettings()
    hosting: HostingSettings = HostingSettings()
    smoke_test: SmokeTestSettings = SmokeTestSettings()


class ResumeSettings(Section):
    """Go on from what an earlier execution has trained; `kelpie resume` fills it in."""

    training_job: Annotated[str, Field(pattern=TRAINING_JOB, max_length=MAX_SAGEMAKER_NAME_LENGTH)] = ""
    """Name of the earlier execution's training job; empty to train from the beginning. With the same data, code and
    settings its model is used when it completed, else its checkpoints; with others it is not used at all."""


class RollbackSettings(Section):
    """Bring an earlier registered version back instead of training; `kelpie rollback` fills it in."""

    model_package_arn: Annotated[str, Field(pattern=MODEL_PACKAGE, max_length=256)] = ""
    """ARN of the approved version that shall serve again; empty to train. With it nothing is trained, judged or
    registered, and `resume` has no effect."""


class ExecutionInput(SharedSections):
    """The input of an execution."""

    resume: ResumeSettings = ResumeSettings()
    rollback: RollbackSettings = RollbackSettings()


def execution_input_schema() -> dict[str, Any]:
    """JSON Schema (draft-07) of an execution's input.

    Nothing is required and nothing unknown is allowed, but for the `Comment` that the console puts in. The extra
    keyword `x-order-rules` holds the rules between two settings as [left, operator, right], and `x-same-kind-rules`
    the settings whose default and override must both match a pattern or both not. There are no defaults in it: those
    of the deployed `kelpie.toml` reach ResolveInput through the state machine.
    """
    sections = {name: section_schema(field.annotation) for name, field in ExecutionInput.model_fields.items()}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Kelpie execution input",
        "type": "object",
        "additionalProperties": False,
        "properties": {"Comment": {"type": "string"}, **sections},
        "x-order-rules": ORDER_RULES,
        "x-same-kind-rules": SAME_KIND_RULES,
    }


def check_execution_input(values: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Check an execution's input against the same rules as ResolveInput, before anything is started.

    Args:
        values: The input.
        defaults: What it is merged into: `Config.defaults()`.

    Raises:
        ConfigError: A key is unknown, or a value is not allowed.
    """
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # half a character: Python reads it, AWS does not
        raise ConfigError("the execution input is no JSON that AWS can read.", str(error), FIX) from error
    if not isinstance(values.get("Comment", ""), str):
        raise ConfigError("the execution input has values that are not allowed.", "Comment must be a text", FIX)
    given = {name: _whole(section) for name, section in values.items() if name != "Comment"}
    merged = {name: dict(section) for name, section in defaults.items()}
    try:
        ExecutionInput.model_validate(given)
    except ValidationError as error:
        explained = explain(error, ExecutionInput)
        raise ConfigError("the execution input has values that are not allowed.", explained, FIX) from error
    for name, section in given.items():
        merged[name] |= section
    check_order(merged, "the execution input", ORDER_RULES)
    _check_kinds(merged, defaults)


def _whole(section: Any) -> Any:
    """JSON Schema takes 3.0 for an integer, and so does ResolveInput."""
    if not isinstance(section, dict):
        return section
    return {key: int(v) if isinstance(v, float) and v.is_integer() else v for key, v in section.items()}


def _check_kinds(values: dict[str, Any], defaults: dict[str, Any]) -> None:
    for key, pattern in SAME_KIND_RULES.items():
        section, name = key.split(".")
        default, value = str(defaults[section][name]), str(values[section][name])
        if (re.match(pattern, default) is None) != (re.match(pattern, value) is None):
            detail = (
                f"{key} = {value!r}, and the stack was deployed for {default!r}: one has local storage, which takes no "
                "KMS key, and the other has none"
            )
            fix = f"set {key} in kelpie.toml and deploy again"
            raise ConfigError("the execution input has values that are not allowed.", detail, fix)
