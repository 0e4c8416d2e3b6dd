"""What the exported model scores: model.onnx on the test pictures, through serving's own preprocessing.

The champion, the model that serves now, is scored on the same pictures when its classes are the same.
"""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inference.contract import InputContract, ModelContract
from training.data import Picture, plain
from training.distributed import Worker, gather_rows

BATCH = 16
MAX_CHAMPION_BYTES = 2 * 1024**3
"""Most that is unpacked from the champion's archive, per file; ONNX files end at 2 GB."""
CHAMPION_FILES = ("model.onnx", "model.json")
MAX_SMOKE_PICTURES, MAX_SMOKE_PICTURES_PER_CLASS = 20, 2
MAX_SMOKE_PICTURE_BYTES = 4 * 1024**2


def session(model: bytes, threads: int) -> Any:
    """An ONNX Runtime session on the CPU."""
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def predict(model: Any, pictures: Sequence[Picture], input: InputContract) -> Iterator[NDArray[np.float32]]:
    """Logits of the pictures, in batches."""
    for start in range(0, len(pictures), BATCH):
        x_NCHW = np.stack([plain(picture, input) for picture in pictures[start : start + BATCH]])
        yield model.run(None, {input.name: x_NCHW})[0]


def predicted_labels(
    worker: Worker, model: bytes, contract: ModelContract, pictures: Sequence[Picture], threads: int
) -> NDArray[np.int64]:
    """The predicted class of every picture; each process does its share of them."""
    own = pictures[worker.rank :: worker.world_size]
    labels = torch.zeros(len(pictures), dtype=torch.int64)
    if own:
        logits_NK = np.concatenate(list(predict(session(model, threads), own, contract.input)))
        labels[worker.rank :: worker.world_size] = torch.from_numpy(logits_NK.argmax(axis=1))
    result: NDArray[np.int64] = gather_rows(worker, labels).numpy()
    return result


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
    """The champion's model and contract, or the reason why it cannot be compared."""

    model: bytes = b""
    contract: ModelContract | None = None
    reason: str = ""


def champion(channel: Path | None, classes: Sequence[str]) -> Champion:
    """Read the champion's archive, `model.tar.gz` in its channel; nothing of it is executed.

    Only two regular files are read from it, by name and up to a size, so links, foreign paths and surprises in the
    archive have no effect.
    """
    archive = channel / "model.tar.gz" if channel is not None else None
    if archive is None or not archive.is_file():
        return Champion(reason="there is no champion yet")
    try:
        files = _read_members(archive, CHAMPION_FILES)
        contract = ModelContract.from_json(json.loads(files["model.json"]))
    except (OSError, EOFError, tarfile.TarError, zlib.error, ValueError) as error:
        return Champion(reason=f"the champion's archive cannot be used: {error}")
    if set(contract.classes) != set(classes):
        return Champion(reason="the champion knows other classes")
    return Champion(files["model.onnx"], contract)


def _read_members(archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    found = {}
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
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
        predicted_labels(worker, contender.model, contender.contract, pictures, threads)
    ]
    return labels


# --- evidence --------------------------------------------------------------------------------------------------------


def smoke_pictures(classes: Sequence[str], pictures: Sequence[Picture]) -> list[tuple[str, Picture]]:
    """Test pictures for the smoke test, (class, picture): chosen by content hash, not by how the model did on them."""
    chosen: list[tuple[str, Picture]] = []
    by_hash = sorted(pictures, key=lambda picture: picture.sha256)
    of_class: dict[int, list[Picture]] = {}
    for picture in by_hash:
        if picture.path.stat().st_size <= MAX_SMOKE_PICTURE_BYTES:
            of_class.setdefault(picture.label, []).append(picture)
    for turn in range(MAX_SMOKE_PICTURES_PER_CLASS):
        for label, name in enumerate(classes):
            if turn < len(of_class.get(label, ())):
                chosen.append((name, of_class[label][turn]))
    return chosen[:MAX_SMOKE_PICTURES]
