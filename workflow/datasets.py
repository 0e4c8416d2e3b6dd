"""Data sets: a folder of labelled pictures, put into the account's data bucket once per content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from workflow.account import Account
from workflow.errors import UsageError

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
_LAYOUT = "expected <class>/*.jpg, or train/<class>/*.jpg with test/ (and valid/) beside it"
_UPLOAD_THREADS = 16


def pictures(folder: Path) -> list[Path]:
    """The picture files below `folder`, sorted; hidden files and folders are left out, links are followed.

    Raises:
        UsageError: no such folder, fewer than two classes, no picture in it, or a name or link that cannot be used.
    """
    if not folder.is_dir():
        what = f"{folder} is a file, not a data folder" if folder.is_file() else f"there is no data folder {folder}"
        raise UsageError(what, detail=_LAYOUT, fix="draw an example: kelpie example dogs build/demo/dogs")
    files = sorted(_walk(folder))
    classes = {path.parent.name for path in files if path.parent != folder}
    if len(classes) < 2:
        raise UsageError(
            f"{folder} holds {len(files)} pictures in {len(classes)} class folders; two classes are needed",
            detail=f"{_LAYOUT}; pictures end in {', '.join(sorted(PICTURE_SUFFIXES))}",
            fix=f"put the pictures of each class into a folder of its own below {folder}",
        )
    for path in files:
        _check_name(folder, path)
    return files


def _check_name(folder: Path, path: Path) -> None:
    """S3 keys are UTF-8, and CheckData refuses control characters: said here, before anything is uploaded."""
    key = path.relative_to(folder).as_posix()
    if any(c < " " or c == "\\" or "\ud800" <= c <= "\udfff" for c in key):
        raise UsageError(
            f"{key!r} has a character that a key in S3 should not have",
            detail="not allowed are control characters, backslashes and what is not Unicode",
            fix=f"rename it in {folder}",
        )
    if not path.exists():
        raise UsageError(f"{path} is a link to nothing", fix="remove the link, or put the picture there")


def fingerprint(folder: Path, files: list[Path]) -> str:
    """A short hash of every file's path and content: the same folder always has the same name in S3."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def upload(account: Account, bucket: str, folder: Path, on_progress: Callable[[int, int], None] | None = None) -> str:
    """Upload the pictures that the bucket does not hold yet and return the data set's S3 URI.

    `on_progress(done, total)` counts the pictures.

    Raises:
        UsageError: the folder is no data set (see `pictures`).
    """
    files = pictures(folder)
    prefix = f"datasets/{fingerprint(folder, files)}/"
    client = account.client("s3")
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    held = {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}

    def put(path: Path) -> None:
        key = prefix + path.relative_to(folder).as_posix()
        content = path.read_bytes()
        if held.get(key) != len(content):
            client.put_object(Bucket=bucket, Key=key, Body=content)

    with ThreadPoolExecutor(_UPLOAD_THREADS) as pool:
        for done, _ in enumerate(pool.map(put, files), start=1):
            if on_progress:
                on_progress(done, len(files))
    return f"s3://{bucket}/{prefix}"


def _walk(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Picture files; a link to a folder is entered unless it leads back to a folder that it is in."""
    here = os.path.realpath(folder)
    if here in above:
        return
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(Path(entry.path), above | {here})
        elif Path(entry.name).suffix.lower() in PICTURE_SUFFIXES:
            yield Path(entry.path)
