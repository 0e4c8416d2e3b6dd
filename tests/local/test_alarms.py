"""CloudWatch alarms: the state that follows from data points, and the stack's own two at work."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.local.conftest import World, wait_until
from workflow.deployment import template
from workflow.local.alarms import next_state

BAD, GOOD, NONE = True, False, None


# The table of the CloudWatch user guide for three out of three, with a range of five.
@pytest.mark.parametrize(
    ("points", "missing", "breaching", "not_breaching", "ignore"),
    [
        ([GOOD, NONE, BAD, NONE, BAD], "OK", "OK", "OK", "OK"),
        ([NONE, NONE, NONE, NONE, GOOD], "OK", "OK", "OK", "OK"),
        ([NONE, NONE, NONE, NONE, NONE], "INSUFFICIENT_DATA", "ALARM", "OK", "as before"),
        ([GOOD, BAD, BAD, NONE, BAD], "ALARM", "ALARM", "ALARM", "ALARM"),
        ([NONE, NONE, BAD, NONE, NONE], "ALARM", "ALARM", "OK", "as before"),
    ],
)
def test_missing_data_are_treated_as_the_guide_s_table_says(
    points: list[bool | None], missing: str, breaching: str, not_breaching: str, ignore: str
) -> None:
    wanted = {"missing": missing, "breaching": breaching, "notBreaching": not_breaching, "ignore": ignore}
    assert {each: next_state("as before", points, 3, 3, each) for each in wanted} == wanted


def test_fewer_datapoints_to_alarm_than_evaluation_periods_are_enough() -> None:
    assert next_state("OK", [GOOD, GOOD, BAD, GOOD, BAD], 3, 2, "missing") == "ALARM"
    assert next_state("OK", [BAD, BAD, BAD, GOOD, GOOD], 3, 2, "missing") == "OK", "only the newest three count"


def test_one_bad_minute_of_the_endpoint_is_no_alarm_and_two_are() -> None:
    alarm = template.parse(template.TEMPLATE_FILE.read_text())["Resources"]["EndpointErrorsAlarm"]["Properties"]
    needed, missing = (alarm["EvaluationPeriods"], alarm["DatapointsToAlarm"]), alarm["TreatMissingData"]
    for quiet in (GOOD, NONE):
        assert next_state("OK", [quiet, quiet, quiet, quiet, BAD], *needed, missing) == "OK"
        assert next_state("OK", [quiet, quiet, BAD, quiet, BAD], *needed, missing) == "ALARM"
    assert next_state("ALARM", [BAD, BAD, GOOD, GOOD, BAD], *needed, missing) == "OK"


@given(
    st.lists(st.sampled_from([BAD, GOOD]), min_size=5, max_size=5),
    st.integers(1, 5),
    st.sampled_from(["missing", "breaching", "notBreaching", "ignore"]),
)
def test_without_missing_data_the_treatment_of_missing_data_makes_no_difference(
    points: list[bool], needed: int, missing: str
) -> None:
    wanted = "ALARM" if sum(points[-needed:]) == needed else "OK"
    assert next_state("before", points, needed, needed, missing) == wanted


def put_alarm(world: World, endpoint: str, logical_id: str = "EndpointErrorsAlarm", **changes: Any) -> str:
    """An alarm as in the stack, for another endpoint; its name."""
    properties = template.parse(template.TEMPLATE_FILE.read_text())["Resources"][logical_id]["Properties"]
    wanted = {key: value for key, value in properties.items() if key not in ("AlarmName", "AlarmActions", "Dimensions")}
    name = f"alarm-{uuid.uuid4().hex[:8]}"
    dimensions = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": "AllTraffic"}]
    asked = {**wanted, "AlarmName": name, "Dimensions": dimensions, **changes}
    world.client("cloudwatch").put_metric_alarm(**{key: value for key, value in asked.items() if value is not None})
    return name


def described(world: World, alarm: str) -> dict[str, Any]:
    """DescribeAlarms of one alarm."""
    found: dict[str, Any] = world.client("cloudwatch").describe_alarms(AlarmNames=[alarm])["MetricAlarms"][0]
    return found


@pytest.mark.parametrize(
    ("logical_id", "metric", "good", "bad"),
    [
        ("EndpointErrorsAlarm", "Invocation5XXErrors", 0.0, 1.0),
        ("EndpointLatencyAlarm", "ModelLatency", 1_900_000.0, 2_100_000.0),
    ],
)
def test_the_stack_s_alarms_follow_the_metric_there_and_back(
    world: World, logical_id: str, metric: str, good: float, bad: float
) -> None:
    world.sagemaker.list_endpoints()  # the endpoints' metrics, and the alarms on them, begin with its first use
    endpoint = f"none-{uuid.uuid4().hex[:8]}"
    alarm = put_alarm(world, endpoint, logical_id)

    def state_after(value: float) -> Callable[[], str]:
        def put() -> str:
            world.client("cloudwatch").put_metric_data(
                Namespace="AWS/SageMaker",
                MetricData=[
                    {
                        "MetricName": metric,
                        "Value": value,
                        "Dimensions": [
                            {"Name": "EndpointName", "Value": endpoint},
                            {"Name": "VariantName", "Value": "AllTraffic"},
                        ],
                    }
                ],
            )
            return str(described(world, alarm)["StateValue"])

        return put

    for value, state in ((bad, "ALARM"), (good, "OK")):
        put = state_after(value)
        wait_until(lambda put=put, state=state: put() == state)
    assert metric in described(world, alarm)["StateReason"]
    world.client("cloudwatch").delete_alarms(AlarmNames=[alarm])
