"""Moving objects between S3 and folders on behalf of a role, and packing and unpacking archives safely.

Every function takes the role's own S3 client, so that a missing permission fails here as it would on AWS.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

_WORKERS = 8
_CHUNK_BYTES = 1 << 20
_MAX_MEMBERS = 100_000
_MAX_HEADER_BYTES = 1 << 20
_HEADER_TYPES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class TransferFailed(Exception):
    """An object could not be moved; the text names it and S3's reason."""


class UnsafeArchive(Exception):
    """An archive is damaged, too large, or wants to write outside its folder."""


@dataclass(frozen=True)
class S3Object:
    """One listed object."""

    bucket: str
    key: str
    size: int
    etag: str

    @property
    def uri(self) -> str:
        """The object as an S3 URI."""
        return f"s3://{self.bucket}/{self.key}"


def split_uri(uri: str) -> tuple[str, str]:
    """Split `s3://bucket/key` into its parts; the key may be empty.

    Raises:
        TransferFailed: not an S3 URI.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise TransferFailed(f"Invalid S3 URI {uri!r}, expected s3://bucket/key")
    return bucket, key


def explain(error: BaseException) -> str:
    """What S3 said, as `Code: message`."""
    if isinstance(error, ClientError):
        details = error.response.get("Error", {})
        return f"{details.get('Code', 'Unknown')}: {details.get('Message', '')}"
    return f"{type(error).__name__}: {error}"


def list_objects(s3: Any, uri: str, limit: int | None = None) -> list[S3Object]:
    """The objects under a prefix, without folder markers, at most `limit`.

    Raises:
        TransferFailed: the listing failed.
    """
    bucket, prefix = split_uri(uri)
    found: list[S3Object] = []
    arguments = {"Bucket": bucket, "Prefix": prefix, **({"MaxKeys": limit + 1} if limit else {})}
    try:
        for page in s3.get_paginator("list_objects_v2").paginate(**arguments):
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):
                    found.append(S3Object(bucket, item["Key"], item["Size"], item.get("ETag", "")))
            if limit and len(found) >= limit:
                return found[:limit]
    except (ClientError, BotoCoreError) as error:
        raise TransferFailed(f"Unable to list objects under {uri} ({explain(error)})") from error
    return found


def relative_path(key: str, prefix: str) -> PurePosixPath:
    """Where an object of a prefix lies inside its channel's folder.

    Raises:
        TransferFailed: the key would leave the folder.
    """
    start = len(prefix) + 1 if key.startswith(prefix + "/") else prefix.rfind("/") + 1
    path = PurePosixPath(key[start:])
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in key:
        raise TransferFailed(f"The key {key!r} is no path inside a folder")
    return path


def download(s3: Any, uri: str, path: Path) -> None:
    """Write one object to `path`.

    Raises:
        TransferFailed: the object is missing or may not be read.
    """
    bucket, key = split_uri(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        body = s3.get_object(Bucket=bucket, Key=key)["Body"]
        with path.open("wb") as file:
            for chunk in body.iter_chunks(_CHUNK_BYTES):
                file.write(chunk)
    except (ClientError, BotoCoreError) as error:
        raise TransferFailed(f"Unable to download object {uri} ({explain(error)})") from error
    except OSError as error:
        raise TransferFailed(f"Unable to write object {uri} ({explain(error)})") from error


def download_all(s3: Any, objects: Iterable[S3Object], prefix: str, folder: Path) -> list[PurePosixPath]:
    """Write objects below `folder` and return their paths inside it.

    Raises:
        TransferFailed: naming the first object that failed.
    """
    wanted = [(item, relative_path(item.key, prefix)) for item in objects]
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="download") as pool:
        futures = [pool.submit(download, s3, item.uri, folder / path) for item, path in wanted]
        try:
            for future in futures:
                future.result()
        except TransferFailed:
            pool.shutdown(cancel_futures=True)
            raise
    return [path for _, path in wanted]


def upload(s3: Any, path: Path, uri: str, kms_key_id: str | None = None) -> None:
    """Write a file to an object, encrypted with a KMS key if one is named.

    Raises:
        TransferFailed: the object may not be written.
    """
    bucket, key = split_uri(uri)
    extra = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_id} if kms_key_id else {}
    try:
        with path.open("rb") as file:
            s3.put_object(Bucket=bucket, Key=key, Body=file, **extra)
    except (ClientError, BotoCoreError, OSError) as error:
        raise TransferFailed(f"Unable to upload object {uri} ({explain(error)})") from error


def link_tree(source: Path, target: Path) -> None:
    """Make `target` a copy of the folder `source` whose files are hard links where the file system has them."""
    for path in files_below(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, copy)
        except OSError:
            shutil.copyfile(path, copy)
    target.mkdir(parents=True, exist_ok=True)


def files_below(folder: Path) -> Iterator[Path]:
    """Every regular file below a folder, sorted; links are not followed."""
    for directory, names, files in os.walk(folder):
        names.sort()
        for name in sorted(files):
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                yield path


def pack(folders: Iterable[Path], archive: Path) -> int:
    """Merge folders into one tar.gz, the first file of a name wins; return how many files it holds."""
    seen: set[str] = set()
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for folder in folders:
            for path in files_below(folder):
                name = path.relative_to(folder).as_posix()
                if name not in seen:
                    seen.add(name)
                    tar.add(path, arcname=name, recursive=False)
    return len(seen)


class _Member(tarfile.TarInfo):
    """A member whose headers are bounded: tarfile reads a long name or an extended header into memory at once."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.type in _HEADER_TYPES and member.size > _MAX_HEADER_BYTES):
            raise UnsafeArchive(f"the archive has a header of {member.size} bytes")
        return member


def _only_files(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """tarfile's `data` filter, and no links: filters of older Pythons let chains of links out (CVE-2025-4517)."""
    if not (member.isreg() or member.isdir()):
        raise UnsafeArchive(
            f"the archive's member {member.name[:200]!a} is a link or a device: pack files with tar --dereference"
        )
    return tarfile.data_filter(member, folder).replace(mtime=None, deep=False)  # type: ignore[arg-type]


def unpack(archive: Path, folder: Path, max_bytes: int) -> None:
    """Extract a tar.gz of files and folders into `folder`, nowhere else, up to `max_bytes`.

    Raises:
        UnsafeArchive: damaged, too large, or with a member that is a link, a device or would leave the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    total = 0
    try:
        with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar:
            for count, member in enumerate(tar):
                tar.members = []  # type: ignore[attr-defined]  # else every header would stay in memory
                total += member.size
                if member.size < 0 or total > max_bytes or count >= _MAX_MEMBERS:
                    raise UnsafeArchive(f"the archive holds more than {max_bytes} bytes or {_MAX_MEMBERS} members")
                tar.extract(member, folder, filter=_only_files)
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        raise UnsafeArchive(f"the archive cannot be extracted ({type(error).__name__}: {error})") from error
