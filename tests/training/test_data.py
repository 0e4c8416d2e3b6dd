from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from inference.contract import InputContract
from training import data
from training.data import DataError, Picture, augmented, epoch_batches, scan, split_of

INPUT = InputContract(32, 36, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
hashes = st.lists(st.binary(min_size=1, max_size=8).map(lambda b: hashlib.sha256(b).hexdigest()), unique=True)


def write(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (shade, 255 - shade, 0)).save(path)


def flat(root: Path, *, per_class: int = 12, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    for k, name in enumerate(classes):
        for i in range(per_class):
            write(root / name / f"{i}.png", 100 * k + i)
    return root


def names(pictures: tuple[Picture, ...]) -> set[str]:
    return {f"{p.path.parent.name}/{p.path.name}" for p in pictures}


def test_given_splits_are_kept(tmp_path: Path) -> None:
    for split, shade in (("train", 1), ("valid", 2), ("test", 3)):
        for name in ("cat", "dog"):
            write(tmp_path / split / name / f"{shade}.png", shade)
    found = scan(tmp_path)
    assert found.classes == ("cat", "dog")
    assert (names(found.train), names(found.valid), names(found.test)) == (
        {"cat/1.png", "dog/1.png"}, {"cat/2.png", "dog/2.png"}, {"cat/3.png", "dog/3.png"}
    )  # fmt: skip


def test_train_and_test_folders_alone_leave_valid_empty(tmp_path: Path) -> None:
    for split in ("train", "test"):
        flat(tmp_path / split, per_class=2)
    found = scan(tmp_path)
    assert (len(found.train), len(found.valid), len(found.test)) == (4, 0, 4)


def test_without_a_test_folder_the_valid_pictures_are_tested_on(tmp_path: Path) -> None:
    flat(tmp_path / "train", per_class=3)
    flat(tmp_path / "val", per_class=2)
    found = scan(tmp_path)
    assert (len(found.train), len(found.valid), len(found.test)) == (6, 0, 4)


@pytest.mark.parametrize("top", ["", "train"])
def test_class_folders_alone_are_split_by_content(tmp_path: Path, top: str) -> None:
    found = scan(flat(tmp_path / top, per_class=60).parent if top else flat(tmp_path, per_class=60))
    parts = [names(found.train), names(found.valid), names(found.test)]
    assert sum(len(part) for part in parts) == 120
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    assert 12 <= len(parts[2]) <= 40


def test_renaming_every_picture_moves_none_to_another_split(tmp_path: Path) -> None:
    before = scan(flat(tmp_path, per_class=30))
    for path in tmp_path.glob("*/*.png"):
        path.rename(path.with_name(f"z{99 - int(path.stem)}.PNG"))
    after = scan(tmp_path)
    for split in ("train", "valid", "test"):
        assert {p.sha256 for p in getattr(before, split)} == {p.sha256 for p in getattr(after, split)}


def test_copies_of_a_picture_stay_in_one_split(tmp_path: Path) -> None:
    flat(tmp_path)
    for path in list(tmp_path.glob("*/*.png")):
        path.with_name(f"copy-of-{path.name}").write_bytes(path.read_bytes())
    found = scan(tmp_path)
    train, test = ({p.sha256 for p in part} for part in (found.train, found.test))
    assert not train & test


@given(hashes)
def test_two_different_pictures_are_enough_for_train_and_test(given: list[str]) -> None:
    split = split_of(given)
    assert set(split) == set(given)
    if len(given) >= 2:
        assert {"train", "test"} <= set(split.values())


@given(hashes.filter(lambda h: len(h) >= 2), hashes)
def test_new_pictures_move_no_more_than_the_two_at_the_edges(old: list[str], new: list[str]) -> None:
    before, after = split_of(old), split_of([*old, *new])
    assert sum(before[h] != after[h] for h in old) <= 2


def test_a_class_with_one_picture_is_refused_by_name(tmp_path: Path) -> None:
    flat(tmp_path)
    write(tmp_path / "lynx" / "only.png", 250)
    with pytest.raises(DataError, match=r"lynx.*two different pictures"):
        scan(tmp_path)


def test_a_class_without_test_pictures_is_refused_by_name(tmp_path: Path) -> None:
    flat(tmp_path / "train", classes=("cat", "dog", "lynx"))
    flat(tmp_path / "test")
    with pytest.raises(DataError, match=r"no test pictures .* lynx"):
        scan(tmp_path)


def test_a_class_that_train_lacks_is_refused_by_name(tmp_path: Path) -> None:
    flat(tmp_path / "train")
    flat(tmp_path / "test", classes=("cat", "dog", "lynx"))
    with pytest.raises(DataError, match="test/ has classes that train/ lacks: lynx"):
        scan(tmp_path)


def test_fewer_than_two_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"two or more class folders.* 1 \(cat\)"):
        scan(flat(tmp_path, classes=("cat",)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"0 \(none\)"):
        scan(tmp_path / "empty")


def test_hidden_files_and_other_types_are_not_pictures(tmp_path: Path) -> None:
    flat(tmp_path)
    before = scan(tmp_path)
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    (tmp_path / "cat" / "._1.png").write_text("no picture")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "manifest.json").write_text("{}")
    assert scan(tmp_path) == before


def test_the_manifest_changes_with_one_byte_of_one_picture(tmp_path: Path) -> None:
    before = scan(flat(tmp_path))
    write(tmp_path / "cat" / "0.png", 77)
    assert scan(tmp_path).manifest_sha256 != before.manifest_sha256


@given(st.integers(1, 300), st.integers(1, 64), st.integers(0, 5))
def test_an_epoch_has_each_picture_once_in_even_batches(count: int, batch_size: int, epoch: int) -> None:
    batches = epoch_batches(count, batch_size, 0, epoch)
    sizes = [len(batch) for batch in batches]
    assert sorted(np.concatenate(batches).tolist()) == list(range(count))
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_the_order_follows_from_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(epoch_batches(50, 8, seed, epoch)).tolist()

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_augmentation_follows_from_its_key(pictures: Path) -> None:
    picture = scan(pictures).train[0]
    first = augmented(picture, INPUT, (0, 0, 1))
    assert first.shape == (3, 32, 32)
    assert np.array_equal(first, augmented(picture, INPUT, (0, 0, 1)))
    assert not np.array_equal(first, augmented(picture, INPUT, (0, 1, 1)))


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    flat(tmp_path)
    (tmp_path / "cat" / "3.png").write_bytes(b"not a picture")
    (picture,) = (
        p
        for s in ("train", "valid", "test")
        for p in getattr(scan(tmp_path), s)
        if p.path.name == "3.png" and p.label == 0
    )
    with pytest.raises(DataError, match=r"cat/3\.png"):
        augmented(picture, INPUT, (0, 0, 1))
    with pytest.raises(DataError, match=r"cat/3\.png"):
        data.plain(picture, INPUT)
