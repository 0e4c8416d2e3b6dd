"""The example data set: drawn dogs of ten breeds, as an image folder, the same bytes for the same seed.

Shape and markings decide the breed; colour, background, pose, light and clutter do not.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

from PIL import Image

from examples.dog_breeds import BREEDS
from examples.dog_drawing import draw_dog

SPLITS = ("train", "valid", "test")
_SHARES = (0.7, 0.1, 0.2)
_IMAGES_PER_TASK = 25


@dataclass(frozen=True)
class Summary:
    """What `generate` wrote."""

    folder: Path
    classes: tuple[str, ...]
    split_image_counts: dict[str, int]
    manifest_sha256: str
    """Hash of the sorted lines `<sha256 of the file>  <path in the folder>`: equal for equal data sets."""


@dataclass(frozen=True)
class _Picture:
    split: str
    breed: str
    number: int

    @property
    def path(self) -> str:
        return f"{self.split}/{self.breed}/{self.breed}_{self.number:04d}.jpg"


def _pictures(image_count: int) -> Iterator[_Picture]:
    for index, breed in enumerate(BREEDS):
        count = image_count // len(BREEDS) + (index < image_count % len(BREEDS))
        valid, test = (max(1, round(count * share)) for share in _SHARES[1:])
        split_of = ("train",) * (count - valid - test) + ("valid",) * valid + ("test",) * test
        for number, split in enumerate(split_of):
            yield _Picture(split, breed, number)


def _write(folder: Path, seed: int, image_size: int, picture: _Picture) -> str:
    chance = random.Random(f"{seed}|{picture.split}|{picture.breed}|{picture.number}")  # noqa: S311
    content = BytesIO()
    draw_dog(picture.breed, chance, image_size).save(content, "JPEG", quality=chance.randint(78, 94))
    (folder / picture.path).write_bytes(content.getvalue())
    return f"{hashlib.sha256(content.getvalue()).hexdigest()}  {picture.path}"


def generate(
    folder: Path, image_count: int = 1500, seed: int = 0, image_size: int = 320, processes: int | None = None
) -> Summary:
    """Write `<split>/<breed>/*.jpg`, about 70 % train, 10 % valid, 20 % test.

    The bytes depend on the arguments and on the versions of Pillow and NumPy, not on the number of processes
    (default: one per core). Existing files of the same data set are written again.

    Raises:
        ValueError: fewer than three pictures a breed, or an image size outside 32..2048 pixels.
        FileExistsError: the folder holds a file that is not part of this data set.
    """
    if image_count < 3 * len(BREEDS):
        raise ValueError(f"image_count must be at least {3 * len(BREEDS)} (three a breed), got {image_count}")
    if not 32 <= image_size <= 2048:
        raise ValueError(f"image_size must be from 32 to 2048 pixels, got {image_size}")
    pictures = list(_pictures(image_count))
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    foreign = sorted(present - {picture.path for picture in pictures})
    if foreign:
        raise FileExistsError(f"{folder} already holds {foreign[0]}: choose an empty folder")
    for split in SPLITS:
        for breed in BREEDS:
            (folder / split / breed).mkdir(parents=True, exist_ok=True)
    write = partial(_write, folder, seed, image_size)
    workers = processes or os.cpu_count() or 1
    if workers == 1:
        lines = list(map(write, pictures))
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            lines = list(pool.map(write, pictures, chunksize=_IMAGES_PER_TASK))
    counts = {split: sum(picture.split == split for picture in pictures) for split in SPLITS}
    digest = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    return Summary(folder, tuple(sorted(BREEDS)), counts, digest)


def contact_sheet(folder: Path, images_per_class: int = 4, thumbnail_size: int = 160) -> Image.Image:
    """A sheet of pictures of a generated folder: one column a breed, in the order of the names.

    Raises:
        FileNotFoundError: the folder holds no `train/<class>/*.jpg`.
    """
    classes = sorted(path for path in (folder / "train").glob("*") if path.is_dir())
    columns = [sorted(path.glob("*.jpg"))[:images_per_class] for path in classes]
    if not any(columns):
        raise FileNotFoundError(f"no pictures in {folder / 'train'}")
    gap = max(2, thumbnail_size // 40)
    cell = thumbnail_size + gap
    sheet = Image.new("RGB", (cell * len(columns) + gap, cell * max(map(len, columns)) + gap), "white")
    for column, paths in enumerate(columns):
        for row, path in enumerate(paths):
            with Image.open(path) as image:
                thumbnail = image.resize((thumbnail_size, thumbnail_size), Image.Resampling.LANCZOS)
            sheet.paste(thumbnail, (gap + column * cell, gap + row * cell))
    return sheet
