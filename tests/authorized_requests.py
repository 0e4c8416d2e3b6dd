"""The committed record of every permission that the scenarios ask for, with logical names, and how it is made."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stack_policies import ACCOUNT_ID, REGION, Stack

from workflow.local.decisions import Request
from workflow.local.policies import Caller

GOLDEN = Path(__file__).parent / "contracts/golden/authorized_requests.json"
RECORDED = Path(__file__).parents[1] / "build/authorized_requests.json"

_HASH = re.compile(r"\bhash\b")
_STARTED_BY_A_RULE = re.compile(r"(:execution:[^:]+:)uuid_uuid$")
"""Which execution is swept depends on the moment, so an execution is an execution, whoever has named it."""

EVERY_REQUEST = {
    "aws:CurrentTime": "2026-11-22T12:00:00+00:00",
    "aws:EpochTime": "1795348800",
    "aws:PrincipalAccount": ACCOUNT_ID,
    "aws:PrincipalType": "AssumedRole",
    "aws:RequestedRegion": REGION,
    "aws:ResourceAccount": ACCOUNT_ID,
    "aws:SecureTransport": "true",
    "aws:SourceIp": "127.0.0.1",
    "aws:ViaAWSService": "false",
}
"""The condition keys that the record leaves out because every request of a role has them."""


@dataclass(frozen=True)
class Recorded:
    """One permission that was asked for. `principal`: logical name of a role, or a service."""

    principal: str
    action: str
    resource: str
    context: tuple[tuple[str, str | tuple[str, ...]], ...]
    states: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes it another permission."""
        return self.principal, self.action, self.resource, self.context

    def request(self) -> Request:
        """What the evaluator decides about."""
        return asked_by(self.principal, self.action, self.resource, dict(self.context))


def asked_by(principal: str, action: str, resource: str, context: Mapping[str, Any]) -> Request:
    """A request of a role of the stack, or of a service in its own name."""
    if "." in principal:
        return Request(Caller(principal), action, resource, context)
    role = f"arn:aws:iam::{ACCOUNT_ID}:role/{principal}"
    session = f"arn:aws:sts::{ACCOUNT_ID}:assumed-role/{principal}/session"
    owner = resource.split(":")[4] if resource.count(":") >= 5 else ""
    resource = _HASH.sub("0" * 32, resource)  # of the length that the policies count
    every = {**EVERY_REQUEST, "aws:PrincipalArn": role, "aws:ResourceAccount": owner or ACCOUNT_ID}
    return Request(Caller(session, role), action, resource, {**every, **context})


def load(path: Path = GOLDEN) -> list[Recorded]:
    """The record."""
    return [
        Recorded(
            one["principal"],
            one["action"],
            one["resource"],
            tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in one["context"].items()),
            tuple(one["states"]),
            tuple(one["scenarios"]),
        )
        for one in json.loads(path.read_text())["requests"]
    ]


def save(requests: Iterable[Recorded], path: Path = RECORDED) -> None:
    """Write a record, one request a line."""
    lines = [
        json.dumps(
            {
                "principal": one.principal,
                "action": one.action,
                "resource": one.resource,
                "context": dict(one.context),
                "states": one.states,
                "scenarios": one.scenarios,
            }
        )
        for one in sorted(requests, key=lambda one: str(one.key))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"requests": [\n' + ",\n".join(lines) + "\n]}\n")


def merged(
    by_scenario: Mapping[str, Iterable[Mapping[str, Any]]], stack: Stack, physical_ids: Mapping[str, str]
) -> list[Recorded]:
    """One record of what the local cloud recorded in each scenario, with logical names."""
    names = stack.logical_names(physical_ids)

    def logical(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return tuple(map(logical, value))
        text = str(value)
        for physical in sorted(names, key=len, reverse=True):
            text = text.replace(physical, names[physical])
        return _STARTED_BY_A_RULE.sub(r"\1uuid", text)

    states: dict[tuple[Any, ...], set[str]] = {}
    scenarios: dict[tuple[Any, ...], dict[str, None]] = {}
    for scenario, requests in by_scenario.items():
        for one in requests:
            principal = logical(one["principal"])
            key = (
                principal.rpartition("/")[2] if principal.startswith("arn:") else principal,
                one["action"],
                logical(one["resource"]),
                # No role of the stack is let in by a tag: only the policies of people ask for tags.
                tuple(
                    sorted(
                        (name, logical(value))
                        for name, value in one["context"].items()
                        if not name.startswith("aws:ResourceTag/")
                    )
                ),
            )
            states.setdefault(key, set()).update(one["states"])
            scenarios.setdefault(key, {})[scenario] = None
    return [
        Recorded(key[0], key[1], key[2], key[3], tuple(sorted(states[key])), tuple(scenarios[key])) for key in states
    ]
