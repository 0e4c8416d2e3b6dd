"""Libraries that the container's image lacks, installed from the channel `wheels`.

A job under network isolation can fetch nothing, so what training/requirements.txt names and the image does not bring
travels as wheel files. Imports the standard library only: it runs before anything else can be imported.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from training.settings import failure_path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_TAIL_LINES = 15


class WheelsError(Exception):
    """The wheels in the channel do not make up for what is missing; the message quotes pip's last lines."""


def install(folder: Path, requirements: Path = REQUIREMENTS) -> bool:
    """Install what is missing of the requirements from a folder of wheels, without a network; False without wheels.

    Raises:
        WheelsError: pip failed.
    """
    if not any(folder.glob("*.whl")):
        return False
    # pip leaves alone what is installed and satisfies the requirements.
    command = [sys.executable, "-m", "pip", "--isolated", "install", "--no-index", "--find-links", str(folder)]
    flags = ["--disable-pip-version-check", "--no-input", "--no-cache-dir", "--requirement", str(requirements)]
    result = subprocess.run(
        [*command, *flags],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode != 0:
        tail = "\n".join(result.stdout.splitlines()[-_TAIL_LINES:])
        raise WheelsError(f"{requirements.name} cannot be installed from the wheels channel; pip said:\n{tail}")
    importlib.invalidate_caches()
    return True


def provide(environment: Mapping[str, str] = os.environ) -> None:
    """Install what the image lacks; an error goes to stderr and to SageMaker's failure file, and exits with 1.

    Environment: SM_CHANNEL_WHEELS, the folder of the channel; without it nothing is done.
    """
    channel = environment.get("SM_CHANNEL_WHEELS")
    if not channel:
        return
    try:
        install(Path(channel))
    except WheelsError as error:
        print(f"training failed: {error}", file=sys.stderr, flush=True)
        failure = failure_path(environment)
        if failure is not None:
            failure.parent.mkdir(parents=True, exist_ok=True)
            failure.write_text(str(error))
        raise SystemExit(1) from None
