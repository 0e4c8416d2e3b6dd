"""The steps of an endpoint's change, with fleets that only remember what was done to them."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from moto.sagemaker.exceptions import ValidationError

from workflow.local.clock import Clock
from workflow.local.deployment import Deployment, DeploymentFailed, LiveEndpoint, VariantPlan
from workflow.local.deployment_config import UpdatePolicy
from workflow.local.fleet import OutOfTime

CANARY = {"Type": "CANARY", "WaitIntervalInSeconds": 300, "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 1}}


class Fleet:
    """Counts its instances and says whether it was closed."""

    def __init__(self, start_seconds: float = 0.0) -> None:
        self.size = 0
        self.closed = False
        self.start_seconds = start_seconds

    def scale_to(self, count: int, deadline: float = math.inf) -> None:
        if self.start_seconds > deadline:
            raise OutOfTime("too slow")
        self.size = count

    def close(self, drain_seconds: float = 0.0) -> None:
        self.closed = True


class Router:
    """Remembers the weights of the fleets, route by route; fails when told to."""

    def __init__(self) -> None:
        self.history: list[dict[Any, float]] = []
        self.fail_next = False

    def set_routes(self, endpoint_name: str, routes: list[Any]) -> None:
        if self.fail_next:
            self.fail_next = False
            raise OSError("no space left on device")
        self.history.append({route.fleet: round(route.weight, 6) for route in routes})


class World:
    """An endpoint with one old fleet, a new one to come, and alarms whose state follows the share of the new one."""

    def __init__(self, state: str = "OK", from_share: float = 0.0, new: Fleet | None = None) -> None:
        self.old, self.new, self.router = Fleet(), new or Fleet(), Router()
        record = SimpleNamespace(endpoint_name="kelpie", endpoint_config_name="old", production_variants=[])
        fleets: Any = {"AllTraffic": self.old}
        self.live = LiveEndpoint(record, fleets, {"AllTraffic": 1.0})
        self.stages: list[str] = []
        self._state, self._from_share = state, from_share

    def describe_alarms(self, AlarmNames: list[str]) -> dict[str, Any]:
        self.stages.append(self.pending()["VariantStatus"][0]["Status"])
        state = self._state if self.pending()["CurrentWeight"] >= self._from_share else "OK"
        return {"MetricAlarms": [{"AlarmName": name, "StateValue": state} for name in AlarmNames]}

    def pending(self) -> dict[str, Any]:
        summary: dict[str, Any] = self.live.record.pending_deployment_summary["ProductionVariants"][0]
        return summary

    def deploy(self, policy: UpdatePolicy | None = None) -> None:
        engine: Any = SimpleNamespace(
            clock=Clock(1e6), home=Path("unused"), identity=SimpleNamespace(client=lambda *_: self)
        )
        model = SimpleNamespace(primary_container={"Image": "image"}, containers=None, execution_role_arn="role")
        plan = VariantPlan({"VariantName": "AllTraffic", "InstanceType": "ml.c5.large"}, model, 2, 1.0)
        deployment: Any = Deployment(engine, cast(Any, self.router), self.live, [plan], "new", policy or UpdatePolicy())
        deployment._make_fleet = lambda _plan: self.new
        deployment.run()

    def assert_the_old_one_serves(self) -> None:
        assert self.new.closed
        assert not self.old.closed
        assert self.router.history[-1] == {self.old: 1.0}
        assert self.live.fleets == {"AllTraffic": self.old}
        assert self.live.record.endpoint_config_name == "old"
        assert self.live.record.pending_deployment_summary is None


def policy(routing: dict[str, Any], count: int = 2, **changes: Any) -> UpdatePolicy:
    config = {
        "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, **changes},
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "errors"}]},
    }
    return UpdatePolicy.of(config, {"AllTraffic": count})


def linear(kind: str, value: int) -> dict[str, Any]:
    return {"Type": "LINEAR", "WaitIntervalInSeconds": 60, "LinearStepSize": {"Type": kind, "Value": value}}


def test_whatever_goes_wrong_the_new_servers_end_and_the_old_ones_serve() -> None:
    world = World()
    world.router.fail_next = True
    with pytest.raises(OSError, match="no space"):
        world.deploy()
    world.assert_the_old_one_serves()


def test_all_at_once_gives_the_new_fleet_everything_and_ends_the_old_one() -> None:
    world = World()
    world.deploy()
    assert world.router.history == [{world.new: 1.0}]
    assert (world.old.closed, world.new.closed) == (True, False)
    assert world.live.record.endpoint_config_name == "new"


def test_a_canary_bakes_with_its_share_and_again_with_everything() -> None:
    world = World()
    world.deploy(policy(CANARY, count=4))
    assert world.router.history == [{world.old: 0.75, world.new: 0.25}, {world.new: 1.0}]
    assert set(world.stages) == {"Baking"}


def test_an_alarm_after_the_canary_or_after_the_last_step_brings_the_old_fleet_back() -> None:
    for share in (0.5, 1.0):
        world = World("ALARM", from_share=share)
        with pytest.raises(DeploymentFailed, match="errors went into state ALARM"):
            world.deploy(policy(CANARY))
        world.assert_the_old_one_serves()
        assert (world.router.history[-2][world.new]) == share


def test_an_alarm_that_has_insufficient_data_does_not_roll_back() -> None:
    world = World("INSUFFICIENT_DATA")
    world.deploy(policy(CANARY))
    assert world.old.closed


def test_a_fleet_that_starts_too_slowly_for_the_maximum_execution_time_is_rolled_back() -> None:
    world = World(new=Fleet(start_seconds=math.inf))
    with pytest.raises(DeploymentFailed, match="exceeded MaximumExecutionTimeoutInSeconds"):
        world.deploy(policy(CANARY, MaximumExecutionTimeoutInSeconds=1200))
    world.assert_the_old_one_serves()


def test_a_cloud_that_ends_does_not_wait_for_the_bake() -> None:
    world = World()
    world.live.closing.set()
    with pytest.raises(DeploymentFailed, match="ended during the deployment"):
        world.deploy(policy(CANARY))
    world.assert_the_old_one_serves()


@pytest.mark.parametrize(
    ("routing", "count", "shares"),
    [
        (linear("CAPACITY_PERCENT", 50), 2, (0.5, 1.0)),
        (linear("CAPACITY_PERCENT", 30), 5, (0.3, 0.6, 0.9, 1.0)),
        (linear("INSTANCE_COUNT", 1), 3, (1 / 3, 2 / 3, 1.0)),
        ({"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 300}, 1, (1.0,)),
    ],
)
def test_traffic_moves_in_steps(routing: dict[str, Any], count: int, shares: tuple[float, ...]) -> None:
    assert policy(routing, count).shares == pytest.approx(shares)


@pytest.mark.parametrize(
    ("routing", "count", "changes", "reason"),
    [
        (CANARY, 1, {}, "with 1 instance"),
        ({**CANARY, "CanarySize": {"Type": "INSTANCE_COUNT", "Value": 2}}, 3, {}, "at most 50%"),
        ({**CANARY, "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 51}}, 4, {}, "at most 50%"),
        ({"Type": "CANARY", "WaitIntervalInSeconds": 0}, 4, {}, "CanarySize is required"),
        (linear("CAPACITY_PERCENT", 9), 4, {}, "10% to 50%"),
        (linear("INSTANCE_COUNT", 1), 11, {}, "10% to 50%"),
        ({**CANARY, "WaitIntervalInSeconds": 3601}, 2, {}, "WaitIntervalInSeconds 3601"),
        (CANARY, 2, {"TerminationWaitInSeconds": 3601}, "TerminationWaitInSeconds 3601"),
        (CANARY, 2, {"MaximumExecutionTimeoutInSeconds": 599}, "expected 600 to 28800"),
        (CANARY, 2, {"MaximumExecutionTimeoutInSeconds": 600}, "larger than the total waiting time"),
    ],
)
def test_what_sagemaker_would_refuse_is_refused(
    routing: dict[str, Any], count: int, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValidationError, match=reason):
        policy(routing, count, **changes)


def test_a_rolling_update_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="RollingUpdatePolicy"):
        UpdatePolicy.of({"RollingUpdatePolicy": {"MaximumBatchSize": {}}}, {"AllTraffic": 2})
