"""Serving: the original handler and three servers around it against Kelpie in float32, bfloat16 and int8.

All serve a ResNet-50 with the same random weights, so this is about speed only; accuracy and agreement are those of a
trained EfficientNet-Lite0, from Kelpie's own training with each precision. The servers take turns, round by round.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import limits, pictures
from benchmarks.contestants import AS_IS, FAIR, WITHOUT_AMX, baseline_python, contestants, why_not
from benchmarks.loads import (
    EVENLY,
    MAIN,
    QUICK,
    SLICE_SECONDS,
    WHOLE,
    Condition,
    Measured,
    NotReady,
    measure_one,
    rate,
)
from benchmarks.models import PRECISIONS, expectations, quality, speed_models
from benchmarks.record import Row, Table, percentile

NAME = "serving"
GFLOP_PER_PICTURE = 8.18
"""Forward pass of ResNet-50 at 224 pixels, a multiplication and an addition being two. Source: torchvision's table of
weights, 4.09 GFLOPS as multiply-adds, read 2026-11-22."""
LARGE_COUNT = 60
"""Pictures of 12 megapixels whose answers are compared."""


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
    by_chance = (
        f", or {condition.draws} such loads where workers share connections by chance" if condition.draws > 1 else ""
    )
    note += f" A round is a load of {condition.seconds:g} s{by_chance}."
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
