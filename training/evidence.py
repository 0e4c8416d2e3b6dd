"""What is written beside the archive for people and the smoke test: the evaluation, pictures, a record of each host."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inference.preprocessing import decode
from training import evaluate
from training.data import DataSet, Found, Picture

MAX_LISTED_PICTURES = 10_000
MAX_SMOKE_PICTURES, MAX_SMOKE_PICTURES_PER_CLASS = 20, 2
MAX_SMOKE_PICTURE_BYTES = 4 * 1024**2
MAX_WORST_PICTURES = 24
THUMBNAIL_SIDE = 160
"""Longer side of a thumbnail in pixels; as JPEG it has a few kilobytes."""


def listed(indices: Sequence[int], train_count: int) -> dict[str, Any]:
    """Train pictures that a process has read: how many, and which, unless the data set is large."""
    which = {"picture_indices": list(indices)} if train_count <= MAX_LISTED_PICTURES else {}
    return {"picture_count": len(indices), **which}


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


def worst(pictures: Sequence[Picture], answers: evaluate.Answers) -> list[int]:
    """Positions of the pictures whose true class got the least probability, the worst first."""
    order = sorted(range(len(pictures)), key=lambda i: (answers.true_probabilities[i], pictures[i].sha256))
    return order[:MAX_WORST_PICTURES]


def worst_rows(
    found: Found, pictures: DataSet, answers: evaluate.Answers, worst: Sequence[int]
) -> list[dict[str, Any]]:
    """What is said of each of the worst test pictures, and the file of its thumbnail."""
    return [
        {
            "file": f"worst/{number:02}.jpg",
            "picture": found.name(pictures.test[i]),
            "label": pictures.classes[pictures.test[i].label],
            "predicted": pictures.classes[answers.labels[i]],
            "probability": round(float(answers.probabilities[i]), 4),
            "label_probability": round(float(answers.true_probabilities[i]), 4),
        }
        for number, i in enumerate(worst)
    ]


def thumbnail(picture: Picture) -> bytes:
    """A small JPEG of the whole picture, without its metadata."""
    small = decode(picture.read(), minimum_side=2 * THUMBNAIL_SIDE)
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    small.info.clear()
    written = io.BytesIO()
    small.save(written, "JPEG", quality=80)
    return written.getvalue()


def write_pictures(folder: Path, pictures: DataSet, worst: Mapping[str, Picture]) -> None:
    """Write thumbnails of the worst test pictures, by file, and the smoke test's pictures with theirs."""
    for file, picture in worst.items():
        _written(folder / file, thumbnail(picture))
    for name, picture in smoke_pictures(pictures.classes, pictures.test):
        _written(folder / "smoke-thumbnails" / name / f"{picture.path.name}.jpg", thumbnail(picture))
        target = folder / "smoke" / name / picture.path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture.path, target)


def _written(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
