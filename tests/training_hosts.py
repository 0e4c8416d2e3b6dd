"""The hosts of a training job as processes of this machine, started as SageMaker starts them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
STEPS = 3 + 600
SMALL: dict[str, object] = {
    "backbone": "efficientnet_lite0",
    "weights": "package",
    "epochs": 150,
    "batch-size": 8,
    "image-size": 32,
    "learning-rate": 0.01,
    "checkpoint-interval-steps": 3,
}
"""30 train and 6 valid pictures make 3 steps of features and 600 of training of this."""
ENTRY = ("-m", "training.entry_point")


def free_port() -> int:
    """A port of loopback that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Host:
    """One started host and its folders."""

    process: subprocess.Popen[str]
    base: Path
    lines: list[str] = field(default_factory=list)

    def read_until(self, marker: str) -> str:
        """Read stdout up to the first line that has `marker`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if marker in line:
                return line
        raise AssertionError(f"no {marker!r} in the log:\n" + "\n".join(self.lines))

    def finish(self) -> int:
        """Read the rest of the log and wait; returns the exit code."""
        assert self.process.stdout is not None
        self.lines += [line.rstrip("\n") for line in self.process.stdout]
        return self.process.wait(timeout=120)

    def kill(self) -> None:
        """SIGKILL to the process and its children, as when a machine is taken away."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    @property
    def failure(self) -> str:
        path = self.base / "output" / "failure"
        return path.read_text() if path.exists() else ""

    @property
    def evidence(self) -> dict[str, object]:
        (path,) = (self.base / "output" / "data").glob("host-*.json")
        content: dict[str, object] = json.loads(path.read_text())
        return content


def kill_together(hosts: list[Host]) -> None:
    """SIGKILL to all hosts at one moment: they are stopped first, so that none sees another one's end."""
    for signal_number in (signal.SIGSTOP, signal.SIGKILL):
        for host in hosts:
            os.killpg(host.process.pid, signal_number)


class Job:
    """Starts the hosts of jobs; `close` kills what still runs."""

    def __init__(self) -> None:
        self.started: list[Host] = []

    def start(
        self,
        folder: Path,
        data: Path,
        *,
        host_count: int = 2,
        champion: Path | None = None,
        entry: Sequence[str] = ENTRY,
        **given: object,
    ) -> list[Host]:
        """Start `host_count` hosts with their trees in `folder`; `given` are hyperparameters."""
        parameters = SMALL | {name.replace("_", "-"): value for name, value in given.items()}
        flags = [part for name, value in parameters.items() for part in (f"--{name}", str(value))]
        names = [f"algo-{i + 1}" for i in range(host_count)]
        port = str(free_port())
        new = []
        for name in names:
            base = folder / name
            (base / "output").mkdir(parents=True, exist_ok=True)
            environment = {
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "SAGEMAKER_BASE_DIR": str(base),
                "SM_MODEL_DIR": str(base / "model"),
                "SM_OUTPUT_DATA_DIR": str(base / "output" / "data"),
                "SM_CHANNEL_DATA": str(data),
                "SM_HOSTS": json.dumps(names),
                "SM_CURRENT_HOST": name,
                "SM_NUM_GPUS": "0",
                "SM_NETWORK_INTERFACE_NAME": "lo",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "OMP_NUM_THREADS": "1",
                "TRAINING_JOB_NAME": "a-job",
                **({"SM_CHANNEL_CHAMPION": str(champion)} if champion else {}),
            }
            process = subprocess.Popen(
                [sys.executable, *entry, *flags],
                cwd=base,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            new.append(Host(process, base))
        self.started.extend(new)
        return new

    def close(self) -> None:
        for host in self.started:
            host.kill()
            host.process.wait()
            if host.process.stdout is not None:
                host.process.stdout.close()
