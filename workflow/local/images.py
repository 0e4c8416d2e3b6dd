"""Which Python environment stands for which container image, and the cached environments themselves.

On AWS an image brings its own Python; here a virtual environment made from the same requirements file does. Run
`python -m workflow.local.images` to build all of them ahead of time.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_REPOSITORY_ROOT = Path(__file__).resolve().parents[2]
_PIP_TAIL_LINES = 15

LAMBDA_IMAGE = "lambda/python3.12"


class UnknownImage(LookupError):
    """No environment stands for the image. The message is the one AWS gives for an image that it cannot find."""


class ImageBuildFailed(RuntimeError):
    """pip could not build the environment of an image; the message quotes its last lines."""


@dataclass(frozen=True)
class Image:
    """One row of the table: an image's repository name and what its environment is made of."""

    repository: str
    requirements_file: Path | None = None
    requirements: str | None = None
    note: str = ""

    @property
    def is_running_interpreter(self) -> bool:
        """Tell whether the project's own environment stands for the image."""
        return self.requirements_file is None and self.requirements is None

    def requirements_text(self) -> str:
        """Return the requirements that pip gets."""
        if self.requirements_file is not None:
            return self.requirements_file.read_text()
        return self.requirements or ""


TABLE = (
    Image("pytorch-training", note="the project's own environment"),
    Image("kelpie-serving", requirements_file=_REPOSITORY_ROOT / "inference" / "requirements.txt"),
    Image(
        LAMBDA_IMAGE,
        requirements="boto3==1.44.5\n",
        note=f"runs Python {sys.version_info.major}.{sys.version_info.minor}, the one of the project's environment",
    ),
)
"""The images that the local cloud can stand in for. None brings its own Python version: all use the project's."""


def repository_of(image_uri: str) -> str:
    """Return the repository name of an image URI: without registry, tag and digest."""
    name = image_uri.partition("@")[0]
    host, slash, rest = name.partition("/")
    if slash and ("." in host or ":" in host):
        name = rest
    return name.partition(":")[0]


class Images:
    """The environments of the images, built when first asked for and then kept beside the running interpreter."""

    def __init__(self, cache: Path | None = None, table: tuple[Image, ...] = TABLE) -> None:
        """`cache` is the folder of the environments, by default inside the running environment."""
        self._cache = cache or Path(sys.prefix) / "kelpie-images"
        self._table = {image.repository: image for image in table}
        self._built: dict[str, str] = {}

    def add(self, image: str, requirements: str) -> None:
        """Let the environment of these requirements stand for an image that was built, `REPOSITORY@DIGEST`."""
        self._built[image] = requirements

    def python_for(self, image_uri: str) -> Path:
        """Return the interpreter that stands for the image, after building its environment if that is still missing.

        Raises:
            UnknownImage: if no row of the table has the image's repository name, or nobody built the digest.
            ImageBuildFailed: if pip cannot install the requirements.
        """
        repository, (_, at, digest) = repository_of(image_uri), image_uri.partition("@")
        if at:
            requirements = self._built.get(f"{repository}@{digest}")
            image = None if requirements is None else Image(repository, requirements=requirements)
        else:
            image = self._table.get(repository)
        if image is None:
            raise UnknownImage(f"Requested image {image_uri} not found.")
        if image.is_running_interpreter:
            return Path(sys.executable)
        text = image.requirements_text()
        version = f"{sys.implementation.cache_tag}\n{sys.base_prefix}\n"
        folder = self._cache / hashlib.sha256((version + text).encode()).hexdigest()[:16]
        if not folder.exists():
            with self._lock(folder):
                if not folder.exists():
                    _build(folder, image.repository, text)
        return folder / "bin" / "python"

    @contextmanager
    def _lock(self, folder: Path) -> Iterator[None]:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released by the kernel if this process dies
            yield


def _build(folder: Path, repository: str, requirements: str) -> None:
    """Build under another name and rename: a folder with the final name is always complete."""
    building = folder.with_suffix(".building")
    shutil.rmtree(building, ignore_errors=True)
    # Only `bin/python -m` is used of it: the scripts in bin/ name the folder of the build.
    venv.create(building, symlinks=True)
    (building / "requirements.txt").write_text(requirements)
    command = [sys.executable, "-m", "pip", "--python", str(building / "bin" / "python"), "install"]
    result = subprocess.run(
        [*command, "--disable-pip-version-check", "--no-input", "-r", str(building / "requirements.txt")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if result.returncode != 0:
        shutil.rmtree(building, ignore_errors=True)
        tail = "\n".join(result.stdout.splitlines()[-_PIP_TAIL_LINES:])
        raise ImageBuildFailed(f"The environment of image {repository!r} could not be built; pip said:\n{tail}")
    building.rename(folder)


def main() -> int:
    """Build the environment of every image and print one line for each."""
    images = Images()
    failed = False
    for image in TABLE:
        started = time.monotonic()
        try:
            python = images.python_for(image.repository)
        except (ImageBuildFailed, OSError) as error:
            failed = True
            print(f"{image.repository}: {error}", file=sys.stderr)
        else:
            note = f" ({image.note})" if image.note else ""
            print(f"{image.repository}: {python} in {time.monotonic() - started:.1f} s{note}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
