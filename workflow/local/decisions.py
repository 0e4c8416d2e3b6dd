"""The decision about one request: identity policies, permissions boundary and the resource's own policy together.

Pure. In one account an identity policy or the resource's policy is enough; a key's policy and a role's trust policy
must agree in any case (by naming the caller, or the account, whose identity policies then decide); between accounts
both sides must allow; an explicit deny anywhere ends it.
Source: IAM User Guide, "Policy evaluation for requests within a single account" and "Cross-account policy evaluation
logic"; KMS Developer Guide, "Key policies", Nov 2026.
"""

from __future__ import annotations

from dataclasses import dataclass

from workflow.local import policies
from workflow.local.policies import Caller, Context, Document, Effect, Grant


@dataclass(frozen=True)
class Request:
    """One permission that is asked for."""

    caller: Caller
    action: str
    """Such as "s3:GetObject"."""
    resource: str
    """An ARN, or "*"."""
    context: Context
    """Condition keys; `aws:ResourceAccount` says whose the resource is."""


@dataclass(frozen=True)
class Policies:
    """All policies that have a say in a request; documents as JSON text or parsed."""

    identity: tuple[str | Document, ...] = ()
    boundary: str | Document | None = None
    resource: str | Document | None = None


@dataclass(frozen=True)
class Decision:
    """Whether it is allowed and, if not, why: the end of AWS's message, from "because" or "with" on."""

    allowed: bool
    why: str = ""


def decide(request: Request, known: Policies) -> Decision:
    """Decide; what cannot be evaluated is denied, and the reason says what it was."""
    try:
        return _decide(request, known)
    except policies.UnsupportedPolicy as error:
        return Decision(False, f"because its policies use what the local cloud cannot evaluate: {error}")


def _decide(request: Request, known: Policies) -> Decision:
    caller, asked = request.caller, (request.action, request.resource, request.context)
    identity = policies.evaluate(known.identity, *asked)
    bounded = policies.evaluate([known.boundary], *asked) if known.boundary is not None else Effect.ALLOW
    own = policies.grant(known.resource, caller, *asked) if known.resource is not None else Grant.NOTHING
    if Effect.EXPLICIT_DENY in (identity, bounded):
        return Decision(False, "with an explicit deny in an identity-based policy")
    if own is Grant.DENIES:
        return Decision(False, "with an explicit deny in a resource-based policy")
    agrees = own in (Grant.ALLOWS, Grant.DELEGATES)
    must_agree = request.action.startswith(("kms:", "sts:AssumeRole")) and known.resource is not None
    if must_agree and not agrees:
        return Decision(False, f"because no resource-based policy allows the {request.action} action")
    if caller.role_arn is None:
        allowed = own is Grant.ALLOWS
        return Decision(allowed, "" if allowed else _no("resource", request.action))
    allows = identity is Effect.ALLOW
    if caller.account_id != request.context.get("aws:ResourceAccount", caller.account_id):
        if not (allows and agrees):
            return Decision(False, _no("identity" if agrees else "resource", request.action))
    elif not allows and own is not Grant.ALLOWS:
        return Decision(False, _no("identity", request.action))
    if bounded is not Effect.ALLOW:
        return Decision(False, f"because no permissions boundary allows the {request.action} action")
    return Decision(True)


def _no(kind: str, action: str) -> str:
    return f"because no {kind}-based policy allows the {action} action"
