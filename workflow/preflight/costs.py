"""What it costs: an execution at most, a month in which nothing runs, and whether the ceiling holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from workflow.cost import costs, price_list, pricing
from workflow.preflight.findings import Finding, Subject, asking, error, info, warning

if TYPE_CHECKING:
    from workflow.account import Account


def check(subject: Subject) -> Iterator[Finding]:
    """The estimate, the ceiling of kelpie.toml, and how much the prices are worth."""
    config, prices = subject.config, pricing.load_prices()
    types = (
        ("training.instance_type", "training", config.training.instance_type),
        ("hosting.instance_type", "hosting", config.hosting.instance_type),
    )
    for where, use, instance_type in types:
        if instance_type not in prices.usd_per_instance_hour[use]:
            yield warning(
                f"There is no price for {instance_type}.",
                where,
                "Nobody can say what it will cost.",
                "kelpie preflight --aws reads the price; or choose one of workflow/cost/prices.json.",
            )
    most, limit = costs.total(costs.execution_at_most(config)), config.cost.max_usd_per_execution
    if limit and most is None:
        yield error(
            "The cost of an execution is not known, so its ceiling cannot hold.",
            "cost.max_usd_per_execution",
            "kelpie start refuses every execution.",
            "kelpie preflight --aws reads the missing price; or set the ceiling to 0.",
        )
    elif limit and most is not None and most > limit:
        yield error(
            f"An execution can cost {most:.2f} USD; the ceiling is {limit:.2f}.",
            "cost.max_usd_per_execution",
            "kelpie start refuses it.",
            "Lower training.max_runtime_seconds or training.instance_count, or raise the ceiling.",
        )
    month = costs.total(costs.idle_month(config, subject.template))
    yield info(
        f"An execution costs at most {costs.shown(most)} USD, a month in which nothing runs {costs.shown(month)} USD.",
        "kelpie cost",
        f"At prices of {prices.as_of} for {prices.region}, source: {prices.source}. "
        + (f"The ceiling is {limit:.2f} USD." if limit else "There is no ceiling."),
    )
    if prices.region != config.aws.region:
        yield info(
            f"The prices are of {prices.region}; the project is in {config.aws.region}.",
            "aws.region",
            "Other Regions cost up to about half as much again.",
            "kelpie preflight --aws reads those of its Region.",
        )


def _refresh(subject: Subject, account: Account) -> Iterator[Finding]:
    if account.endpoint_url is not None:
        yield info("not asked: the current prices", "pricing:GetProducts", "The local cloud has no price list.")
        return
    table = price_list.refresh(account, subject.config)
    if not any(table["usd_per_instance_hour"].values()):
        yield warning(
            "AWS's price list has no price for the configured instance types.",
            "pricing:GetProducts",
            "They may not be offered in this Region, or are listed in another form than Kelpie knows.",
            "Look the prices up on the pricing page of SageMaker.",
        )


refresh = asking(_refresh, "the current prices", "pricing:GetProducts")
