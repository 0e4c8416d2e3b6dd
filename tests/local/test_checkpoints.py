"""The checkpoint folder of a job and its S3 prefix: whole files only, deletions mirrored, everything restored."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.local.conftest import wait_until
from workflow.local.checkpoints import CheckpointSync, is_temporary


class Bucket:
    """S3 as far as the sync needs it."""

    def __init__(self, **objects: bytes) -> None:
        self.objects: dict[str, bytes] = {name.replace("__", "/"): body for name, body in objects.items()}
        self.uploads: list[tuple[str, bytes]] = []

    def put_object(self, Bucket: str, Key: str, Body: bytes) -> None:
        self.uploads.append((Key, Body))
        self.objects[Key] = Body

    def delete_object(self, Bucket: str, Key: str) -> None:
        self.objects.pop(Key, None)

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        body = self.objects[Key]

        class Stream:
            def iter_chunks(self, size: int) -> list[bytes]:
                return [body]

        return {"Body": Stream()}

    def get_paginator(self, operation: str) -> Any:
        bucket = self

        class Paginator:
            def paginate(self, Bucket: str, Prefix: str) -> list[dict[str, Any]]:
                keys = [key for key in bucket.objects if key.startswith(Prefix)]
                return [{"Contents": [{"Key": key, "Size": len(bucket.objects[key])} for key in keys]}]

        return Paginator()


def started(bucket: Bucket, *folders: Path) -> CheckpointSync:
    sync = CheckpointSync(bucket, "s3://bucket/run", folders)
    sync.restore()
    sync.start()
    return sync


def test_every_host_starts_with_what_is_in_s3_and_uploads_nothing_of_it(tmp_path: Path) -> None:
    bucket = Bucket(run__step_1=b"one", run__sub__step_2=b"two", other=b"not ours")
    sync = started(bucket, tmp_path / "a", tmp_path / "b")
    time.sleep(0.4)
    sync.stop(final=True)
    for host in ("a", "b"):
        assert (tmp_path / host / "step_1").read_bytes() == b"one"
        assert (tmp_path / host / "sub" / "step_2").read_bytes() == b"two"
    assert bucket.uploads == []
    assert sync.uploaded == 0


def test_a_file_is_uploaded_once_it_is_whole_and_never_before(tmp_path: Path) -> None:
    bucket = Bucket()
    sync = started(bucket, tmp_path)
    with (tmp_path / "step-1.ckpt.tmp").open("wb") as file:
        for _ in range(5):
            file.write(b"x" * 1000)
            file.flush()
            time.sleep(0.08)
    (tmp_path / "step-1.ckpt.tmp").rename(tmp_path / "step-1.ckpt")
    wait_until(lambda: "run/step-1.ckpt" in bucket.objects)
    sync.stop(final=True)
    assert bucket.uploads == [("run/step-1.ckpt", b"x" * 5000)]
    assert sync.uploaded == 1


def test_a_file_that_still_grows_is_not_uploaded(tmp_path: Path) -> None:
    bucket = Bucket()
    sync = started(bucket, tmp_path)
    with (tmp_path / "growing").open("wb") as file:
        for _ in range(20):
            file.write(b"x")
            file.flush()
            time.sleep(0.03)
        assert bucket.uploads == []
    sync.stop(final=True)
    assert bucket.uploads == [("run/growing", b"x" * 20)]


def test_a_deletion_by_one_host_is_mirrored_and_the_end_of_a_tree_is_not_one(tmp_path: Path) -> None:
    bucket = Bucket(run__old=b"o", run__kept=b"k")
    first, second = tmp_path / "a", tmp_path / "b"
    sync = started(bucket, first, second)
    (first / "old").unlink()
    wait_until(lambda: "run/old" not in bucket.objects)
    sync.stop(final=False)
    for path in (first / "kept", second / "kept"):
        path.unlink()
    time.sleep(0.3)
    assert set(bucket.objects) == {"run/kept"}


@pytest.mark.parametrize("name", [".hidden", "a.tmp", "a.tmp.17", "tmp.abc", "a.part", "a~", "a.ckpt.partial"])
def test_names_of_unfinished_files_are_known(name: str) -> None:
    assert is_temporary(name)


@pytest.mark.parametrize("name", ["step-0001.ckpt", "temperature.json", "latest", "attempt-1.pt", "template.bin"])
def test_names_of_finished_files_are_not_taken_for_unfinished_ones(name: str) -> None:
    assert not is_temporary(name)
