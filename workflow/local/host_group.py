"""The hosts of one attempt of a training job: their trees, processes and logs, together."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from workflow.local.engine import Engine
from workflow.local.logs import LogWriter
from workflow.local.processes import Process
from workflow.local.training_host import Cluster, TrainingHost
from workflow.local.training_record import MAX_FAILURE_CHARACTERS

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
_TAIL_LINES = 8


class HostGroup:
    """One process group per host, all below `folder`."""

    def __init__(self, engine: Engine, cluster: Cluster, folder: Path) -> None:
        """Make the trees; nothing runs yet."""
        self.hosts = [TrainingHost(cluster, name, folder / name) for name in cluster.hosts]
        self._engine = engine
        self._job_name = cluster.job_name
        self._folder = folder
        self._processes: dict[str, Process] = {}
        self._logs: dict[str, LogWriter] = {}
        for host in self.hosts:
            host.prepare()

    def start(self, python: Path, credentials: Mapping[str, str], logs: Any, observe: Callable[[str], None]) -> None:
        """Start the program on every host; each line goes to CloudWatch Logs (client `logs`) and to `observe`.

        Raises:
            training_host.EntryPointError: the program is not there.
        """
        started = int(time.time())
        for host in self.hosts:
            argv = host.command(python)
            log = LogWriter(logs, LOG_GROUP, f"{self._job_name}/{host.name}-{started}")
            self._logs[host.name] = log
            self._processes[host.name] = self._engine.processes.start(
                argv,
                name=f"{self._job_name}/{host.name}",
                cwd=host.code,
                env=host.environment(credentials),
                on_line=_both(log.write, observe),
            )

    def exit_codes(self) -> dict[str, int | None]:
        """Exit code of each host; None while it runs, negative for the signal that ended it."""
        return {name: process.poll() for name, process in self._processes.items()}

    def end_gently(self, grace_seconds: float) -> None:
        """SIGTERM to every host, and up to `grace_seconds` for all of them together to end."""
        for process in self._processes.values():
            process.terminate()
        deadline = time.monotonic() + grace_seconds
        for process in self._processes.values():
            process.wait(max(0.0, deadline - time.monotonic()))

    def reclaim(self, host: str, notice_seconds: float) -> bool:
        """Take a host away, or all of them for "": SIGTERM and as much notice, or SIGKILL without any.

        Returns whether one had to be killed, perhaps in the middle of a file.

        Raises:
            ValueError: there is no such host.
        """
        if host and host not in self._processes:
            raise ValueError(f"Invalid host {host!r}, expected one of {', '.join(self._processes)}")
        taken = [process for name, process in self._processes.items() if host in ("", name)]
        for process in taken if notice_seconds else ():
            process.terminate()
        deadline = time.monotonic() + notice_seconds
        killed = False
        for process in taken:
            if process.wait(max(0.0, deadline - time.monotonic())) is None:
                process.kill()
                process.wait()
                killed = True
        return killed

    def kill(self) -> bool:
        """End every host at once; return whether one was still running."""
        running = [process for process in self._processes.values() if process.is_running]
        for process in running:
            process.kill()
        for process in running:
            process.wait()
        return bool(running)

    def close(self) -> None:
        """End what still runs and write the last log events."""
        self.kill()
        for log in self._logs.values():
            log.close()

    def wipe(self) -> None:
        """Remove the trees, as the end of an instance does."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def failure_reason(self, codes: Mapping[str, int | None]) -> str:
        """Why the program failed: its own words in output/failure, else the end of what it printed."""
        failed = [name for name, code in codes.items() if code not in (None, 0)]
        # A host killed by a signal is the cause; that the others lost their connection to it is the effect.
        first = min(failed, key=lambda name: (codes[name] or 0) >= 0)
        host = next(host for host in self.hosts if host.name == first)
        code = codes[first] or 0
        exit_code = 128 - code if code < 0 else code
        text = host.failure
        if not text:
            tail = "\n".join(self._logs[first].tail(_TAIL_LINES))
            command = " ".join(host.command(Path("python")))
            text = f'ExecuteUserScriptError:\nExitCode {exit_code}\nErrorMessage "{tail}"\nCommand "{command}"'
        ending = f", exit code: {exit_code} ({first})"
        return f"AlgorithmError: {text}"[: MAX_FAILURE_CHARACTERS - len(ending)] + ending


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _both(*receivers: Callable[[str], None]) -> Callable[[str], None]:
    def receive(line: str) -> None:
        for receiver in receivers:
            receiver(line)

    return receive
