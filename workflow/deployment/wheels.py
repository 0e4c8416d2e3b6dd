"""The wheels that travel into the training container, because a job under network isolation can install nothing.

`deploy` fetches them for the container's Python and platform with pip, at the versions of constraints.txt, and keeps
them beside the project's state, so a second deployment fetches nothing. Not needed in the local cloud, whose hosts run
in the project's own environment.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from workflow.deployment.packaging import SOURCE_ROOT, Asset, asset_of_bytes, asset_of_file
from workflow.errors import KelpieError

GLIBC_MINORS = range(34, 16, -1)
"""Wheels for any glibc from 2.17 to 2.34. The image's tag says Ubuntu 22.04, which has 2.35 (its package, looked up
2026-11-22); Amazon Linux 2023, of later images, has 2.34 (from memory, not looked up). A wheel for manylinux_2_N runs
with glibc 2.N and later (PEP 600). pip takes a platform literally, so every one is named."""

PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in GLIBC_MINORS), "manylinux2014_x86_64")

NOT_SHIPPED = ("torch", "torchvision", "nvidia")
"""What the image has. A wheel of these would be gigabytes, and another build than the image's."""

_PYTHON_IN_TAG = re.compile(r"-py(?P<major>3)(?P<minor>\d+)-")
_TAIL_LINES = 15


def none() -> list[Asset]:
    """The channel's content where the environment has everything: a channel needs at least one object."""
    return [asset_of_bytes("no-wheels.txt", b"The environment that stands for the training image has every library.\n")]


def wheels(image_tag: str, cache: Path | None = None) -> list[Asset]:
    """The wheels of training/requirements.txt and of all that these need, for a training image; all below one prefix.

    Raises:
        KelpieError: the tag does not say which Python the image has, or pip finds no wheel for it.
    """
    python = _python_of(image_tag)
    requirements = SOURCE_ROOT / "training" / "requirements.txt"
    lock = SOURCE_ROOT / "constraints.txt"
    wanted = [python, *PLATFORMS, requirements.read_text(), lock.read_text() if lock.is_file() else ""]
    request = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()
    home = cache or Path(os.environ.get("KELPIE_HOME") or ".kelpie") / "wheels"
    folder = home / request[:16]
    if not folder.is_dir():
        _download(folder, python, requirements, lock)
    files = [asset_of_file(path) for path in sorted(folder.glob("*.whl"))]
    content = hashlib.sha256("".join(f"{file.name} {file.sha256}\n" for file in files).encode()).hexdigest()
    return [Asset(file.name, file.content, file.sha256, folder=f"assets/wheels/{content}/") for file in files]


def _python_of(image_tag: str) -> str:
    match = _PYTHON_IN_TAG.search(image_tag)
    if match is None:
        raise KelpieError(
            f"The tag {image_tag} does not say which Python the training image has",
            "Expected is a part like -py313-: the wheels for the image depend on it.",
            "Use a tag of the pytorch-training images of the AWS Deep Learning Containers.",
        )
    return f"{match['major']}.{match['minor']}"


def _download(folder: Path, python: str, requirements: Path, lock: Path) -> None:
    """Fill another folder and rename it: one with the final name is always complete."""
    building = folder.with_suffix(".building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--quiet"),
            *("--only-binary", ":all:", "--implementation", "cp", "--python-version", python),
            *(flag for platform in PLATFORMS for flag in ("--platform", platform)),
            *("--dest", str(building), "--requirement", str(requirements)),
            *(("--constraint", str(lock)) if lock.is_file() else ()),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode != 0:
        raise KelpieError(
            f"The libraries for the training image (Python {python}) cannot be fetched",
            "\n".join(result.stdout.splitlines()[-_TAIL_LINES:]),
            "Deploy where pip reaches a package index, or set PIP_INDEX_URL.",
        )
    unwanted = [path.name for path in building.iterdir() if re.split(r"[-_]", path.name)[0].lower() in NOT_SHIPPED]
    if unwanted:
        raise KelpieError(
            "The libraries for the training image would bring their own PyTorch",
            f"pip chose: {', '.join(sorted(unwanted))}.",
            "Take what needs it out of training/requirements.txt.",
        )
    building.rename(folder)
