"""Lambda execution environments: one warm process each, with the function's code, role and limits."""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import zipfile
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from workflow.local.engine import Engine
from workflow.local.function_runtime import END_MARKER
from workflow.local.processes import Process

SERVICE = "lambda.amazonaws.com"
MAX_UNZIPPED_BYTES = 262_144_000
"""Source: AWS Lambda developer guide, "Lambda quotas", deployment package (read 2026-11-21)."""

LAYERS = Path(sys.prefix) / "kelpie-layers"
"""Unpacked layers, by the hash of their content, inside the running environment: they seldom change, and all local
clouds share what Python compiles of them when a function first imports it."""
_RUNTIME = Path(__file__).with_name("function_runtime.py")
_INIT_SECONDS = 30.0
"""AWS allows 10 s for the import of the code; a busy laptop gets more."""
_LAST_OUTPUT_SECONDS = 2.0
_WATCH_SECONDS = 0.1
_MAX_LOG_LINES = 10_000
_MAX_AGE_SECONDS = 45 * 60
"""Younger than the role session of the environment gets."""


@dataclass(frozen=True)
class FunctionVersion:
    """Everything that an execution environment depends on: two that are equal can share their environments."""

    name: str
    arn: str
    version: str
    handler: str
    runtime: str
    role_arn: str
    timeout_seconds: int
    memory_mb: int
    code_sha256: str
    variables: tuple[tuple[str, str], ...]
    layers: tuple[str, ...]
    """ARNs of layer versions, which never change their content, in the order in which they are laid upon each other."""
    code: bytes = field(repr=False, compare=False)
    layers_code: tuple[bytes, ...] = field(repr=False, compare=False)

    @property
    def log_group(self) -> str:
        """The log group that Lambda uses by default."""
        return f"/aws/lambda/{self.name}"


@dataclass(frozen=True)
class Outcome:
    """What one invocation came to."""

    payload: bytes
    is_error: bool
    log: list[dict[str, Any]]
    """Log events: timestamp (ms) and message."""


class BadPackage(Exception):
    """The deployment package or a layer is no zip archive, or together they are too large."""


class Sandbox:
    """One execution environment. Answers one invocation at a time; unusable after it `is_dead`."""

    def __init__(self, engine: Engine, function: FunctionVersion, code: Path, layers: Path) -> None:
        """Start the process; the code is imported meanwhile. `layers` is what /opt is on AWS."""
        self.function = function
        self.started = time.monotonic()
        now = datetime.now(UTC)
        self.log_stream = f"{now:%Y/%m/%d}/[{function.version}]{secrets.token_hex(16)}"
        self.has_log_stream = False
        self._scratch = engine.home / "sandboxes" / secrets.token_hex(8)
        self._scratch.mkdir(parents=True)
        self._lines: deque[dict[str, Any]] = deque(maxlen=_MAX_LOG_LINES)
        self._output_ended = threading.Event()
        self._received = b""
        self._is_ready = False
        self._max_rss_bytes = 0
        self._channel, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = self._start(engine, code, layers, theirs)
        except BaseException:
            self._channel.close()
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise

    def _start(self, engine: Engine, code: Path, layers: Path, theirs: socket.socket) -> Process:
        python = engine.images.python_for(f"lambda/{self.function.runtime}")
        credentials = engine.identity.assume(self.function.role_arn, self.function.name, SERVICE)
        return engine.processes.start(
            [str(python), str(_RUNTIME), str(theirs.fileno()), str(layers)],
            name=f"lambda-{self.function.name}",
            cwd=code,
            env=self._environment(code) | engine.identity.environment(credentials),
            on_line=self._on_line,
            pass_fds=[theirs.fileno()],
        )

    @property
    def is_dead(self) -> bool:
        """Tell whether the process has ended."""
        return not self._process.is_running

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._channel.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def invoke(self, event: str, request_id: str) -> Outcome:
        """Run one invocation within the function's timeout and memory, and return what it came to."""
        init_ms = None
        status = ""
        begun = time.monotonic()
        self._log(f"START RequestId: {request_id} Version: {self.function.version}")
        try:
            if not self._is_ready:
                message = self._receive(begun + _INIT_SECONDS)
                self._is_ready = "error" not in message
                begun = time.monotonic()
                init_ms = (begun - self.started) * 1000
            if self._is_ready:
                message = self._exchange(event, request_id, begun)
        except _Stopped as stopped:
            message, status = self._stopped(stopped, request_id)
        duration_ms = (time.monotonic() - begun) * 1000
        if self._is_ready and not status:
            self._output_ended.wait(_LAST_OUTPUT_SECONDS)
        else:
            self._process.kill()
            self._process.wait()  # its output has been read then
        self._log(f"END RequestId: {request_id}")
        self._log(self._report(request_id, duration_ms, init_ms, status))
        log = list(self._lines)
        self._lines.clear()
        if "error" in message:
            return Outcome(json.dumps(message["error"]).encode(), True, log)
        return Outcome(message["payload"].encode(), False, log)

    def _exchange(self, event: str, request_id: str, started: float) -> dict[str, Any]:
        self._output_ended.wait(_LAST_OUTPUT_SECONDS)  # of the phase before
        self._output_ended.clear()
        timeout = self.function.timeout_seconds
        request = {
            "request_id": request_id,
            "deadline_ms": (time.time() + timeout) * 1000,
            "arn": self.function.arn,
            "event": event,
        }
        try:
            self._channel.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            raise _Stopped("exited") from None
        return self._receive(started + timeout)

    def _receive(self, deadline: float) -> dict[str, Any]:
        """Wait for a message while watching time, memory and life of the process."""
        while b"\n" not in self._received:
            left = deadline - time.monotonic()
            if left <= 0:
                raise _Stopped("timeout")
            ready, _, _ = select.select([self._channel], [], [], min(left, _WATCH_SECONDS))
            self._check_memory()
            if ready:
                with suppress(ConnectionResetError):
                    chunk = self._channel.recv(1 << 20)
                    self._received += chunk
                    if chunk:
                        continue
                raise _Stopped("exited")
        line, _, self._received = self._received.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def _check_memory(self) -> None:
        with suppress(psutil.Error):
            rss_bytes = psutil.Process(self._process.pid).memory_info().rss
            self._max_rss_bytes = max(self._max_rss_bytes, rss_bytes)
            if rss_bytes > self.function.memory_mb * 1024 * 1024:
                raise _Stopped("memory")

    def _stopped(self, stopped: _Stopped, request_id: str) -> tuple[dict[str, Any], str]:
        """Return the message and the REPORT line's status of a process that did not answer.

        Source: AWS Lambda developer guide, "Troubleshoot execution issues" (read 2026-11-21).
        """
        if stopped.why != "exited":
            self._process.kill()
        returncode = self._process.wait()
        if stopped.why == "timeout":
            seconds = self.function.timeout_seconds if self._is_ready else _INIT_SECONDS
            text = f"Task timed out after {seconds:.2f} seconds"
            self._log(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}Z {request_id} {text}")
            document = {"errorType": "Sandbox.Timedout", "errorMessage": f"RequestId: {request_id} Error: {text}"}
            return {"error": document}, "Status: timeout"
        how = "signal: killed" if returncode == -signal.SIGKILL else f"exit status {returncode}"
        text = f"Runtime exited with error: {how}" if returncode else "Runtime exited without providing a reason"
        document = {"errorType": "Runtime.ExitError", "errorMessage": f"RequestId: {request_id} Error: {text}"}
        error_type = "Runtime.OutOfMemory" if stopped.why == "memory" else "Runtime.ExitError"
        return {"error": document}, f"Status: error\tError Type: {error_type}"

    def _report(self, request_id: str, duration_ms: float, init_ms: float | None, status: str) -> str:
        parts = [
            f"REPORT RequestId: {request_id}",
            f"Duration: {duration_ms:.2f} ms",
            f"Billed Duration: {int(duration_ms) + 1} ms",
            f"Memory Size: {self.function.memory_mb} MB",
            f"Max Memory Used: {self._max_rss_bytes // 1024 // 1024} MB",
        ]
        if init_ms is not None:
            parts.append(f"Init Duration: {init_ms:.2f} ms")
        return "\t".join([*parts, *filter(None, [status])]) + "\t"

    def _on_line(self, line: str) -> None:
        if line == END_MARKER:
            self._output_ended.set()
        elif line:
            self._log(line)

    def _log(self, message: str) -> None:
        self._lines.append({"timestamp": int(time.time() * 1000), "message": message})

    def _environment(self, code: Path) -> dict[str, str]:
        """Source: AWS Lambda developer guide, "Defined runtime environment variables" (read 2026-11-21)."""
        function = self.function
        return dict(function.variables) | {
            "_HANDLER": function.handler,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{function.runtime}",
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
            "AWS_LAMBDA_FUNCTION_VERSION": function.version,
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": function.log_group,
            "AWS_LAMBDA_LOG_STREAM_NAME": self.log_stream,
            "LAMBDA_TASK_ROOT": str(code),
            "LANG": "en_US.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self._scratch),
            "TZ": ":UTC",
        }


class _Stopped(Exception):
    """The process ended or had to be ended during an invocation: "timeout", "memory" or "exited"."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Sandboxes:
    """The execution environments of all functions; safe to use from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._unpack_lock = threading.Lock()
        self._idle: dict[str, list[Sandbox]] = {}

    def take(self, function: FunctionVersion) -> Sandbox:
        """Return an idle environment of this very version and configuration, or a new one.

        Raises:
            BadPackage: if the code cannot be unpacked.
            AccessDenied: if the role cannot be assumed by Lambda.
            UnknownImage: if there is no environment for the runtime.
        """
        stale = []
        warm = None
        with self._lock:
            idle = self._idle.pop(function.arn, [])
            for sandbox in idle:
                is_fresh = time.monotonic() - sandbox.started < _MAX_AGE_SECONDS
                if sandbox.function != function or sandbox.is_dead or not is_fresh:
                    stale.append(sandbox)
                elif warm is None:
                    warm = sandbox
                else:
                    self._idle.setdefault(function.arn, []).append(sandbox)
        for sandbox in stale:
            sandbox.close()
        return warm or self._new(function)

    def give_back(self, sandbox: Sandbox) -> None:
        """Keep an environment for the next invocation, if it still lives."""
        if sandbox.is_dead:
            sandbox.close()
            return
        with self._lock:
            self._idle.setdefault(sandbox.function.arn, []).append(sandbox)

    def discard(self, function_arn: str) -> None:
        """End the idle environments of a function that was deleted."""
        with self._lock:
            arns = [arn for arn in self._idle if arn == function_arn or arn.startswith(f"{function_arn}:")]
            idle = [sandbox for arn in arns for sandbox in self._idle.pop(arn)]
        for sandbox in idle:
            sandbox.close()

    def _new(self, function: FunctionVersion) -> Sandbox:
        if sum(map(_unzipped_bytes, (function.code, *function.layers_code))) > MAX_UNZIPPED_BYTES:
            raise BadPackage(f"Unzipped size must be smaller than {MAX_UNZIPPED_BYTES} bytes")
        code = self._unpack(self._engine.home / "functions", function.code)
        return Sandbox(self._engine, function, code, self._unpack(LAYERS, *function.layers_code))

    def _unpack(self, parent: Path, *archives: bytes) -> Path:
        """The folder that holds these archives, a later one's files over an earlier one's."""
        content = hashlib.sha256()
        for archive in archives:
            content.update(archive)
        folder = parent / content.hexdigest()
        with self._unpack_lock:
            if not folder.exists():
                parent.mkdir(parents=True, exist_ok=True)
                unfinished = Path(tempfile.mkdtemp(dir=parent))
                try:
                    for archive in archives:
                        with _opened(archive) as opened:
                            opened.extractall(unfinished)  # drops leading slashes and ".." of the names
                    unfinished.rename(folder)
                except OSError:
                    if not folder.exists():  # else another local cloud, which shares the parent, was faster
                        raise
                finally:
                    shutil.rmtree(unfinished, ignore_errors=True)
        return folder


def _unzipped_bytes(archive: bytes) -> int:
    with _opened(archive) as opened:
        return sum(entry.file_size for entry in opened.infolist())


def _opened(archive: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(archive))
    except zipfile.BadZipFile:
        raise BadPackage("Could not unzip uploaded file. Please check your file, then try to upload again.") from None
