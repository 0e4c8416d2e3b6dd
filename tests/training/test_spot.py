"""Spot, exactly: whatever takes a job down, it ends with the weights of an undisturbed one. See spot_drills."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from spot_drills import ENDS_IN_TIME, HOST_COUNTS, TRAIN_PER_CLASS, drill, uninterrupted
from training_hosts import ROOT, Job
from training_pictures import picture_folder

HASTY = """
import runpy
from training import distributed

distributed.TIMEOUT_SECONDS = 6
runpy.run_module("training.entry_point", run_name="__main__")
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def job() -> Iterator[Job]:
    job = Job()
    yield job
    job.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """180 train, 6 valid and 12 test pictures."""
    return picture_folder(tmp_path_factory.mktemp("pictures"), train=TRAIN_PER_CLASS)


@pytest.fixture(scope="module")
def expected(job: Job, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return uninterrupted(job, tmp_path_factory.mktemp("undisturbed"), pictures)


@pytest.mark.parametrize("host_count", HOST_COUNTS)
def test_a_job_taken_down_again_and_again_ends_like_an_undisturbed_one(
    job: Job, pictures: Path, tmp_path: Path, expected: str, host_count: int
) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    drilled = drill(job, tmp_path, pictures, host_count, seed)
    print(f"seed {seed}: {drilled}")  # shown when the test fails
    assert drilled.weights_sha256 == expected
    assert max(drilled.resumed_steps) > 0


def test_a_host_that_hangs_ends_the_job_when_its_time_is_up(job: Job, pictures: Path, tmp_path: Path) -> None:
    first, second = job.start(tmp_path, pictures, entry=("-c", HASTY))
    first.read_until("train:loss")
    second.process.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    assert first.finish() == 1
    assert 3 < time.monotonic() - started < 6 + 20
    assert "lost contact with another host" in first.failure


def test_the_page_of_the_drills_says_in_which_time_a_job_ends() -> None:
    page = (ROOT / "docs/reference/spot.md").read_text(encoding="utf-8")
    assert page.endswith("\n".join(["", *ENDS_IN_TIME]) + "\n"), "run: python tests/spot_drills.py"
