"""Results as a script would write them, with figures that are easy to check."""

from __future__ import annotations

from pathlib import Path

from benchmarks.record import Result, Row, Table

ENVIRONMENT = {
    "cpu": "A Processor",
    "cpu_family_model_stepping": "1/2/3",
    "cpu_flags": ["avx2"],
    "cores": 2,
    "memory_gib": 8.0,
    "system": "Linux 6",
    "versions": {"python": "3.11.7"},
    "commit": "0123456789ab",
    "load_before": [0.1, 0.1, 0.1],
    "load_after": [1.9, 0.5, 0.1],
}


def table(**changes: object) -> Table:
    rows = (
        Row("old", (10.0, 20.0, 30.0), "the baseline"),
        Row("new", (50.0, 60.0, 150.0), "agreement 99.5%", limit=80.0, more={"p99 ms": 12.0}),
        Row("absent", missing="needs Java"),
    )
    given: dict[str, object] = {
        "title": "Speed", "unit": "requests/s", "better": "higher", "rows": rows, "baselines": ("old",),
        "limit_name": "the model alone", "headlines": ("new",),
    }  # fmt: skip
    return Table(**{**given, **changes})  # type: ignore[arg-type]


def write(
    folder: Path,
    *,
    started: str = "2026-11-22T10:00:00+00:00",
    quick: bool = False,
    script: str = "serving",
    **changes: object,
) -> Path:
    """Write one result and return its path."""
    return Result(script, started, 61.0, f"make bench-{script}", quick, ENVIRONMENT, (table(**changes),)).write(folder)
