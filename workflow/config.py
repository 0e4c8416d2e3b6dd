"""Everything that can be set in `kelpie.toml`: what the stack is made of, and the defaults of every execution.

The sections that an execution's input may override are in workflow/execution_input.py; those of the stack are here.
Each field has its unit, its range and its default here and nowhere else. From this one source come the checks of
`kelpie.toml`, the defaults that the ResolveInput Lambda merges inputs into, and docs/reference/settings.md. Importing
this module is cheap: it needs no AWS library.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from workflow.errors import ConfigError
from workflow.execution_input import ORDER_RULES, ExecutionInput, SharedSections
from workflow.names import MAX_PROJECT_LENGTH
from workflow.section import FIX, Section, check_order, explain

DEFAULT_FILE = Path("kelpie.toml")

IMAGE_TAG = r"^[0-9][A-Za-z0-9_.-]*-py3[0-9]+-[A-Za-z0-9_.-]*sagemaker[A-Za-z0-9_.-]*$"
"""A tag of the AWS Deep Learning Containers for SageMaker. It says which Python the image has, for which the libraries
that the image lacks are fetched."""

SCHEDULE_EXPRESSION = r"^(rate|cron|at)\([^()]+\)$"
"""An expression of EventBridge Scheduler, by its looks; what is inside is checked before a deployment."""

STACK_ORDER_RULES: list[list[str]] = [
    ["concurrency.classify_provisioned_min", "<=", "concurrency.classify_provisioned_max"],
]
"""The same between two settings of the stack, which no execution's input can hold."""


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
        raise ConfigError(f"{path} has values that are not allowed.", explain(error, Config), FIX) from error
    check_order(config.model_dump(), path, [*ORDER_RULES, *STACK_ORDER_RULES])
    return config
