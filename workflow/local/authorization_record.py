"""Which permissions were asked for, and whether they were given: each one once, for tests and for the docs.

What differs from execution to execution (hashes, counters, file names) is replaced, so that the record stays small and
two runs give the same one.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import Any

from workflow.local.decisions import Request

MAX_ENTRIES = 5000
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_HASH = re.compile(r"(?<![0-9a-f])[0-9a-f]{10,64}(?![0-9a-f])")
_NUMBER = re.compile(r"\d+")
_FREE_NAMES = ("s3", "sagemaker", "states", "logs", "cloudwatch", "sqs", "events")
"""Services whose resources executions name; names of roles, keys, tables and functions come from the stack."""
_KEPT_FOLDERS = 2


def general(text: str) -> str:
    """A name without what belongs to one execution: `kelpie-3f2a...-1` becomes `kelpie-hash-0`."""
    return _NUMBER.sub("0", _HASH.sub("hash", _UUID.sub("uuid", text)))


def general_resource(arn: str) -> str:
    """The ARN of any resource of the same kind; an object's file below two folders is only its suffix."""
    if arn.count(":") < 5:
        return arn
    *parts, tail = arn.split(":", 5)
    head, service = ":".join(parts), parts[2]
    if service not in _FREE_NAMES:
        return arn
    if service != "s3":
        return f"{head}:{general(tail)}"
    bucket, slash, key = tail.partition("/")
    folders = key.split("/")
    if len(folders) > _KEPT_FOLDERS + 1:
        name = folders[-1]
        folders = [*folders[:_KEPT_FOLDERS], "any", name if "." not in name else "file" + name[name.index(".") :]]
    return f"{head}:{bucket}{slash}{general('/'.join(folders))}"


def _general_value(key: str, value: str | Sequence[str]) -> str | tuple[str, ...]:
    if not isinstance(value, str):
        return tuple(sorted(value))
    return general(value) if key == "s3:prefix" or key.startswith("aws:RequestTag/") else value


class AuthorizationRecord:
    """The permissions asked for so far; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[tuple[Any, ...], set[str]] = {}
        self.dropped = 0
        """How many new ones were not kept because there were `MAX_ENTRIES` already."""

    def add(self, request: Request, allowed: bool, asked_by: str = "") -> None:
        """Note a request; `asked_by` is the state of the state machine that made it."""
        context = tuple(
            sorted(
                (key, _general_value(key, value))
                for key, value in request.context.items()
                if key not in EVERY_REQUEST or (key, value) == ("aws:SecureTransport", "false")
            )
        )
        caller = request.caller
        entry = (caller.role_arn or caller.arn, request.action, general_resource(request.resource), context, allowed)
        with self._lock:
            if entry not in self._seen and len(self._seen) >= MAX_ENTRIES:
                self.dropped += 1
                return
            self._seen.setdefault(entry, set()).add(asked_by)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._seen.clear()
            self.dropped = 0

    def describe(self) -> dict[str, Any]:
        """`requests`, sorted, and `dropped`."""
        with self._lock:
            seen = [(*entry, sorted(states)) for entry, states in self._seen.items()]
        names = ("principal", "action", "resource", "context", "allowed", "states")
        found = [dict(zip(names, entry, strict=True)) for entry in sorted(seen, key=str)]
        for one in found:
            one["context"] = {key: value if isinstance(value, str) else list(value) for key, value in one["context"]}
            one["states"] = [state for state in one["states"] if state]
        return {"requests": found, "dropped": self.dropped}


EVERY_REQUEST = frozenset(
    {
        "aws:CurrentTime", "aws:EpochTime", "aws:PrincipalAccount", "aws:PrincipalArn", "aws:PrincipalType",
        "aws:RequestedRegion", "aws:ResourceAccount", "aws:SecureTransport", "aws:SourceIp", "aws:ViaAWSService",
    }
)  # fmt: skip
"""Condition keys that every request has."""
