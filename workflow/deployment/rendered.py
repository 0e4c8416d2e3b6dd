"""The rendered definition, kept between commands: to render it the SDK is imported, which takes half a second at best.

A definition is a function of the settings, of Kelpie's code and of the SDK. A kept one is named by the hash of all
three, so that it is never stale; the folder may be deleted at any time. It is in the running environment, for all
projects; where that cannot be written to, nothing is kept.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workflow.config import Config

FOLDER = Path(sys.prefix) / "kelpie-definitions"
KEPT = 16
"""How many definitions stay in the folder: those of the settings and of the code that were used last."""

_PACKAGE = Path(__file__).resolve().parents[1]
_SDK = ("boto3", "sagemaker", "stepfunctions")


def rendered(config: Config) -> str:
    """The state machine as JSON text: what `definition.render` gives, from the folder when it is there."""
    file = FOLDER / f"{fingerprint(config)}.json"
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        text = render(config)
        with suppress(OSError):
            _keep(file, text)
    else:
        with suppress(OSError):  # another command may have forgotten it meanwhile
            os.utime(file)
    return text


def render(config: Config) -> str:
    """The same, rendered anew."""
    from workflow import sdk_import

    with sdk_import.only_to_render():
        from workflow import definition

        return definition.render(config)


def fingerprint(config: Config) -> str:
    """The hash of all that a definition depends on, in hexadecimal digits."""
    content = hashlib.sha256(config.model_dump_json().encode())
    for name in _SDK:
        content.update(f"{name} {metadata.version(name)} ".encode())
    content.update(platform.python_version().encode())
    for path in sorted(_PACKAGE.rglob("*.py")):
        content.update(f"{path.relative_to(_PACKAGE)} {hashlib.sha256(path.read_bytes()).hexdigest()} ".encode())
    return content.hexdigest()


def _keep(file: Path, text: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(file)
    for old in sorted(FOLDER.glob("*.json"), key=lambda kept: kept.stat().st_mtime, reverse=True)[KEPT:]:
        old.unlink()
