"""Errors that a person reads.

Every error says what failed (headline), what was seen and what is allowed (detail), and what to do next (fix).
The command line prints these three and ends with `exit_code`; anything that is not a `KelpieError` is a defect.
"""

from __future__ import annotations

from typing import ClassVar


class KelpieError(Exception):
    """Something failed for a reason that can be named.

    Args:
        headline: One sentence: what failed.
        detail: The value seen, the values allowed, the place (file and key, or state and execution).
        fix: The next command to run, or the next thing to change.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, headline: str, detail: str = "", fix: str = "") -> None:
        self.headline = headline
        self.detail = detail
        self.fix = fix
        super().__init__("\n".join(part for part in (headline, detail, fix) if part))


class UsageError(KelpieError):
    """The command line was used wrongly, for example a file that does not exist or input that is not JSON."""

    exit_code: ClassVar[int] = 2


class ConfigError(KelpieError):
    """`kelpie.toml` or an execution input has an unknown key or a value that is not allowed."""

    exit_code: ClassVar[int] = 2


class ExecutionFailed(KelpieError):
    """An execution of the state machine ended, but not well."""


class NotRunning(KelpieError):
    """The local cloud was asked for something and is not running."""
