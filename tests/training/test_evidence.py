from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from training import evaluate, evidence
from training.data import Picture, scan

CLASSES = ("cross", "disc", "square")


def test_smoke_pictures_are_few_and_of_every_class(pictures: Path) -> None:
    found = scan(pictures)
    chosen = evidence.smoke_pictures(found.classes, found.test)
    assert sorted(name for name, _ in chosen) == sorted(CLASSES * 2)
    assert all(found.classes[picture.label] == name for name, picture in chosen)
    many = [Picture(found.test[0].path, label, f"{i}") for i in range(3) for label in range(30)]
    assert len(evidence.smoke_pictures([f"class {k}" for k in range(30)], many)) == 20


def answers(*rows: tuple[int, float, float]) -> evaluate.Answers:
    """(predicted label, its probability, the true class's probability) by picture."""
    labels, probabilities, true = zip(*rows, strict=True)
    return evaluate.Answers(np.array(labels), np.array(probabilities), np.array(true))


def test_the_worst_pictures_are_those_whose_class_was_believed_least() -> None:
    pictures = [Picture(Path(name), 0, name) for name in "abcd"]
    given = answers((0, 0.9, 0.9), (1, 0.99, 0.01), (0, 0.5, 0.5), (1, 0.99, 0.01))
    assert evidence.worst(pictures, given) == [1, 3, 2, 0]
    many = [Picture(Path("x"), 0, f"{i:03}") for i in range(100)]
    assert len(evidence.worst(many, answers(*[(0, 1.0, 1.0)] * 100))) == evidence.MAX_WORST_PICTURES


def test_a_thumbnail_is_a_small_jpeg_without_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    Image.new("RGB", (2000, 500), "red").save(tmp_path / "wide.jpg", exif=exif, comment=b"mine")
    content = evidence.thumbnail(Picture(tmp_path / "wide.jpg", 0, ""))
    small = Image.open(io.BytesIO(content))
    assert (small.format, small.size) == ("JPEG", (160, 40))
    assert len(content) < 10_000
    assert b"taken at home" not in content
    assert b"mine" not in content
