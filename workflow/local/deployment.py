"""One change of an endpoint, from the plan to the servers that carry it."""

from __future__ import annotations

import secrets
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moto.core.utils import utcnow

from workflow.local import transfers
from workflow.local.engine import Engine
from workflow.local.fleet import STARTUP_TIMEOUT_SECONDS, Fleet, ServedModel, Unhealthy
from workflow.local.identity import AccessDenied
from workflow.local.images import ImageBuildFailed, UnknownImage
from workflow.local.router import Route, Router

SERVICE = "sagemaker.amazonaws.com"
MAX_MODEL_BYTES = 8 << 30
DRAIN_SECONDS = 60.0
"""Real seconds that a request may still take on an instance that is leaving: the limit of one invocation."""


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
    thread: threading.Thread | None = None


@dataclass
class Deployment:
    """One change of an endpoint's fleets, step by step: start the new fleet, shift traffic, bake, end the old one.

    All at once and without baking. A canary or linear policy with alarms overrides `shift_traffic` and `bake`, and
    raises DeploymentFailed to go back, which `run` does in any case.
    """

    engine: Engine
    router: Router
    live: LiveEndpoint
    plans: Sequence[VariantPlan]

    def run(self) -> None:
        """Do it.

        Raises:
            DeploymentFailed: the endpoint is as it was before.
        """
        old_fleets, old_weights = self.live.fleets, self.live.weights
        new_fleets = self.start_new_fleets()
        try:
            self.shift_traffic(new_fleets)
            self.bake(new_fleets)
        except DeploymentFailed:
            self.live.fleets, self.live.weights = old_fleets, old_weights
            self.router.set_routes(self.live.record.endpoint_name, routes(self.live))
            _close(new_fleets)
            raise
        self.live.record.production_variants = [
            summary(plan, current=new_fleets[plan.name].size) for plan in self.plans
        ]
        _close(old_fleets)

    def start_new_fleets(self) -> dict[str, Fleet]:
        """Make the new fleets and wait until every server is healthy; nothing else has changed yet."""
        fleets: dict[str, Fleet] = {}
        try:
            for plan in self.plans:
                fleet = fleets[plan.name] = self._make_fleet(plan)
                fleet.scale_to(plan.count)
        except Unhealthy as error:
            _close(fleets)
            raise DeploymentFailed(str(error)) from error
        except BaseException:
            _close(fleets)
            raise
        return fleets

    def shift_traffic(self, new_fleets: dict[str, Fleet]) -> None:
        """Send all requests to the new fleets; those under way end where they are."""
        self.live.fleets = new_fleets
        self.live.weights = {plan.name: plan.weight for plan in self.plans}
        self.router.set_routes(self.live.record.endpoint_name, routes(self.live))

    def bake(self, new_fleets: dict[str, Fleet]) -> None:
        """Nothing: there is no waiting period and no alarm yet."""

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
        return ServedModel(plan.name, python, folder, environment, float(timeout))

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
    """Where the router sends the endpoint's requests."""
    return [Route(name, fleet, live.weights[name]) for name, fleet in live.fleets.items()]


def _close(fleets: Mapping[str, Fleet]) -> None:
    for fleet in fleets.values():
        fleet.close(DRAIN_SECONDS)


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
