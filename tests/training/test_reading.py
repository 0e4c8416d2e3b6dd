"""Files are read while PyTorch is imported: by a child process, once each, and whatever becomes of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from training_hosts import ROOT

from training import data, quarantine, reading
from training.data import find, scan
from training.distributed import Worker
from training.reading import BLOCK, GOOD, Reading
from training.settings import Settings

SETTINGS = Settings(image_size=32)
needs_fork = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a child is forked on Linux only")


@pytest.fixture
def folder(pictures: Path, tmp_path: Path) -> Path:
    """48 pictures, and a file that is none."""
    copy = shutil.copytree(pictures, tmp_path / "pictures")
    (copy / "train" / "disc" / "empty.png").touch()
    return copy


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    """By path, in this process."""
    counted: Counter[Path] = Counter()
    pixels, defect = data.pixels, reading.defect
    monkeypatch.setattr(data, "pixels", lambda picture, cut: counted.update([picture.path]) or pixels(picture, cut))
    monkeypatch.setattr(reading, "defect", lambda picture: counted.update([picture.path]) or defect(picture))
    return counted


def named(one: Reading) -> list[str]:
    return [one.found.name(one.files[i]) for i in one.bad]


def test_each_picture_is_decoded_once_for_the_quarantine_and_for_its_features(
    folder: Path, decodes: Counter[Path]
) -> None:
    one = Reading(find(folder), SETTINGS, 0, 1)
    bad = quarantine.bad_files(one, Worker("localhost", 0, 1, torch.device("cpu")), 2)
    assert [one.found.name(picture) for picture in bad] == ["train/disc/empty.png"]
    (folder / "train" / "disc" / "empty.png").unlink()
    pictures = scan(folder)
    for picture in (*pictures.train, *pictures.valid):
        assert one.pixels(picture).any()
    assert set(decodes.values()) == {1}
    assert len(decodes) == 49


def test_pixels_are_those_of_the_file(folder: Path) -> None:
    one = Reading(find(folder), SETTINGS, 0, 1)
    one.finish(2)
    for picture in (*one.files[:4], one.files[-1]):
        assert np.array_equal(one.pixels(picture), data.pixels(picture, one.cut))


@needs_fork
def test_what_the_child_has_looked_at_is_not_looked_at_again(folder: Path, decodes: Counter[Path]) -> None:
    one = Reading(find(folder), SETTINGS, 0, 1)
    one.start()
    while not one.flags_N.all():
        time.sleep(0.01)
    one.finish(2)
    assert named(one) == ["train/disc/empty.png"]
    assert decodes == {}
    alone = Reading(find(folder), SETTINGS, 0, 1)
    alone.finish(2)
    assert np.array_equal(one.flags_N, alone.flags_N)
    assert np.array_equal(one.pixels_NHWC, alone.pixels_NHWC)


@needs_fork
def test_a_child_that_is_killed_leaves_its_files_to_the_parent(folder: Path) -> None:
    one = Reading(find(folder), SETTINGS, 0, 1)
    one.start()
    assert one.child is not None
    os.kill(one.child, signal.SIGKILL)
    one.finish(2)
    assert named(one) == ["train/disc/empty.png"]
    assert np.count_nonzero(one.flags_N == GOOD) == 48


@needs_fork
def test_a_child_does_not_outlive_its_parent(folder: Path) -> None:
    program = f"""
import os, signal, time
from pathlib import Path
from training import data, reading
pixels = data.pixels
data.pixels = lambda *some: time.sleep(0.05) or pixels(*some)
begun = reading.begin(["--data", {str(folder)!r}, "--output", "out", "--image-size", "32"], {{}})
print(begun.child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    child = int(done.stdout)
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or "State:\tZ" in Path(f"/proc/{child}/status").read_text():
            return
        time.sleep(0.02)
    pytest.fail("the child still runs")


def test_the_hosts_shares_are_blocks_in_turn(folder: Path) -> None:
    shares = [Reading(find(folder), SETTINGS, rank, 2).own for rank in (0, 1)]
    assert shares[0] == [*range(BLOCK), *range(2 * BLOCK, 3 * BLOCK)]
    assert sorted(shares[0] + shares[1]) == list(range(49))


def test_memory_for_pixels_is_bounded_and_the_rest_is_decoded_when_it_is_asked_for(
    folder: Path, decodes: Counter[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_KEPT_BYTES", 5 * 3 * 32 * 32 + 1)
    one = Reading(find(folder), SETTINGS, 0, 1)
    one.finish(1)
    assert len(one.pixels_NHWC) == 5
    later = one.files[5]
    assert one.pixels(later).shape == (32, 32, 3)
    assert decodes[later.path] == 2


def test_no_pixels_are_kept_of_test_pictures_nor_where_the_backbone_is_trained(folder: Path) -> None:
    assert len(Reading(find(folder), SETTINGS, 0, 1).pixels_NHWC) == 49 - 12
    assert len(Reading(find(folder), Settings(image_size=32, trainable="all"), 0, 1).pixels_NHWC) == 0


def test_whoever_begins_needs_no_torch_and_leaves_errors_to_the_run(folder: Path) -> None:
    flags = ["--data", str(folder), "--output", "out", "--image-size", "32"]
    program = f"""
import sys
from training import reading
begun = reading.begin({flags}, {{}})
begun.end()
print(len(begun.own), "torch" in sys.modules)
"""
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "49 False"
    for wrong in (["--epochs", "0"], ["--data", str(folder / "train" / "disc")], ["--data", str(folder / "nothing")]):
        assert reading.begin([*flags, *wrong], {}) is None
    for elsewhere in ({"RANK": "1"}, {"SM_NUM_GPUS": "4"}, {"SM_HOSTS": '["algo-1"]', "SM_CURRENT_HOST": "algo-9"}):
        assert reading.begin(flags, elsewhere) is None
