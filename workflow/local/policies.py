"""IAM policy documents: what their statements say about one request.

Pure: no moto, no HTTP. How identity and resource policies decide together is in decisions.py; who the principal is, in
identity.py; what a request asks for, in actions.py.

An explicit Deny wins, then any Allow, else an implicit deny. A statement that uses something that is not understood
raises `UnsupportedPolicy`, so that nothing is allowed by accident.
Source: IAM User Guide, "Policy evaluation logic" and "AWS JSON policy elements: Principal", Nov 2026.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any

from workflow.local import conditions
from workflow.local.conditions import Context, ContextValue, UnsupportedPolicy, as_list, matches

__all__ = [
    "Caller", "Context", "ContextValue", "Document", "Effect", "Grant", "UnsupportedPolicy",
    "evaluate", "grant", "matches", "parse", "trusts",
]  # fmt: skip

Document = Mapping[str, Any]


class Effect(Enum):
    """What identity policies decide about one action on one resource."""

    ALLOW = "allow"
    EXPLICIT_DENY = "explicit deny"
    IMPLICIT_DENY = "implicit deny"


class Grant(Enum):
    """What a resource's own policy (a bucket's, a key's, a topic's, a role's trust policy) says to a caller."""

    DENIES = "explicit deny"
    ALLOWS = "names the caller"
    DELEGATES = "names the caller's account, whose identity policies decide"
    NOTHING = "does not mention the caller"


@dataclass(frozen=True)
class Caller:
    """Who asks: the session of a role, or an AWS service in its own name."""

    arn: str
    """What messages call the user: "arn:aws:sts::...:assumed-role/training/SageMaker", "events.amazonaws.com"."""
    role_arn: str | None = None
    """None for a service."""

    @property
    def account_id(self) -> str:
        """The caller's account, "" for a service."""
        return self.role_arn.split(":")[4] if self.role_arn else ""


def parse(document: str | Document) -> Document:
    """A policy document as a mapping, whether it is stored as JSON text or already parsed; not to be changed."""
    return _parsed(document) if isinstance(document, str) else document


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Document:
    document: Document = json.loads(text)
    return document


def evaluate(documents: Iterable[str | Document], action: str, resource: str, context: Context) -> Effect:
    """Decide `action` ("s3:GetObject") on `resource` (an ARN or "*") by identity policies.

    Raises: UnsupportedPolicy for what is not understood.
    """
    effect = Effect.IMPLICIT_DENY
    for statement in _statements(documents):
        if not (_matches_action(statement, action) and _matches_resource(statement, resource, context)):
            continue
        if not conditions.hold(statement.get("Condition", {}), context):
            continue
        if statement["Effect"] == "Deny":
            return Effect.EXPLICIT_DENY
        effect = Effect.ALLOW
    return effect


def grant(document: str | Document, caller: Caller, action: str, resource: str, context: Context) -> Grant:
    """What a resource's own policy says to the caller about an action on the resource.

    A trust policy is the policy of a role about sts:AssumeRole; its statements name no resource.
    Raises: UnsupportedPolicy for what is not understood, NotPrincipal for one.
    """
    found = Grant.NOTHING
    for statement in _statements([document]):
        if not _matches_action(statement, action):
            continue
        if action != "sts:AssumeRole" and not _matches_resource(statement, resource, context):
            continue
        named = _named(statement, caller)
        if named is Grant.NOTHING or not conditions.hold(statement.get("Condition", {}), context):
            continue
        if statement["Effect"] == "Deny":
            return Grant.DENIES
        if found is not Grant.ALLOWS:
            found = named
    return found


def trusts(document: str | Document, principal_kind: str, principal: str, context: Context) -> bool:
    """Whether a role's trust policy lets a principal call sts:AssumeRole.

    `principal_kind` is "Service" ("states.amazonaws.com") or "AWS" (the ARN of a role).
    """
    caller = Caller(principal) if principal_kind == "Service" else Caller(principal, principal)
    return grant(document, caller, "sts:AssumeRole", "*", context) in (Grant.ALLOWS, Grant.DELEGATES)


def _statements(documents: Iterable[str | Document]) -> Iterable[Mapping[str, Any]]:
    for document in documents:
        for statement in as_list(parse(document).get("Statement", [])):
            if statement.get("Effect") not in ("Allow", "Deny"):
                raise UnsupportedPolicy(f"Effect {statement.get('Effect')!r}")
            yield statement


def _matches_action(statement: Mapping[str, Any], action: str) -> bool:
    def any_of(patterns: Any) -> bool:
        return any(matches(str(pattern).lower(), action.lower()) for pattern in as_list(patterns))

    if "NotAction" in statement:
        return not any_of(statement["NotAction"])
    return any_of(statement.get("Action", []))


def _matches_resource(statement: Mapping[str, Any], resource: str, context: Context) -> bool:
    def any_of(patterns: Any) -> bool:
        return any(matches(conditions.expand(str(pattern), context), resource) for pattern in as_list(patterns))

    if "NotResource" in statement:
        return not any_of(statement["NotResource"])
    return any_of(statement.get("Resource", []))


_ACCOUNT = re.compile(r"(?:arn:aws[a-z-]*:iam::)?(\d{12})(?::root)?")
_ROLE_OR_USER = re.compile(r"arn:aws[a-z-]*:(?:iam|sts)::\d{12}:(?:role|user|assumed-role|federated-user)/[^*?]+")


def _named(statement: Mapping[str, Any], caller: Caller) -> Grant:
    """Whether the statement's Principal is the caller (ALLOWS), the caller's account (DELEGATES), or neither."""
    element = statement.get("Principal")
    if element == "*":
        return Grant.ALLOWS
    if not isinstance(element, Mapping):
        raise UnsupportedPolicy("a statement without Principal" if element is None else f"Principal {element!r}")
    found = Grant.NOTHING
    for kind, values in element.items():
        if kind not in ("AWS", "Service"):
            raise UnsupportedPolicy(f"Principal of kind {kind!r}")
        for value in _texts(values):
            named = _is_service(value, caller) if kind == "Service" else _is_identity(value, caller)
            if named is Grant.ALLOWS:
                return named
            found = named if named is not Grant.NOTHING else found
    return found


def _texts(values: Any) -> Sequence[str]:
    return [str(value) for value in as_list(values)]


def _is_service(value: str, caller: Caller) -> Grant:
    if not re.fullmatch(r"[a-z0-9.-]+\.amazonaws\.com(\.cn)?", value):
        raise UnsupportedPolicy(f"service principal {value!r}")
    return Grant.ALLOWS if caller.role_arn is None and value == caller.arn else Grant.NOTHING


def _is_identity(value: str, caller: Caller) -> Grant:
    if value == "*":
        return Grant.ALLOWS
    if account := _ACCOUNT.fullmatch(value):
        return Grant.DELEGATES if account[1] == caller.account_id else Grant.NOTHING
    if not _ROLE_OR_USER.fullmatch(value):
        raise UnsupportedPolicy(f"principal {value!r}")
    return Grant.ALLOWS if caller.role_arn and value in (caller.role_arn, caller.arn) else Grant.NOTHING
