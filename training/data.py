"""The pictures: which there are, which split each belongs to, in which order they come, how they are augmented.

Every random draw is keyed by (seed, epoch, picture), never by rank, worker or process, so the pictures of a step are
the same after a restart and on any number of hosts.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.contract import InputContract
from inference.preprocessing import ImageTooLarge, InvalidImage, decode, preprocess, to_tensor

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
SPLIT_FOLDERS = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}
TEST_SHARE, VALID_SHARE = 0.2, 0.1
"""Shares of a flat data set that become its test and its valid pictures."""

CROP_AREA = (0.4, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)


class DataError(ValueError):
    """The data set cannot be trained on as it is."""


@dataclass(frozen=True)
class Picture:
    """One labelled file; `label` is the position of its class in `DataSet.classes`."""

    path: Path
    label: int
    sha256: str

    def read(self) -> bytes:
        return self.path.read_bytes()


@dataclass(frozen=True)
class DataSet:
    """The pictures by split. `valid` may be empty; every class has pictures in `train` and in `test`."""

    classes: tuple[str, ...]
    train: tuple[Picture, ...]
    valid: tuple[Picture, ...]
    test: tuple[Picture, ...]
    manifest_sha256: str


# --- scanning --------------------------------------------------------------------------------------------------------


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _class_folder(folder: Path) -> list[tuple[Path, str]]:
    files = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    return [(p, hashlib.sha256(p.read_bytes()).hexdigest()) for p in sorted(files) if p.is_file()]


def _labelled(folder: Path, classes: Sequence[str]) -> list[Picture]:
    unknown = sorted({p.name for p in _folders(folder)} - set(classes))
    if unknown:
        raise DataError(f"{folder.name}/ has classes that train/ lacks: {', '.join(unknown[:10])}")
    return [
        Picture(path, label, sha256)
        for label, name in enumerate(classes)
        if (folder / name).is_dir()
        for path, sha256 in _class_folder(folder / name)
    ]


def split_of(hashes: Iterable[str]) -> dict[str, str]:
    """Split one class by content: hash -> `train`, `valid` or `test`.

    A picture's split follows from its own bytes, so names and order do not matter, copies stay together, and more
    pictures leave the others where they are. Only the lowest hash (always test) and the highest (always train) depend
    on the rest, so that two different pictures are enough for both splits.
    """
    ordered = sorted(set(hashes))
    split = {}
    for sha256 in ordered:
        position = int(sha256[:13], 16) / 16**13
        in_valid = position < TEST_SHARE + VALID_SHARE
        split[sha256] = "test" if position < TEST_SHARE else "valid" if in_valid else "train"
    if ordered:
        split[ordered[0]] = "test"
        split[ordered[-1]] = "train"
    return split


def _split_by_content(pictures: Sequence[Picture]) -> dict[str, list[Picture]]:
    by_class: dict[int, list[str]] = {}
    for picture in pictures:
        by_class.setdefault(picture.label, []).append(picture.sha256)
    split = {label: split_of(hashes) for label, hashes in by_class.items()}
    parts: dict[str, list[Picture]] = {"train": [], "valid": [], "test": []}
    for picture in pictures:
        parts[split[picture.label][picture.sha256]].append(picture)
    return parts


def scan(root: Path) -> DataSet:
    """Find the pictures under `root` and their splits.

    Given splits are kept: `train/<class>/*` with `test/` and `valid/` (or `val/`, `validation/`). Without `test/`,
    `valid/` is what is tested on; with `train/` alone, or with `<class>/*` at the top, the split is by content
    (`split_of`). Other top-level files are ignored.

    Raises:
        DataError: no pictures, fewer than two classes, or a class without train or test pictures.
    """
    found = {
        split: folder
        for split, names in SPLIT_FOLDERS.items()
        for folder in [next((root / n for n in names if (root / n).is_dir()), None)]
        if folder is not None
    }
    base = found.get("train", root)
    classes = tuple(p.name for p in _folders(base))
    if "train" in found and "test" not in found and "valid" in found:
        found["test"] = found.pop("valid")
    if "train" in found and "test" in found:
        parts = {split: _labelled(folder, classes) for split, folder in found.items()}
    else:
        parts = _split_by_content(_labelled(base, classes))
    if len(classes) < 2:
        names = ", ".join(classes) or "none"
        raise DataError(f"a classifier needs two or more class folders, {base} has {len(classes)} ({names})")
    for split in ("train", "test"):
        counts = Counter(picture.label for picture in parts[split])
        empty = [name for label, name in enumerate(classes) if not counts[label]]
        if empty:
            some = ", ".join(empty[:10]) + (", ..." if len(empty) > 10 else "")
            raise DataError(
                f"no {split} pictures ({', '.join(SUFFIXES)}) for {len(empty)} of {len(classes)} classes: {some}. "
                "Every class needs two different pictures or more, one for train and one for test"
            )
    lines = [
        f"{split} {p.path.relative_to(root).as_posix()} {p.sha256}" for split in sorted(parts) for p in parts[split]
    ]
    manifest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return DataSet(classes, tuple(parts["train"]), tuple(parts.get("valid", ())), tuple(parts["test"]), manifest)


# --- order -----------------------------------------------------------------------------------------------------------


def epoch_batches(picture_count: int, batch_size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """The global batches of an epoch, as picture indices: each picture once, sizes differ by at most one."""
    order = np.random.default_rng([seed, epoch]).permutation(picture_count)
    return np.array_split(order, -(-picture_count // batch_size))


# --- pixels ----------------------------------------------------------------------------------------------------------


def _named(picture: Picture, error: Exception) -> DataError:
    return DataError(f"{picture.path.parent.name}/{picture.path.name}: {error}")


def augmented(picture: Picture, input: InputContract, key: Sequence[int]) -> NDArray[np.float32]:
    """A random crop of the picture, perhaps mirrored, normalised: float32 (3, image_size, image_size).

    Args:
        key: what decides the draws, (seed, epoch, index + 1): one longer than the key of the epoch's order.

    Raises:
        DataError: the file is not a picture that can be decoded.
    """
    random = np.random.default_rng(list(key))
    try:
        image = decode(picture.read(), minimum_side=2 * input.image_size)
    except (InvalidImage, ImageTooLarge) as error:
        raise _named(picture, error) from error
    width, height = image.size
    area = width * height * random.uniform(*CROP_AREA)
    ratio = float(np.exp(random.uniform(*np.log(CROP_RATIO))))
    crop_width, crop_height = min(width, (area * ratio) ** 0.5), min(height, (area / ratio) ** 0.5)
    left, top = random.uniform(0, width - crop_width), random.uniform(0, height - crop_height)
    box = (left, top, left + crop_width, top + crop_height)
    square = image.resize((input.image_size, input.image_size), Image.Resampling.BILINEAR, box=box)
    if random.random() < 0.5:
        square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return to_tensor(square, input)


def plain(picture: Picture, input: InputContract) -> NDArray[np.float32]:
    """The picture as serving sees it: float32 (3, image_size, image_size).

    Raises:
        DataError: as `augmented`.
    """
    try:
        return preprocess(picture.read(), input)
    except (InvalidImage, ImageTooLarge) as error:
        raise _named(picture, error) from error
