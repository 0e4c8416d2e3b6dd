"""The files of a data set, each read and decoded once: whether it is a picture, and the pixels of the first ones.

It begins before PyTorch is imported, which takes seconds of one core: a child process looks at files in the meantime.
So this module, and what it imports, must do without PyTorch.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from inference.contract import InputContract
from inference.preprocessing import ImageTooLarge, InvalidImage, decode
from training import data
from training.data import DataError, Found, Picture
from training.settings import Settings, SettingsError, parse

MAX_KEPT_BYTES = 192 * 1024**2
"""Memory for pixels that are kept until their features are computed; later files are decoded again for that."""
BLOCK = 16
"""Pictures that are the work of one thread, and that hosts take in turn: to look at, and to compute the features of. So
mostly the same host does both."""
UNKNOWN, GOOD, BAD = range(3)


def defect(picture: Picture) -> str:
    """Why training cannot use the file, or "" if it can: the file is read and decoded to its end."""
    content = picture.read()
    if not content:
        return "the file is empty"
    try:
        decode(content, minimum_side=1)  # a JPEG is read to its end at any scale, and at the smallest it takes least
    except (InvalidImage, ImageTooLarge) as error:
        return str(error)
    return ""


class Reading:
    """A process's share of the files: blocks of them in turn with the other processes.

    What is known of them is in memory that a child process can share.
    """

    def __init__(self, found: Found, settings: Settings, rank: int, world_size: int) -> None:
        self.found, self.rank, self.world_size = found, rank, world_size
        self.files = found.files
        self.own = [i for i in range(len(self.files)) if i // BLOCK % world_size == rank]
        # How pictures are normalised says PyTorch's part; how they are cut does not depend on it.
        side = settings.image_size
        self.cut = InputContract(side, settings.resize_size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        picture_bytes = 3 * side * side
        last = len(self.files) - len(found.parts.get("test", ()))  # they get no features
        kept = min(sum(i < last for i in self.own), MAX_KEPT_BYTES // picture_bytes)
        kept = kept if settings.trainable == "head" else 0
        memory = mmap.mmap(-1, kept * picture_bytes + len(self.own) + 1)
        everything = np.frombuffer(memory, np.uint8)
        self.pixels_NHWC = everything[: kept * picture_bytes].reshape(kept, side, side, 3)
        self.flags_N = everything[kept * picture_bytes : -1]
        self.stop = everything[-1:]
        self.slots = {self.files[i]: slot for slot, i in enumerate(self.own[:kept])}
        self.child: int | None = None

    def start(self) -> None:
        """Let a child process look at the files, one after the other, until `finish`."""
        if not sys.platform.startswith("linux"):
            return
        parent = os.getpid()
        self.child = os.fork()
        if self.child == 0:
            try:
                for slot in range(len(self.own)):
                    if self.stop[0] or os.getppid() != parent:
                        break
                    self._look(slot)
            finally:
                os._exit(0)

    def _look(self, slot: int) -> None:
        picture, good = self.files[self.own[slot]], True
        if slot < len(self.pixels_NHWC):
            try:
                self.pixels_NHWC[slot] = data.pixels(picture, self.cut)
            except DataError:
                good = False
        else:
            good = defect(picture) == ""
        self.flags_N[slot] = GOOD if good else BAD

    def finish(self, threads: int) -> None:
        """Look at those files that no child has looked at."""
        self.end()
        waiting = np.flatnonzero(self.flags_N == UNKNOWN)

        def look_at_share(thread: int) -> None:  # a task for each file would take a kilobyte each
            for slot in waiting[thread::threads]:
                self._look(int(slot))

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(look_at_share, range(threads)))

    def end(self) -> None:
        """End the child."""
        if self.child is not None:
            self.stop[0] = 1
            os.waitpid(self.child, 0)
            self.child = None

    def release(self) -> None:
        """Give the memory of the pixels back."""
        self.slots = {}
        self.pixels_NHWC = self.pixels_NHWC[:0].copy()
        self.flags_N, self.stop = self.flags_N.copy(), self.stop.copy()

    @property
    def bad(self) -> list[int]:
        """The positions of the bad files among this process's."""
        return [self.own[slot] for slot in np.flatnonzero(self.flags_N == BAD)]

    def pixels(self, picture: Picture) -> NDArray[np.uint8]:
        """The picture's pixels, (image_size, image_size, 3), as serving sees it before it normalises them.

        Raises:
            DataError: the file is not a picture that can be decoded.
        """
        slot = self.slots.get(picture)
        return data.pixels(picture, self.cut) if slot is None else self.pixels_NHWC[slot]


def begin(argv: Sequence[str], environment: Mapping[str, str]) -> Reading | None:
    """Begin to read what these flags and this environment ask for.

    None where somebody else says what this process's share is, and where anything is wrong: the run itself meets that
    again, and tells it.
    """
    if environment.get("SM_NUM_GPUS", "0") != "0" or "RANK" in environment:
        return None
    names = json.loads(environment.get("SM_HOSTS", "[]")) or ["localhost"]
    current = environment.get("SM_CURRENT_HOST", names[0])
    try:
        settings, folders = parse(argv, environment)
        reading = Reading(data.find(folders.data), settings, names.index(current), len(names))
    except (SettingsError, DataError, OSError, ValueError):
        return None
    reading.start()
    return reading
