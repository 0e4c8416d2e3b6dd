"""Everything that can be set: the schema of `kelpie.toml` and of an execution's input.

Each field has its unit, its range and its default here and nowhere else. From this one source come the checks of
`kelpie.toml`, the JSON Schema that the ResolveInput Lambda checks inputs with, the defaults that it merges them into,
and docs/reference/settings.md. Importing this module is cheap: it needs no AWS library.
"""

from __future__ import annotations

import json
import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from workflow.errors import ConfigError
from workflow.instances import LOCAL_STORAGE
from workflow.names import MAX_PROJECT_LENGTH, MAX_SAGEMAKER_NAME_LENGTH

DEFAULT_FILE = Path("kelpie.toml")

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

IMAGE_TAG = r"^[0-9][A-Za-z0-9_.-]*-py3[0-9]+-[A-Za-z0-9_.-]*sagemaker[A-Za-z0-9_.-]*$"
"""A tag of the AWS Deep Learning Containers for SageMaker. It says which Python the image has, for which the libraries
that the image lacks are fetched."""

MODEL_PACKAGE = r"^(arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:[0-9]{12}:model-package/[a-z][a-z0-9-]*/[0-9]+)?$"
"""The ARN of a version of a model package group, or nothing."""

SCHEDULE_EXPRESSION = r"^(rate|cron|at)\([^()]+\)$"
"""An expression of EventBridge Scheduler, by its looks; what is inside is checked before a deployment."""

PROGRAM = r"^(inference/([A-Za-z0-9_-]+/)*[A-Za-z0-9_-]+\.py)?$"
"""The path of a handler in the model archive's `code/`, or nothing."""

ONE_DAY = 86_400

ORDER_RULES: list[list[str]] = [
    ["hosting.min_instance_count", "<=", "hosting.max_instance_count"],
    ["training.instance_count", "<=", "training.batch_size"],
]
"""Rules between two settings, which JSON Schema cannot say."""

STACK_ORDER_RULES: list[list[str]] = [
    ["concurrency.classify_provisioned_min", "<=", "concurrency.classify_provisioned_max"],
]
"""The same between two settings of the stack, which no execution's input can hold."""

SAME_KIND_RULES: dict[str, str] = {
    "training.instance_type": LOCAL_STORAGE,
    "hosting.instance_type": LOCAL_STORAGE,
}
"""Settings that an execution's input may override by a value of the same kind only: if `kelpie.toml`'s matches the
pattern, the input's must, and if not, not. A volume's KMS key is in the definition or it is not; see
docs/decisions/0010-volume-keys.md."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


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
    """What is trained: only the classifier on top, or every layer."""
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
    """Steps between two checkpoints: what an interruption can cost at most."""
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of the files that may be unusable as pictures: they are left out and listed; above it, the job fails."""
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


class ProjectSettings(Section):
    """What everything is called."""

    name: Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", max_length=MAX_PROJECT_LENGTH)] = "kelpie"
    """Name of the project: also of the endpoint, and the beginning of every other name."""


class AwsSettings(Section):
    """Where it is deployed."""

    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$")] = "us-east-1"
    """AWS Region."""


class VpcSettings(Section):
    """The network that training jobs and models run in; leave it as it is to use none of your own."""

    create: bool = False
    """Let the stack make one: two private subnets without internet access, with endpoints to S3 (free), KMS and
    CloudWatch Logs (billed by the hour). With it both lists stay empty."""
    subnet_ids: Annotated[
        tuple[Annotated[str, Field(pattern=r"^subnet-[0-9a-z]+$")], ...], Field(max_length=16, strict=False)
    ] = ()
    """Subnets, at most 16."""
    security_group_ids: Annotated[
        tuple[Annotated[str, Field(pattern=r"^sg-[0-9a-z]+$")], ...], Field(max_length=5, strict=False)
    ] = ()
    """Security groups, at most 5. Training on several hosts needs one that allows traffic to itself."""

    @model_validator(mode="after")
    def _is_one_network(self) -> VpcSettings:
        if self.create and (self.subnet_ids or self.security_group_ids):
            raise ValueError(
                "create = true makes subnets and security groups; leave subnet_ids and security_group_ids out"
            )
        return self


class ScheduleSettings(Section):
    """When executions start by themselves, with every default. Disabled until `kelpie schedule enable`."""

    expression: Annotated[str, Field(pattern=SCHEDULE_EXPRESSION, max_length=256)] = "cron(0 3 ? * SUN *)"
    """`rate(value unit)`, `cron(minutes hours day-of-month month day-of-week year)` or `at(yyyy-mm-ddThh:mm:ss)`."""
    time_zone: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_+/-]*$", max_length=50)] = "UTC"
    """IANA name of the time zone that cron and at expressions are in; daylight saving time is followed."""
    flexible_window_minutes: Annotated[int, Field(ge=0, le=1440)] = 0
    """Minutes after the scheduled time within which the execution may start; 0 for exactly then."""


class TriggersSettings(Section):
    """What else starts executions."""

    on_new_data: bool = False
    """An object named `_SUCCESS` in a folder of the project's data bucket starts an execution on that folder. Put it
    there last."""


class NotificationsSettings(Section):
    """Who hears how executions end, and of alarms."""

    email: Annotated[str, Field(pattern=r"^([^@\s]+@[^@\s]+)?$", max_length=254)] = ""
    """Address that is subscribed to the topic, and must confirm it once; empty for none."""


class BudgetSettings(Section):
    """A message when the costs of the month get high; it stops nothing."""

    monthly_usd: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    """Costs of the WHOLE ACCOUNT per month, in USD: the topic hears of 80 percent spent and of 100 percent forecast.
    0 for no budget."""


class ConcurrencySettings(Section):
    """How many requests the classify Lambda answers at once. An account has a limit, 1,000 or fewer when it is new, and
    reservations must leave 100 of it."""

    classify_reserved: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Requests at once that it has for itself and never exceeds; 0 to share the account's."""
    classify_provisioned_min: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Instances that are always warm, and billed by the second; 0 for none. Not above `classify_reserved`, unless that
    is 0."""
    classify_provisioned_max: Annotated[int, Field(ge=0, le=100_000)] = 0
    """Up to how many warm instances autoscaling goes when 70 percent of them are busy."""

    @model_validator(mode="after")
    def _fits_into_the_reservation(self) -> ConcurrencySettings:
        if 0 < self.classify_reserved < self.classify_provisioned_max:
            raise ValueError("classify_provisioned_max must not be above classify_reserved, unless that is 0")
        return self


class TrailSettings(Section):
    """The audit trail."""

    enabled: bool = False
    """A CloudTrail trail records management events, every object that is read or written in the project's buckets, and
    every call of the classify Lambda. Billed per event."""


class ImagesSettings(Section):
    """What containers are made from. The serving image is built from `inference/`, so there is nothing to choose."""

    training_tag: Annotated[str, Field(pattern=IMAGE_TAG, max_length=128)] = "2.10.0-cpu-py313-ubuntu22.04-sagemaker"
    """Tag of the AWS Deep Learning Container `pytorch-training` that training runs in. A GPU instance type wants one
    with gpu in it. The local cloud trains in its own environment, whatever the tag."""


class WeightsSettings(Section):
    """What the `weights` channel of every training job holds."""

    file: Annotated[str, Field(max_length=1024)] = ""
    """A .safetensors, .pth or .pt file with pre-trained weights of `training.backbone`, on the machine that deploys;
    empty: the weights of `efficientnet_lite0`."""


class LockSettings(Section):
    """What happens when an execution starts while another one of the same project runs."""

    when_held: Literal["refuse", "wait"] = "refuse"
    """`refuse`: the later execution fails at once and names the one that runs. `wait`: it waits for its turn, up to 6
    hours."""


class RetentionSettings(Section):
    """What is kept of earlier runs."""

    versions_to_keep: Annotated[int, Field(ge=2, le=100)] = 3
    """Registered versions that are kept, with their models and endpoint configs. What serves, and what served
    before it, is always kept."""


class UnprovenSettings(Section):
    """Fields of CreateTrainingJob that SageMaker knows, but that nobody has yet seen Step Functions accept.

    A field that Step Functions does not know ends an execution in a way that no state can catch, so they are off
    until you have tried them in your own account.
    """

    retry_attempts: Annotated[int, Field(ge=0, le=30)] = 0
    """RetryStrategy.MaximumRetryAttempts: how often SageMaker repeats a job after its own internal error; 0 leaves
    the field out."""
    encrypt_inter_container_traffic: bool = False
    """EnableInterContainerTrafficEncryption: encrypt what the training hosts send each other; false leaves the field
    out."""


class CostSettings(Section):
    """A limit on what an execution may cost."""

    max_usd_per_execution: Annotated[float, Field(ge=0, le=1_000_000)] = 0.0
    """`kelpie start` refuses an execution that can cost more than this, in USD: above all training to its time limits
    at on-demand prices. 0 sets no limit. `kelpie cost` shows the figure and its parts."""


class LocalSettings(Section):
    """The local cloud only."""

    time_scale: Annotated[float, Field(ge=1, le=1000)] = 30.0
    """By how much waits, cooldowns, metric periods and bake times are shortened on the local cloud. Never the
    timeouts of real work."""


class Config(SharedSections):
    """The whole of `kelpie.toml`; every key is optional."""

    project: ProjectSettings = ProjectSettings()
    aws: AwsSettings = AwsSettings()
    vpc: VpcSettings = VpcSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    triggers: TriggersSettings = TriggersSettings()
    notifications: NotificationsSettings = NotificationsSettings()
    budget: BudgetSettings = BudgetSettings()
    concurrency: ConcurrencySettings = ConcurrencySettings()
    trail: TrailSettings = TrailSettings()
    images: ImagesSettings = ImagesSettings()
    weights: WeightsSettings = WeightsSettings()
    lock: LockSettings = LockSettings()
    retention: RetentionSettings = RetentionSettings()
    unproven: UnprovenSettings = UnprovenSettings()
    cost: CostSettings = CostSettings()
    local: LocalSettings = LocalSettings()

    def defaults(self) -> dict[str, Any]:
        """The input that an execution with the input `{}` gets, ready for JSON."""
        own = self.model_dump(mode="json", include=set(SharedSections.model_fields))
        return ExecutionInput().model_dump(mode="json") | own


def load(path: Path | None = None) -> Config:
    """Read `kelpie.toml`.

    Args:
        path: The file; None reads `kelpie.toml` of the current folder when there is one.

    Raises:
        ConfigError: The file is not there or not TOML, a key is unknown, or a value is not allowed.
    """
    if path is None:
        if not DEFAULT_FILE.exists():
            return Config()
        path = DEFAULT_FILE
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read.", str(error)) from error
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or too deep
        raise ConfigError(f"{path} is not valid TOML.", str(error)) from error
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path} has values that are not allowed.", _explain(error, Config), _FIX) from error
    _check_order(config.model_dump(), path, [*ORDER_RULES, *STACK_ORDER_RULES])
    return config


def check_execution_input(values: dict[str, Any], config: Config) -> None:
    """Check an execution's input against the same rules as ResolveInput, before anything is started.

    Raises:
        ConfigError: A key is unknown, or a value is not allowed.
    """
    try:
        json.dumps(values, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # half a character: Python reads it, AWS does not
        raise ConfigError("the execution input is no JSON that AWS can read.", str(error), _FIX) from error
    if not isinstance(values.get("Comment", ""), str):
        raise ConfigError("the execution input has values that are not allowed.", "Comment must be a text", _FIX)
    given = {name: _whole(section) for name, section in values.items() if name != "Comment"}
    merged = config.defaults()
    try:
        ExecutionInput.model_validate(given)
    except ValidationError as error:
        explained = _explain(error, ExecutionInput)
        raise ConfigError("the execution input has values that are not allowed.", explained, _FIX) from error
    for name, section in given.items():
        merged[name] |= section
    _check_order(merged, "the execution input")
    _check_kinds(merged, config)


def _whole(section: Any) -> Any:
    """JSON Schema takes 3.0 for an integer, and so does ResolveInput."""
    if not isinstance(section, dict):
        return section
    return {key: int(v) if isinstance(v, float) and v.is_integer() else v for key, v in section.items()}


def execution_input_schema() -> dict[str, Any]:
    """JSON Schema (draft-07) of an execution's input.

    Nothing is required and nothing unknown is allowed, but for the `Comment` that the console puts in. The extra
    keyword `x-order-rules` holds the rules between two settings as [left, operator, right], and `x-same-kind-rules`
    the settings whose default and override must both match a pattern or both not. There are no defaults in it: those
    of the deployed `kelpie.toml` reach ResolveInput through the state machine.
    """
    sections = {name: _section_schema(field.annotation) for name, field in ExecutionInput.model_fields.items()}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Kelpie execution input",
        "type": "object",
        "additionalProperties": False,
        "properties": {"Comment": {"type": "string"}, **sections},
        "x-order-rules": ORDER_RULES,
        "x-same-kind-rules": SAME_KIND_RULES,
    }


def reference() -> str:
    """The text of docs/reference/settings.md."""
    only_input = {name: field for name, field in ExecutionInput.model_fields.items() if name not in Config.model_fields}
    lines = [
        "# Settings",
        "",
        "Generated from `workflow/config.py`; do not edit. All of these are optional keys of `kelpie.toml`, except",
        "those of the last two sections.",
        f"The sections {', '.join(f'`{name}`' for name in SharedSections.model_fields)} can also be given in the input",
        "of an execution, for that execution only.",
        f"The sections {' and '.join(f'`{name}`' for name in only_input)} are about one execution: they stand in its",
        "input only, never in `kelpie.toml`.",
        "",
    ]
    for name, section in {**Config.model_fields, **only_input}.items():
        schema = _section_schema(section.annotation)
        heading = f"## {name}, in an execution's input only" if name in only_input else f"## [{name}]"
        lines += [heading, "", *schema["description"].splitlines(), ""]
        lines += ["| Key | Default | Allowed | Meaning |", "|---|---|---|---|"]
        for key, rules in schema["properties"].items():
            default = getattr(section.default, key)
            shown = list(default) if isinstance(default, tuple) else default
            lines.append(f"| `{key}` | `{_toml(shown)}` | {_allowed(rules)} | {rules['description']} |")
        lines.append("")
    rules_text = [f"`{left}` {operator} `{right}`" for left, operator, right in [*ORDER_RULES, *STACK_ORDER_RULES]]
    lines += ["## Between settings", "", *[f"- {text}" for text in rules_text], ""]
    return "\n".join(lines)


_FIX = "look the key up in docs/reference/settings.md"


def _section_schema(section: Any) -> dict[str, Any]:
    schema: dict[str, Any] = section.model_json_schema()
    for rules in schema["properties"].values():
        rules.pop("default", None)
        rules.pop("title", None)
        if "const" in rules:
            rules["enum"] = [rules.pop("const")]
        rules["description"] = " ".join(rules["description"].split())
    schema.pop("title", None)
    return schema


def _explain(error: ValidationError, whole: type[Section]) -> str:
    """For each wrong key: where, what it was, what is allowed, and which key may have been meant."""
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            siblings = _siblings(problem["loc"], whole)
            lines.append(f"{where}: there is no such key; allowed: {', '.join(siblings)}")
            lines += [f"did you mean {near}?" for near in get_close_matches(str(problem["loc"][-1]), siblings, 1)]
        else:
            lines.append(f"{where} = {problem['input']!r}: {problem['msg']}")
    return "\n".join(lines)


def _siblings(location: tuple[int | str, ...], whole: type[Section]) -> list[str]:
    fields: Any = whole.model_fields
    for part in location[:-1]:
        fields = fields[str(part)].annotation.model_fields
    return sorted(fields)


def _check_order(values: dict[str, Any], source: Path | str, rules: list[list[str]] = ORDER_RULES) -> None:
    def value(key: str) -> int:
        section, name = key.split(".")
        return int(values[section][name])

    for left, operator, right in rules:
        if value(left) > value(right):
            detail = f"{left} = {value(left)}, {right} = {value(right)}: must be {left} {operator} {right}"
            raise ConfigError(f"{source} has values that are not allowed.", detail, _FIX)


def _check_kinds(values: dict[str, Any], config: Config) -> None:
    for key, pattern in SAME_KIND_RULES.items():
        section, name = key.split(".")
        default, value = str(config.defaults()[section][name]), str(values[section][name])
        if (re.match(pattern, default) is None) != (re.match(pattern, value) is None):
            detail = (
                f"{key} = {value!r}, and the stack was deployed for {default!r}: one has local storage, which takes no "
                "KMS key, and the other has none"
            )
            fix = f"set {key} in kelpie.toml and deploy again"
            raise ConfigError("the execution input has values that are not allowed.", detail, fix)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _allowed(rules: dict[str, Any]) -> str:
    if "enum" in rules:
        return ", ".join(f"`{_toml(value)}`" for value in rules["enum"])
    if rules["type"] in ("integer", "number"):
        smallest = str(rules["minimum"]) if "minimum" in rules else f"above {rules['exclusiveMinimum']}"
        step = f", a multiple of {rules['multipleOf']}" if "multipleOf" in rules else ""
        return f"{rules['type']}, {smallest} to {rules['maximum']}{step}"
    if "pattern" in rules:
        pattern = rules["pattern"].replace("|", "\\|")
        return f"`{pattern}`"
    return str(rules["type"])
