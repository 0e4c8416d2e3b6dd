"""What a check says, and what it looks at."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

if TYPE_CHECKING:
    from workflow.account import Account
    from workflow.config import Config


class Severity(StrEnum):
    """`error`: it will fail. `warning`: it may fail, or cost more than expected. `info`: worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Args:
        severity: How bad it is.
        what: What was found, in one sentence.
        where: The key of kelpie.toml, the state, or the resource of the template.
        why: What follows from it.
        fix: What to change, or the command to run; empty where there is nothing to do.
    """

    severity: Severity
    what: str
    where: str
    why: str
    fix: str = ""


@dataclass(frozen=True)
class Subject:
    """What is checked.

    Args:
        config: The settings.
        definition: The state machine, with `${Name}` in it.
        template: stack.yaml, parsed.
        parameters: The template's parameters as a deployment would give them; assets have made-up keys.
        account: Where it shall run; None asks nobody.
        today: The date that end dates are compared with.
    """

    config: Config
    definition: Mapping[str, Any]
    template: Mapping[str, Any]
    parameters: Mapping[str, str]
    account: Account | None
    today: datetime.date

    def tasks(self) -> dict[str, Mapping[str, Any]]:
        """The states that call AWS, by name."""
        return {name: state for name, state in self.definition["States"].items() if state["Type"] == "Task"}


_DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "NotAuthorized")

_LONGEST_SHOWN = 120

Check = Callable[[Subject], Iterator[Finding]]


def error(what: str, where: str, why: str, fix: str = "") -> Finding:
    return Finding(Severity.ERROR, what, where, why, fix)


def warning(what: str, where: str, why: str, fix: str = "") -> Finding:
    return Finding(Severity.WARNING, what, where, why, fix)


def info(what: str, where: str, why: str, fix: str = "") -> Finding:
    return Finding(Severity.INFO, what, where, why, fix)


def asking(check: Callable[[Subject, Account], Iterator[Finding]], about: str, action: str) -> Check:
    """A check that asks the account; without one, or when it cannot answer, it says so instead of pretending.

    Args:
        check: What to do with the account.
        about: What it finds out.
        action: The IAM action that it needs, for the advice when it is refused.
    """

    def asked(subject: Subject) -> Iterator[Finding]:
        if subject.account is None:
            yield info(f"not asked: {about}", action, "There is no account to ask.", "kelpie preflight --aws")
            return
        try:
            yield from check(subject, subject.account)
        except ClientError as failure:
            answer = failure.response.get("Error", {})
            code, message = str(answer.get("Code", "")), " ".join(str(answer.get("Message", "")).split())
            if code in _DENIED:
                yield info(f"not asked: {about}", action, f"The account refused: {message}", f"Allow {action}.")
            elif "<html" in message:
                yield info(f"not asked: {about}", action, f"This account has no such API (it answers {code}).")
            else:
                yield info(f"not asked: {about}", action, f"The account answered {code}: {message}")
        except (BotoCoreError, ResponseParserError) as failure:  # the latter: an answer in no format of AWS's
            said = " ".join(str(failure).split())[:_LONGEST_SHOWN]
            yield info(f"not asked: {about}", action, f"The account gave no answer that can be read: {said}")

    return asked
