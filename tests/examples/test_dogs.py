from __future__ import annotations

import hashlib
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from examples.dog_breeds import BREEDS
from examples.dogs import Summary, contact_sheet, generate

Features = Callable[[Path], NDArray[np.float64]]


def files(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


@pytest.fixture(scope="session")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Summary, float]:
    """The example at its full size, and the processor seconds it took: other work on the machine hardly counts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    summary = generate(tmp_path_factory.mktemp("dogs"), 1500, processes=2)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return summary, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_fifteen_hundred_pictures_take_well_under_a_minute_on_two_cores(dogs: tuple[Summary, float]) -> None:
    assert 1 < dogs[1] / 2 < 40


def test_it_is_an_image_folder_split_70_10_20(dogs: tuple[Summary, float]) -> None:
    summary = dogs[0]
    assert summary.split_image_counts == {"train": 1050, "valid": 150, "test": 300}
    assert summary.classes == tuple(sorted(BREEDS))
    for split, count in summary.split_image_counts.items():
        for breed in summary.classes:
            assert len(list((summary.folder / split / breed).glob("*.jpg"))) == count // 10
    with Image.open(next((summary.folder / "test" / "pug").iterdir())) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (320, 320))


def test_no_two_pictures_are_equal(dogs: tuple[Summary, float]) -> None:
    assert len(set(files(dogs[0].folder).values())) == 1500


def test_the_bytes_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    one = generate(tmp_path / "one", 60, image_size=96, processes=1)
    two = generate(tmp_path / "two", 60, image_size=96, processes=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert one.manifest_sha256 == two.manifest_sha256


def test_another_seed_makes_other_dogs(tmp_path: Path) -> None:
    one = generate(tmp_path / "one", 30, seed=0, image_size=64, processes=1)
    two = generate(tmp_path / "two", 30, seed=1, image_size=64, processes=1)
    assert one.manifest_sha256 != two.manifest_sha256
    assert not set(files(tmp_path / "one").values()) & set(files(tmp_path / "two").values())


def test_generating_again_changes_nothing(tmp_path: Path) -> None:
    generate(tmp_path, 30, image_size=64, processes=1)
    before = files(tmp_path)
    generate(tmp_path, 30, image_size=64, processes=1)
    assert files(tmp_path) == before


@pytest.mark.parametrize("image_count", [30, 37, 101])
def test_every_split_has_every_breed(image_count: int, tmp_path: Path) -> None:
    summary = generate(tmp_path, image_count, image_size=32, processes=1)
    assert sum(summary.split_image_counts.values()) == len(files(tmp_path)) == image_count
    assert {path.rsplit("/", 1)[0] for path in files(tmp_path)} == {
        f"{split}/{breed}" for split in ("train", "valid", "test") for breed in BREEDS
    }


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"train/mine\.jpg"):
        generate(tmp_path, 30)
    assert files(tmp_path) == {"train/mine.jpg": hashlib.sha256(b"mine").hexdigest()}


@pytest.mark.parametrize("arguments", [{"image_count": 29}, {"image_size": 8}, {"image_size": 4096}])
def test_an_impossible_size_is_refused(arguments: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        generate(tmp_path / "dogs", **arguments)
    assert not (tmp_path / "dogs").exists()


def test_the_contact_sheet_has_a_column_a_breed(tmp_path: Path) -> None:
    generate(tmp_path, 60, image_size=64, processes=1)
    sheet = contact_sheet(tmp_path, images_per_class=3, thumbnail_size=40)
    assert sheet.size == (10 * 42 + 2, 3 * 42 + 2)
    with pytest.raises(FileNotFoundError):
        contact_sheet(tmp_path / "train")


# --- what must not give the breed away --------------------------------------------------------------------------------


def mean_and_spread_of_colour(path: Path) -> NDArray[np.float64]:
    with Image.open(path) as image:
        counts = np.array(image.histogram(), dtype=np.float64).reshape(3, 256) / (image.width * image.height)
    means = counts @ np.arange(256)
    return np.concatenate([means, np.sqrt(counts @ np.arange(256) ** 2 - means**2)])


def colour_histogram(path: Path) -> NDArray[np.float64]:
    with Image.open(path) as image:
        red, green, blue = (np.asarray(image).reshape(-1, 3) // 43).astype(np.int64).T
    return np.bincount(red * 36 + green * 6 + blue, minlength=216).astype(np.float64)


def thumbnail(path: Path) -> NDArray[np.float64]:
    with Image.open(path) as image:
        return np.asarray(image.resize((24, 24), Image.Resampling.BOX), dtype=np.float64).ravel()


def best_accuracy(folder: Path, features: Features) -> float:
    """The best test accuracy of ridge regressions of several strengths and of the nearest neighbour."""

    def load(split: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        paths = sorted((folder / split).rglob("*.jpg"))
        breeds = sorted(BREEDS)
        return np.stack([features(p) for p in paths]), np.array([breeds.index(p.parent.name) for p in paths])

    (x, y), (x_test, y_test) = load("train"), load("test")
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-9
    x, x_test = (x - mean) / spread, (x_test - mean) / spread
    distances = (x_test**2).sum(axis=1)[:, None] - 2 * x_test @ x.T + (x**2).sum(axis=1)
    accuracies = [float((y[distances.argmin(axis=1)] == y_test).mean())]
    values, vectors = np.linalg.eigh(x @ x.T)
    for strength in (1.0, 100.0, 3000.0, 30000.0):
        weights = x.T @ (vectors / (values + strength)) @ vectors.T @ (np.eye(10)[y] - 0.1)
        accuracies.append(float(((x_test @ weights).argmax(axis=1) == y_test).mean()))
    return max(accuracies)


@pytest.mark.parametrize(
    ("features", "limit"), [(mean_and_spread_of_colour, 0.25), (colour_histogram, 0.25), (thumbnail, 0.35)]
)
def test_colour_or_a_thumbnail_does_not_give_the_breed_away(
    features: Features, limit: float, dogs: tuple[Summary, float]
) -> None:
    """Chance is 10 %."""
    assert best_accuracy(dogs[0].folder, features) < limit
