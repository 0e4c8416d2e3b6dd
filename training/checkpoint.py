"""Checkpoints that survive an interruption at any moment.

A file holds the SHA-256 of its payload in hex, a newline, and the payload; it appears under its name only when it is
whole and on the disk. Two are kept, so there is an older one if the newest is damaged.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch

KEPT = 2
_HEADER_BYTES = 65


class CheckpointError(RuntimeError):
    """A checkpoint belongs to another run."""


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.ckpt"))


def encode(state: dict[str, Any]) -> bytes:
    """Serialise tensors, numbers, strings and containers of these."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def decode(payload: bytes) -> dict[str, Any]:
    """The reverse of `encode`; nothing but plain data is unpickled."""
    state: dict[str, Any] = torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
    return state


def write(path: Path, payload: bytes) -> None:
    """Write a payload with its checksum, atomically: the name appears when the file is whole and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(hashlib.sha256(payload).hexdigest().encode() + b"\n")
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # makes the rename itself last
    finally:
        os.close(descriptor)


def read(path: Path) -> bytes | None:
    """The payload of a file that `write` made, or None if its checksum does not hold: then it is said and removed."""
    content = path.read_bytes()
    payload = content[_HEADER_BYTES:]
    if content[:_HEADER_BYTES] == hashlib.sha256(payload).hexdigest().encode() + b"\n":
        return payload
    print(f"{path.name} is damaged (its checksum does not hold): going on without it", flush=True)
    path.unlink()
    return None


def save(folder: Path, step: int, payload: bytes) -> Path:
    """Write `step-<step>.ckpt`, then remove all but the newest `KEPT`."""
    path = folder / f"step-{step:09d}.ckpt"
    write(path, payload)
    for old in _files(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def newest(folder: Path) -> bytes | None:
    """The payload of the newest checkpoint whose checksum holds, or None."""
    payloads = (read(path) for path in reversed(_files(folder)))
    return next((payload for payload in payloads if payload is not None), None)
