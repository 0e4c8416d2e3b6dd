"""Pictures on their way to training: from threads or processes the same, and no process outlives its parent."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from inference.contract import InputContract
from training import data, loader
from training.data import scan
from training.loader import Decoded, by_threads
from training.settings import Settings

ROOT = Path(__file__).parents[2]
SMALL = Settings(weights="package", image_size=32)
WANTED = [[(1, 4), (1, 0), (1, 29)], [], [(1, 7)], [(None, 3), (None, 4)]]


PRELUDE = (
    "import sys, time; from hashlib import sha256; from pathlib import Path; from training.data import scan; "
    "from training.loader import *; "
    "decoded = Decoded(scan(Path(sys.argv[1])).train, Settings(weights='package', image_size=32))\n"
)


def program(code: str, pictures: Path) -> list[str]:
    return [sys.executable, "-c", PRELUDE + code, str(pictures)]


@pytest.fixture(scope="module")
def decoded(pictures: Path) -> Decoded:
    return Decoded(scan(pictures).train, SMALL)


def test_pictures_do_not_depend_on_who_decodes_them(decoded: Decoded, pictures: Path) -> None:
    alone = [[decoded[key] for key in keys] for keys in WANTED]
    for count in (1, 3):
        loaded = list(by_threads(decoded, WANTED, count))
        assert [len(x_NCHW) for x_NCHW in loaded] == [3, 0, 1, 2]
        for x_NCHW, expected in zip(loaded, alone, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(x_NCHW.numpy(), expected, strict=True))
    # Processes talk over Unix sockets, which tests may not, so they have a program of their own.
    code = f"for x in by_processes(decoded, {WANTED}, 2): print(sha256(x.numpy()).hexdigest())"
    argv = program(code, pictures)
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout
    assert done.split() == [sha256(x_NCHW.numpy()).hexdigest() for x_NCHW in by_threads(decoded, WANTED, 2)]


def test_an_epoch_draws_other_crops_and_none_of_serving(decoded: Decoded) -> None:
    first, second, plain = decoded[1, 4], decoded[2, 4], decoded[None, 4]
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, plain)
    assert np.array_equal(plain, data.plain(decoded.pictures[4], decoded.input))


def test_a_gpu_gets_its_pictures_from_processes_and_a_cpu_from_threads(
    decoded: Decoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    for name in ("by_threads", "by_processes"):
        monkeypatch.setattr(loader, name, lambda *_, name=name: used.append(name) or iter(()))
    for device in ("cpu", "cuda"):
        list(loader.batches(decoded, 0, [[1]], torch.device(device), 2))
    assert used == ["by_threads", "by_processes"]


def test_processes_that_decode_end_with_a_parent_that_is_killed(pictures: Path) -> None:
    code = (
        "first = iter(by_processes(decoded, [[(0, i)] for i in range(30)], 2)); next(first)\n"
        "print('on', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(program(code, pictures), cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == "on\n"
            workers = psutil.Process(parent.pid).children(recursive=True)
            assert len(workers) == 2
        finally:
            os.kill(parent.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(workers, 30)
    assert not alive


def test_other_threads_run_while_a_picture_is_decoded_scaled_and_normalised() -> None:
    """With a switch interval of minutes, a thread runs only when another lets go of the interpreter's lock."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (1500, 1500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "JPEG", quality=95)
    content, runs, over = file.getvalue(), 0, threading.Event()

    def run() -> None:
        nonlocal runs
        while not over.is_set():
            runs += 1
            time.sleep(0)  # lets go of the lock

    interval = sys.getswitchinterval()
    other = threading.Thread(target=run)
    other.start()
    try:
        sys.setswitchinterval(600)
        before = runs
        data.preprocess(content, InputContract(224, 256, (0.5,) * 3, (0.5,) * 3))
        after = runs
    finally:
        sys.setswitchinterval(interval)
        over.set()
        other.join()
    assert after - before > 20
