"""One change of an endpoint, from the plan to the servers that carry it.

What UpdateEndpoint's DeploymentConfig means is in deployment_config.py, what the alarms say in alarms.py; here it is
carried out: new fleet, traffic shifted step by step, alarms watched after each, and the way back.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from moto.core.utils import utcnow

from workflow.local import transfers
from workflow.local.deployment_config import UpdatePolicy
from workflow.local.engine import Engine
from workflow.local.fleet import STARTUP_TIMEOUT_SECONDS, Fleet, OutOfTime, ServedModel, Unhealthy
from workflow.local.identity import AccessDenied
from workflow.local.images import ImageBuildFailed, UnknownImage
from workflow.local.router import Route, Router

SERVICE = "sagemaker.amazonaws.com"
MAX_MODEL_BYTES = 8 << 30
DRAIN_SECONDS = 60.0
"""Real seconds that a request may still take on an instance that is leaving: the limit of one invocation."""

_LOOKS_PER_MINUTE = 4
"""How often the alarms are looked at in one scaled minute of baking."""

_log = logging.getLogger(__name__)


class DeploymentFailed(Exception):
    """An endpoint could not be made or changed; the text is its FailureReason."""


@dataclass(frozen=True)
class VariantPlan:
    """One production variant of an endpoint config, with the model it names."""

    config: Mapping[str, Any]
    """The entry of ProductionVariants."""
    model: Any
    """moto's model."""
    count: int
    weight: float

    @property
    def name(self) -> str:
        """The variant's name."""
        return str(self.config["VariantName"])


@dataclass
class LiveEndpoint:
    """What runs behind one endpoint record of moto."""

    record: Any
    fleets: dict[str, Fleet] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    arriving: dict[str, Fleet] = field(default_factory=dict)
    """The fleets of a change that is not certain yet."""
    closing: threading.Event = field(default_factory=threading.Event)
    """The local cloud ends: whoever waits should stop."""
    thread: threading.Thread | None = None


@dataclass
class Deployment:
    """One change of an endpoint's fleets: start the new ones, shift traffic, bake, end the old ones.

    All at once and without baking, unless the policy says otherwise.
    """

    engine: Engine
    router: Router
    live: LiveEndpoint
    plans: Sequence[VariantPlan]
    config_name: str
    policy: UpdatePolicy = field(default_factory=UpdatePolicy)

    def run(self) -> None:
        """Do it.

        Raises:
            DeploymentFailed: the endpoint is as it was before, as it is after any other exception.
        """
        live, name = self.live, self.live.record.endpoint_name
        old_fleets, started_at = live.fleets, utcnow()
        try:
            self._show("Creating", 0.0, started_at)
            self.start_new_fleets()
            for share in self.policy.shares:
                self._show("ActivatingTraffic", share, started_at)
                self.router.set_routes(name, self._routes(share))
                self._show("Baking", share, started_at)
                self.bake()
            self._wait(self.policy.termination_wait_seconds)
            self._commit()
        except BaseException:
            self.router.set_routes(name, routes(live))
            _close(live.arriving)
            raise
        finally:
            live.arriving = {}
            live.record.pending_deployment_summary = None
        _close(old_fleets)

    def start_new_fleets(self) -> None:
        """Make the new fleets and wait until every server is healthy; nothing else has changed yet.

        Their start is real work, so MaximumExecutionTimeoutInSeconds grants it real seconds: those that the waits
        of the deployment leave.
        """
        deadline = time.monotonic() + self.policy.maximum_execution_seconds - self.policy.waiting_seconds
        try:
            for plan in self.plans:
                fleet = self.live.arriving[plan.name] = self._make_fleet(plan)
                fleet.scale_to(plan.count, deadline)
        except OutOfTime as error:
            raise DeploymentFailed(
                f"The deployment exceeded MaximumExecutionTimeoutInSeconds "
                f"({self.policy.maximum_execution_seconds:g}) and was rolled back: {error}"
            ) from error
        except Unhealthy as error:
            raise DeploymentFailed(str(error)) from error

    def bake(self) -> None:
        """Watch the alarms for as long as the policy says.

        One that is in state ALARM ends the deployment, also if it was so before (inferred: no source says that an
        alarm has to change during the bake).

        Raises:
            DeploymentFailed: naming the alarms.
        """
        until = time.monotonic() + self.engine.clock.scaled(self.policy.bake_seconds)
        while True:
            fired = self._fired_alarms()
            if fired:
                raise DeploymentFailed(
                    f"The deployment of endpoint config {self.config_name} was rolled back: CloudWatch alarm(s) "
                    f"{', '.join(fired)} went into state ALARM during the baking period."
                )
            left = until - time.monotonic()
            if left <= 0:
                return
            self._pause(min(left, self.engine.clock.scaled(60.0 / _LOOKS_PER_MINUTE)))

    def _fired_alarms(self) -> list[str]:
        """The policy's alarms that are in state ALARM, read with the model's execution role as SageMaker does."""
        if not self.policy.alarms:
            return []
        role_arn = self.plans[0].model.execution_role_arn
        try:
            cloudwatch = self.engine.identity.client("cloudwatch", role_arn, SERVICE)
            found = cloudwatch.describe_alarms(AlarmNames=list(self.policy.alarms))["MetricAlarms"]
        except (AccessDenied, ClientError, BotoCoreError) as error:
            raise DeploymentFailed(
                f"The CloudWatch alarms {', '.join(self.policy.alarms)} could not be read with role {role_arn}, which "
                f"needs cloudwatch:DescribeAlarms; the deployment was rolled back. {error}"
            ) from error
        gone = set(self.policy.alarms) - {alarm["AlarmName"] for alarm in found}
        if gone:
            raise DeploymentFailed(
                f"CloudWatch alarm(s) {', '.join(sorted(gone))} are not there any more; the deployment was rolled back."
            )
        return sorted(alarm["AlarmName"] for alarm in found if alarm["StateValue"] == "ALARM")

    def _wait(self, aws_seconds: float) -> None:
        self._pause(self.engine.clock.scaled(aws_seconds))

    def _pause(self, seconds: float) -> None:
        if self.live.closing.wait(seconds):
            raise DeploymentFailed("The local cloud was ended during the deployment.")

    def _routes(self, share: float) -> list[Route]:
        """Routes that give the new fleets this share of the requests."""
        weights = {plan.name: plan.weight for plan in self.plans}
        arriving = [
            Route(name, fleet, share * part, self.config_name)
            for (name, fleet), part in zip(self.live.arriving.items(), _parts(weights), strict=True)
        ]
        staying = [
            Route(route.variant, route.fleet, (1 - share) * part, route.config_name)
            for route, part in zip(routes(self.live), _parts(self.live.weights), strict=True)
        ]
        return arriving if share >= 1 else [*staying, *arriving]

    def _commit(self) -> None:
        """From here on the new fleets are the endpoint's."""
        live = self.live
        live.fleets, live.arriving = live.arriving, {}
        live.weights = {plan.name: plan.weight for plan in self.plans}
        live.record.endpoint_config_name = self.config_name
        live.record.production_variants = [summary(plan, current=live.fleets[plan.name].size) for plan in self.plans]

    def _show(self, stage: str, share: float, started_at: Any) -> None:
        """What DescribeEndpoint says of an update meanwhile; a first deployment has no old fleet to compare with."""
        if not self.live.fleets:
            return
        self.live.record.pending_deployment_summary = {
            "EndpointConfigName": self.config_name,
            "StartTime": started_at,
            "ProductionVariants": [
                {
                    **summary(
                        plan, current=self.live.arriving[plan.name].size if plan.name in self.live.arriving else 0
                    ),
                    "CurrentWeight": share * plan.weight,
                    "InstanceType": plan.config.get("InstanceType"),
                    "VariantStatus": [{"Status": stage, "StartTime": utcnow()}],
                }
                for plan in self.plans
            ],
        }
        self.live.record.production_variants = [
            {**variant, "CurrentWeight": (1 - share) * self.live.weights.get(variant["VariantName"], 0.0)}
            for variant in self.live.record.production_variants
        ]

    def _make_fleet(self, plan: VariantPlan) -> Fleet:
        endpoint_name = self.live.record.endpoint_name
        folder = self.engine.home / "endpoints" / endpoint_name / f"{plan.name}-{secrets.token_hex(4)}"
        role_arn = plan.model.execution_role_arn
        try:
            return Fleet(
                self.engine,
                endpoint_name,
                self._served_model(plan, folder / "model"),
                folder,
                self.engine.identity.client("logs", role_arn, SERVICE),
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _served_model(self, plan: VariantPlan, folder: Path) -> ServedModel:
        container = plan.model.primary_container or (plan.model.containers or [{}])[0]
        role_arn = plan.model.execution_role_arn
        identity = self.engine.identity
        try:
            python = self.engine.images.python_for(container.get("Image", ""))
            credentials: Mapping[str, str] = {}
            if not plan.model.enable_network_isolation:
                credentials = identity.environment(identity.assume(role_arn, "SageMaker", SERVICE))
            self._download_model(container, role_arn, folder)
        except (UnknownImage, ImageBuildFailed, AccessDenied, OSError) as error:
            raise DeploymentFailed(str(error)) from error
        timeout = plan.config.get("ContainerStartupHealthCheckTimeoutInSeconds") or STARTUP_TIMEOUT_SECONDS
        environment = {**(container.get("Environment") or {}), **credentials}
        return ServedModel(plan.name, python, folder, environment, float(timeout), self.config_name)

    def _download_model(self, container: Mapping[str, Any], role_arn: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        source = (container.get("ModelDataSource") or {}).get("S3DataSource") or {}
        uri = container.get("ModelDataUrl") or source.get("S3Uri")
        if not uri:
            return
        s3 = self.engine.identity.client("s3", role_arn, SERVICE)
        try:
            if source.get("CompressionType") == "None":
                objects = transfers.list_objects(s3, uri)
                transfers.download_all(s3, objects, transfers.split_uri(uri)[1], folder)
                return
            archive = folder.with_suffix(".tar.gz")
            transfers.download(s3, uri, archive)
            transfers.unpack(archive, folder, MAX_MODEL_BYTES)
            archive.unlink()
        except transfers.TransferFailed as error:
            raise DeploymentFailed(
                f"Could not access model data at {uri}. Please ensure that the role {role_arn} has "
                f"s3:GetObject permissions and that the object exists. {error}"
            ) from error
        except transfers.UnsafeArchive as error:
            raise DeploymentFailed(f"Failed to extract model data archive {uri}: {error}") from error


def routes(live: LiveEndpoint) -> list[Route]:
    """Where the router sends the endpoint's requests when no change is under way."""
    config_name = live.record.endpoint_config_name
    return [Route(name, fleet, live.weights[name], config_name) for name, fleet in live.fleets.items()]


def _parts(weights: Mapping[str, float]) -> list[float]:
    """The share of each variant; equal ones where all weights are zero."""
    total = sum(weights.values())
    return [weight / total if total else 1 / len(weights) for weight in weights.values()]


def _close(fleets: Mapping[str, Fleet]) -> None:
    """End the servers of all fleets; one that resists does not keep the others."""
    for variant, fleet in list(fleets.items()):
        try:
            fleet.close(DRAIN_SECONDS)
        except Exception:
            _log.exception("The servers of variant %s could not be ended", variant)


def summary(plan: VariantPlan, current: int) -> dict[str, Any]:
    """The variant as DescribeEndpoint shows it."""
    container = plan.model.primary_container or (plan.model.containers or [{}])[0]
    image = container.get("Image", "")
    return {
        "VariantName": plan.name,
        "DeployedImages": [{"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": utcnow()}],
        "CurrentWeight": plan.weight,
        "DesiredWeight": plan.weight,
        "CurrentInstanceCount": current,
        "DesiredInstanceCount": plan.count,
    }
