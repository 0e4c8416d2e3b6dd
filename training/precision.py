"""What the model is served in: bfloat16 or int8 where the user asked for it and the answers stay the same.

They are compared with float32's on the user's own validation pictures. Where too few agree, or this machine cannot
compute the precision, float32 is served and the reason is said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from inference import runtime
from inference.contract import ModelContract
from training import evaluate, quantisation
from training.data import DataSet, plain
from training.distributed import Worker, broadcast_bytes
from training.settings import Settings

CALIBRATION_PICTURES = 128


@dataclass(frozen=True)
class Choice:
    """What was asked for, what is served, and the figures that decided; None where nothing was measured."""

    wanted: str
    served: str
    reason: str
    agreement: float | None = None
    """Share of the pictures of `split` for which both networks say the same class."""
    min_agreement: float | None = None
    split: str = ""
    picture_count: int = 0
    float32_accuracy: float | None = None
    """Accuracy on these pictures in float32, and in the precision that was asked for."""
    accuracy: float | None = None


def choose(
    worker: Worker, settings: Settings, contract: ModelContract, pictures: DataSet, onnx: bytes, threads: int
) -> tuple[Choice, dict[str, bytes]]:
    """Decide, the same on all processes; returns the files of all networks that the archive needs, by name.

    `onnx` is the float32 network. Rank 0 converts it, all compare their share of the pictures.
    """
    float32 = {"model.onnx": onnx}
    wanted = settings.precision
    if wanted == "float32":
        return Choice(wanted, "float32", "float32 is what the settings ask for"), float32
    unsupported = broadcast_bytes(worker, runtime.unsupported(wanted).encode(), "asking whether rank 0's CPU can")
    if unsupported:
        return Choice(wanted, "float32", f"{unsupported.decode()}, so nobody can tell how its answers differ"), float32
    split, compared = ("valid", pictures.valid) if pictures.valid else ("test", pictures.test)
    converted = None
    if worker.rank == 0:
        # By content hash, so that all classes have their share.
        some = sorted(pictures.train, key=lambda picture: picture.sha256)[:CALIBRATION_PICTURES]
        files = quantisation.convert(onnx, contract, wanted, (plain(p, contract.input) for p in some))
        converted = _packed(files)
    candidate = float32 | _unpacked(broadcast_bytes(worker, converted, f"waiting for rank 0's network in {wanted}"))
    labels_N = evaluate.answers(worker, float32, contract, compared, threads).labels
    other_N = evaluate.answers(worker, candidate, replace(contract, precision=wanted), compared, threads).labels
    true_N = np.array([picture.label for picture in compared])
    agreement = float(np.mean(labels_N == other_N))
    enough = agreement >= settings.min_agreement
    reason = (
        f"{wanted} agrees with float32 on {agreement:.4f} of {len(compared)} {split} pictures, "
        f"{'at least' if enough else 'below'} gate.min_agreement {settings.min_agreement:g}"
    )
    choice = Choice(
        wanted,
        wanted if enough else "float32",
        reason,
        agreement,
        settings.min_agreement,
        split,
        len(compared),
        float(np.mean(labels_N == true_N)),
        float(np.mean(other_N == true_N)),
    )
    return choice, candidate if enough else float32


def _packed(files: Mapping[str, bytes]) -> bytes:
    """Files as one block of bytes: a line of names and sizes, then their contents."""
    sizes = json.dumps({name: len(content) for name, content in files.items()})
    return b"\n".join([sizes.encode(), b"".join(files.values())])


def _unpacked(block: bytes) -> dict[str, bytes]:
    head, _, contents = block.partition(b"\n")
    files, start = {}, 0
    for name, size in json.loads(head).items():
        files[name] = contents[start : start + size]
        start += size
    return files
