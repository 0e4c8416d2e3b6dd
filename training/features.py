"""The features of pictures: what a frozen backbone makes of them, computed once and kept on disk.

The pictures are cut into blocks of `BLOCK`, in the data set's order. A block is the work of one thread, on whatever
host, so its bits depend on neither the number of hosts nor of threads. Every host gets every block; rank 0 keeps them
as shards beside the checkpoints, so what was saved is not computed again. Memory holds none of them: they are in a
file that is mapped.

Shape suffixes: N pictures, H/W size, C channels, D features.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.contract import InputContract
from training import checkpoint, loader
from training.data import Picture
from training.distributed import Worker, broadcast_bytes, gather_parts
from training.engine import Compute
from training.reading import BLOCK

MAX_SHARD_BLOCKS = 256
"""Most blocks of one shard, whatever the interval of checkpoints: it is in memory when it is written."""

Read = Callable[[Picture], NDArray[np.uint8]]
"""The pixels of a picture cut to the model's square: (H, W, C), 0 to 255."""


class Features:
    """The features of `pictures`, float32 when they are read, as many as `computed()` and `restore()` have brought."""

    def __init__(
        self,
        engine: str,
        feature_count: int,
        pictures: Sequence[Picture],
        input: InputContract,
        worker: Worker,
        *,
        scratch: Path,
        dtype: torch.dtype,
    ) -> None:
        """`engine` names all that decides the bits besides the pictures and their cut: weights, library, CPU.

        `scratch` is a folder for the mapped file, which has no name there.

        Raises:
            OSError: the disk has no room for it.
        """
        self.pictures, self.input, self.worker, self.dtype = pictures, input, worker, dtype
        identity = f"{engine} {dtype} {asdict(input)}"
        self.blocks = [range(start, min(start + BLOCK, len(pictures))) for start in range(0, len(pictures), BLOCK)]
        self.keys = [
            hashlib.sha256(" ".join([identity, *(pictures[i].sha256 for i in block)]).encode()).hexdigest()
            for block in self.blocks
        ]
        """By block: the hash of the pictures' content, the engine and the transform."""
        self.missing = dict.fromkeys(range(len(self.blocks)))
        self.own: list[int] = []
        """The pictures that this process itself has computed."""
        self.rows_ND = _mapped(scratch, len(pictures), feature_count, dtype)

    @property
    def done(self) -> int:
        """How many blocks there are."""
        return len(self.blocks) - len(self.missing)

    def restore(self, folder: Path) -> None:
        """Take over what rank 0 finds in its checkpoint folder; all processes call it."""
        paths = sorted(folder.glob("features-*.ckpt")) if self.worker.rank == 0 else []
        payloads = filter(None, map(checkpoint.read, paths))
        while payload := broadcast_bytes(self.worker, next(payloads, None), "sharing rank 0's features"):
            shard = checkpoint.decode(payload)
            blocks = {self.keys[block]: block for block in self.missing}
            start = 0
            for key, count in zip(shard["keys"], shard["counts"], strict=True):
                if key in blocks:
                    self._put(blocks[key], shard["features"][start : start + count])
                start += count

    def computed(
        self, read: Read, compute: Compute, folder: Path, threads: int, interval: int, interrupted: Callable[[], bool]
    ) -> Iterator[tuple[int, bool]]:
        """Compute what is missing, a block per process and round; all processes call it and share each round's blocks.

        Yields after each round how many blocks there are, and whether any process was interrupted. Rank 0 writes a
        shard when `interval` more blocks are there, at an interruption, and at the end. Beside a GPU other processes
        decode, and `read` is not used.
        """
        missing = list(self.missing)
        world_size = self.worker.world_size
        mine = [self.blocks[block] for block in missing[self.worker.rank :: world_size]]
        kept: list[int] = []
        if self.worker.device.type == "cuda":  # not run by this project so far: its machines have no GPU
            features = by_processes(self.pictures, mine, self.input, compute, threads)
        else:
            features = by_threads(self.pictures, mine, read, compute, threads)
        with closing(features):
            for start in range(0, len(missing), world_size):
                blocks = missing[start : start + world_size]
                own = next(features) if self.worker.rank < len(blocks) else None
                parts, stop = self._exchange(own, interrupted())
                for rank, block in enumerate(blocks):
                    self._put(block, parts[rank][: len(self.blocks[block])])
                if own is not None:
                    self.own.extend(self.blocks[blocks[self.worker.rank]])
                kept += blocks
                is_last = stop or not self.missing
                if is_last or len(kept) + world_size > min(interval, MAX_SHARD_BLOCKS):
                    self._save(folder, kept)
                    kept = []
                yield self.done, stop
                if stop:
                    return

    def rows(self, indices: NDArray[np.int64] | Sequence[int]) -> Tensor:
        """f_ND of these pictures, float32."""
        rows_ND = self.rows_ND[torch.as_tensor(np.asarray(indices))]
        return rows_ND.to(self.worker.device, torch.float32)

    def _exchange(self, own_ND: Tensor | None, interrupted: bool) -> tuple[list[Tensor], bool]:
        """Each process's block, and whether any of them was interrupted: a flag that rides along in the last row."""
        part = torch.zeros(BLOCK + 1, self.rows_ND.shape[1], dtype=self.dtype)
        if own_ND is not None:
            part[: len(own_ND)] = own_ND
        part[-1, 0] = float(interrupted)
        parts = gather_parts(self.worker, part, "sharing features")
        return parts, any(bool(other[-1, 0]) for other in parts)

    def _put(self, block: int, features_ND: Tensor) -> None:
        self.rows_ND[self.blocks[block].start : self.blocks[block].stop] = features_ND
        del self.missing[block]

    def _save(self, folder: Path, blocks: Sequence[int]) -> None:
        if self.worker.rank != 0 or not blocks:
            return
        shard = {
            "keys": [self.keys[block] for block in blocks],
            "counts": [len(self.blocks[block]) for block in blocks],
            "features": torch.cat([self.rows_ND[self.blocks[b].start : self.blocks[b].stop] for b in blocks]),
        }
        checkpoint.write(folder / f"features-{blocks[0]:09d}.ckpt", checkpoint.encode(shard))


def by_threads(
    pictures: Sequence[Picture], blocks: Iterable[range], read: Read, compute: Compute, count: int
) -> Generator[Tensor]:
    """f_ND of each block in turn, each the work of one thread; the threads end with the generator."""

    def of_block(block: range) -> Tensor:
        return compute(torch.from_numpy(np.stack([read(pictures[i]) for i in block])))

    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        waiting, ahead = iter(blocks), deque[Future[Tensor]]()
        while True:
            ahead.extend(pool.submit(of_block, block) for block in itertools.islice(waiting, 2 * count - len(ahead)))
            if not ahead:
                return
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def by_processes(
    pictures: Sequence[Picture], blocks: Iterable[range], input: InputContract, compute: Compute, count: int
) -> Generator[Tensor]:
    """As `by_threads`, where `compute` is a GPU's: processes decode, and one thread feeds it, a block ahead."""
    ahead = deque[Future[Tensor]]()
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as feeder:
        for pixels_NHWC in loader.by_processes(loader.Cut(pictures, input), map(list, blocks), count):
            ahead.append(feeder.submit(compute, pixels_NHWC))
            if len(ahead) > 1:
                yield ahead.popleft().result()
        yield from (future.result() for future in ahead)


def _mapped(folder: Path, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """A matrix in a file without a name, which ends with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".features-")
    try:
        size = rows * columns * torch.empty((), dtype=dtype).element_size()
        if hasattr(os, "posix_fallocate"):  # without it a full disk would be a crash at some later write
            os.posix_fallocate(descriptor, 0, max(1, size))
        return torch.from_file(name, shared=True, size=rows * columns, dtype=dtype).view(rows, columns)
    finally:
        os.close(descriptor)
        Path(name).unlink()
