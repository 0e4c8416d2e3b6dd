"""The checkpoint folder of a training job and its S3 prefix: restored at the start, synced while training runs.

One prefix serves all hosts: each host starts with everything in it, what a host writes is uploaded, what a host
deletes is deleted. Source: SageMaker developer guide, "Use checkpoints in Amazon SageMaker AI", Nov 2026.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from workflow.local import transfers

_SCAN_SECONDS = 0.1
_RETRY_SECONDS = 1.0
_TEMPORARY = re.compile(r"(^\.)|(^~)|(~$)|(\.(tmp|temp|part|partial|incomplete|lock)\b)|(\btmp[._-])", re.IGNORECASE)

_Signature = tuple[int, int, int]
"""Inode, size and modification time in nanoseconds: another one means another content."""

_log = logging.getLogger(__name__)


def is_temporary(name: str) -> bool:
    """Whether a file name says that its writer has not finished."""
    return _TEMPORARY.search(name) is not None


class CheckpointSync:
    """Keeps the checkpoint folders of all hosts and one S3 prefix in step."""

    def __init__(self, s3: Any, uri: str, folders: Sequence[Path], kms_key_id: str | None = None) -> None:
        """`folders`: the checkpoint folder of each host."""
        self._s3 = s3
        self._bucket, prefix = transfers.split_uri(uri)
        self._prefix = prefix.rstrip("/") + "/" if prefix else ""
        self._folders = list(folders)
        self._kms_key_id = kms_key_id
        self._synced: list[dict[str, _Signature]] = [{} for _ in self._folders]
        self._candidates: list[dict[str, _Signature]] = [{} for _ in self._folders]
        self._uploads = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.error: str | None = None
        """What S3 refused, if anything."""

    @property
    def uploaded(self) -> int:
        """How many files, or new contents of a file, went to S3 since the start."""
        return self._uploads

    def restore(self) -> int:
        """Copy everything under the prefix into each host's folder; return the number of files.

        Raises:
            transfers.TransferFailed: a checkpoint may not be read.
        """
        for folder in self._folders:
            folder.mkdir(parents=True, exist_ok=True)
        objects = transfers.list_objects(self._s3, f"s3://{self._bucket}/{self._prefix}")
        first, *others = self._folders
        transfers.download_all(self._s3, objects, self._prefix.rstrip("/"), first)
        for folder in others:  # a copy, no link: a host may write into its file
            shutil.copytree(first, folder, dirs_exist_ok=True)
        for index in range(len(self._folders)):
            self._synced[index] = self._scan(index)
        return len(objects)

    def start(self) -> None:
        """Sync in the background until `stop`."""
        self._thread = threading.Thread(target=self._run, name="checkpoint-sync", daemon=True)
        self._thread.start()

    def stop(self, *, final: bool) -> None:
        """End the background work; `final`: with a last pass, for hosts that have ended and write no more.

        Call it before the folders are removed, or their removal would be taken for the job's.
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        if final:
            self._pass(settled_only=False)

    def _run(self) -> None:
        while not self._stopping.wait(_SCAN_SECONDS):
            self._pass(settled_only=True)

    def _pass(self, *, settled_only: bool) -> None:
        for index, folder in enumerate(self._folders):
            if not folder.is_dir():
                continue
            found = self._scan(index)
            synced = self._synced[index]
            for name, signature in found.items():
                settled = self._candidates[index].get(name) == signature
                if synced.get(name) != signature and (settled or not settled_only):
                    self._upload(index, name)
            for name in [name for name in synced if name not in found]:
                self._delete(index, name)
            self._candidates[index] = found

    def _scan(self, index: int) -> dict[str, _Signature]:
        folder = self._folders[index]
        found = {}
        for path in transfers.files_below(folder):
            relative = path.relative_to(folder)
            if any(is_temporary(part) for part in relative.parts):
                continue
            with suppress(FileNotFoundError):
                found[relative.as_posix()] = _signature(path.stat())
        return found

    def _upload(self, index: int, name: str) -> None:
        extra = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self._kms_key_id} if self._kms_key_id else {}
        try:
            # One open file is one content, also when a newer checkpoint takes its name meanwhile.
            with (self._folders[index] / name).open("rb") as file:
                before = _signature(os.fstat(file.fileno()))
                content = file.read()
                if _signature(os.fstat(file.fileno())) != before:
                    return
            self._s3.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=content, **extra)
        except FileNotFoundError:
            return
        except (ClientError, BotoCoreError) as error:
            self._fail(error)
            return
        self._uploads += 1
        self._synced[index][name] = before

    def _delete(self, index: int, name: str) -> None:
        try:
            self._s3.delete_object(Bucket=self._bucket, Key=self._prefix + name)
        except (ClientError, BotoCoreError) as error:
            self._fail(error)
            return
        del self._synced[index][name]

    def _fail(self, error: BaseException) -> None:
        if self.error is None:
            self.error = transfers.explain(error)
            _log.warning("Checkpoints under s3://%s/%s are not in step: %s", self._bucket, self._prefix, error)
        self._stopping.wait(_RETRY_SECONDS)


def _signature(status: os.stat_result) -> _Signature:
    return (status.st_ino, status.st_size, status.st_mtime_ns)
