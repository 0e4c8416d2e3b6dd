"""The serving image's environment: its size and the time that it takes to start, against one with torch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from benchmarks.children import ROOT, ChildFailed, run
from benchmarks.record import Row, Table

NAME = "image"
DOCKERFILE = ROOT / "inference" / "Dockerfile"
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


def slimmed(python: Path, folder: Path) -> Path:
    """A copy of an environment as the image has it: without the files that its Dockerfile removes. Its interpreter.

    Raises:
        ChildFailed: the Dockerfile's command fails, as it would in the image.
    """
    shutil.copytree(python.parents[1], folder, symlinks=True, copy_function=_link_or_copy)
    copied = folder / "bin" / "python"
    path = f"{copied.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["/bin/sh", "-c", removal()], env={"PATH": path}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ChildFailed(f"the Dockerfile's {removal()} failed: {done.stderr.strip()}")
    return copied


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def removal() -> str:
    """What the Dockerfile's RUN does after it has installed the requirements."""
    lines = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    [command] = [line.removeprefix("RUN ") for line in lines if line.startswith("RUN ") and " rm " in line]
    _installation, _, rest = command.partition("&&")
    return rest.strip()


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

    installed = Images(cache=folder / "images").python_for("kelpie-serving")
    python = slimmed(installed, folder / "slimmed")
    has_torch = subprocess.run([str(python), "-c", "import torch"], capture_output=True, check=False).returncode == 0
    if has_torch:
        raise ChildFailed("the serving environment can import torch")
    torch_names = closure(_TORCH_STACK)
    without_cuda = {name for name in torch_names if not name.startswith(("nvidia", "cuda", "triton"))}
    rounds = 1 if quick else 7
    ours = import_seconds(python, "import inference.server, inference.handler", folder, rounds)
    theirs = import_seconds(Path(sys.executable), "import torch, torchvision", folder, rounds)
    sizes = (
        Row("Kelpie's, as the image has it", (folder_bytes(python.parents[1]) / 2**20,), quality="no torch in it"),
        Row("Kelpie's, all of inference/requirements.txt", (folder_bytes(installed.parents[1]) / 2**20,)),
        Row("one with torch", (distribution_bytes(torch_names) / 2**20,)),
        Row("one with torch, CUDA's libraries left out", (distribution_bytes(without_cuda) / 2**20,)),
    )
    starts = (
        Row("Kelpie's: the server and the handler imported", ours),
        Row("one with torch: torch and torchvision imported", theirs),
    )
    note = "A fresh virtual environment against the installed files of torch, torchvision and what they need."
    return [
        Table("Size of the serving environment", "MiB", "lower", sizes, (sizes[2].name, sizes[3].name), note=note,
              headlines=(sizes[0].name,)),
        Table("Imports of the serving environment, in a fresh process", "s", "lower", starts, (starts[1].name,),
              note="The start of the whole server to its first ping is in the tables of `serving`."),
    ]  # fmt: skip
