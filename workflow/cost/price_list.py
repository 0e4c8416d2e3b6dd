"""AWS's price list: the prices of the instances in one Region, read through the Pricing API and kept in a dated file.

Needs no resource of the account and costs nothing. The file lies in the project folder (`pricing.refreshed_file`),
never in the package.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from workflow.cost import pricing

if TYPE_CHECKING:
    from workflow.account import Account
    from workflow.config import Config

SOURCE = "AWS Price List API; what it did not answer: the table that ships with Kelpie"

_REGION = "us-east-1"
"""One of the few Regions that the Pricing API answers in, for all Regions. Source: botocore 1.44.5, endpoints."""

_USAGE = {"training": "Train", "hosting": "Host"}
"""How the usage types of SageMaker begin after the Region's code, such as USE1-Train:ml.c5.xlarge.

Source: public reports of the price list, read 2026-11; not verified with an account.
"""


def refresh(account: Account, config: Config) -> dict[str, Any]:
    """Read the prices of the configured instance types, and of a state transition; write and return them.

    Raises:
        ClientError, BotoCoreError: The account does not answer. Nothing is written then.
    """
    client = account.client("pricing", _REGION)
    hours: dict[str, dict[str, float]] = {use: {} for use in _USAGE}
    for use, instance_type in (
        ("training", config.training.instance_type),
        ("hosting", config.hosting.instance_type),
    ):
        fields = {"regionCode": account.region, "instanceName": instance_type}
        for product in _products(client, "AmazonSageMaker", fields):
            if _usage_type(product).endswith(f"{_USAGE[use]}:{instance_type}"):
                hours[use][instance_type] = usd(product)
    table: dict[str, Any] = {
        "as_of": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "source": SOURCE,
        "region": account.region,
        "usd_per_instance_hour": hours,
    }
    for product in _products(client, "AmazonStates", {"regionCode": account.region}):
        if _usage_type(product).endswith("StateTransition"):
            table["usd_per_state_transition"] = usd(product)
    if any(hours.values()):
        file = pricing.refreshed_file()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    return table


def usd(product: dict[str, Any]) -> float:
    """The on-demand price of a product for one unit: that of its dearest tier, since the first one may be free."""
    prices = [
        float(dimension["pricePerUnit"]["USD"])
        for term in product["terms"]["OnDemand"].values()
        for dimension in term["priceDimensions"].values()
    ]
    return max(prices)


def _usage_type(product: dict[str, Any]) -> str:
    return str(product["product"]["attributes"].get("usagetype", ""))


def _products(client: Any, service: str, fields: dict[str, str]) -> Iterator[dict[str, Any]]:
    filters = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in fields.items()]
    for page in client.get_paginator("get_products").paginate(ServiceCode=service, Filters=filters):
        for text in page["PriceList"]:
            yield json.loads(text)
