"""What a project costs, line by line, and where its prices come from."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow.config import Config
from workflow.cost import costs, price_list, pricing
from workflow.deployment import template


@cache
def whole() -> dict[str, Any]:
    return template.parse(template.TEMPLATE_FILE.read_text(encoding="utf-8"))


def month(values: dict[str, Any] | None = None) -> dict[str, costs.Line]:
    return {line.what: line for line in costs.idle_month(Config.model_validate(values or {}), whole())}


def usd(line: costs.Line) -> float:
    assert line.usd is not None
    return line.usd


def test_looking_around_every_quarter_of_an_hour_costs_cents() -> None:
    line = month()["looking around"]
    assert line.how.startswith("2920 calls")
    assert 0.005 < usd(line) < 0.05


def test_what_the_template_creates_is_counted() -> None:
    alarms = sum(one["Type"] == "AWS::CloudWatch::Alarm" for one in whole()["Resources"].values())
    price = pricing.load_prices().usd_per_unit["alarm_month"]
    # An alarm under a condition that the default settings do not make true is not counted.
    assert 2 * price < usd(month()["alarms"]) <= (alarms + 2) * price
    assert usd(month()["KMS key"]) == pytest.approx(1.0)


def test_what_is_switched_on_costs_and_what_is_off_does_not() -> None:
    assert "interface endpoints" not in month()
    assert usd(month({"vpc": {"create": True}})["interface endpoints"]) > 10
    assert not {"flow logs", "audit trail"} & month().keys()
    price = pricing.load_prices().usd_per_unit
    gigabyte = price["vended_log_gb_ingested"] + price["log_gb_month"]
    assert usd(month({"vpc": {"create": True}})["flow logs"]) == pytest.approx(costs.FLOW_LOGGED_GB * gigabyte)
    trail = month({"trail": {"enabled": True}})["audit trail"]
    assert usd(trail) == pytest.approx(costs.TRAIL_DATA_EVENTS * price["trail_data_event"])
    assert f"assumed: {costs.TRAIL_DATA_EVENTS} data events" in trail.how
    assert "provisioned concurrency" not in month()
    two = month({"concurrency": {"classify_provisioned_min": 2, "classify_provisioned_max": 4}})
    memory = whole()["Resources"]["ClassifyFunction"]["Properties"]["MemorySize"]
    always = 2 * memory / 1024 * 730 * 3600 * price["lambda_provisioned_gb_second"]
    assert usd(two["provisioned concurrency"]) == pytest.approx(always)


def test_the_reference_says_what_the_options_add() -> None:
    _, _, added = costs.reference().partition("## What `[vpc] create`")
    assert [line.split(" | ")[0] for line in added.splitlines()[4:]] == [
        "| interface endpoints",
        "| audit trail",
        "| flow logs",
        "| together",
    ]


def test_the_endpoint_waits_with_its_smallest_number_of_instances() -> None:
    hour = pricing.load_prices().usd_per_instance_hour["hosting"]["ml.c5.large"]
    assert usd(month({"hosting": {"min_instance_count": 3}})["endpoint"]) == pytest.approx(3 * hour * 730)
    assert month({"hosting": {"instance_type": "ml.unheard-of.xlarge"}})["endpoint"].usd is None
    assert costs.total(list(month({"hosting": {"instance_type": "ml.unheard-of.xlarge"}}).values())) is None


@given(st.integers(1, 100), st.integers(60, 432_000), st.booleans(), st.integers(1, 1000))
def test_an_execution_costs_more_with_more_of_anything(hosts: int, seconds: int, spot: bool, volume: int) -> None:
    def most(hosts: int, seconds: int, volume: int) -> float:
        training = {
            "instance_count": hosts,
            "max_runtime_seconds": seconds,
            "managed_spot": spot,
            "volume_size_gb": volume,
            "batch_size": 128,
        }
        total = costs.total(costs.execution_at_most(Config.model_validate({"training": training})))
        assert total is not None
        return total

    least = most(hosts, seconds, volume)
    assert 0 < least < most(hosts + 1, seconds, volume) if hosts < 100 else True
    assert least < most(hosts, seconds + 1, volume) if seconds < 432_000 else True
    assert least < most(hosts, seconds, volume + 1)


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"Fn::Equals": [{"Ref": "A"}, "yes"]}, True),
        ({"Fn::Not": [{"Fn::Equals": [{"Ref": "A"}, "yes"]}]}, False),
        ({"Fn::And": [{"Condition": "IsYes"}, {"Fn::Equals": ["1", 1]}]}, True),
        ({"Fn::Or": [{"Fn::Equals": [{"Ref": "A"}, "no"]}, {"Condition": "IsYes"}]}, True),
    ],
)
def test_conditions_of_the_template_are_read(condition: dict[str, Any], holds: bool) -> None:
    conditions = {"IsYes": {"Fn::Equals": [{"Ref": "A"}, "yes"]}}
    assert costs._holds(condition, {"Conditions": conditions}, {"A": "yes"}) is holds


def test_a_condition_that_cannot_be_read_is_no_silent_no() -> None:
    with pytest.raises(ValueError, match="Fn::FindInMap"):
        costs._holds({"Fn::FindInMap": ["a", "b", "c"]}, {}, {})


class PriceList:
    """AWS's price list with these products, by usage type."""

    def __init__(self, **prices: list[float]) -> None:
        self.prices = {name.replace("__", ":").replace("_", "."): values for name, values in prices.items()}
        self.asked: list[tuple[str, dict[str, str]]] = []

    def client(self, service: str, region: str | None = None) -> Any:
        assert (service, region) == ("pricing", "us-east-1")
        return self

    region = "eu-central-1"

    def get_paginator(self, operation: str) -> Any:
        assert operation == "get_products"
        return self

    def paginate(self, ServiceCode: str, Filters: list[dict[str, str]]) -> list[dict[str, Any]]:
        self.asked.append((ServiceCode, {one["Field"]: one["Value"] for one in Filters}))
        return [{"PriceList": [self.product(name, values) for name, values in self.prices.items()]}]

    def product(self, usage_type: str, values: list[float]) -> str:
        tiers = {str(n): {"pricePerUnit": {"USD": str(value)}} for n, value in enumerate(values)}
        terms = {"OnDemand": {"offer": {"priceDimensions": tiers}}}
        return json.dumps({"product": {"attributes": {"usagetype": usage_type}}, "terms": terms})


PRICES: dict[str, list[float]] = {
    "EUC1-Train__ml_c5_xlarge": [0.3],
    "EUC1-Host__ml_c5_large": [0.2],
    "EUC1-Train__ml_c5_2xlarge": [9.0],
    "EUC1-StateTransition": [0.0, 0.00003],
}


def test_prices_are_read_dated_and_kept_outside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KELPIE_HOME", str(tmp_path / "home"))
    shipped = pricing.load_prices()
    aws: Any = PriceList(**PRICES)
    price_list.refresh(aws, Config())
    now = pricing.load_prices()
    assert now.usd_per_instance_hour["training"]["ml.c5.xlarge"] == 0.3
    assert now.usd_per_instance_hour["hosting"]["ml.c5.large"] == 0.2
    assert now.usd_per_state_transition == 0.00003
    assert (
        now.usd_per_instance_hour["training"]["ml.m5.large"] == shipped.usd_per_instance_hour["training"]["ml.m5.large"]
    )
    assert (now.region, now.source) == ("eu-central-1", price_list.SOURCE)
    assert now.as_of.startswith("20")
    assert pricing.refreshed_file().is_relative_to(tmp_path)
    assert aws.asked[0] == ("AmazonSageMaker", {"regionCode": "eu-central-1", "instanceName": "ml.c5.xlarge"})


def test_without_an_answer_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KELPIE_HOME", str(tmp_path))
    nothing: Any = PriceList()
    price_list.refresh(nothing, Config())
    assert not pricing.refreshed_file().exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"as_of": 1, "usd_per_instance_hour": 3}', "\x00"])
def test_a_broken_file_of_prices_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("KELPIE_HOME", str(tmp_path))
    pricing.refreshed_file().write_text(text)
    assert pricing.load_prices().source == "unverified"
