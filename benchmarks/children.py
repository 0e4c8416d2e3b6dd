"""The processes that are measured: each with its own group, which ends with whoever started it.

They run under the local cloud's guard (`workflow.local.processes`), so none outlives a benchmark that is killed.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from workflow.local.processes import Process, Processes

ROOT = Path(__file__).parents[1]
TUNED_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(4 << 30), "MALLOC_TRIM_THRESHOLD_": str(8 << 30)}
"""Keeps glibc from giving large blocks back to the kernel. Source: mallopt(3), the environment variables."""
_TAIL_LINES = 15
_PEAK_EVERY_SECONDS = 0.05


class ChildFailed(RuntimeError):
    """A measured program failed; the message has the end of its output."""


@dataclass
class Line:
    """A line of output with the moment it came, in seconds since the start, and the CPU time spent until then."""

    text: str
    seconds: float
    cpu_seconds: float


@dataclass
class Child:
    """A started program."""

    name: str
    process: Process | None = None
    started: float = field(default_factory=time.monotonic)
    lines: list[Line] = field(default_factory=list)

    @property
    def members(self) -> list[psutil.Process]:
        """The processes of its group, without the guard."""
        assert self.process is not None
        return group(self.process.guard_pid)

    @property
    def cpu_seconds(self) -> float:
        """User and system time of the living members, and of those that they have waited for."""
        return cpu_seconds(self.members)

    @property
    def pss_bytes(self) -> int:
        """Memory of the group, shared pages divided among those who share them."""
        return pss_bytes(self.members)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    def tail(self) -> str:
        return "\n".join(line.text for line in self.lines[-_TAIL_LINES:])

    def first(self, marker: str) -> Line:
        """The first line that contains a text.

        Raises:
            ChildFailed: there is none.
        """
        for line in self.lines:
            if marker in line.text:
                return line
        raise ChildFailed(f"{self.name} did not print {marker!r}; the end of what it did print:\n{self.tail()}")


def group(group_id: int) -> list[psutil.Process]:
    """The members of a process group apart from its leader."""
    found = []
    for process in psutil.process_iter():
        with suppress(OSError):
            if process.pid != group_id and os.getpgid(process.pid) == group_id:
                found.append(process)
    return found


def cpu_seconds(members: Sequence[psutil.Process]) -> float:
    total = 0.0
    for member in members:
        with suppress(psutil.Error):
            times = member.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def pss_bytes(members: Sequence[psutil.Process]) -> int:
    total = 0
    for member in members:
        with suppress(psutil.Error):
            total += member.memory_full_info().pss
    return total


def own_bytes(member: psutil.Process) -> int:
    """Resident memory besides that of mapped files, which the kernel can take back; 0 of a process that has ended.

    Source: proc_pid_status(5), RssAnon and RssShmem, in kB.
    """
    with suppress(OSError):
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{member.pid}/status").read_text().splitlines())
        return sum(int(fields[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem") if name in fields)
    return 0


def environment(**extra: str) -> dict[str, str]:
    """What a measured program gets besides PATH, LANG and TMPDIR: nothing that sets threads or the allocator."""
    return {
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/nonexistent",
        **extra,
    }


@contextmanager
def running(
    argv: Sequence[str],
    *,
    name: str,
    cwd: Path,
    env: Mapping[str, str],
    on_line: Callable[[Child, Line], None] | None = None,
) -> Iterator[Child]:
    """A program for the time of the block; its whole group is gone afterwards."""
    children = Processes("benchmarks")
    child = Child(name)
    ready = threading.Event()

    def note(text: str) -> None:
        ready.wait()
        line = Line(text, child.seconds, child.cpu_seconds)
        child.lines.append(line)
        if on_line is not None:
            on_line(child, line)

    try:
        child.process = children.start(argv, name=name, cwd=cwd, env=env, on_line=note)
        ready.set()
        yield child
    finally:
        ready.set()
        children.close()


@dataclass(frozen=True)
class Run:
    """A program that has ended well."""

    child: Child
    seconds: float
    peak_rss_bytes: int
    """Largest sum of the resident memory of its processes, looked at twenty times a second."""
    peak_own_bytes: int
    """The same without mapped files."""


def run(
    argv: Sequence[str],
    *,
    name: str,
    cwd: Path,
    env: Mapping[str, str],
    timeout_seconds: float,
    enough: Callable[[Line], bool] | None = None,
) -> Run:
    """Run a program to its end, or until a line after which the rest is not needed.

    Raises:
        ChildFailed: it exits with another code than 0, or takes longer than `timeout_seconds`.
    """
    done = threading.Event()

    def look(_child: Child, line: Line) -> None:
        if enough is not None and enough(line):
            done.set()

    with running(argv, name=name, cwd=cwd, env=env, on_line=look) as child:
        assert child.process is not None
        peak = peak_own = 0
        while child.process.is_running and not done.is_set():
            if child.seconds > timeout_seconds:
                raise ChildFailed(f"{name} still ran after {timeout_seconds:g} s; its last lines:\n{child.tail()}")
            rss = own = 0
            for member in child.members:
                with suppress(psutil.Error):
                    rss += member.memory_info().rss
                    own += own_bytes(member)
            peak, peak_own = max(peak, rss), max(peak_own, own)
            child.process.wait(_PEAK_EVERY_SECONDS)
        seconds = child.seconds
        code = child.process.poll()
        if code not in (0, None):
            raise ChildFailed(f"{name} ended with {code}; its last lines:\n{child.tail()}")
    return Run(child, seconds, peak, peak_own)


def own_python() -> str:
    """The interpreter of the project's environment."""
    return sys.executable


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
