"""What a step computes in either mode: from pictures, shared between the processes, or from features.

Shape suffixes: N pictures, C channels, H/W size, K classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training import data, export
from training.data import DataSet, Picture
from training.distributed import Worker, is_any, sum_in_order
from training.features import Features
from training.settings import Settings
from training.trainee import Trainee, to_batch

STOP_INTERVAL_STEPS = 20
"""Most steps between two looks for an interruption of any process, while each trains the head by itself."""

Interrupted = Callable[[], bool]


class Steps(Protocol):
    """The steps of a mode."""

    seen: dict[int, list[int]]
    """By epoch: the train pictures that this process has read for it."""

    def sums(self, epoch: int, batches: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
        """For each global batch, what `Trainee.update` takes; the same bits on every process, the stop flag too."""

    def valid_inputs(self, positions: Sequence[int]) -> Tensor:
        """The trainee's input x for these valid pictures."""


class Loader:
    """Decodes the pictures of the next step while the current one computes.

    Its workers are threads: Pillow and NumPy let go of the interpreter's lock while they decode, scale and normalise.
    """

    def __init__(self, pictures: Sequence[Picture], settings: Settings, pool: ThreadPoolExecutor) -> None:
        self.pictures, self.settings, self.pool = pictures, settings, pool
        self.input = export.input_contract(settings)

    def _augmented(self, epoch: int, index: int) -> NDArray[np.float32]:
        # The key of the epoch's order is (seed, epoch); this one is longer and never ends in zero, so they differ.
        return data.augmented(self.pictures[index], self.input, (self.settings.seed, epoch, index + 1))

    def batches(
        self, epoch: int, wanted: Iterable[NDArray[np.int64]]
    ) -> Iterator[tuple[NDArray[np.int64], list[NDArray[np.float32]]]]:
        """For each array of indices: the indices and their pictures (C, H, W)."""
        ahead: list[tuple[NDArray[np.int64], list[Future[NDArray[np.float32]]]]] = []
        for indices in itertools.chain(wanted, [None]):
            if indices is not None:
                ahead.append((indices, [self.pool.submit(self._augmented, epoch, int(i)) for i in indices]))
            if ahead and (len(ahead) > 1 or indices is None):
                due, futures = ahead.pop(0)
                yield due, [future.result() for future in futures]


class PictureSteps:
    """Mode `finetune`: each process takes its shards of every batch, and the gradients are added up."""

    def __init__(
        self, trainee: Trainee, worker: Worker, pictures: DataSet, pool: ThreadPoolExecutor, interrupted: Interrupted
    ) -> None:
        self.trainee, self.worker, self.pictures, self.interrupted = trainee, worker, pictures, interrupted
        self.loader = Loader(pictures.train, trainee.settings, pool)
        self.seen: dict[int, list[int]] = {}

    def sums(self, epoch: int, batches: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
        shards = self.worker.shards
        wanted = (np.array_split(batch, self.worker.shard_count)[i] for batch in batches for i in shards)
        loaded = self.loader.batches(epoch, wanted)
        for batch in batches:
            own = [self._shard(epoch, len(batch), *shard) for shard in itertools.islice(loaded, len(shards))]
            yield sum_in_order(self.worker, own)

    def _shard(
        self, epoch: int, batch_count: int, indices: NDArray[np.int64], pictures_CHW: Sequence[NDArray[np.float32]]
    ) -> Tensor:
        self.seen.setdefault(epoch + 1, []).extend(int(i) for i in indices)
        if len(indices) == 0:
            return self.trainee.no_sums(self.interrupted())
        y_N = torch.tensor([self.pictures.train[i].label for i in indices], device=self.worker.device)
        x_NCHW = to_batch(pictures_CHW, self.worker.device)
        return self.trainee.shard_sums(x_NCHW, y_N, batch_count, self.interrupted())

    def valid_inputs(self, positions: Sequence[int]) -> Tensor:
        some = [self.pictures.valid[i] for i in positions]
        plain = self.loader.pool.map(lambda picture: data.plain(picture, self.loader.input), some)
        return to_batch(list(plain), self.worker.device)


class FeatureSteps:
    """Mode `features`: every process trains the whole head. Talking would take longer than the step."""

    def __init__(
        self, trainee: Trainee, worker: Worker, pictures: DataSet, features: Features, interrupted: Interrupted
    ) -> None:
        """`features` are those of the train pictures, and then of the valid ones."""
        self.trainee, self.worker, self.features, self.interrupted = trainee, worker, features, interrupted
        self.y_N = torch.tensor([picture.label for picture in pictures.train], device=worker.device)
        self.seen: dict[int, list[int]] = {}

    def sums(self, epoch: int, batches: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:  # noqa: ARG002
        for number, batch in enumerate(batches, 1):
            looks = number % STOP_INTERVAL_STEPS == 0 or number == len(batches)
            stop = looks and is_any(self.worker, self.interrupted(), "training the head")
            yield self.trainee.shard_sums(self.features.rows(batch), self.y_N[batch], len(batch), stop)

    def valid_inputs(self, positions: Sequence[int]) -> Tensor:
        return self.features.rows([len(self.y_N) + i for i in positions])
