"""AWS's service models as botocore ships them, each read once: for the local cloud and the sessions of its clients."""

from __future__ import annotations

import gzip
import importlib
import json
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from botocore.loaders import JSONFileLoader, Loader, create_loader

_GZIP = zlib.MAX_WBITS + 16
"""Source: Python's documentation of zlib.decompress, Nov 2026."""


def load_file(_: JSONFileLoader, full_path: str, open_method: Callable[..., Any]) -> dict[str, Any] | None:
    """Do what botocore's `JSONFileLoader._load_file` does, in half the time.

    Without OrderedDict, as plain dictionaries keep their order too; and a compressed file is decompressed at once, not
    in pieces of eight kilobytes.
    """
    try:
        content = Path(full_path).read_bytes()
    except FileNotFoundError:
        return None
    return dict(json.loads(zlib.decompress(content, wbits=_GZIP) if open_method is gzip.open else content))


class _FileLoader(JSONFileLoader):
    _load_file = load_file


@cache
def service_models() -> Loader:
    """What reads the service models."""
    loader = create_loader()
    loader.file_loader = _FileLoader()
    return loader


def read_service_models(*services: str) -> None:
    """Import boto3 and read what the clients of these services need, before there are credentials to make them with."""
    importlib.import_module("boto3")
    loader = service_models()
    for name in ("endpoints", "partitions", "sdk-default-configuration", "_retry"):
        loader.load_data(name)
    for service in services:
        for kind in ("service-2", "endpoint-rule-set-1"):
            loader.load_service_model(service, kind)
