"""Child processes of the local cloud, each in a group of its own that ends whatever dies first.

Every child runs under `guard.py`. If the server dies, the guard sees the end of its channel and kills the group; if
the guard dies, the kernel kills the child (Linux) and the server kills the group; if the child ends, what it left
behind in its group is killed. Output is read by one thread per process, so that a child never blocks on a full pipe.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

GUARD = Path(__file__).with_name("guard.py")
MAX_LINE_BYTES = 64 * 1024
"""A longer line of output is delivered in pieces of this size."""

_INHERITED_VARIABLES = ("PATH", "LANG", "TMPDIR")
_START_TIMEOUT_SECONDS = 60
_DRAIN_SECONDS = 2.0
"""How long output is still read after the end, for the case that a process left the group and holds the pipe."""

_log = logging.getLogger(__name__)


class Process:
    """One child under its guard. Made by `Processes.start`."""

    def __init__(
        self,
        name: str,
        guard: subprocess.Popen[bytes],
        channel: socket.socket,
        output: IO[bytes] | None,
        on_line: Callable[[str], None] | None,
    ) -> None:
        self.name = name
        self.guard_pid = guard.pid
        """Also the id of the process group."""
        self._guard = guard
        self._channel = channel
        self._output = output
        self._on_line = on_line
        self._returncode: int | None = None
        self._ended = threading.Event()
        self._reap_lock = threading.Lock()
        self._heard = b""
        self.pid = self._await_pid()
        self._thread = threading.Thread(target=self._watch, name=f"watch-{name}", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Process {self.name} pid={self.pid} returncode={self._returncode}>"

    @property
    def is_running(self) -> bool:
        """Tell whether the process has not ended yet."""
        return self.poll() is None

    def poll(self) -> int | None:
        """Return the exit code (negative: the signal that ended it), or None while the process runs.

        Once this is not None all output has been given to `on_line` and the whole group is gone.
        """
        return self._returncode if self._ended.is_set() else None

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Wait for the end and return what `poll` returns then; None if it still runs after `timeout_seconds`."""
        self._ended.wait(timeout_seconds)
        return self.poll()

    def terminate(self) -> None:
        """Send SIGTERM to every process of the group; the guard ignores it."""
        self._signal_group(signal.SIGTERM)

    def kill(self) -> None:
        """End every process of the group at once with SIGKILL."""
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, signum: signal.Signals) -> None:
        with self._reap_lock:
            # Until the guard is reaped its id, which names the group, cannot belong to anybody else.
            if self._guard.returncode is None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.guard_pid, signum)

    def _await_pid(self) -> int:
        self._channel.settimeout(_START_TIMEOUT_SECONDS)
        try:
            while b"\n" not in self._heard:
                received = self._channel.recv(4096)
                if not received:
                    raise OSError(f"the guard of {self.name} ended before its process started")
                self._heard += received
            line, _, self._heard = self._heard.partition(b"\n")
            word, _, rest = line.decode().partition(" ")
            if word != "pid":
                raise OSError(f"{self.name} did not start: {rest}")
            return int(rest)
        except BaseException:
            self.kill()
            self._reap()
            self._close()
            raise

    def _watch(self) -> None:
        """Follow the channel and the output until both have ended, then reap."""
        lines = _Lines(self._on_line, self.name)
        self._channel.settimeout(None)
        deadline: float | None = None
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            if self._output is not None:
                selector.register(self._output, selectors.EVENT_READ)
            while selector.get_map():
                left = None if deadline is None else deadline - time.monotonic()
                ready = selector.select(left) if left is None or left > 0 else []
                if not ready:
                    break
                for key, _ in ready:
                    if key.fileobj is self._channel:
                        if not self._hear():
                            selector.unregister(self._channel)
                            self.kill()
                            deadline = time.monotonic() + _DRAIN_SECONDS
                    elif not lines.feed(os.read(key.fd, MAX_LINE_BYTES)):
                        selector.unregister(key.fileobj)
        self._reap()
        lines.finish()
        self._close()
        if self._returncode is None:  # the guard died and could not report
            self._returncode = -signal.SIGKILL
        self._ended.set()

    def _hear(self) -> bool:
        """Read the channel; return False at its end."""
        try:
            received = self._channel.recv(4096)
        except OSError:
            return False
        self._heard += received
        while b"\n" in self._heard:
            line, _, self._heard = self._heard.partition(b"\n")
            word, _, rest = line.decode().partition(" ")
            if word == "exit":
                self._returncode = int(rest)
        return bool(received)

    def _reap(self) -> None:
        with self._reap_lock:
            self._guard.wait()

    def _close(self) -> None:
        self._channel.close()
        if self._output is not None:
            self._output.close()


class _Lines:
    """Cuts bytes into lines of bounded length and hands them on; a failing receiver does not stop the reading."""

    def __init__(self, on_line: Callable[[str], None] | None, name: str) -> None:
        self._on_line = on_line
        self._name = name
        self._rest = b""

    def feed(self, data: bytes) -> bool:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._emit(line)
        while len(self._rest) >= MAX_LINE_BYTES:
            self._emit(self._rest[:MAX_LINE_BYTES])
            self._rest = self._rest[MAX_LINE_BYTES:]
        return bool(data)

    def finish(self) -> None:
        if self._rest:
            self._emit(self._rest)
            self._rest = b""

    def _emit(self, line: bytes) -> None:
        if self._on_line is None:
            return
        text = line.removesuffix(b"\r").decode(errors="replace")
        try:
            self._on_line(text)
        except Exception:
            _log.exception("The receiver of the output of %s failed on the line %.200r", self._name, text)


class Processes:
    """All children of one server."""

    def __init__(self, owner: str) -> None:
        """`owner` stands in every guard's command line, so that `cloud.down` can prove that none is left."""
        self._owner = owner
        self._lock = threading.Lock()
        self._running: set[Process] = set()
        self._closed = False

    def start(
        self,
        argv: Sequence[str],
        *,
        name: str,
        cwd: Path,
        env: Mapping[str, str],
        on_line: Callable[[str], None] | None = None,
        stdin_bytes: bytes | None = None,
        pass_fds: Sequence[int] = (),
    ) -> Process:
        """Start `argv` under a guard and return when it runs.

        The environment is exactly `env` plus the server's PATH, LANG and TMPDIR. `on_line` gets each line of standard
        output and standard error, in order, from one thread. `pass_fds` are open file descriptors that the child
        inherits under the same numbers.

        Raises:
            OSError: if the program cannot be started, or the processes have been closed.
        """
        self._check_open()
        inherited = {key: os.environ[key] for key in _INHERITED_VARIABLES if key in os.environ}
        ours, theirs = socket.socketpair()
        read_fd, write_fd = os.pipe() if on_line else (None, os.open(os.devnull, os.O_WRONLY))
        try:
            with tempfile.TemporaryFile() if stdin_bytes else Path(os.devnull).open("rb") as stdin:
                if stdin_bytes:
                    stdin.write(stdin_bytes)
                    stdin.seek(0)
                fds = [theirs.fileno(), *pass_fds]
                passed = ",".join(str(fd) for fd in pass_fds)
                guard = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(GUARD), str(theirs.fileno()), passed, self._owner, "--", *argv],
                    cwd=cwd,
                    env={**inherited, **env},
                    stdin=stdin,
                    stdout=write_fd,
                    stderr=write_fd,
                    pass_fds=fds,
                    start_new_session=True,
                )
        except BaseException:
            ours.close()
            if read_fd is not None:
                os.close(read_fd)
            raise
        finally:
            theirs.close()
            os.close(write_fd)
        output = None if read_fd is None else os.fdopen(read_fd, "rb", buffering=0)
        process = Process(name, guard, ours, output, on_line)
        with self._lock:
            self._running = {other for other in self._running if other.is_running}
            self._running.add(process)
            closed = self._closed
        if closed:
            process.kill()
            self._check_open()
        return process

    def running(self) -> list[Process]:
        """Return the processes that run now, sorted by name."""
        with self._lock:
            self._running = {process for process in self._running if process.is_running}
            return sorted(self._running, key=lambda process: process.name)

    def kill_all(self) -> None:
        """End every process and wait until all are gone."""
        processes = self.running()
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()

    def close(self) -> None:
        """End every process and refuse to start others, so that no watcher can restart what the end took down."""
        with self._lock:
            self._closed = True
        self.kill_all()

    def _check_open(self) -> None:
        if self._closed:
            raise OSError("the local cloud is shutting down and starts no processes")
