"""The pictures that are trained on and sent: drawn dogs, and large files made of them."""

from __future__ import annotations

import os
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from examples.dogs import generate

IMAGE_COUNT = 1500
LARGE = (4000, 3000)
"""12 megapixels."""


def dogs(folder: Path, image_count: int = IMAGE_COUNT) -> Path:
    """Draw the example data set: `train/`, `valid/` and `test/` of ten breeds."""
    generate(folder, image_count)
    return folder


def many_names(data: Path, folder: Path, train_count: int) -> Path:
    """`data` with so many names of its train pictures, hard links, as if there were so many of them."""
    shutil.copytree(data, folder, copy_function=os.link, ignore=lambda path, _: ["train"] if Path(path) == data else [])
    some = sorted((data / "train").glob("*/*.jpg"))
    for number in range(train_count):
        source = some[number % len(some)]
        target = folder / "train" / source.parent.name / f"{number:06d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(source)
    return folder


def sample(folder: Path, split: str = "test", count: int = 20) -> list[Path]:
    """Some pictures of a split, from all its classes in turn."""
    by_class = [sorted(breed.glob("*.jpg")) for breed in sorted((folder / split).iterdir())]
    in_turn = [paths[i] for i in range(max(map(len, by_class))) for paths in by_class if i < len(paths)]
    return in_turn[:count]


def small_jpegs(data: Path, folder: Path, count: int) -> list[Path]:
    """Test pictures scaled to 500 x 375 pixels, about what a photograph on the web has, as JPEG."""
    return [
        _write(path, folder / f"small-{i}.jpg", (500, 375), "JPEG") for i, path in enumerate(sample(data, count=count))
    ]


def large_jpegs(data: Path, folder: Path, count: int) -> list[Path]:
    """12-megapixel JPEGs with the noise that a camera adds."""
    return [_write(path, folder / f"large-{i}.jpg", LARGE, "JPEG") for i, path in enumerate(sample(data, count=count))]


def pngs(data: Path, folder: Path, count: int) -> list[Path]:
    """The small pictures as PNG."""
    return [
        _write(path, folder / f"small-{i}.png", (500, 375), "PNG") for i, path in enumerate(sample(data, count=count))
    ]


def _write(source: Path, target: Path, size: tuple[int, int], kind: str) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as image:
        pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
    noise = np.random.default_rng(len(target.name)).integers(-6, 7, pixels.shape, dtype=np.int16)
    content = BytesIO()
    Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(content, kind, quality=85)
    target.write_bytes(content.getvalue())
    return target
