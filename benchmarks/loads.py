"""One server under load: how long it takes to start, what it answers, what its requests cost."""

from __future__ import annotations

import http.client
import json
import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.children import ROOT, Child, ChildFailed, free_port, running
from benchmarks.client import Plan, Report
from benchmarks.contestants import Contestant, serving_python

_READY_SECONDS = 400.0


class NotReady(ChildFailed):
    """A server does not start here."""


@dataclass(frozen=True)
class Condition:
    """One kind of load."""

    name: str
    kind: str
    content_type: str
    concurrency: int
    seconds: float
    """Of each load."""
    draws: int = 1
    """Loads of a round, each with connections of its own, where workers share them by chance; other servers have one.
    Which of gunicorn's workers gets how many decides whether a load is one on all of them or on one."""
    reconnects: bool = False
    """A connection for each request: gunicorn's workers share them evenly."""


MAIN = "small JPEG, concurrency 8"
EVENLY = f"{MAIN}, a connection for each request"
WHOLE = (
    Condition(MAIN, "small", "image/jpeg", 8, 10, draws=8),
    Condition(EVENLY, "small", "image/jpeg", 8, 10, reconnects=True),
    Condition("small JPEG, concurrency 1", "small", "image/jpeg", 1, 4),
    Condition("small JPEG, concurrency 32", "small", "image/jpeg", 32, 10, draws=3),
    Condition("12-megapixel JPEG, concurrency 8", "large", "image/jpeg", 8, 5, draws=2),
    Condition("small PNG, concurrency 8", "png", "image/png", 8, 5, draws=2),
)
QUICK = (
    Condition(MAIN, "small", "image/jpeg", 2, 0.3),
    Condition("12-megapixel JPEG, concurrency 8", "large", "image/jpeg", 1, 0.1),
)


@dataclass(frozen=True)
class Slice:
    """CPU milliseconds of a request under the main load, and right before it those of its parts without a server."""

    request_ms: float
    model_ms: float
    decode_ms: float
    resize_ms: float
    per_second: float
    """Pictures that the model alone takes, on all cores."""


SLICES, SLICE_SECONDS = 8, 1.0
"""Of a round: short ones, because a machine's speed changes with its neighbours from one second to the next."""


@dataclass
class Measured:
    """What was measured of one contestant, a value for each round."""

    reports: dict[str, list[Report]] = field(default_factory=dict)
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)
    """CPU milliseconds of the server for one answer."""
    pss_bytes: list[int] = field(default_factory=list)
    ping_seconds: list[float] = field(default_factory=list)
    answer_seconds: list[float] = field(default_factory=list)
    slices: list[Slice] = field(default_factory=list)
    """Of all rounds."""

    def part(self, name: str) -> float:
        """The median of a field of the slices."""
        values: list[float] = [getattr(one, name) for one in self.slices]
        return statistics.median(values)

    @property
    def model_share(self) -> float:
        """The model's share of a request's CPU time under the main load: the median of the slices' own."""
        return statistics.median(one.model_ms / one.request_ms for one in self.slices)


@contextmanager
def served(contestant: Contestant, folder: Path, picture: Path, measured: Measured) -> Any:
    """The server, once it has answered `picture`; gives its process and its port."""
    folder.mkdir(parents=True)
    port = free_port()
    argv, env = contestant.command(port, folder), {**contestant.env(port, folder), **contestant.runtime_env}
    with running(argv, name=contestant.name, cwd=folder, env=env) as child:
        _until(child, lambda: _status(port, "GET", "/ping") == 200)
        measured.ping_seconds.append(child.seconds)
        body = picture.read_bytes()
        _until(child, lambda: _status(port, "POST", "/invocations", body) == 200)
        measured.answer_seconds.append(child.seconds)
        yield child, port


def _until(child: Child, ready: Callable[[], bool]) -> None:
    assert child.process is not None
    while not ready():
        if not child.process.is_running or child.seconds > _READY_SECONDS:
            raise NotReady(f"{child.name} is not ready after {child.seconds:.0f} s:\n{child.tail()}")
        time.sleep(0.02)


def _status(port: int, method: str, path: str, body: bytes | None = None) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, {"Content-Type": "image/jpeg"} if body else {})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def load(plan: Plan, name: str) -> Report:
    """Carry a plan out in a process of its own.

    Raises:
        ChildFailed: the server answered wrongly.
    """
    timeout = plan.seconds + plan.drain_seconds + 60
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.client"],
        input=json.dumps(asdict(plan)),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        raise ChildFailed(f"{name} answered wrongly: {done.stderr.strip()[-1500:]}")
    return Report(**json.loads(done.stdout))


def merged(reports: Sequence[Report]) -> Report:
    """Loads one after the other, as one."""
    return Report(
        sum(one.seconds for one in reports),
        [latency for one in reports for latency in one.latencies_ms],
        sum(one.refused for one in reports),
        sum(one.unanswered for one in reports),
        reports[-1].best,
    )


def measure_one(
    contestant: Contestant,
    conditions: Sequence[Condition],
    files: dict[str, list[Path]],
    classes: list[str],
    folder: Path,
    measured: Measured,
) -> None:
    """Start the server, check its answer to every picture, and put every load on it once."""
    checks: dict[str, Report] = {}
    with served(contestant, folder, files["small"][0], measured) as (child, port):
        for condition in conditions:
            if contestant.only_main and condition.name != MAIN:
                continue
            chosen = [str(path) for path in files[condition.kind]]
            request = (port, "/invocations", condition.content_type, chosen)
            if condition.kind not in checks:  # every picture once; a warm-up too
                once = Plan(*request, contestant.expected[condition.kind], classes, 1, 60.0, requests=len(chosen))
                checks[condition.kind] = load(once, contestant.name)
            checked = checks[condition.kind]
            if checked.unanswered:
                raise ChildFailed(f"{contestant.name} does not answer: {condition.name}:\n{child.tail()}")
            how = (condition.concurrency, condition.seconds)
            loaded = Plan(*request, checked.best, classes, *how, reconnects=condition.reconnects)
            before = child.cpu_seconds
            draws = condition.draws if contestant.shares_by_chance else 1
            report = merged([load(loaded, contestant.name) for _ in range(draws)])
            spent = child.cpu_seconds - before
            answers = len(report.latencies_ms)
            if not answers:
                raise ChildFailed(f"{contestant.name} answered nothing: {condition.name}")
            measured.reports.setdefault(condition.name, []).append(report)
            measured.cpu_ms.setdefault(condition.name, []).append(spent * 1000 / answers)
            if condition.name == MAIN:
                measured.pss_bytes.append(child.pss_bytes)
                if contestant.precision:
                    measured.slices += sliced(contestant, child, loaded, files["small"][0])


def sliced(contestant: Contestant, child: Child, plan: Plan, picture: Path) -> Iterator[Slice]:
    """Short loads of the server, and before each of them its parts alone, in turn."""
    seconds = min(SLICE_SECONDS, plan.seconds)
    with alone(contestant, picture) as parts:
        for _ in range(SLICES):
            taken = parts(seconds / 2)
            before = child.cpu_seconds
            answers = len(load(replace(plan, seconds=seconds), contestant.name).latencies_ms)
            yield Slice((child.cpu_seconds - before) * 1000 / max(1, answers), **taken)


@contextmanager
def alone(contestant: Contestant, picture: Path) -> Iterator[Callable[[float], dict[str, float]]]:
    """`runtime_probe` in the serving environment: from seconds to what it measures in these."""
    argv = [str(serving_python()), str(ROOT / "benchmarks" / "runtime_probe.py"), str(contestant.model), str(picture)]
    code = str(contestant.model / "code")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": code, "PYTHONDONTWRITEBYTECODE": "1", **contestant.runtime_env}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def said() -> dict[str, Any]:
            is_there, _, _ = select.select([stdout], [], [], _READY_SECONDS)
            line = stdout.readline() if is_there else ""
            if not line:
                raise ChildFailed(f"{contestant.name} alone failed, or took too long: its messages are above")
            return dict(json.loads(line))

        def parts(seconds: float) -> dict[str, float]:
            print(seconds, file=stdin, flush=True)
            return said()

        try:
            precision = said()["precision"]
            if precision != contestant.precision:
                raise ChildFailed(f"{contestant.name} computes in {precision} on this machine")
            yield parts
        finally:
            process.kill()


def rate(report: Report) -> float:
    """Answers a second, until the last answer."""
    return len(report.latencies_ms) / report.seconds
