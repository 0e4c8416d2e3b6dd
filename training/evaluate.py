"""What the exported model scores: the network that will be served on the test pictures, through serving's own code.

The champion, the model that serves now, is scored on the same pictures when its classes are the same.
"""

from __future__ import annotations

import contextlib
import json
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inference import runtime
from inference.contract import NETWORK_FILES, ModelContract
from training.data import Picture, pixels
from training.distributed import Worker, gather_rows

AHEAD = 256
"""Pictures that wait for a thread at most."""
MAX_CHAMPION_BYTES = 2 * 1024**3
"""Most that is unpacked from the champion's archive, per file; ONNX files end at 2 GB."""
MAX_HEADER_BYTES = 1024**2
CHAMPION_FILES = ("model.onnx", "model.json")


@contextlib.contextmanager
def answering(
    files: Mapping[str, bytes], contract: ModelContract, threads: int
) -> Iterator[Callable[[Sequence[Picture]], Iterator[NDArray[np.float32]]]]:
    """A function from pictures to the logits (K) of each, one after the other, as the server computes them.

    `files` are those of `NETWORK_FILES`, by name; `threads` pictures are computed at once.
    """
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(threads) as pool:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        network = runtime.load(Path(folder), contract, threads)

        def logits_K(picture: Picture) -> NDArray[np.float32]:
            [row_K] = network.run(pixels(picture, contract.input)[None])
            return row_K  # type: ignore[no-any-return]

        def answer(pictures: Sequence[Picture]) -> Iterator[NDArray[np.float32]]:
            for start in range(0, len(pictures), AHEAD):  # the pool takes all it gets at once
                yield from pool.map(logits_K, pictures[start : start + AHEAD])

        yield answer


@dataclass(frozen=True)
class Answers:
    """What a model says of N pictures: the predicted class, its probability, and the true class's probability."""

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    true_probabilities: NDArray[np.float64]


def answers(
    worker: Worker, files: Mapping[str, bytes], contract: ModelContract, pictures: Sequence[Picture], threads: int
) -> Answers:
    """The answer of the network in `files` to every picture; each process does its share of them.

    A picture's label counts in the contract's order of classes.
    """
    rows_N3 = torch.zeros(len(pictures), 3, dtype=torch.float64)
    own = range(len(pictures))[worker.rank :: worker.world_size]
    with answering(files, contract, threads) as answer:
        for i, logits_K in zip(own, answer([pictures[i] for i in own]), strict=True):
            weights_K = np.exp(logits_K.astype(np.float64) - logits_K.max())
            probabilities_K = weights_K / weights_K.sum()
            label = int(probabilities_K.argmax())
            rows_N3[i] = torch.tensor([label, probabilities_K[label], probabilities_K[pictures[i].label]])
    gathered_N3 = gather_rows(worker, rows_N3).numpy()
    return Answers(gathered_N3[:, 0].astype(np.int64), gathered_N3[:, 1], gathered_N3[:, 2])


def confusion(pictures: Sequence[Picture], predicted: NDArray[np.int64], class_count: int) -> NDArray[np.int64]:
    """Counts by (true class, predicted class)."""
    matrix = np.zeros((class_count, class_count), dtype=np.int64)
    for picture, label in zip(pictures, predicted, strict=True):
        matrix[picture.label, label] += 1
    return matrix


def report(classes: Sequence[str], matrix: NDArray[np.int64]) -> dict[str, Any]:
    """Accuracy overall and by class, and the confusion matrix (rows: true class), as JSON-able values."""
    counts = matrix.sum(axis=1)
    return {
        "accuracy": float(matrix.trace() / matrix.sum()),
        "picture_count": int(matrix.sum()),
        "per_class": [
            {"class": name, "picture_count": int(counts[k]), "accuracy": float(matrix[k, k] / max(1, counts[k]))}
            for k, name in enumerate(classes)
        ],
        "classes": list(classes),
        "confusion_matrix": matrix.tolist(),
    }


# --- the champion ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Champion:
    """The champion's networks and contract, or the reason why it cannot be compared."""

    files: dict[str, bytes] = field(default_factory=dict)
    contract: ModelContract | None = None
    reason: str = ""


def champion(channel: Path | None, classes: Sequence[str]) -> Champion:
    """Read the champion's archive, `model.tar.gz` in its channel; nothing of it is executed.

    Only a few regular files are read from it, by name and up to a size, so links, foreign paths and surprises in the
    archive have no effect.
    """
    archive = channel / "model.tar.gz" if channel is not None else None
    if archive is None or not archive.is_file():
        return Champion(reason="there is no champion yet")
    try:
        files = _read_members(archive, CHAMPION_FILES)
        contract = ModelContract.from_json(json.loads(files.pop("model.json")))
        more = [name for name in NETWORK_FILES[contract.precision] if name not in files]
        files |= _read_members(archive, more) if more else {}
    except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError, RecursionError) as error:
        return Champion(reason=f"the champion's archive cannot be used: {error}")
    if set(contract.classes) != set(classes):
        return Champion(reason="the champion knows other classes")
    return Champion(files, contract)


class _Member(tarfile.TarInfo):
    """A member whose headers are bounded: tarfile reads a long name or an extended header into memory at once."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        if member.type not in (*tarfile.REGULAR_TYPES, tarfile.DIRTYPE) and member.size > MAX_HEADER_BYTES:
            raise ValueError(f"it has a header of {member.size} bytes")
        return member


def _read_members(archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    found = {}
    with tarfile.open(archive, "r:gz", tarinfo=_Member) as tar:
        for member in tar:
            if member.size < 0:
                raise ValueError(f"{member.name!a} says that it has {member.size} bytes")
            name = member.name.removeprefix("./")
            if name in names and member.isreg():
                if member.size > MAX_CHAMPION_BYTES:
                    raise ValueError(f"{name} has {member.size} bytes, the limit is {MAX_CHAMPION_BYTES}")
                file = tar.extractfile(member)
                assert file is not None
                found[name] = file.read()
            if len(found) == len(names):
                return found
    raise ValueError(f"it lacks {', '.join(sorted(set(names) - set(found)))}")


def champion_labels(
    worker: Worker, contender: Champion, classes: Sequence[str], pictures: Sequence[Picture], threads: int
) -> NDArray[np.int64]:
    """The champion's predictions, as labels of our own class order."""
    assert contender.contract is not None
    own_label = np.array([list(classes).index(name) for name in contender.contract.classes])
    labels: NDArray[np.int64] = own_label[
        answers(worker, contender.files, contender.contract, pictures, threads).labels
    ]
    return labels
