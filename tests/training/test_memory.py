"""What training asks of the machine's memory: few page faults, and no more for more pictures."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_hosts import ROOT
from training_pictures import draw

FAULTS = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor

import torch

from training.main import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
torch.set_num_threads(1)


def layers(_number):  # allocate and free what the layers of a network do: 13 MB each, in every thread
    for _ in range(10):
        torch.zeros(16, 32, 80, 80)


def faults(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(layers, range(count)))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


faults(4)
print(min(faults(20) for _ in range(5)))  # now and then a block is placed in new memory, because an old one is split
"""


def page_faults(how: str) -> int:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(argv, env=environment, capture_output=True, text=True, check=True, timeout=200).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_kept_in_all_threads() -> None:
    """200 blocks of 3,200 pages: by default the kernel takes most of them back each time."""
    default, kept = page_faults("default"), page_faults("kept")
    assert default > 10_000
    assert kept < default / 10


def peak_of_anonymous_memory(data: Path, output: Path) -> int:
    """The most bytes that a training process holds besides files that are mapped."""
    flags = ["--image-size", "32", "--epochs", "1", "--batch-size", "256", "--checkpoint-interval-steps", "200"]
    argv = [sys.executable, "-m", "training", "--data", str(data), "--output", str(output), "--weights", "package"]
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "2"}
    log = output.with_suffix(".log")
    peak = 0
    with log.open("w") as file:
        process = subprocess.Popen([*argv, *flags], cwd=ROOT, env=environment, stdout=file, stderr=file)
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            lines = status.read_text().splitlines() if status.exists() else []
            peak = max([peak, *(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))])
            time.sleep(0.05)
    assert process.returncode == 0, log.read_text()
    return peak


def many_entries(root: Path, train: int) -> Path:
    """So many entries in `train/`, which are names of 60 files, and a few in `valid/` and `test/`."""
    for shape in ("cross", "disc", "square"):
        for number in range(20):
            draw(root / "test" / shape / f"{number}.png", shape, number)
        draw(root / "valid" / shape / "0.png", shape, 99)
        folder = root / "train" / shape
        folder.mkdir(parents=True)
        for number in range(train // 3):
            (folder / f"{number}.png").hardlink_to(root / "test" / shape / f"{number % 20}.png")
    return root


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path: Path) -> None:
    """100,000 pictures are 1.2 GB of pixels, and 250 or 500 MB of features; what grows is the list of their names."""
    few = peak_of_anonymous_memory(many_entries(tmp_path / "few", 999), tmp_path / "few-out")
    many = peak_of_anonymous_memory(many_entries(tmp_path / "many", 99_999), tmp_path / "many-out")
    print(f"{few / 1e6:.0f} MB with 999 pictures, {many / 1e6:.0f} MB with 99,999")
    assert many - few < 120e6
