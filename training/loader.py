"""Decodes the pictures of the next batch while the current one computes.

Beside a CPU that trains, threads do it: Pillow and NumPy let go of the interpreter's lock while they decode, scale and
normalise. Beside a GPU they would wait for that lock, which the thread that feeds the GPU wants all the time: there
processes do it, for features too, and hand over whole batches in memory that the GPU reads by itself (pinned).

Every draw is keyed by seed, epoch and picture, so nothing depends on who does it.

Shape suffixes: N pictures, C channels, H/W size.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from inference.contract import InputContract
from training import data
from training.data import Picture
from training.export import input_contract
from training.settings import Settings

PROCESS_TIMEOUT_SECONDS = 120
"""How long a batch may take before the process that decodes it counts as lost: less than other hosts wait for it."""

Indices = Sequence[int] | NDArray[np.int64]
Key = tuple[int | None, int]
"""Epoch, or None for the picture as serving sees it; and its index."""


class Decoded(Dataset[NDArray[np.float32]]):
    """Pictures as float32 (C, H, W), augmented for an epoch or plain."""

    def __init__(self, pictures: Sequence[Picture], settings: Settings) -> None:
        self.pictures, self.seed, self.input = pictures, settings.seed, input_contract(settings)

    def __getitem__(self, key: Key) -> NDArray[np.float32]:
        epoch, index = key
        if epoch is None:
            return data.plain(self.pictures[index], self.input)
        # The key of the epoch's order is (seed, epoch); this one is longer and never ends in zero, so they differ.
        return data.augmented(self.pictures[index], self.input, (self.seed, epoch, index + 1))


class Cut(Dataset[NDArray[np.uint8]]):
    """Pictures as serving sees them before it normalises them: 0 to 255, (H, W, C)."""

    def __init__(self, pictures: Sequence[Picture], input: InputContract) -> None:
        self.pictures, self.input = pictures, input

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return data.pixels(self.pictures[index], self.input)


def batches(
    decoded: Decoded, epoch: int | None, wanted: Iterable[Indices], device: torch.device, workers: int
) -> Generator[Tensor]:
    """x_NCHW for each of `wanted`, channels last in memory, on the device."""
    keys = ([(epoch, int(i)) for i in indices] for indices in wanted)
    is_gpu = device.type == "cuda"  # not run by this project so far: its machines have no GPU
    for x_NCHW in (by_processes if is_gpu else by_threads)(decoded, keys, workers):
        yield x_NCHW.to(device, memory_format=torch.channels_last, non_blocking=True)


def by_threads(decoded: Decoded, wanted: Iterable[list[Key]], count: int) -> Iterator[Tensor]:
    """x_NCHW of each of `wanted`; the threads end with the iterator."""
    ahead: list[list[Future[NDArray[np.float32]]]] = []
    with ThreadPoolExecutor(count) as pool:
        for keys in itertools.chain(wanted, [None]):
            if keys is not None:
                ahead.append([pool.submit(decoded.__getitem__, key) for key in keys])
            if ahead and (len(ahead) > 1 or keys is None):
                yield stack([future.result() for future in ahead.pop(0)])


def by_processes(pictures: Dataset[NDArray[Any]], wanted: Iterable[list[Any]], count: int) -> Iterator[Tensor]:
    """As `by_threads`, of any data set; the processes end with the iterator, and with this process."""
    yield from DataLoader(
        pictures,
        batch_sampler=list(wanted),
        num_workers=count,
        collate_fn=stack,
        pin_memory=torch.cuda.is_available(),
        timeout=PROCESS_TIMEOUT_SECONDS,
    )


def stack(pictures: Sequence[NDArray[Any]]) -> Tensor:
    """One tensor of all of them; for no pictures an empty x_NCHW."""
    return torch.from_numpy(np.stack(pictures)) if pictures else torch.empty(0, 3, 1, 1)
