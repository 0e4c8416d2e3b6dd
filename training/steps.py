"""What a step computes in either mode: from pictures, shared between the processes, or from features.

Shape suffixes: N pictures, C channels, H/W size, K classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training import loader
from training.data import DataSet
from training.distributed import Worker, is_any, sum_in_order
from training.features import Features
from training.loader import Decoded
from training.trainee import Trainee

STOP_INTERVAL_STEPS = 20
"""Most steps between two looks for an interruption of any process, while each trains the head by itself."""

Interrupted = Callable[[], bool]


class Steps(Protocol):
    """The steps of a mode."""

    seen: dict[int, list[int]]
    """By epoch: the train pictures that this process has read for it."""

    def sums(self, epoch: int, batches: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
        """For each global batch, what `Trainee.update` takes; the same bits on every process, the stop flag too."""

    def valid_inputs(self, wanted: Iterable[Sequence[int]]) -> Iterator[Tensor]:
        """The trainee's input x for each of these groups of valid pictures, which are given by position."""


class PictureSteps:
    """Mode `finetune`: each process takes its shards of every batch, and the gradients are added up."""

    def __init__(
        self, trainee: Trainee, worker: Worker, pictures: DataSet, workers: int, interrupted: Interrupted
    ) -> None:
        """`workers`: the threads or processes that decode."""
        self.trainee, self.worker, self.pictures, self.interrupted = trainee, worker, pictures, interrupted
        self.workers = workers
        self.train, self.valid = (Decoded(part, trainee.settings) for part in (pictures.train, pictures.valid))
        self.seen: dict[int, list[int]] = {}

    def sums(self, epoch: int, batches: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
        shards = [[np.array_split(batch, self.worker.shard_count)[i] for i in self.worker.shards] for batch in batches]
        wanted = itertools.chain.from_iterable(shards)
        with closing(loader.batches(self.train, epoch, wanted, self.worker.device, self.workers)) as loaded:
            for batch, of_batch in zip(batches, shards, strict=True):
                own = [self._shard(epoch, len(batch), indices, next(loaded)) for indices in of_batch]
                yield sum_in_order(self.worker, own)

    def _shard(self, epoch: int, batch_count: int, indices: NDArray[np.int64], x_NCHW: Tensor) -> Tensor:
        self.seen.setdefault(epoch + 1, []).extend(int(i) for i in indices)
        if len(indices) == 0:
            return self.trainee.no_sums(self.interrupted())
        y_N = torch.tensor([self.pictures.train[i].label for i in indices], device=self.worker.device)
        return self.trainee.shard_sums(x_NCHW, y_N, batch_count, self.interrupted())

    def valid_inputs(self, wanted: Iterable[Sequence[int]]) -> Iterator[Tensor]:
        return loader.batches(self.valid, None, wanted, self.worker.device, self.workers)


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

    def valid_inputs(self, wanted: Iterable[Sequence[int]]) -> Iterator[Tensor]:
        return (self.features.rows([len(self.y_N) + i for i in positions]) for positions in wanted)
