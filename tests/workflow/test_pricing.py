"""The cost model."""

import pytest

from workflow.pricing import Cost, execution_cost, load_prices


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
