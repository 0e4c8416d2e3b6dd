"""The serving image's environment: its size and the time that it takes to start, against one with torch."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from benchmarks.children import ROOT, ChildFailed, run
from benchmarks.record import Row, Table

NAME = "image"
_TORCH_STACK = ("torch", "torchvision", "numpy", "pillow")
_IMPORT_SECONDS = 300


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; a file with several names counts once."""
    seen = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            seen[status.st_dev, status.st_ino] = status.st_size
    return sum(seen.values())


def closure(names: tuple[str, ...]) -> set[str]:
    """The installed distributions that these need, with themselves; extras are left out."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # not for this platform
        found.add(name)
        waiting += [re.split(r"[\s;<>=!~\[(]", need, maxsplit=1)[0] for need in needs if "extra ==" not in need]
    return found


def distribution_bytes(names: set[str]) -> int:
    """Bytes of the installed files of these distributions."""
    total = 0
    for name in names:
        for file in metadata.distribution(name).files or ():
            path = Path(str(file.locate()))
            total += path.stat().st_size if path.is_file() else 0
    return total


def import_seconds(python: Path, program: str, folder: Path, rounds: int) -> list[float]:
    """Seconds of a fresh process that imports and ends, after one warm-up."""
    argv = [str(python), "-c", program]
    env = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    runs = [run(argv, name=program, cwd=folder, env=env, timeout_seconds=_IMPORT_SECONDS) for _ in range(rounds + 1)]
    return [done.seconds for done in runs[1:]]


def measure(quick: bool, folder: Path) -> list[Table]:
    """The script `image`."""
    from workflow.local.images import Images

    python = Images(cache=folder / "images").python_for("kelpie-serving")
    own = python.parents[1]
    has_torch = subprocess.run([str(python), "-c", "import torch"], capture_output=True, check=False).returncode == 0
    if has_torch:
        raise ChildFailed("the serving environment can import torch")
    torch_names = closure(_TORCH_STACK)
    without_cuda = {name for name in torch_names if not name.startswith(("nvidia", "cuda", "triton"))}
    rounds = 1 if quick else 7
    ours = import_seconds(python, "import inference.server, inference.handler", folder, rounds)
    theirs = import_seconds(Path(sys.executable), "import torch, torchvision", folder, rounds)
    sizes = (
        Row("Kelpie's, from inference/requirements.txt", (folder_bytes(own) / 2**20,), quality="no torch in it"),
        Row("one with torch", (distribution_bytes(torch_names) / 2**20,)),
        Row("one with torch, CUDA's libraries left out", (distribution_bytes(without_cuda) / 2**20,)),
    )
    starts = (
        Row("Kelpie's: the server and the handler imported", ours),
        Row("one with torch: torch and torchvision imported", theirs),
    )
    note = "A fresh virtual environment against the installed files of torch, torchvision and what they need."
    return [
        Table("Size of the serving environment", "MiB", "lower", sizes, (sizes[1].name, sizes[2].name), note=note,
              headlines=(sizes[0].name,)),
        Table("Imports of the serving environment, in a fresh process", "s", "lower", starts, (starts[1].name,),
              note="The start of the whole server to its first ping is in the tables of `serving`."),
    ]  # fmt: skip
