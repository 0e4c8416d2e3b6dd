"""The demo: each step of `make demo` after the installation, as the Makefile has it."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from benchmarks.children import ROOT, ChildFailed, own_python, run
from benchmarks.reaper import ended_with_me
from benchmarks.record import Row, Table

NAME = "demo"
QUICK_IMAGES = 100
_STEP_SECONDS = 900
_STEP = re.compile(r"^\t\$\(BIN\)/kelpie (.+?)(?: > \S+)?$", flags=re.MULTILINE)
"""A `kelpie` command of the Makefile, without where its output goes."""


def steps(makefile: str) -> list[list[str]]:
    """The arguments of the demo's `kelpie` commands, in order.

    Raises:
        ChildFailed: the target is not there, or has none.
    """
    target = re.search(r"^demo:.*\n((?:\t.*\n)+)", makefile, flags=re.MULTILINE)
    found = [command.split() for command in _STEP.findall(target[1])] if target else []
    if not found:
        raise ChildFailed("the Makefile has no target demo with kelpie commands")
    return found


def measure(quick: bool, folder: Path) -> list[Table]:
    """The script `demo`."""
    home = folder / "home"
    env = os.environ | {"KELPIE_HOME": str(home), "PYTHONPATH": str(ROOT)}
    rows = []
    started = time.monotonic()
    with ended_with_me(home / "local"):
        for number, arguments in enumerate(steps((ROOT / "Makefile").read_text(encoding="utf-8"))):
            if quick:
                arguments = _quicker(arguments)
            argv = [own_python(), "-m", "workflow", *arguments]
            name = f"kelpie {' '.join(arguments)}"
            done = run(argv, name=name, cwd=folder, env=env, timeout_seconds=_STEP_SECONDS)
            accuracy = [line.text.strip() for line in done.child.lines if line.text.startswith("test accuracy")]
            rows.append(Row(f"{number + 1}. {name}", (done.seconds,), quality=accuracy[0] if accuracy else ""))
        rows.append(Row("all of it", (time.monotonic() - started,)))
    note = "Two hosts train on 1,500 drawn dogs and lose their spot instances once; waits are divided by 30."
    return [Table("`make demo` after the installation", "s", "lower", rows, note=note, headlines=("all of it",))]


def _quicker(arguments: list[str]) -> list[str]:
    if arguments[0] == "example":
        return [*arguments, "--images", str(QUICK_IMAGES)]
    if arguments[0] == "start":
        small = '{"gate":{"min_test_accuracy":0.0},"smoke_test":{"min_accuracy":0.0},"training":{"image_size":96}}'
        return [*arguments, "--input", small]
    return arguments
