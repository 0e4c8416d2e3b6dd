"""The rendered definition, kept between commands: to render it the SDK is imported, which takes half a second at best.

A definition is a function of the settings, of Kelpie's code and of the SDK. A kept one is named by the hash of all
three, so that it is never stale; the folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workflow.config import Config

KEPT = 8
"""How many definitions stay in the folder: those of the settings and of the code that were used last."""

_PACKAGE = Path(__file__).resolve().parents[1]
_SDK = ("boto3", "sagemaker", "stepfunctions")


def rendered(config: Config) -> str:
    """The state machine as JSON text: what `definition.render` gives, from the folder when it is there."""
    folder = Path(os.environ.get("KELPIE_HOME") or ".kelpie") / "definitions"
    file = folder / f"{fingerprint(config)}.json"
    try:
        text = file.read_text(encoding="utf-8")
        file.touch()
        return text
    except FileNotFoundError:
        pass
    text = render(config)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(file)
    _forget(folder)
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


def _forget(folder: Path) -> None:
    files = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in files[KEPT:]:
        file.unlink(missing_ok=True)
