"""`python -m benchmarks [NAME ...] [--quick]`: run the scripts and write a dated result of each."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from benchmarks import environment
from benchmarks.children import ChildFailed
from benchmarks.record import RESULTS, SCRIPTS, Result

QUICK_RESULTS = environment.ROOT / "build" / "bench" / "quick"


def run(script: str, *, quick: bool, results: Path) -> Path:
    """Run one script and return the path of its result."""
    module = importlib.import_module(f"benchmarks.{script}")
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    about = environment.record()
    about["load_before"] = environment.load()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"kelpie-bench-{script}-") as folder:
        tables = tuple(module.measure(quick, Path(folder)))
    seconds = round(time.monotonic() - started, 1)
    about["load_after"] = environment.load()
    command = f"make bench-{script}" + (" QUICK=--quick" if quick else "")
    return Result(script, now, seconds, command, quick, about, tables).write(results)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; the exit code is 1 if a script failed, and the others have run all the same."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Kelpie and its baselines.")
    parser.add_argument("scripts", nargs="*", metavar="NAME", help=f"of {', '.join(SCRIPTS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="smoke test of the scripts; its figures mean nothing")
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="default: benchmarks/results; quick: build/bench/quick"
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.scripts if name not in SCRIPTS]
    if unknown:
        parser.error(f"there is no script {unknown[0]!r}, expected one of {', '.join(SCRIPTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what was started is cleared away
    results = options.results or (QUICK_RESULTS if options.quick else RESULTS)
    failed = []
    for script in options.scripts or SCRIPTS:
        print(f"{script}: started", file=sys.stderr, flush=True)
        started = time.monotonic()
        try:
            path = run(script, quick=options.quick, results=results)
        except ChildFailed as error:
            failed.append(script)
            print(f"{script}: {error}", file=sys.stderr, flush=True)
        else:
            print(f"{script}: {path} after {time.monotonic() - started:.0f} s", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
