"""Lines of output become log events in CloudWatch Logs, and log events become metrics.

What a process prints is written with the credentials of the role it runs as. The metrics of a training job come from
nowhere else: each event is matched against the job's MetricDefinitions.
"""

from __future__ import annotations

import logging
import re
import struct
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

MAX_EVENT_CHARACTERS = 60_000
"""Below CloudWatch Logs' limit for an event (256 KiB) even if each character needs four bytes."""

_BATCH_EVENTS = 1_000
_FLUSH_SECONDS = 0.25
_METRIC_NAMESPACE = "/aws/sagemaker/TrainingJobs"

_log = logging.getLogger(__name__)


class LogWriter:
    """Writes lines to one log stream, from a thread of its own; never makes the writer of a line wait."""

    def __init__(self, client: Any, group: str, stream: str) -> None:
        """Start; the group and stream are made with the first lines."""
        self.group = group
        self.stream = stream
        self.error: str | None = None
        """Why events are lost, e.g. a role without logs:PutLogEvents; training goes on, as on AWS."""
        self._client = client
        self._lock = threading.Lock()
        self._events: list[dict[str, Any]] = []
        self._tail: list[str] = []
        self._is_open = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"log-{stream}", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Take one line; it is in CloudWatch Logs a moment later."""
        with self._lock:
            message = line[:MAX_EVENT_CHARACTERS] or " "
            self._events.append({"timestamp": int(time.time() * 1000), "message": message})
            self._tail = [*self._tail[-19:], line]

    def tail(self, count: int = 20) -> list[str]:
        """The last lines, at most 20."""
        with self._lock:
            return self._tail[-count:]

    def close(self) -> None:
        """Write what is left and end."""
        self._closing.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._closing.wait(_FLUSH_SECONDS):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        with self._lock:
            events, self._events = self._events, []
        events.sort(key=lambda event: event["timestamp"])
        for start in range(0, len(events), _BATCH_EVENTS):
            if self.error is not None:
                return
            try:
                self._put(events[start : start + _BATCH_EVENTS])
            except (ClientError, BotoCoreError) as error:
                self.error = str(error)
                _log.warning("No log events for %s: %s", self.stream, error)

    def _put(self, events: list[dict[str, Any]]) -> None:
        if not self._is_open:
            already_exists = self._client.exceptions.ResourceAlreadyExistsException
            with suppress(already_exists):
                self._client.create_log_group(logGroupName=self.group)
            with suppress(already_exists):
                self._client.create_log_stream(logGroupName=self.group, logStreamName=self.stream)
            self._is_open = True
        self._client.put_log_events(logGroupName=self.group, logStreamName=self.stream, logEvents=events)


@dataclass(frozen=True)
class MetricPoint:
    """One value that a log event carried."""

    name: str
    value: float
    timestamp: datetime


class TrainingMetrics:
    """The metrics of one training job, read from its log events by its MetricDefinitions."""

    def __init__(self, job_name: str, definitions: Iterable[Mapping[str, str]]) -> None:
        """Compile the definitions.

        Raises:
            re.error: a Regex is none.
        """
        self._job_name = job_name
        self._patterns = [(item["Name"], re.compile(item["Regex"])) for item in definitions]
        self._lock = threading.Lock()
        self._last: dict[str, MetricPoint] = {}
        self._pending: list[MetricPoint] = []

    def observe(self, line: str) -> None:
        """Take the metrics out of one log event."""
        now = datetime.now(UTC)
        for name, pattern in self._patterns:
            for match in pattern.finditer(line):
                text = match.group(1) if pattern.groups else match.group(0)
                with suppress(ValueError, TypeError):
                    point = MetricPoint(name, float(text), now)
                    with self._lock:
                        self._last[name] = point
                        self._pending.append(point)

    def final_metric_data(self) -> list[dict[str, Any]]:
        """The last value of each metric, as DescribeTrainingJob returns it: a 32-bit float.

        Source: botocore 1.44.5, sagemaker MetricData.Value is a `float` shape.
        """
        with self._lock:
            return [
                {"MetricName": name, "Value": _as_float32(point.value), "Timestamp": point.timestamp}
                for name, point in sorted(self._last.items())
            ]

    def publish(self, cloudwatch: Any) -> None:
        """Put the values seen since the last call into CloudWatch; a role that may not is no reason to fail."""
        with self._lock:
            points, self._pending = self._pending, []
        for start in range(0, len(points), _BATCH_EVENTS):
            try:
                cloudwatch.put_metric_data(
                    Namespace=_METRIC_NAMESPACE,
                    MetricData=[
                        {
                            "MetricName": point.name,
                            "Dimensions": [{"Name": "TrainingJobName", "Value": self._job_name}],
                            "Timestamp": point.timestamp,
                            "Value": point.value,
                        }
                        for point in points[start : start + _BATCH_EVENTS]
                    ],
                )
            except (ClientError, BotoCoreError, ValueError) as error:
                _log.warning("No metrics in CloudWatch for %s: %s", self._job_name, error)
                return


def _as_float32(value: float) -> float:
    try:
        narrowed: float = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
    return narrowed
