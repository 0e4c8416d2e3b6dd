"""Input channels of a training job: which S3 objects they select, and how these reach the hosts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from workflow.local import transfers

Channel = Mapping[str, Any]
"""One entry of InputDataConfig."""


class InvalidChannel(Exception):
    """A channel selects nothing, or uses something that the local cloud cannot do."""


def by_name(input_data_config: Sequence[Channel]) -> dict[str, Channel]:
    """The channels under their names, each one checked.

    Raises:
        InvalidChannel: a name twice, or a kind of channel that is not served here.
    """
    channels: dict[str, Channel] = {}
    for channel in input_data_config:
        name = channel["ChannelName"]
        if name in channels:
            raise InvalidChannel(f"Channel names must be unique: {name!r} is used twice")
        source = channel.get("DataSource", {}).get("S3DataSource")
        if source is None:
            raise InvalidChannel(f"Channel {name!r} has no S3DataSource; the local cloud serves no other source")
        for field, value, allowed in (
            ("S3DataType", source.get("S3DataType"), ("S3Prefix",)),
            ("InputMode", channel.get("InputMode") or "File", ("File", "FastFile")),
            ("CompressionType", channel.get("CompressionType") or "None", ("None",)),
            ("RecordWrapperType", channel.get("RecordWrapperType") or "None", ("None",)),
        ):
            if value not in allowed:
                raise InvalidChannel(
                    f"{field} {value!r} of channel {name!r} is not served by the local cloud, "
                    f"which serves {', '.join(allowed)}"
                )
        channels[name] = channel
    return channels


def check_objects(s3: Any, channel: Channel, role_arn: str, region: str) -> None:
    """Refuse a channel whose prefix holds nothing that the role can see, in SageMaker's words.

    Raises:
        InvalidChannel: nothing is there, or the role may not list it.
    """
    uri = _uri(channel)
    reason = ""
    try:
        if transfers.list_objects(s3, uri, limit=1):
            return
    except transfers.TransferFailed as error:
        reason = f" Error message from S3: {error}"
    bucket = uri.removeprefix("s3://").partition("/")[0]
    raise InvalidChannel(
        f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the bucket '
        f"exists in the selected region ({region}), that objects exist under that S3 prefix, and that the role "
        f'"{role_arn}" has "s3:ListBucket" permissions on bucket "{bucket}".{reason}'
    )


@dataclass(frozen=True)
class Download:
    """A channel on this machine."""

    folder: Path
    objects: Sequence[transfers.S3Object]
    paths: Sequence[PurePosixPath]
    """Inside `folder`, in S3's order."""


def download(s3: Any, channel: Channel, folder: Path, before: Download | None = None) -> Download:
    """Download a channel once, for all hosts.

    `before`, from an earlier attempt of the same job, is returned as it is if S3 still lists the same objects. AWS
    downloads them again; here it would only show how fast a laptop copies its own files.

    Raises:
        transfers.TransferFailed: naming the first object that could not be read.
    """
    uri = _uri(channel)
    objects = transfers.list_objects(s3, uri)
    if before is not None and before.objects == objects:
        return before
    shutil.rmtree(folder, ignore_errors=True)
    return Download(folder, objects, transfers.download_all(s3, objects, transfers.split_uri(uri)[1], folder))


def place(channel: Channel, download: Download, target: Path, host: int, hosts: int) -> None:
    """Give host number `host` of `hosts` its files: all of them, or every n-th under ShardedByS3Key."""
    source = channel["DataSource"]["S3DataSource"]
    sharded = source.get("S3DataDistributionType") == "ShardedByS3Key"
    target.mkdir(parents=True, exist_ok=True)
    for path in download.paths[host::hosts] if sharded else download.paths:
        copy = target / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(download.folder / path, copy)
        except OSError:
            shutil.copyfile(download.folder / path, copy)


def _uri(channel: Channel) -> str:
    return str(channel["DataSource"]["S3DataSource"]["S3Uri"])
