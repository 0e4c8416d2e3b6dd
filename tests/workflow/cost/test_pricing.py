"""The cost model."""

import pytest

from workflow.cost.pricing import MOST_TRANSITIONS, Cost, Estimate, estimate, execution_cost, load_prices


def cost(**changes: object) -> Cost:
    """A 2-host job, 1,800 s of which 600 s are billed, and one hosting instance."""
    values: dict[str, object] = {
        "training_instance_type": "ml.c5.xlarge",
        "training_instance_count": 2,
        "training_seconds": 1800,
        "billable_seconds": 600,
        "state_transitions": 40,
        "hosting_instance_type": "ml.c5.large",
        "hosting_instance_count": 1,
    }
    return execution_cost(**{**values, **changes})  # type: ignore[arg-type]


def test_training_is_billed_per_instance_for_the_billable_seconds() -> None:
    hour = load_prices().usd_per_instance_hour["training"]["ml.c5.xlarge"]
    assert cost().training_usd == pytest.approx(hour * 2 * 600 / 3600)
    assert cost(training_instance_count=4).training_usd == pytest.approx(2 * (cost().training_usd or 0))


def test_spot_saving_does_not_depend_on_the_instance_count() -> None:
    assert cost().spot_saving_percent == pytest.approx(100 * 2 / 3)
    assert cost(training_instance_count=8).spot_saving_percent == cost().spot_saving_percent


def test_a_type_without_a_price_has_no_cost_rather_than_a_wrong_one() -> None:
    unknown = cost(training_instance_type="ml.unheard-of.xlarge")
    assert unknown.training_usd is None
    assert unknown.total_usd is None
    assert unknown.transitions_usd > 0


def test_prices_carry_their_date_and_source() -> None:
    assert load_prices().as_of.startswith("20")
    assert load_prices().source


def bound(**changes: object) -> Estimate:
    """Two hosts for at most an hour on managed spot, and one to three hosting instances."""
    values: dict[str, object] = {
        "training_instance_type": "ml.c5.xlarge",
        "training_instance_count": 2,
        "max_runtime_seconds": 3600,
        "managed_spot": True,
        "hosting_instance_type": "ml.c5.large",
        "min_instance_count": 1,
        "max_instance_count": 3,
    }
    return estimate(**{**values, **changes})  # type: ignore[arg-type]


def test_with_managed_spot_the_limit_may_be_paid_twice_because_of_the_fall_back() -> None:
    hour = load_prices().usd_per_instance_hour["training"]["ml.c5.xlarge"]
    assert bound(managed_spot=False).training_usd == pytest.approx(2 * hour)
    assert bound().training_usd == pytest.approx(4 * hour)


def test_no_execution_costs_more_than_its_estimate() -> None:
    spent = cost(training_seconds=3600, billable_seconds=3600, state_transitions=MOST_TRANSITIONS)
    assert spent.total_usd is not None
    assert spent.total_usd <= (bound().total_usd or 0)


def test_an_estimate_without_a_price_has_no_total() -> None:
    assert bound(training_instance_type="ml.unheard-of.xlarge").total_usd is None
