"""The pictures: which there are, which split each belongs to, in which order they come, how they are augmented.

Every random draw is keyed by (seed, epoch, picture), never by rank, worker or process, so the pictures of a step are
the same after a restart and on any number of hosts.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.contract import InputContract
from inference.preprocessing import ImageTooLarge, InvalidImage, decode, preprocess, square, to_tensor

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
SPLIT_FOLDERS = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}
TEST_SHARE, VALID_SHARE = 0.2, 0.1
"""Shares of a flat data set that become its test and its valid pictures."""

CROP_AREA = (0.4, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)


class DataError(ValueError):
    """The data set cannot be trained on as it is."""


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True)
class Found:
    """The files that should be pictures. `parts` has the given splits, or everything under `` (to be split)."""

    root: Path
    base: Path
    classes: tuple[str, ...]
    parts: Mapping[str, Sequence[Picture]]

    @property
    def files(self) -> list[Picture]:
        return [picture for part in self.parts.values() for picture in part]

    def name(self, picture: Picture) -> str:
        """The path below the data folder, in a form that any log can take."""
        return _printable(picture.path.relative_to(self.root).as_posix())

    @property
    def manifest_sha256(self) -> str:
        digest = hashlib.sha256()
        for split, part in sorted(self.parts.items()):
            for picture in part:
                path = os.fsencode(picture.path.relative_to(self.root))
                digest.update(b"%s %s %s\n" % (split.encode(), path, picture.sha256.encode()))
        return digest.hexdigest()


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _class_folder(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in SUFFIXES and not hidden and path.is_file():
            yield path, hashlib.sha256(path.read_bytes()).hexdigest()


def _labelled(folder: Path, classes: Sequence[str]) -> list[Picture]:
    unknown = sorted({p.name for p in _folders(folder)} - set(classes))
    if unknown:
        raise DataError(f"{folder.name}/ has classes that train/ lacks: {', '.join(map(_printable, unknown[:10]))}")
    return [
        Picture(path, label, sha256)
        for label, name in enumerate(classes)
        if (folder / name).is_dir()
        for path, sha256 in _class_folder(folder / name)
    ]


def find(root: Path) -> Found:
    """Find the files under `root` that should be pictures; none is decoded.

    Given splits are kept: `train/<class>/*` with `test/` and `valid/` (or `val/`, `validation/`). Without `test/`,
    `valid/` is what is tested on; with `train/` alone, or with `<class>/*` at the top, the split is by content
    (`split_of`). Other top-level files are ignored, and whatever is hidden.

    Raises:
        DataError: fewer than two classes, or a split with classes that train/ lacks.
    """
    folders = {
        split: folder
        for split, names in SPLIT_FOLDERS.items()
        for folder in [next((root / n for n in names if (root / n).is_dir()), None)]
        if folder is not None
    }
    base = folders.get("train", root)
    classes = tuple(p.name for p in _folders(base))
    if len(classes) < 2:
        names = ", ".join(map(_printable, classes)) or "none"
        raise DataError(f"a classifier needs two or more class folders, {base} has {len(classes)} ({names})")
    if "train" in folders and "test" not in folders and "valid" in folders:
        folders["test"] = folders.pop("valid")
    if not ("train" in folders and "test" in folders):
        folders = {"": base}
    parts = {split: tuple(_labelled(folder, classes)) for split, folder in folders.items()}
    return Found(root, base, classes, parts)


# --- splits ----------------------------------------------------------------------------------------------------------


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


def _split_by_content(pictures: Sequence[Picture]) -> dict[str, Sequence[Picture]]:
    by_class: dict[int, list[str]] = {}
    for picture in pictures:
        by_class.setdefault(picture.label, []).append(picture.sha256)
    splits = {label: split_of(hashes) for label, hashes in by_class.items()}
    parts: dict[str, list[Picture]] = {"train": [], "valid": [], "test": []}
    for picture in pictures:
        parts[splits[picture.label][picture.sha256]].append(picture)
    return {**parts}


def split(found: Found) -> DataSet:
    """The data set of the files found.

    Raises:
        DataError: a class without train or test pictures.
    """
    parts = {"valid": (), **(_split_by_content(found.parts[""]) if "" in found.parts else found.parts)}
    for part in ("train", "test"):
        counts = Counter(picture.label for picture in parts[part])
        empty = [_printable(name) for label, name in enumerate(found.classes) if not counts[label]]
        if empty:
            some = ", ".join(empty[:10]) + (", ..." if len(empty) > 10 else "")
            raise DataError(
                f"no {part} pictures ({', '.join(SUFFIXES)}) for {len(empty)} of {len(found.classes)} classes: {some}. "
                "Every class needs two different pictures or more, one for train and one for test"
            )
    manifest_sha256 = replace(found, parts=parts).manifest_sha256
    return DataSet(found.classes, tuple(parts["train"]), tuple(parts["valid"]), tuple(parts["test"]), manifest_sha256)


def scan(root: Path) -> DataSet:
    """`find` and `split`, for folders without bad files."""
    return split(find(root))


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


def pixels(picture: Picture, input: InputContract) -> NDArray[np.uint8]:
    """As `plain`, but not normalised: 0 to 255, (image_size, image_size, 3).

    Raises:
        DataError: as `augmented`.
    """
    try:
        return np.asarray(square(picture.read(), input))
    except (InvalidImage, ImageTooLarge) as error:
        raise _named(picture, error) from error
