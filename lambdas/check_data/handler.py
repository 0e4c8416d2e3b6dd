"""Check a data set in S3 by listing it, before anything that costs money is created.

Environment: none of its own.
IAM: s3:ListBucket on the data bucket (bucket ARN), s3:GetObject on its objects (`datasets/*`), kms:Decrypt
     on the key. Executions may name another bucket in data.s3_uri: the Lambda needs the same two S3 actions
     there.
Timeout 300 s, memory 1024 MB (100,000 objects take 100 list calls).

Event: {"s3_uri": "s3://bucket/prefix/"}.
Returns {"s3_uri", "layout": "split" | "flat", "class_count", "image_count", "split_image_counts" (split
only), "total_bytes", "manifest_sha256", "warnings"}.
Errors: InvalidData (the data set, its address or the right to read it; never retried).

The layouts are those of training: a given split, `train/<class>/...` with `test/` and `valid/` (or `val/`,
`validation/`) beside it, where valid/ is tested on if there is no test/; or a flat data set, `<class>/...`
alone or below train/, which training splits by content. Nothing is decoded: a bounded sample, the same for the
same keys, is checked for the first bytes of a JPEG, PNG or WebP file. What is broken further on is training's
business.

`manifest_sha256` covers every picture's key below the prefix, size and ETag, in S3's order of keys. The
same pictures uploaded again may get other ETags (under KMS keys, or in parts) and then count as other data:
never the reverse.
"""

from __future__ import annotations

import hashlib
import heapq
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

logger = Logger(service="check-data")

SPLIT_FOLDERS = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}
"""The folders of a given split; of several names the first that is there counts."""
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp"})
MARKER = "_SUCCESS"
"""Name of the object whose arrival may start an execution."""
MAX_OBJECTS = 1_000_000
SAMPLE_SIZE = 64
SAMPLE_THREADS = 8
FEW_PICTURES = 10
"""A class with fewer pictures than this is worth a warning: its share of the test pictures is one or none."""

_S3_URI = re.compile(r"s3://([a-z0-9][a-z0-9.\-]{1,61}[a-z0-9])(?:/(.*))?")
_UNSAFE_KEY = re.compile(r"(?:^|/)(?:\.{0,2})(?:/|$)|[\x00-\x1f\\]")
_HEAD_BYTES = 16
_EXAMPLES = 3
_MAX_WARNINGS = 20
_NEXT_STEP = "Correct the data set and start again: kelpie start --data FOLDER uploads a folder."


class InvalidData(Exception):
    """The data set cannot be trained on, or cannot be read."""


@dataclass(frozen=True)
class Layout:
    """Where the classes are: `folders` maps the top folder to its split; none at all is `<class>/...` at the top."""

    folders: dict[str, str]

    @property
    def name(self) -> str:
        """ "split" where the test pictures are given, else "flat"."""
        return "split" if "test" in self.folders.values() else "flat"

    def place(self, parts: list[str]) -> tuple[str, str] | None:
        """Return (split, class) of a key's parts, or None when it is in no class folder."""
        if not self.folders:
            return ("train", parts[0]) if len(parts) > 1 else None
        if len(parts) < 3 or parts[0] not in self.folders:
            return None
        return self.folders[parts[0]], parts[1]


@dataclass
class Listing:
    """What one pass over the objects found; the pictures of a flat layout are all counted under "train"."""

    image_count: int = 0
    total_bytes: int = 0
    class_counts: dict[str, Counter[str]] = field(default_factory=dict)
    ignored: dict[str, list[str]] = field(default_factory=dict)
    ignored_counts: Counter[str] = field(default_factory=Counter)
    contents: dict[str, set[tuple[str, int]]] = field(default_factory=dict)
    sample: list[tuple[int, str]] = field(default_factory=list)
    manifest: Any = field(default_factory=hashlib.sha256)

    def counts(self, split: str) -> Counter[str]:
        """Return how many pictures each class folder of a split has; 0 is possible."""
        return self.class_counts.setdefault(split, Counter())

    def add(self, split: str, name: str, size: int, etag: str, relative_key: str) -> None:
        """Count one picture of class `name`."""
        self.image_count += 1
        self.total_bytes += size
        self.counts(split)[name] += 1
        self.contents.setdefault(split, set()).add((etag, size))
        self.manifest.update(f"{relative_key}\0{size}\0{etag}\n".encode())
        # The keys with the smallest hashes are a sample that is random over the classes and still repeatable.
        rank = -int.from_bytes(hashlib.sha256(relative_key.encode()).digest()[:8], "big")
        if len(self.sample) < SAMPLE_SIZE:
            heapq.heappush(self.sample, (rank, relative_key))
        else:
            heapq.heappushpop(self.sample, (rank, relative_key))

    def ignore(self, why: str, relative_key: str) -> None:
        """Note an object that is not used, with a few examples for each reason."""
        self.ignored_counts[why] += 1
        examples = self.ignored.setdefault(why, [])
        if len(examples) < _EXAMPLES:
            examples.append(_shown(relative_key))


@cache
def s3() -> Any:
    """Return the S3 client, made once per container and not at import."""
    return boto3.client(
        "s3",
        config=Config(
            connect_timeout=5,
            read_timeout=30,
            retries={"mode": "standard", "max_attempts": 5},
            max_pool_connections=SAMPLE_THREADS,
        ),
    )


@logger.inject_lambda_context
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Return what the data set holds.

    Raises:
        InvalidData: see the module's docstring.
    """
    bucket, prefix = parse_s3_uri(event.get("s3_uri") if isinstance(event, dict) else None)
    s3_uri = f"s3://{bucket}/{prefix}"
    objects = list_objects(bucket, prefix)
    layout, listing = take_stock(objects, s3_uri)
    result = {
        "s3_uri": s3_uri,
        "layout": layout.name,
        "class_count": len(listing.counts("train")),
        "image_count": listing.image_count,
        "total_bytes": listing.total_bytes,
        "manifest_sha256": listing.manifest.hexdigest(),
        "warnings": [*_warnings(listing), *_check_sample(bucket, prefix, listing)][:_MAX_WARNINGS],
    }
    if layout.name == "split":
        result["split_image_counts"] = {split: listing.counts(split).total() for split in SPLIT_FOLDERS}
    logger.info("data checked", extra={key: value for key, value in result.items() if key != "warnings"})
    return result


def parse_s3_uri(s3_uri: Any) -> tuple[str, str]:
    """Split "s3://bucket/prefix" into bucket and prefix; a prefix that is not empty ends with a slash."""
    match = _S3_URI.fullmatch(s3_uri) if isinstance(s3_uri, str) else None
    if match is None:
        raise InvalidData(
            f"Invalid data.s3_uri {_shown(repr(s3_uri))}, expected s3://bucket/prefix/. "
            "Correct it in kelpie.toml or in the execution's input."
        )
    bucket, prefix = match[1], match[2] or ""
    return bucket, prefix if not prefix or prefix.endswith("/") else f"{prefix}/"


def list_objects(bucket: str, prefix: str) -> list[tuple[str, int, str]]:
    """Return (key below the prefix, size in bytes, ETag) of every object, in S3's order of keys.

    Raises:
        InvalidData: the bucket cannot be listed, or holds more than MAX_OBJECTS below the prefix.
    """
    found: list[tuple[str, int, str]] = []
    try:
        for page in s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                found.append((item["Key"][len(prefix) :], item["Size"], item["ETag"].strip('"')))
            if len(found) > MAX_OBJECTS:
                raise InvalidData(
                    f"s3://{bucket}/{prefix} holds more than {MAX_OBJECTS:,} objects; name the data set's own prefix "
                    "in data.s3_uri."
                )
    except (ClientError, BotoCoreError) as error:
        raise InvalidData(
            f"Cannot list s3://{bucket}/{prefix}: {error}. Check data.s3_uri, and s3:ListBucket of the Lambda's role."
        ) from error
    return found


def take_stock(objects: Iterable[tuple[str, int, str]], s3_uri: str) -> tuple[Layout, Listing]:
    """Sort the objects into splits and classes and return the layout with the counts.

    Raises:
        InvalidData: unsafe keys, no pictures, fewer than two classes, or splits whose classes do not fit.
    """
    # Without the consoles' folder markers, and without the one that says that a data set is complete.
    usable = [row for row in objects if row[0] and not row[0].endswith("/") and row[0].rsplit("/", 1)[-1] != MARKER]
    for key, _, _ in usable:
        if _UNSAFE_KEY.search(key):
            raise InvalidData(
                f"Unsafe key {_shown(repr(key))} below {s3_uri}: training writes the keys as files, so a key must "
                f"not have empty parts, '.', '..', backslashes or control characters. {_NEXT_STEP}"
            )
    layout = _layout({key.split("/", 1)[0] for key, _, _ in usable if "/" in key})
    listing = Listing()
    for key, size, etag in usable:
        parts = key.split("/")
        place = layout.place(parts)
        if any(part.startswith(".") for part in parts):
            listing.ignore("hidden", key)
        elif place is None:
            listing.ignore("in no class folder", key)
        elif posixpath.splitext(key)[1].lower() not in EXTENSIONS:
            listing.counts(place[0])[place[1]] += 0
            listing.ignore(f"not one of {', '.join(sorted(EXTENSIONS))}", key)
        elif size == 0:
            listing.counts(place[0])[place[1]] += 0
            listing.ignore("empty (zero bytes)", key)
        else:
            listing.add(*place, size, etag, key)
    _check_classes(layout, listing, s3_uri)
    return layout, listing


def _layout(tops: set[str]) -> Layout:
    found = {
        split: folder
        for split, names in SPLIT_FOLDERS.items()
        if (folder := next((name for name in names if name in tops), None)) is not None
    }
    if "train" not in found:
        return Layout({})
    if "test" not in found and "valid" in found:
        found["test"] = found.pop("valid")
    if "test" not in found:
        return Layout({"train": "train"})
    return Layout({folder: split for split, folder in found.items()})


def _check_classes(layout: Layout, listing: Listing, s3_uri: str) -> None:
    if not listing.image_count:
        seen = "; ".join(f"{count} {why}" for why, count in listing.ignored_counts.items())
        raise InvalidData(
            f"No pictures below {s3_uri} ({seen or 'no objects at all'}), expected <class>/<picture> or "
            f"train/<class>/<picture> with {', '.join(sorted(EXTENSIONS))}. {_NEXT_STEP}"
        )
    classes = listing.counts("train")
    if len(classes) < 2:
        raise InvalidData(
            f"Found {len(classes)} class folder {[_shown(name) for name in classes]} below {s3_uri}, expected at "
            f"least 2 with pictures. {_NEXT_STEP}"
        )
    for split in ("valid", "test"):
        unknown = sorted(set(listing.counts(split)) - set(classes))
        if unknown:
            raise InvalidData(
                f"Class {_shown(unknown[0])!r} is among the {split} pictures but not in train/ ({len(unknown)} such); "
                f"a model cannot know it. {_NEXT_STEP}"
            )
    for split, least in (("train", 1), ("test", 1)) if layout.name == "split" else (("train", 2),):
        poor = sorted(name for name in classes if listing.counts(split)[name] < least)
        if poor:
            names = ", ".join(_shown(name) for name in poor[:_EXAMPLES])
            raise InvalidData(
                f"{len(poor)} of {len(classes)} classes below {s3_uri} have fewer than {least} {split} pictures: "
                f"{names}. Every class needs pictures to train on and others to be tested on. {_NEXT_STEP}"
            )


def _warnings(listing: Listing) -> Iterator[str]:
    for why, count in sorted(listing.ignored_counts.items()):
        yield f"{count} ignored, {why}: {', '.join(listing.ignored[why])}"
    few = sorted(name for name, count in listing.counts("train").items() if count < FEW_PICTURES)
    if few:
        names = ", ".join(_shown(name) for name in few[:_EXAMPLES])
        yield f"{len(few)} classes have fewer than {FEW_PICTURES} pictures to train on: {names}"
    for split in ("valid", "test"):
        twice = len(listing.contents.get("train", set()) & listing.contents.get(split, set()))
        if twice:
            yield f"{twice} {split} pictures are in train/ too, so the measured accuracy is too good"


def _check_sample(bucket: str, prefix: str, listing: Listing) -> Iterator[str]:
    """Yield warnings about sampled files that do not begin like a picture, or not like their extension says."""
    keys = sorted(key for _, key in listing.sample)
    with ThreadPoolExecutor(SAMPLE_THREADS) as pool:
        formats = list(pool.map(lambda key: _format(bucket, prefix + key), keys))
    broken = [key for key, kind in zip(keys, formats, strict=True) if kind is None]
    if len(broken) == len(keys):
        raise InvalidData(
            f"None of {len(keys)} sampled files below s3://{bucket}/{prefix} begins like a JPEG, PNG or WebP picture, "
            f"for example {_shown(broken[0])}. {_NEXT_STEP}"
        )
    if broken:
        names = ", ".join(_shown(key) for key in broken[:_EXAMPLES])
        yield f"{len(broken)} of {len(keys)} sampled files do not begin like a picture: {names}"
    renamed = [key for key, kind in zip(keys, formats, strict=True) if kind and _extension(key) != kind]
    if renamed:
        names = ", ".join(_shown(key) for key in renamed[:_EXAMPLES])
        yield f"{len(renamed)} of {len(keys)} sampled pictures have another format than their extension says: {names}"


def _format(bucket: str, key: str) -> str | None:
    try:
        answer = s3().get_object(Bucket=bucket, Key=key, Range=f"bytes=0-{_HEAD_BYTES - 1}")
        head: bytes = answer["Body"].read(_HEAD_BYTES)
    except (ClientError, BotoCoreError) as error:
        raise InvalidData(
            f"Cannot read s3://{bucket}/{_shown(key)}: {error}. "
            "Check s3:GetObject and kms:Decrypt of the Lambda's role."
        ) from error
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    return None


def _extension(key: str) -> str:
    extension = posixpath.splitext(key)[1].lower().removeprefix(".")
    return "jpeg" if extension == "jpg" else extension


def _shown(text: str) -> str:
    printable = text if text.isprintable() else repr(text)
    return printable if len(printable) <= 100 else f"{printable[:100]}..."
