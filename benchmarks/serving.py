"""Serving: the original handler and three servers around it against Kelpie in float32, bfloat16 and int8.

All serve a ResNet-50 with the same random weights, so this is about speed only; accuracy and agreement are those of a
trained EfficientNet-Lite0, from Kelpie's own training with each precision. The servers take turns, round by round.
"""

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

from benchmarks import limits, pictures
from benchmarks.children import ROOT, Child, ChildFailed, free_port, running
from benchmarks.client import Plan, Report
from benchmarks.contestants import (
    AS_IS,
    FAIR,
    WITHOUT_AMX,
    Contestant,
    baseline_python,
    contestants,
    serving_python,
    why_not,
)
from benchmarks.models import PRECISIONS, expectations, quality, speed_models
from benchmarks.record import Row, Table, percentile

NAME = "serving"
GFLOP_PER_PICTURE = 8.18
"""Forward pass of ResNet-50 at 224 pixels, a multiplication and an addition being two. Source: torchvision's table of
weights, 4.09 GFLOPS as multiply-adds, read 2026-11-22."""
_READY_SECONDS = 400.0
LARGE_COUNT = 60
"""Pictures of 12 megapixels whose answers are compared."""


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
    loads: int = 1
    """Of a round, each with connections of its own: which of gunicorn's workers gets how many of them is chance, and
    decides whether the load is one on all of them or on one."""
    reconnects: bool = False
    """A connection for each request: gunicorn's workers share them evenly."""


MAIN = "small JPEG, concurrency 8"
EVENLY = f"{MAIN}, a connection for each request"
WHOLE = (
    Condition(MAIN, "small", "image/jpeg", 8, 2.5, loads=6),
    Condition(EVENLY, "small", "image/jpeg", 8, 2.5, loads=3, reconnects=True),
    Condition("small JPEG, concurrency 1", "small", "image/jpeg", 1, 2),
    Condition("small JPEG, concurrency 32", "small", "image/jpeg", 32, 3),
    Condition("12-megapixel JPEG, concurrency 8", "large", "image/jpeg", 8, 2),
    Condition("small PNG, concurrency 8", "png", "image/png", 8, 2),
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


# --- one server ------------------------------------------------------------------------------------------------------


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
            report = merged([load(loaded, contestant.name) for _ in range(condition.loads)])
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


# --- tables ----------------------------------------------------------------------------------------------------------


def rate(report: Report) -> float:
    """Answers a second, until the last answer."""
    return len(report.latencies_ms) / report.seconds


def agreement(name: str, said: dict[str, str]) -> str:
    """What is known of how right a contestant's answers are; `said` by precision."""
    precision = name.removeprefix("Kelpie ")
    return "float32 by eager PyTorch" if name == precision else said.get(precision, "")


def of_kind(said: dict[str, dict[str, str]], condition: Condition) -> dict[str, str]:
    """What is known by precision of the pictures that a load sends; small ones stand for PNG too."""
    return said.get(condition.kind, said.get("small", {}))


def load_table(
    condition: Condition, found: dict[str, Measured], missing: dict[str, str], said: dict[str, str]
) -> Table:
    """Requests a second under one load, with latencies, CPU time and the runtime's own limit."""
    rows = []
    for name, measured in found.items():
        reports = measured.reports.get(condition.name, [])
        if not reports:
            continue
        latencies = [value for report in reports for value in report.latencies_ms]
        more: dict[str, float | str] = {f"p{p} ms": percentile(latencies, p / 100) for p in (50, 95, 99)}
        more["CPU ms a request"] = statistics.median(measured.cpu_ms[condition.name])
        if measured.slices:
            more["model CPU ms"] = measured.part("model_ms")
            if condition.name == MAIN:
                more["of a request in the model"] = f"{measured.model_share:.0%}"
        if refused := sum(report.refused for report in reports):
            more["503, tried again"] = refused
        if unanswered := sum(report.unanswered for report in reports):
            more["unanswered at the end"] = unanswered
        limit = measured.part("per_second") if measured.slices else None
        rows.append(Row(name, [rate(r) for r in reports], agreement(name, said), limit, more))
    rows += [Row(name, missing=reason) for name, reason in missing.items()]
    note = (
        "Random ResNet-50 weights: these rows are for speed only. Accuracy and agreement: a trained EfficientNet-Lite0."
    )
    if condition.loads > 1:
        note += f" A round is {condition.loads} loads of {condition.seconds:g} s, each with connections of its own."
    if WITHOUT_AMX in found:
        note += " The instructions of a CPU without AMX are what oneDNN was told to keep to."
    quoted = [f"Kelpie {precision}" for precision in PRECISIONS] if condition.name in (MAIN, EVENLY) else []
    headlines = [name for name in quoted if name in {row.name for row in rows}]
    limit_name = "the model alone on all cores"
    return Table(
        f"Serving, {condition.name}", "requests/s", "higher", rows, _present(rows), limit_name, note, headlines
    )


def _present(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(name for name in (AS_IS, FAIR) if any(row.name == name for row in rows))


def tail_table(found: dict[str, Measured], said: dict[str, str]) -> Table:
    """The 99th percentile at concurrency 8."""
    rows = []
    for name, measured in found.items():
        p99_ms = [percentile(report.latencies_ms, 0.99) for report in measured.reports[MAIN]]
        rows.append(Row(name, p99_ms, agreement(name, said)))
    best = min((row for row in rows if not row.name.startswith("Kelpie")), key=lambda row: row.median)
    note = "The best baseline is the one to compare with."
    quoted = [row.name for row in rows if row.name == "Kelpie int8"]
    return Table(f"99th percentile, {MAIN}", "ms", "lower", rows, (best.name,), note=note, headlines=quoted)


def standing_table(found: dict[str, Measured]) -> list[Table]:
    """Memory and start."""
    memory = [Row(name, [value / 2**20 for value in m.pss_bytes]) for name, m in found.items()]
    start = [
        Row(name, m.ping_seconds, more={"first answer, s": statistics.median(m.answer_seconds)})
        for name, m in found.items()
    ]
    note = "Proportional set size of all processes of the server, after the load at concurrency 8."
    honest = "A ping is honest if the first answer follows at once: some servers ping before their model is loaded."
    return [
        Table("Memory of a server", "MiB", "lower", memory, _present(memory), note=note),
        Table("Start of a server to its first 200 on /ping", "s", "lower", start, _present(start), note=honest),
    ]


def parts_table(found: dict[str, Measured]) -> Table:
    """Where the CPU time of a request goes."""
    rows = []
    for name, each in found.items():
        if each.slices:
            parts = {
                "the model": each.part("model_ms"),
                "decoding the JPEG": each.part("decode_ms"),
                "scaling it": each.part("resize_ms"),
            }
            request_ms = [one.request_ms for one in each.slices]
            rest = statistics.median(request_ms) - sum(parts.values())
            more: dict[str, float | str] = {**parts, "all the rest": rest, "in the model": f"{each.model_share:.0%}"}
            rows.append(Row(name, request_ms, more=more))
    note = (
        f"Slices of {SLICE_SECONDS:g} s, in turn: the parts without a server, on all cores at once, and the server "
        "under load. The parts are medians, and so is the share, of the slices': they need not add up."
    )
    return Table(f"CPU time of a request, {MAIN}", "CPU ms", "lower", rows, note=note)


def hardware_table(found: dict[str, Measured], measured: limits.Limits) -> Table:
    """The model alone against the machine's matrix products."""
    rows = []
    for name, each in found.items():
        if each.slices:
            precision = name.removeprefix("Kelpie ")
            gemm = measured.gemm(precision) if precision in PRECISIONS else None  # torch's used all instructions
            limit = None if gemm is None else gemm / GFLOP_PER_PICTURE
            rows.append(Row(name, [one.per_second for one in each.slices], limit=limit))
    note = (
        "A ResNet-50 at 224 pixels is 8.18 GFLOP. The limit is torch's product of two large square matrices, as below."
    )
    limit_name = "the matrix product's speed"
    return Table("The model alone, a thread a core", "pictures/s", "higher", rows, limit_name=limit_name, note=note)


def measure(quick: bool, folder: Path) -> list[Table]:
    """The script `serving`."""
    conditions, rounds = (QUICK, 1) if quick else (WHOLE, 3)
    baseline_python()
    measured_limits = limits.limits(quick)
    data = pictures.dogs(folder / "dogs", 60 if quick else pictures.IMAGE_COUNT)
    few = pictures.dogs(folder / "few", 60)
    count = 2 if quick else 8
    files = {
        "small": pictures.small_jpegs(data, folder / "sent", count),
        "large": pictures.large_jpegs(data, folder / "sent", max(1, count // 4)),
        "png": pictures.pngs(data, folder / "sent", count),
    }
    models, missing = speed_models(few, folder / "models")
    classes = list(json.loads((models["float32"] / "model.json").read_text(encoding="utf-8"))["classes"])
    said = {} if quick else quality(data, folder / "quality", 3, LARGE_COUNT)
    wanted = expectations(models["float32"], files, classes)
    found: dict[str, Measured] = {}
    absent = {f"Kelpie {precision}": reason for precision, reason in missing.items()}
    everybody = contestants(models, wanted)
    for number in range(rounds):
        for contestant in everybody:
            if contestant.name in absent:
                continue
            if reason := why_not(contestant):
                absent[contestant.name] = reason
                continue
            measured = found.setdefault(contestant.name, Measured())
            place = folder / f"round-{number}" / contestant.name.replace(" ", "-").replace(",", "")
            print(f"{contestant.name}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            try:
                measure_one(contestant, conditions, files, classes, place, measured)
            except NotReady as error:
                if contestant.precision:
                    raise
                print(error, file=sys.stderr, flush=True)
                absent[contestant.name] = "it does not start here"
                del found[contestant.name]
                continue
    return [
        *(load_table(each, found, absent, of_kind(said, each)) for each in conditions),
        tail_table(found, of_kind(said, conditions[0])),
        *standing_table(found),
        parts_table(found),
        hardware_table(found, measured_limits),
        limits.table(measured_limits),
    ]
