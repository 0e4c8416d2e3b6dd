"""Faults that somebody asked the local cloud to produce, and that the engines take up when their moment comes.

Only the request is kept here; what a fault does belongs to the engine that takes it (a spot interruption is
carried out by `training_jobs`, an API error by the door in `authorization`).
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from workflow.local.action_tables import SERVICES

STATE_MACHINE = "states"
"""Name of the sessions in which state machines act; a function's session has the function's name."""
_MAX_COUNT = 10_000


@dataclass
class SpotInterruption:
    """One reclaim of the spot instances of a managed-spot training job.

    after_checkpoints: it happens once this many checkpoint files of the running attempt are in S3.
    notice_seconds: real seconds between SIGTERM and SIGKILL.
    """

    after_checkpoints: int = 1
    notice_seconds: float = 2.0


@dataclass
class ApiError:
    """An error that an operation answers instead of being executed.

    service, operation: as botocore calls them.
    caller: name of the role session that gets the error.
    left: how often it still happens.
    """

    service: str
    operation: str
    code: str
    message: str
    caller: str
    left: int


@dataclass
class Faults:
    """The faults still to come. Safe to use from any thread."""

    _spot_interruptions: list[SpotInterruption] = field(default_factory=list)
    _api_errors: list[ApiError] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def interrupt_spot(self, after_checkpoints: int = 1, count: int = 1, notice_seconds: float = 2.0) -> None:
        """Ask for `count` interruptions of the managed-spot job that runs now, or of the next one.

        Raises:
            ValueError: a negative or senseless number.
        """
        if after_checkpoints < 0 or count < 1 or not 0 <= notice_seconds <= 120:
            raise ValueError(
                f"Invalid spot interruption (after_checkpoints={after_checkpoints}, count={count}, "
                f"notice_seconds={notice_seconds}), expected after_checkpoints >= 0, count >= 1 and "
                "notice_seconds between 0 and 120"
            )
        with self._lock:
            self._spot_interruptions += [SpotInterruption(after_checkpoints, notice_seconds) for _ in range(count)]

    def take_spot_interruption(self, checkpoints: int) -> SpotInterruption | None:
        """The next interruption if its moment has come, given the checkpoints of this attempt; else None."""
        with self._lock:
            if self._spot_interruptions and self._spot_interruptions[0].after_checkpoints <= checkpoints:
                return self._spot_interruptions.pop(0)
            return None

    def fail_api(
        self, operation: str, code: str, message: str = "", count: int = 1, caller: str = STATE_MACHINE
    ) -> None:
        """Let the next `count` requests of a caller for an operation such as "sagemaker:CreateModel" fail.

        Raises:
            ValueError: an operation that the local cloud does not know, or senseless values.
        """
        service, name = find_operation(operation)
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9.]*", code) or not 1 <= count <= _MAX_COUNT or not caller:
            raise ValueError(
                f"Invalid API error (code={code!r}, count={count}, caller={caller!r}), expected a code such as "
                f"ThrottlingException, a count between 1 and {_MAX_COUNT}, and the name of a role session"
            )
        with self._lock:
            self._api_errors.append(ApiError(service, name, code, message or "Injected fault", caller, count))

    def take_api_error(self, service: str, operation: str, caller: str) -> ApiError | None:
        """The error that this request of this caller shall get, if any."""
        with self._lock:
            for error in self._api_errors:
                if (error.service, error.operation, error.caller) == (service, operation, caller):
                    error.left -= 1
                    if error.left == 0:
                        self._api_errors.remove(error)
                    return error
            return None

    def pending(self) -> dict[str, Any]:
        """What is still to come, for the control endpoint."""
        with self._lock:
            return {
                "spot_interruptions": len(self._spot_interruptions),
                "api_errors": [vars(error) for error in self._api_errors],
            }


def find_operation(text: str) -> tuple[str, str]:
    """Service and operation of "sagemaker:CreateModel"; the service by IAM's prefix or botocore's name.

    Raises:
        ValueError: if the local cloud has no such operation.
    """
    prefix, _, name = text.partition(":")
    named = {s: entry for s, entry in SERVICES.items() if prefix in (s, entry.prefix)}
    for service, entry in named.items():
        if name in entry.operations:
            return service, name
    if not named:
        raise ValueError(f"Invalid operation {text!r}, expected SERVICE:OPERATION with one of {', '.join(SERVICES)}")
    known = [operation for entry in named.values() for operation in entry.operations]
    close = get_close_matches(name, known, n=3) or sorted(known)
    raise ValueError(f"Invalid operation {text!r}, expected one of {', '.join(f'{prefix}:{one}' for one in close)}")


def install(engine: Any) -> Faults:
    """Give the engine its `faults` if it has none, and return them."""
    if getattr(engine, "faults", None) is None:
        engine.faults = Faults()
    faults: Faults = engine.faults
    return faults
