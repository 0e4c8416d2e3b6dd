"""What a step is made of, and that it does not depend on how many work on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from inference.contract import InputContract
from training import data, steps
from training.backbones import build
from training.data import DataSet, Picture, scan
from training.distributed import Worker
from training.features import Features
from training.settings import Settings
from training.steps import FeatureSteps, PictureSteps
from training.trainee import Trainee

CPU = torch.device("cpu")
ALONE = Worker("localhost", 0, 1, CPU)
SMALL = Settings(weights="package", image_size=32)


@pytest.fixture(scope="module")
def found(pictures: Path) -> DataSet:
    return scan(pictures)


def trainee(trainable: str) -> Trainee:
    settings = Settings(weights="package", image_size=32, trainable=trainable)
    return Trainee(settings, build("efficientnet_lite0", 3, source="package", path=None, seed=0), CPU)


def batches(count: int = 30, size: int = 10) -> list[np.ndarray]:
    return data.epoch_batches(count, size, seed=0, epoch=0)


def test_an_epoch_of_fine_tuning_decodes_each_picture_once(found: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    real = data.augmented

    def augmented(picture: Picture, input: InputContract, key: tuple[int, ...]) -> object:
        decoded.append(str(picture.path))
        return real(picture, input, key)

    monkeypatch.setattr(data, "augmented", augmented)
    of = PictureSteps(trainee("all"), ALONE, found, 2, lambda: False)
    assert len(list(of.sums(0, batches()))) == 3
    assert sorted(decoded) == sorted(str(picture.path) for picture in found.train)
    assert sorted(of.seen[1]) == list(range(30))


class Rows:
    """Stands for computed features: rows of random numbers."""

    def __init__(self) -> None:
        self.rows_ND = torch.randn(36, 1280, generator=torch.manual_seed(0))

    def rows(self, indices: object) -> torch.Tensor:
        return self.rows_ND[torch.as_tensor(np.asarray(indices))]


def head_steps(found: DataSet, interrupted: Callable[[], bool] = lambda: False) -> FeatureSteps:
    return FeatureSteps(trainee("head"), ALONE, found, cast(Features, Rows()), interrupted)


def test_the_head_is_trained_without_the_backbone_and_without_talking_in_each_step(
    found: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[bool] = []
    monkeypatch.setattr(steps, "is_any", lambda _worker, flag, _doing: looks.append(flag) or flag)
    of = head_steps(found)
    of.trainee.model.backbone.forward = None  # type: ignore[assignment]
    assert len(list(of.sums(0, [np.array([0, 1])] * 45))) == 45
    assert len(looks) == 3  # after 20 steps, after 40, and at the end of the epoch


def test_an_interruption_rides_along_with_the_step_at_which_all_look(found: DataSet) -> None:
    of = head_steps(found, lambda: True)
    flags = [bool(sums[-1]) for sums in of.sums(0, [np.array([0, 1])] * 25)]
    assert [number for number, flag in enumerate(flags, 1) if flag] == [20, 25]


def test_valid_pictures_follow_the_train_pictures_in_the_features(found: DataSet) -> None:
    of = head_steps(found)
    (x_ND,) = of.valid_inputs([[0, 5]])
    assert torch.equal(x_ND, cast(Rows, of.features).rows_ND[[30, 35]])
