"""The way of a request to a model server, and the endpoint's metrics in CloudWatch.

Does what SageMaker does in front of the instances: picks a variant by weight and its least busy server, tries another
one if a connection fails, turns the container's errors into ModelError, and counts.
"""

from __future__ import annotations

import http.client
import json
import logging
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from moto.cloudwatch.models import cloudwatch_backends

from workflow.local import alarms
from workflow.local.engine import Engine
from workflow.local.fleet import LOG_GROUP, Fleet, ModelServer
from workflow.local.processes import Process

HOOKS: tuple[str, ...] = (
    *alarms.HOOKS,
    "moto.cloudwatch.models.cloudwatch_backends",
    "moto.cloudwatch.models.CloudWatchBackend.put_metric_data",
)

INVOCATION_TIMEOUT_SECONDS = 60.0
MAX_BODY_BYTES = 6_291_456
"""Both: Source: botocore 1.44.5, sagemaker-runtime InvokeEndpoint and BodyBlob."""
METRIC_PERIOD_AWS_SECONDS = 60.0

_WAIT_FOR_SERVER_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.02
_FORWARDED_HEADERS = ("content-type", "accept")
_FORWARDED_PREFIX = "x-amzn-sagemaker-"
_CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
_CONNECTION_FAILURES = (ConnectionError, http.client.BadStatusLine, http.client.IncompleteRead)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What goes back to the caller of InvokeEndpoint."""

    status: int
    headers: Mapping[str, str]
    body: bytes | str


@dataclass
class _Counts:
    """Invocations of one fleet in the running minute; latencies in microseconds."""

    invocations: int = 0
    errors_4xx: int = 0
    errors_5xx: int = 0
    latencies: list[float] = field(default_factory=list)

    def __add__(self, other: _Counts) -> _Counts:
        return _Counts(
            self.invocations + other.invocations,
            self.errors_4xx + other.errors_4xx,
            self.errors_5xx + other.errors_5xx,
            [*self.latencies, *other.latencies],
        )


@dataclass
class Route:
    """One production variant that takes requests."""

    variant: str
    fleet: Fleet
    weight: float
    config_name: str
    """The endpoint config that the fleet was made from: during an update one variant has two fleets."""


class Router:
    """The routes of all endpoints of this account."""

    def __init__(self, engine: Engine) -> None:
        """Start counting; every scaled minute the counts become data points."""
        self._engine = engine
        self._lock = threading.Lock()
        self._routes: dict[str, list[Route]] = {}
        self._counts: dict[tuple[str, str, str], _Counts] = {}
        """By endpoint, variant and endpoint config."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._publish_forever, name="endpoint-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop publishing."""
        self._closing.set()
        self._thread.join(timeout=5)

    def set_routes(self, endpoint_name: str, routes: list[Route]) -> None:
        """From now on requests go this way; the ones under way end where they began."""
        with self._lock:
            self._routes[endpoint_name] = routes

    def remove(self, endpoint_name: str) -> None:
        """The endpoint takes no requests any more."""
        with self._lock:
            self._routes.pop(endpoint_name, None)
            for key in [key for key in self._counts if key[0] == endpoint_name]:
                del self._counts[key]

    def invoke(self, endpoint_name: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """What InvokeEndpoint does."""
        lowered = {name.lower(): value for name, value in headers.items()}
        if len(body) > MAX_BODY_BYTES:
            return _error(400, "ValidationError", f"Request size exceeds the limit of {MAX_BODY_BYTES} bytes.")
        target = lowered.get("x-amzn-sagemaker-target-variant")
        lost: Process | None = None
        deadline = time.monotonic() + _WAIT_FOR_SERVER_SECONDS
        while True:
            route = self._choose(endpoint_name, target)
            if isinstance(route, Answer):
                return route
            with route.fleet.least_busy(avoid=lost) as server:
                if server is not None:
                    process = server.process
                    answer = self._forward(endpoint_name, route, server, body, lowered)
                    if answer is not None:
                        return answer
                    if lost is not None:
                        break
                    lost = process  # one more try, with another process: an inference has no side effect
                    continue
            if time.monotonic() > deadline:
                break
            time.sleep(_LOOK_AGAIN_SECONDS)
        self._count(endpoint_name, route, 503, None)
        return _error(503, "ServiceUnavailable", "The endpoint has no healthy instance at this moment.")

    def _choose(self, endpoint_name: str, target: str | None) -> Route | Answer:
        with self._lock:
            routes = list(self._routes.get(endpoint_name, ()))
        if not routes:
            text = f"Endpoint {endpoint_name} of account {self._engine.account_id} not found."
            return _error(400, "ValidationError", text)
        if target is not None:
            routes = [route for route in routes if route.variant == target]
            if not routes:
                return _error(400, "ValidationError", f"Variant {target} not found for request")
        weights = [route.weight for route in routes]
        return random.choices(routes, weights if any(weights) else None)[0]  # noqa: S311 - traffic, no secret

    def _forward(
        self, endpoint_name: str, route: Route, server: ModelServer, body: bytes, headers: Mapping[str, str]
    ) -> Answer | None:
        """The server's answer, or None if the connection to it failed."""
        sent = {
            name: value
            for name, value in headers.items()
            if name in _FORWARDED_HEADERS or name.startswith(_FORWARDED_PREFIX)
        }
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=INVOCATION_TIMEOUT_SECONDS)
        faults = self._engine.faults.of_model(route.config_name)
        began = time.monotonic()
        failing = next((fault for fault in faults if fault.behaviour == "failing"), None)
        if failing is not None:
            self._count(endpoint_name, route, failing.status, 0.0)
            return self._model_error(endpoint_name, route, server, failing.status, "Injected fault")
        for fault in faults:
            if fault.behaviour == "slow":
                time.sleep(fault.seconds)
        try:
            connection.request("POST", "/invocations", body=body, headers=sent)
            response = connection.getresponse()
            content = response.read()
        except TimeoutError:
            self._count(endpoint_name, route, 504, (time.monotonic() - began) * 1e6)
            text = "Your invocation timed out while waiting for a response from container primary."
            return self._model_error(endpoint_name, route, server, 0, text)
        except _CONNECTION_FAILURES:
            return None
        finally:
            connection.close()
        self._count(endpoint_name, route, response.status, (time.monotonic() - began) * 1e6)
        if response.status >= 400:
            text = content.decode(errors="replace")
            return self._model_error(endpoint_name, route, server, response.status, text)
        if any(fault.behaviour == "wrong" for fault in faults):
            content = _wrong(content)
        answered = {
            "Content-Type": response.headers.get("Content-Type", "application/octet-stream"),
            "x-Amzn-Invoked-Production-Variant": route.variant,
        }
        if _CUSTOM_ATTRIBUTES in response.headers:
            answered[_CUSTOM_ATTRIBUTES] = response.headers[_CUSTOM_ATTRIBUTES]
        return Answer(200, answered, content)

    def _model_error(self, endpoint_name: str, route: Route, server: ModelServer, status: int, text: str) -> Answer:
        engine = self._engine
        kind = "client" if 400 <= status < 500 else "server"
        group = f"{LOG_GROUP}/{endpoint_name}"
        log_group_arn = f"arn:aws:logs:{engine.region}:{engine.account_id}:log-group:{group}"
        return _error(
            424,
            "ModelError",
            f'Received {kind} error ({status}) from primary with message "{text}". See the log group {group} '
            f"in account {engine.account_id} for more information.",
            OriginalMessage=text,
            OriginalStatusCode=status,
            LogStreamArn=f"{log_group_arn}:log-stream:{route.variant}/{server.instance_id}",
        )

    # Metrics

    def _count(self, endpoint_name: str, route: Route, status: int, latency: float | None) -> None:
        with self._lock:
            counts = self._counts.setdefault((endpoint_name, route.variant, route.config_name), _Counts())
            counts.invocations += 1
            counts.errors_4xx += 400 <= status < 500
            counts.errors_5xx += status >= 500
            if latency is not None:
                counts.latencies.append(latency)

    def _publish_forever(self) -> None:
        minute = self._engine.clock.scaled(METRIC_PERIOD_AWS_SECONDS)
        while not self._closing.wait(minute - time.time() % minute):  # until the next minute begins
            try:
                self.publish(datetime.fromtimestamp((time.time() // minute - 0.5) * minute, UTC))
                alarms.evaluate_all(self._engine)
            except Exception:
                _log.exception("The metrics of the endpoints could not be published")

    def publish(self, moment: datetime) -> None:
        """Put the counts since the last call into CloudWatch, one data point a metric, stamped with `moment`.

        Each variant gets the sum of its fleets, and each fleet its own under the EndpointConfigName. Variants without
        traffic get zeros. Source: SageMaker developer guide, "Automatic scaling", Nov 2026: with no traffic SageMaker
        emits metrics with a value of zero, so that the variant scales in; "Auto-rollback configuration", Nov 2026: an
        alarm with the dimension EndpointConfigName watches the new fleet only.
        """
        with self._lock:
            taken, self._counts = self._counts, {}
            sizes = {
                (name, route.variant, route.config_name): route.fleet.size
                for name, found in self._routes.items()
                for route in found
            }
            served = {name for name, found in self._routes.items() if found}
        fleets = {key: taken.get(key, _Counts()) for key in sizes}
        # a fleet that has just left may still have answered requests of this minute
        fleets |= {key: counts for key, counts in taken.items() if key[0] in served}
        cloudwatch = cloudwatch_backends[self._engine.account_id][self._engine.region]
        stamp = moment.astimezone(UTC).replace(tzinfo=None)
        variants: dict[tuple[str, str], _Counts] = {}
        for (name, variant, config_name), counts in fleets.items():
            variants[name, variant] = variants.get((name, variant), _Counts()) + counts
            size = sizes.get((name, variant, config_name), 0)
            dimensions = {"EndpointName": name, "VariantName": variant, "EndpointConfigName": config_name}
            cloudwatch.put_metric_data("AWS/SageMaker", _data(dimensions, stamp, size, counts))
        for (name, variant), counts in variants.items():
            size = sum(size for key, size in sizes.items() if key[:2] == (name, variant))
            dimensions = {"EndpointName": name, "VariantName": variant}
            cloudwatch.put_metric_data("AWS/SageMaker", _data(dimensions, stamp, size, counts))


def _data(dimensions: Mapping[str, str], stamp: datetime, size: int, counts: _Counts) -> list[dict[str, Any]]:
    """The data points of one fleet or variant; the statistics add up as if each invocation had been put by itself."""
    total = counts.invocations
    shared: dict[str, Any] = {
        "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
        "Timestamp": stamp,
    }

    def of_all(name: str, each: list[float], unit: str) -> dict[str, Any]:
        statistics = {
            "SampleCount": max(len(each), 1),
            "Sum": sum(each),
            "Minimum": min(each, default=0.0),
            "Maximum": max(each, default=0.0),
        }
        return {"MetricName": name, "Unit": unit, "StatisticValues": statistics, **shared}

    def errors(count: int) -> list[float]:
        return [1.0] * count + [0.0] * (total - count)

    data = [
        of_all("Invocations", [1.0] * total, "None"),
        of_all("InvocationsPerInstance", [1.0 / max(size, 1)] * total, "None"),
        of_all("Invocation4XXErrors", errors(counts.errors_4xx), "None"),
        of_all("Invocation5XXErrors", errors(counts.errors_5xx), "None"),
    ]
    if counts.latencies:
        data.append(of_all("ModelLatency", counts.latencies, "Microseconds"))
    return data


def _wrong(content: bytes) -> bytes:
    """An answer `{"predictions": [{"class", "probability"}, ...]}` with each class in the place of the one before it.

    Whatever is not of this form, or has one class only, stays as it is.
    """
    try:
        predictions = json.loads(content)["predictions"]
        classes = [row["class"] for row in predictions]
    except (ValueError, TypeError, KeyError):
        return content
    moved = [{**row, "class": name} for row, name in zip(predictions, classes[1:] + classes[:1], strict=True)]
    return json.dumps({"predictions": moved}, ensure_ascii=False).encode()


def _error(status: int, code: str, message: str, **more: Any) -> Answer:
    body = json.dumps({"Message": message, **more})
    return Answer(status, {"Content-Type": "application/json", "x-amzn-errortype": code}, body)
