"""What a project costs: an execution, a deployment, and a month in which nothing runs, line by line.

What stands in the account is counted in workflow/stack.yaml, under the conditions that the settings make true, so a
resource that is added there is counted here. What nobody can know, such as how much is stored, is an assumption that
the line states.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from workflow import schedule_times
from workflow.config import Config
from workflow.cost import pricing
from workflow.deployment import packaging, stack, template

STORED_GB = 10
"""Assumed: pictures, models and checkpoints in S3."""

LOGGED_GB = 1
"""Assumed: logs that are kept."""

IMAGE_GB = 1
"""Assumed: layers of the serving image in the registry; versions of it share most of them."""

LOGGED_GB_PER_EXECUTION = 0.05
"""Assumed: what one execution writes to the logs."""

LOOK_SECONDS = 1.0
"""Assumed: a call of the Lambda `sweep` that finds nothing to do, billed with its start."""

TRAIL_DATA_EVENTS = 10_000
"""Assumed: objects of the project's buckets that are read and written in a month in which nothing runs. An execution
adds one for each picture and host, and each request to the classify Lambda is one more."""

FLOW_LOGGED_GB = 0.1
"""Assumed: flow records of a VPC in which an endpoint waits, one for each flow and ten minutes."""

LAMBDA_GB_SECONDS = 100
"""Assumed: more than the Lambdas of one execution use, CheckData for a large data set included."""

LAMBDA_CALLS = 20

UPDATE_SECONDS = 1800
"""Assumed: how long an update runs the new fleet beside the old one, its start and the bake included."""

BUILD_MINUTES = 10
"""Assumed: how long CodeBuild takes for the serving image."""


@dataclass(frozen=True)
class Line:
    """One part of a cost: what, how much in USD (None where a price is missing), and how it comes about."""

    what: str
    usd: float | None
    how: str


def total(lines: list[Line]) -> float | None:
    """The sum, or None when a price is missing."""
    amounts = [line.usd for line in lines]
    return None if None in amounts else sum(amount for amount in amounts if amount is not None)


def planned_parameters(config: Config, whole: Mapping[str, Any]) -> dict[str, str]:
    """The template's parameters as a deployment of these settings gives them; keys of assets are made up."""
    # Packing the archives takes seconds, and nothing here depends on what is in them.
    assets: defaultdict[str, packaging.Asset] = defaultdict(lambda: packaging.asset_of_bytes("planned", b""))
    given = stack.parameters(config, "planned", assets)
    unknown = {name: "" for name, slot in whole["Parameters"].items() if "Default" not in slot}
    return {one["ParameterKey"]: one["ParameterValue"] for one in template.parameter_list(whole, {**unknown, **given})}


def execution_at_most(config: Config, prices: pricing.Prices | None = None) -> list[Line]:
    """What one execution can cost at most, and what its update of the endpoint adds; None takes the current prices."""
    training, hosting = config.training, config.hosting
    prices = prices or pricing.load_prices()
    bound = pricing.estimate(**_priced(config), prices=prices)
    unit = prices.usd_per_unit
    jobs = 2 if training.managed_spot else 1
    hours = training.max_runtime_seconds * jobs / pricing.SECONDS_PER_HOUR
    volumes = training.volume_size_gb * training.instance_count * hours / pricing.HOURS_PER_MONTH
    hosting_hour = prices.instance_hour("hosting", hosting.instance_type)
    update = UPDATE_SECONDS / pricing.SECONDS_PER_HOUR * hosting.min_instance_count
    kinds = "a spot job and an on-demand job" if training.managed_spot else "an on-demand job"
    return [
        Line(
            "training",
            bound.training_usd,
            f"{kinds} of {training.max_runtime_seconds} s on {training.instance_count} x {training.instance_type}",
        ),
        Line("training volumes", volumes * unit["ml_volume_gb_month"], f"{training.volume_size_gb} GB a host"),
        Line("state transitions", bound.transitions_usd, f"{pricing.MOST_TRANSITIONS}, waiting included"),
        Line(
            "Lambdas",
            LAMBDA_GB_SECONDS * unit["lambda_gb_second"] + LAMBDA_CALLS * unit["lambda_request"],
            f"assumed: {LAMBDA_GB_SECONDS} GB-seconds in {LAMBDA_CALLS} calls",
        ),
        Line("logs", LOGGED_GB_PER_EXECUTION * unit["log_gb_ingested"], f"assumed: {LOGGED_GB_PER_EXECUTION} GB"),
        Line(
            "two fleets during the update",
            None if hosting_hour is None else update * hosting_hour,
            f"assumed: {UPDATE_SECONDS} s of {hosting.min_instance_count} x {hosting.instance_type}",
        ),
    ]


def _priced(config: Config) -> dict[str, Any]:
    """The settings that `pricing.estimate` depends on."""
    training, hosting = config.training, config.hosting
    return {
        "training_instance_type": training.instance_type,
        "training_instance_count": training.instance_count,
        "max_runtime_seconds": training.max_runtime_seconds,
        "managed_spot": training.managed_spot,
        "hosting_instance_type": hosting.instance_type,
        "min_instance_count": hosting.min_instance_count,
        "max_instance_count": hosting.max_instance_count,
    }


def deployment(prices: pricing.Prices | None = None) -> list[Line]:
    """What a deployment costs that builds the serving image; one that finds it built costs nothing."""
    minutes = (prices or pricing.load_prices()).usd_per_unit["codebuild_minute"]
    return [Line("CodeBuild", BUILD_MINUTES * minutes, f"assumed: {BUILD_MINUTES} minutes, when the image has changed")]


def idle_month(
    config: Config, whole: Mapping[str, Any] | None = None, prices: pricing.Prices | None = None
) -> list[Line]:
    """What a month costs in which the endpoint waits and nothing is started.

    Args:
        config: The settings.
        whole: The template; None takes stack.yaml.
        prices: None takes the current ones.
    """
    whole = whole or template.parse(template.TEMPLATE_FILE.read_text(encoding="utf-8"))
    given = planned_parameters(config, whole)
    prices = prices or pricing.load_prices()
    unit, hosting = prices.usd_per_unit, config.hosting
    hour = prices.instance_hour("hosting", hosting.instance_type)
    lines = [
        Line(
            "endpoint",
            None if hour is None else hour * hosting.min_instance_count * pricing.HOURS_PER_MONTH,
            f"{hosting.min_instance_count} x {hosting.instance_type}, {pricing.HOURS_PER_MONTH} hours",
        )
    ]
    standing = list(_standing(whole, given))
    keys = _count(standing, "AWS::KMS::Key")
    lines.append(Line("KMS key", keys * unit["kms_key_month"], f"{keys}; each of its first two rotations adds as much"))
    alarms = _count(standing, "AWS::CloudWatch::Alarm")
    lines.append(Line("alarms", (alarms + 2) * unit["alarm_month"], f"{alarms} of the stack, 2 of automatic scaling"))
    dashboards = _count(standing, "AWS::CloudWatch::Dashboard")
    if dashboards:
        lines.append(
            Line("dashboard", dashboards * unit["dashboard_month"], "free while the account has no more than three")
        )
    lines.append(_looking_around(standing, unit))
    provisioned = int(given.get("ClassifyProvisionedMin") or 0)
    if provisioned:
        megabytes = next(r["MemorySize"] for name, r in standing if name == "ClassifyFunction")
        seconds = pricing.HOURS_PER_MONTH * pricing.SECONDS_PER_HOUR
        lines.append(
            Line(
                "provisioned concurrency",
                provisioned * megabytes / 1024 * seconds * unit["lambda_provisioned_gb_second"],
                f"{provisioned} of {megabytes} MB, always ready",
            )
        )
    interfaces = [
        properties
        for name, properties in standing
        if whole["Resources"][name]["Type"] == "AWS::EC2::VPCEndpoint"
        and properties.get("VpcEndpointType") == "Interface"
    ]
    if interfaces:
        zones = sum(len(one["SubnetIds"]) for one in interfaces)
        hours = zones * pricing.HOURS_PER_MONTH
        lines.append(
            Line(
                "interface endpoints",
                hours * unit["interface_endpoint_hour"],
                f"{len(interfaces)} of the VPC, in {zones // len(interfaces)} Availability Zones; traffic is extra",
            )
        )
    return [
        *lines,
        *_records(standing, unit),
        Line("storage in S3", STORED_GB * unit["s3_gb_month"], f"assumed: {STORED_GB} GB"),
        Line("logs", LOGGED_GB * unit["log_gb_month"], f"assumed: {LOGGED_GB} GB kept"),
        Line("serving image", IMAGE_GB * unit["ecr_gb_month"], f"assumed: {IMAGE_GB} GB in the registry"),
    ]


def _looking_around(standing: list[tuple[str, Mapping[str, Any]]], unit: Mapping[str, float]) -> Line:
    """The scheduled calls of the Lambda `sweep`."""
    month = timedelta(hours=pricing.HOURS_PER_MONTH)
    rates = [each["ScheduleExpression"] for _, each in standing if "rate(" in str(each.get("ScheduleExpression"))]
    periods = [schedule_times.parse(rate, "UTC").period for rate in rates]
    calls = sum(month / period for period in periods if period is not None)
    megabytes = next(each["MemorySize"] for name, each in standing if name == "SweepFunction")
    call = LOOK_SECONDS * megabytes / 1024 * unit["lambda_gb_second"] + unit["lambda_request"]
    told = f"{calls:.0f} calls, assumed: {LOOK_SECONDS:g} s each; within Lambda's free tier if nothing else uses it up"
    return Line("looking around", calls * call, told)


def _records(standing: list[tuple[str, Mapping[str, Any]]], unit: Mapping[str, float]) -> Iterator[Line]:
    """What the audit trail and the flow logs cost while nothing runs. An account's first trail of management events is
    free."""
    if _count(standing, "AWS::CloudTrail::Trail"):
        yield Line(
            "audit trail",
            TRAIL_DATA_EVENTS * unit["trail_data_event"],
            f"assumed: {TRAIL_DATA_EVENTS} data events; management events are free in the account's first trail",
        )
    if _count(standing, "AWS::EC2::FlowLog"):
        gigabyte = unit["vended_log_gb_ingested"] + unit["log_gb_month"]
        yield Line("flow logs", FLOW_LOGGED_GB * gigabyte, f"assumed: {FLOW_LOGGED_GB} GB, delivered and kept")


def _standing(whole: Mapping[str, Any], given: Mapping[str, str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Name and properties of every resource that a deployment with these parameters creates."""
    for name, resource in whole["Resources"].items():
        if "Condition" not in resource or _holds({"Condition": resource["Condition"]}, whole, given):
            yield name, {**resource.get("Properties", {}), "Type": resource["Type"]}


def _count(standing: list[tuple[str, Mapping[str, Any]]], resource_type: str) -> int:
    return sum(properties["Type"] == resource_type for _, properties in standing)


def _holds(condition: Any, whole: Mapping[str, Any], given: Mapping[str, str]) -> Any:
    """The value of a condition, or of what stands in one."""
    if not isinstance(condition, Mapping):
        return condition
    ((function, argument),) = condition.items()
    if function == "Ref":
        return given[argument]
    if function == "Condition":
        return _holds(whole["Conditions"][argument], whole, given)
    values = [_holds(one, whole, given) for one in argument]
    if function == "Fn::Equals":
        return str(values[0]) == str(values[1])
    if function == "Fn::Not":
        return not values[0]
    if function in ("Fn::And", "Fn::Or"):
        return all(values) if function == "Fn::And" else any(values)
    raise ValueError(f"workflow/stack.yaml: a condition with {function}, which the cost model cannot read")


def reference() -> str:
    """The text of docs/reference/costs.md."""
    prices = pricing.shipped_prices()
    month = idle_month(Config(), prices=prices)
    options = Config.model_validate({"vpc": {"create": True}, "trail": {"enabled": True}})
    usual = {line.what for line in month}
    added = [line for line in idle_month(options, prices=prices) if line.what not in usual]
    chapters = (
        ("An execution, at most", execution_at_most(Config(), prices)),
        ("A deployment", deployment(prices)),
        ("A month in which nothing runs", month),
        ("What `[vpc] create` and `[trail] enabled` add to that month", added),
    )
    lines = [
        "# Costs",
        "",
        "Generated from `workflow/cost/costs.py`, `workflow/cost/prices.json` and `workflow/stack.yaml` for the",
        "default settings; do not edit. `kelpie cost` shows the same for yours, `kelpie cost EXECUTION` what one cost.",
        "",
        f"Prices in USD of {prices.as_of} for {prices.region}, source: {prices.source}. Free tiers are not counted.",
        "`kelpie preflight --aws` reads those of the configured instance types, in your Region, from AWS's price list.",
    ]
    for heading, parts in chapters:
        lines += ["", f"## {heading}", "", "| What | USD | How it comes about |", "|---|---|---|"]
        lines += [f"| {line.what} | {shown(line.usd)} | {line.how} |" for line in parts]
        lines.append(f"| together | {shown(total(parts))} | |")
    return "\n".join(lines) + "\n"


def shown(usd: float | None) -> str:
    """An amount for a person."""
    return "no price" if usd is None else f"{usd:.4f}" if usd < 1 else f"{usd:.2f}"
