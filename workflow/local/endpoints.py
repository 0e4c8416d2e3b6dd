"""Endpoints: their fleets, how these change, and what DescribeEndpoint says meanwhile.

Every change runs in a thread of its own and ends InService, or Failed if there was nothing before; the way of a
request is in router.py, a variant's instances are in fleet.py, the steps of a change are in deployment.py.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moto.core.utils import utcnow

from workflow.local import alarms
from workflow.local.deployment import (
    DRAIN_SECONDS,
    Deployment,
    DeploymentFailed,
    LiveEndpoint,
    VariantPlan,
    routes,
    summary,
)
from workflow.local.deployment_config import UpdatePolicy
from workflow.local.engine import Engine
from workflow.local.fleet import Unhealthy
from workflow.local.router import Router

_log = logging.getLogger(__name__)


class _RollbackFailed(DeploymentFailed):
    """Neither the new config nor the way back to the old one came to an end."""


class Endpoints:
    """All endpoints of one server."""

    def __init__(self, engine: Engine) -> None:
        """Nothing runs until an endpoint is created."""
        self._engine = engine
        self.router = Router(engine)
        self._live: dict[str, LiveEndpoint] = {}

    def create(self, record: Any, plans: Sequence[VariantPlan]) -> None:
        """Start the fleets of a new endpoint; returns at once with status Creating."""
        live = self._live[record.endpoint_name] = LiveEndpoint(record)
        record.endpoint_status = "Creating"
        record.last_deployment_config = None
        record.production_variants = [summary(plan, current=0) for plan in plans]

        self._engine.faults.deploying(record.endpoint_config_name)

        def work() -> None:
            self._fail_as_asked()
            Deployment(self._engine, self.router, live, plans, record.endpoint_config_name).run()
            self._settle(live, "InService")

        self._in_background(live, work, failed_status="Failed")

    def update(
        self,
        endpoint_name: str,
        config_name: str,
        plans: Sequence[VariantPlan],
        deployment_config: Mapping[str, Any] | None,
    ) -> None:
        """Replace the fleets as the deployment config says; returns at once with status Updating.

        The old fleets serve until the change is certain, and go on if it fails or an alarm takes it back.

        Raises:
            ValidationError: for a deployment config that AWS would refuse, or alarms that are not there.
        """
        live = self._live[endpoint_name]
        record = live.record
        policy = UpdatePolicy.of(deployment_config, {plan.name: plan.count for plan in plans})
        alarms.check_watchable(self._engine, policy.alarms)
        record.endpoint_status = "Updating"
        record.failure_reason = None
        record.last_modified_time = utcnow()
        self._engine.faults.deploying(config_name)

        def work() -> None:
            self._fail_as_asked()
            Deployment(self._engine, self.router, live, plans, config_name, policy).run()
            record.last_deployment_config = dict(deployment_config) if deployment_config else None
            self._settle(live, "InService")

        self._in_background(live, work, failed_status="InService")

    def scale(self, endpoint_name: str, counts: Mapping[str, int], weights: Mapping[str, float]) -> None:
        """Change instance counts and weights of a running endpoint; returns at once with status Updating."""
        live = self._live[endpoint_name]
        record = live.record
        record.endpoint_status = "Updating"
        record.last_modified_time = utcnow()
        live.weights |= weights
        record.production_variants = [
            {
                **variant,
                "DesiredInstanceCount": counts.get(variant["VariantName"], variant["DesiredInstanceCount"]),
                "DesiredWeight": live.weights[variant["VariantName"]],
            }
            for variant in record.production_variants
        ]

        def work() -> None:
            self.router.set_routes(endpoint_name, routes(live))
            try:
                for variant, count in counts.items():
                    live.fleets[variant].scale_to(count)
            except Unhealthy as error:
                raise DeploymentFailed(str(error)) from error
            self._settle(live, "InService")

        self._in_background(live, work, failed_status="InService")

    def delete(self, endpoint_name: str, forget: Callable[[], None]) -> None:
        """End the servers, then `forget` the record; returns at once with status Deleting."""
        live = self._live[endpoint_name]
        live.record.endpoint_status = "Deleting"
        self.router.remove(endpoint_name)

        def work() -> None:
            for fleet in live.fleets.values():
                fleet.close(DRAIN_SECONDS)
            shutil.rmtree(self._engine.home / "endpoints" / endpoint_name, ignore_errors=True)
            self._live.pop(endpoint_name, None)
            forget()

        self._in_background(live, work, failed_status="Failed")

    def close(self) -> None:
        """End everything at once."""
        self.router.close()
        for live in list(self._live.values()):
            live.closing.set()
            self.router.remove(live.record.endpoint_name)
            for fleet in [*live.fleets.values(), *live.arriving.values()]:
                fleet.close()
        self._live.clear()

    def wait(self, endpoint_name: str, timeout_seconds: float | None = None) -> None:
        """Wait until the change that is under way has ended."""
        live = self._live.get(endpoint_name)
        if live is not None and live.thread is not None:
            live.thread.join(timeout_seconds)

    def _fail_as_asked(self) -> None:
        """Let an injected fault end the change before anything has been started for it."""
        fault = self._engine.faults.take_endpoint_failure()
        if fault is not None:
            raise _RollbackFailed(fault.reason) if fault.rollback_fails else DeploymentFailed(fault.reason)

    def _in_background(self, live: LiveEndpoint, work: Callable[[], None], *, failed_status: str) -> None:
        name = live.record.endpoint_name

        def run() -> None:
            try:
                work()
            except DeploymentFailed as error:
                live.record.failure_reason = str(error)[:1024]
                is_stuck = isinstance(error, _RollbackFailed) and failed_status == "InService"
                self._settle(live, "UpdateRollbackFailed" if is_stuck else failed_status)
            except Exception as error:
                _log.exception("The local cloud failed to change endpoint %s", name)
                live.record.failure_reason = f"The local cloud failed ({type(error).__name__}: {error})"[:1024]
                self._settle(live, failed_status)

        live.thread = threading.Thread(target=run, name=f"endpoint-{name}", daemon=True)
        live.thread.start()

    def _settle(self, live: LiveEndpoint, status: str) -> None:
        """Show the instances that there are. The status comes last: who sees it sees everything else too."""
        record = live.record
        record.production_variants = [
            {
                **variant,
                "CurrentInstanceCount": live.fleets[variant["VariantName"]].size,
                "CurrentWeight": live.weights[variant["VariantName"]],
            }
            if variant["VariantName"] in live.fleets
            else variant
            for variant in record.production_variants
        ]
        record.last_modified_time = utcnow()
        record.endpoint_status = status
