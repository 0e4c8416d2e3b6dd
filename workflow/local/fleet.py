"""The instances of one production variant: real model servers, kept alive, and counted requests to each of them.

A server is a process of the model's image with its own `/opt/ml`-like tree; a fleet is all servers of one variant
that carry the same model. Which fleet takes a request belongs in endpoints.py.
"""

from __future__ import annotations

import http.client
import logging
import math
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workflow.local import transfers
from workflow.local.engine import Engine
from workflow.local.host_group import free_port
from workflow.local.logs import LogWriter
from workflow.local.processes import Process

LOG_GROUP = "/aws/sagemaker/Endpoints"
PING_TIMEOUT_SECONDS = 2.0
"""Source: SageMaker developer guide, "How containers should respond to health check (ping) requests", Nov 2026."""
STARTUP_TIMEOUT_SECONDS = 480.0
"""Real seconds for the first healthy ping, unless the variant says otherwise. Source: same page, 8 minutes."""
MAX_STARTS = 3
"""A server that ends so many times before its first healthy ping will not become healthy."""

_PING_EVERY_SECONDS = 0.1
_RESTART_SECONDS = 0.5
_LOOK_EVERY_SECONDS = 0.25
_STOP_SECONDS = 3.0

_log = logging.getLogger(__name__)


class Unhealthy(Exception):
    """A fleet has not become healthy; the text is the endpoint's FailureReason."""


class OutOfTime(Unhealthy):
    """A fleet has not become healthy before the deadline of who asked for it."""


@dataclass(frozen=True)
class ServedModel:
    """What every server of a fleet runs."""

    variant: str
    python: Path
    folder: Path
    """The extracted model archive; each server gets links to its files."""
    environment: Mapping[str, str]
    """The container's Environment and, unless isolated, the role's credentials."""
    startup_timeout_seconds: float = STARTUP_TIMEOUT_SECONDS
    config_name: str = ""
    """The endpoint config that the fleet is made from."""
    arguments: tuple[str, ...] = ("-m", "inference.server", "serve", "--host", "127.0.0.1")


@dataclass
class ModelServer:
    """One instance: a process that is started again whenever it ends, until `stop`."""

    engine: Engine
    model: ServedModel
    root: Path
    log: LogWriter
    instance_id: str
    in_flight: int = 0
    port: int = 0
    process: Process | None = None
    _is_healthy: threading.Event = field(default_factory=threading.Event)
    _has_failed: threading.Event = field(default_factory=threading.Event)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @property
    def is_healthy(self) -> bool:
        """Whether it may get requests."""
        process = self.process
        return self._is_healthy.is_set() and process is not None and process.is_running

    @property
    def has_failed(self) -> bool:
        """Whether it never became healthy and is not tried any more."""
        return self._has_failed.is_set()

    def start(self) -> None:
        """Start, and restart, in the background."""
        base = self.root / "opt" / "ml"
        transfers.link_tree(self.model.folder, base / "model")
        self._thread = threading.Thread(target=self._keep_alive, name=f"instance-{self.instance_id}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the process and remove its tree; requests in flight are the caller's business."""
        self._stopping.set()
        process = self.process
        if process is not None:
            process.terminate()
            if process.wait(_STOP_SECONDS) is None:
                process.kill()
        if self._thread is not None:
            self._thread.join(timeout=10)
        self.log.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def ping(self) -> bool:
        """One health check as SageMaker makes it: GET /ping, 200 within two seconds."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PING_TIMEOUT_SECONDS)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _keep_alive(self) -> None:
        starts = 0
        was_healthy = False
        deadline = time.monotonic() + self.model.startup_timeout_seconds
        while not self._stopping.is_set():
            starts += 1
            try:
                process = self._launch()
            except OSError as error:
                self.log.write(f"The model server could not be started: {error}")
                break
            while process.is_running and not self._stopping.is_set():
                if self.ping():
                    was_healthy = True
                    self._is_healthy.set()
                    break
                if not was_healthy and time.monotonic() > deadline:
                    process.kill()
                self._stopping.wait(_PING_EVERY_SECONDS)
            while process.wait(_LOOK_EVERY_SECONDS) is None:
                if self._is_healthy.is_set() and self.engine.faults.take_dead_server(self.model.config_name):
                    process.kill()
            self._is_healthy.clear()
            if self._stopping.is_set():
                return
            self.log.write(f"The model server ended with exit code {process.poll()}; it is started again.")
            if not was_healthy and (starts >= MAX_STARTS or time.monotonic() > deadline):
                break
            self._stopping.wait(_RESTART_SECONDS)
        self._has_failed.set()

    def _launch(self) -> Process:
        base = self.root / "opt" / "ml"
        self.port = free_port()  # anew each time: somebody else may have taken the last one
        process = self.engine.processes.start(
            [str(self.model.python), *self.model.arguments],
            name=f"{self.model.variant}/{self.instance_id}",
            cwd=self.root,
            env={
                "HOME": str(self.root),
                "PYTHONUNBUFFERED": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
                **self.model.environment,
                "PYTHONPATH": str(base / "model" / "code"),
                "SAGEMAKER_BASE_DIR": str(base),
                "SAGEMAKER_BIND_TO_PORT": str(self.port),
            },
            on_line=self.log.write,
        )
        self.process = process
        if self._stopping.is_set():
            process.kill()
        return process


class Fleet:
    """All servers of one variant with one model."""

    def __init__(self, engine: Engine, endpoint_name: str, model: ServedModel, folder: Path, logs: Any) -> None:
        """`folder`: where the servers' trees go. `logs`: the execution role's client. Nothing runs yet."""
        self.model = model
        self._engine = engine
        self._endpoint_name = endpoint_name
        self._folder = folder
        self._logs = logs
        self._servers: list[ModelServer] = []
        self._lock = threading.Lock()

    @property
    def servers(self) -> list[ModelServer]:
        """The servers that take requests, healthy or not at this moment."""
        with self._lock:
            return list(self._servers)

    @property
    def size(self) -> int:
        """How many instances the fleet has."""
        with self._lock:
            return len(self._servers)

    def scale_to(self, count: int, deadline: float = math.inf) -> None:
        """Add servers and wait until they are healthy, or take servers out, let them finish, and end them.

        deadline: until when new servers may take to become healthy, monotonic.

        Raises:
            Unhealthy: a new server did not become healthy; the new ones are gone again.
            OutOfTime: the same, because of `deadline`.
        """
        missing = count - self.size
        if missing > 0:
            self._add([self._make_server() for _ in range(missing)], deadline)
        elif missing < 0:
            with self._lock:
                leaving, self._servers = self._servers[count:], self._servers[:count]
            _end(leaving, drain_seconds=60.0)

    def close(self, drain_seconds: float = 0.0) -> None:
        """End all servers, each one as soon as its requests are answered or `drain_seconds` are over."""
        with self._lock:
            leaving, self._servers = self._servers, []
        _end(leaving, drain_seconds)
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def least_busy(self, avoid: Process | None = None) -> Iterator[ModelServer | None]:
        """The healthy server with the fewest requests in flight, counted as one more meanwhile; None if none is.

        `avoid`: a process to which a connection has just failed, whether or not it looks healthy.
        """
        with self._lock:
            healthy = [each for each in self._servers if each.is_healthy and each.process is not avoid]
            fewest = min((server.in_flight for server in healthy), default=0)
            choices = [server for server in healthy if server.in_flight == fewest]
            server = secrets.choice(choices) if choices else None
            if server is not None:
                server.in_flight += 1
        try:
            yield server
        finally:
            if server is not None:
                with self._lock:
                    server.in_flight -= 1

    def _add(self, servers: list[ModelServer], deadline: float) -> None:
        try:
            for server in servers:
                server.start()
            while not all(server.is_healthy for server in servers):
                if any(server.has_failed for server in servers):
                    raise Unhealthy(
                        f"The primary container for production variant {self.model.variant} did not pass the ping "
                        "health check. Please check CloudWatch logs for this endpoint."
                    )
                if time.monotonic() > deadline:
                    raise OutOfTime(f"Production variant {self.model.variant} did not become healthy in time.")
                time.sleep(_PING_EVERY_SECONDS / 2)
        except BaseException:
            _end(servers, drain_seconds=0.0)
            raise
        with self._lock:
            self._servers += servers

    def _make_server(self) -> ModelServer:
        instance_id = f"i-{secrets.token_hex(8)}0"
        stream = f"{self.model.variant}/{instance_id}"
        log = LogWriter(self._logs, f"{LOG_GROUP}/{self._endpoint_name}", stream)
        return ModelServer(self._engine, self.model, self._folder / instance_id, log, instance_id)


def _end(servers: list[ModelServer], drain_seconds: float) -> None:
    deadline = time.monotonic() + drain_seconds
    for server in servers:
        while server.in_flight and time.monotonic() < deadline:
            time.sleep(0.02)
        server.stop()
