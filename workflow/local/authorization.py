"""The door of the server: every HTTP request is authenticated and authorised here before moto sees it.

The root key may do everything. A role session may do what its identity policies allow, request by request: each
need of `actions.needs`, the roles it passes included. The policy of the bucket, key, topic, queue, function or role
that is asked about decides with them (decisions.py). What nobody mapped is denied. The root key, too, is bound by what
a bucket's policy denies. Every decision is noted in `Identity.record`.
Who asks is who signed the request (signatures.py); what is asked is read in operations.py.

Loopback stands for TLS, so every request counts as encrypted on its way; one with the header `X-Forwarded-Proto: http`
says that it was not, as a load balancer in front of a service says it, and is treated accordingly.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from moto.core.responses import BaseResponse
from moto.moto_server import werkzeug_app
from moto.sts.models import STSBackend

from workflow.local import identity as identities
from workflow.local import operations, policies, refusals, resource_policies, signatures
from workflow.local.actions import Account, Need, Unmapped, needs
from workflow.local.decisions import Policies, Request, decide
from workflow.local.faults import STATE_HEADER, Faults
from workflow.local.identity import Identity, Principal
from workflow.local.refusals import Refusal
from workflow.local.s3_needs import object_needs

if TYPE_CHECKING:
    from workflow.local.engine import Engine

HOOKS: tuple[str, ...] = (
    "moto.core.responses.BaseResponse._get_action",
    "moto.moto_server.werkzeug_app.DomainDispatcherApplication.__call__",
    "moto.moto_server.werkzeug_app.DomainDispatcherApplication.infer_service_region_host",
    "moto.sts.models.STSBackend.get_caller_identity",
)

WsgiApp = Callable[[Any, dict[str, Any], Any], Iterable[bytes]]
# A custom resource answers here without a signature, as it does to a pre-signed URL on AWS.
_CUSTOM_RESOURCE_ANSWER = re.compile(r"/cloudformation_[^/]+/cfnresponse")
# moto's own control pages, which could reset the account or list what is in it.
_STATE_KEY = f"HTTP_{STATE_HEADER.upper().replace('-', '_')}"
_PLAIN_KEY = "HTTP_X_FORWARDED_PROTO"
_HOLD_KEY = "kelpie.hold_seconds"
_CONTROL_PATHS = ("/moto-api", "/latest/meta-data", "/latest/api", "/favicon.ico")


def replace(owner: Any, name: str, value: object) -> None:
    """Put our own thing where moto keeps its; the places are listed in the HOOKS of the module that does it."""
    setattr(owner, name, value)


class AccessDenied(Exception):
    """The principal may not do it; the text is AWS's."""


def authorize(
    identity: Identity,
    principal: Principal,
    action: str,
    resource: str,
    context: policies.Context,
    *,
    state: str = "",
) -> None:
    """Return if all policies together allow it; `state` is the state of the state machine that asks.

    Raises: AccessDenied.
    """
    if principal.kind == "root" or principal.role_arn is None:
        return
    caller = policies.Caller(principal.arn, principal.role_arn)
    documents = tuple(identities.policy_documents(principal.role_arn))
    _decide(
        identity, caller, action, resource, context, documents, identities.boundary_document(principal.role_arn), state
    )


def authorize_service(
    identity: Identity, service: str, action: str, resource: str, *, source_arn: str | None = None
) -> None:
    """Return if the resource's own policy lets an AWS service do it in its own name, not in that of a role.

    `service` is such as "events.amazonaws.com", `source_arn` the rule, alarm or topic on whose behalf it acts.
    Raises: AccessDenied.
    """
    context = {"aws:SourceAccount": identity.account_id, "aws:SecureTransport": "true"}
    _decide(identity, policies.Caller(service), action, resource, context | _source(source_arn), (), None, "")


def _source(source_arn: str | None) -> dict[str, str]:
    return {"aws:SourceArn": source_arn} if source_arn else {}


def _decide(
    identity: Identity,
    caller: policies.Caller,
    action: str,
    resource: str,
    context: policies.Context,
    documents: tuple[str | policies.Document, ...],
    boundary: str | policies.Document | None,
    state: str,
) -> None:
    account = Account(identity.account_id, identity.region, identity.partition)
    owner = resource.split(":")[4] if resource.count(":") >= 5 else ""
    of_resource = {"aws:ResourceAccount": owner or identity.account_id, **resource_policies.tags_of(resource, account)}
    request = Request(caller, action, resource, {**context, **of_resource})
    known = Policies(documents, boundary, resource_policies.policy_of(action, resource, account))
    decision = decide(request, known)
    identity.record.add(request, decision.allowed, state)
    if not decision.allowed:
        raise AccessDenied(
            f"User: {caller.arn} is not authorized to perform: {action} on resource: {resource} {decision.why}"
        )


def install(engine: Engine) -> None:
    """Put the door in front of every application that moto's server makes."""
    door = Door(engine.identity, engine.faults)
    original: WsgiApp = _ORIGINAL_CALL

    def call(app: Any, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        try:
            door.check(environ)
        except Refusal as refusal:
            status, headers, body = refusals.answer(refusal, environ)
            _drain(environ)
            start_response(status, headers)
            return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]
        content = original(app, environ, start_response)
        if _HOLD_KEY not in environ:
            return content
        held = list(content)
        time.sleep(environ[_HOLD_KEY])
        return held

    replace(werkzeug_app.DomainDispatcherApplication, "__call__", call)
    replace(werkzeug_app.DomainDispatcherApplication, "infer_service_region_host", operations.infer_service_region_host)
    replace(BaseResponse, "_get_action", operations.get_action)
    replace(STSBackend, "get_caller_identity", _caller_identity(engine.identity))


def _caller_identity(identity: Identity) -> Callable[[Any, str, str], tuple[str, str, str]]:
    """GetCallerIdentity that knows the root key."""

    def get_caller_identity(self: Any, access_key_id: str, region: str) -> tuple[str, str, str]:
        principal = identity.principal(access_key_id)
        if principal is not None and principal.kind == "root":
            return identity.account_id, principal.arn, identity.account_id
        user_id, arn, account_id = _ORIGINAL_CALLER_IDENTITY(self, access_key_id, region)
        return user_id, arn, account_id

    return get_caller_identity


_ORIGINAL_CALLER_IDENTITY = STSBackend.get_caller_identity
_ORIGINAL_CALL: WsgiApp = werkzeug_app.DomainDispatcherApplication.__call__


class Door:
    """Decides about one request at a time; safe to use from any thread."""

    def __init__(self, identity: Identity, faults: Faults | None = None) -> None:
        self._identity = identity
        self._faults = faults or Faults()

    def check(self, environ: dict[str, Any]) -> None:
        """Return if the request may go on. Raises: Refusal."""
        path = environ.get("PATH_INFO", "")
        try:
            signature = signatures.read(environ)
        except signatures.Malformed as error:
            raise refusals.malformed(self._service(environ), str(error)) from None
        if signature is None:
            if _CUSTOM_RESOURCE_ANSWER.fullmatch(path):
                return
            raise refusals.unsigned(self._service(environ))
        service = operations.service_of(signature.service, environ)
        principal = self._authenticate(signature, service, environ)
        environ[operations.SERVICE_KEY] = service
        if principal.kind == "root":
            if service == "s3" and not path.startswith(_CONTROL_PATHS):
                self._check_root(principal, service, signature.region or self._identity.region, environ)
            return
        if path.startswith(_CONTROL_PATHS):
            raise refusals.denied(service, f"User: {principal.arn} is not authorized to use {path}")
        operations.check_target(service, environ, self._identity.endpoint_url)
        region = signature.region or self._identity.region
        operation = self._check_role(principal, service, region, environ)
        caller, state = principal.arn.rpartition("/")[2], environ.get(_STATE_KEY, "")
        fault = self._faults.take_api_error(service, operation, caller, state)
        if fault is not None:
            raise refusals.api_error(service, fault.code, fault.message)
        hang = self._faults.take_api_hang(service, operation, caller, state)
        if hang is not None:
            environ[_HOLD_KEY] = hang.seconds
        environ[operations.OPERATION_KEY] = operation

    @staticmethod
    def _service(environ: dict[str, Any]) -> str:
        """The service in whose words a request without a readable signature is refused."""
        scope = re.search(r"/([a-z0-9-]+)/aws4_request", environ.get("HTTP_AUTHORIZATION", ""))
        if scope is not None:
            return operations.service_of(scope[1], environ)
        return "" if environ.get("HTTP_X_AMZ_TARGET") else "s3"

    def _authenticate(self, signature: signatures.Signature, service: str, environ: dict[str, Any]) -> Principal:
        """Who signed. Raises: Refusal."""
        principal = self._identity.principal(signature.access_key_id)
        shown, issued = signature.token or "", (principal.session_token if principal else None) or ""
        if principal is None or not secrets.compare_digest(shown.encode(), issued.encode()):
            raise refusals.unknown_key(service)
        if signature.service != "s3" and "HTTP_AUTHORIZATION" not in environ:
            raise refusals.malformed(service, "only requests to S3 may be signed in the URL")
        try:
            signatures.verify(signature, principal.secret_access_key, environ)
        except signatures.Malformed as error:
            raise refusals.malformed(service, str(error)) from None
        except signatures.Mismatch as error:
            raise refusals.mismatch(service, str(error)) from None
        return principal

    def _check_role(self, principal: Principal, service: str, region: str, environ: dict[str, Any]) -> str:
        """The operation, which this role may do. Raises: Refusal."""
        try:
            operation, required = self._needs(service, region, environ)
        except Unmapped as error:
            raise refusals.denied(
                service,
                f"User: {principal.arn} is not authorized to perform: {error} because the local cloud has no entry "
                "for this operation (workflow/local/action_tables.py)",
            ) from None
        base = self._context(principal, region, environ)
        state = unquote(environ.get(_STATE_KEY, ""))
        for need in required:
            try:
                context = {**base, **need.context}
                authorize(self._identity, principal, need.action, need.resource, context, state=state)
            except AccessDenied as error:
                raise refusals.denied(service, str(error)) from None
        return operation

    def _needs(self, service: str, region: str, environ: dict[str, Any]) -> tuple[str, list[Need]]:
        """The operation and all that it needs. Raises: Unmapped, Refusal."""
        account = Account(self._identity.account_id, region, self._identity.partition)
        operation, parameters = operations.parse(service, environ)
        required = needs(service, operation, parameters, account)
        if service == "s3":
            required += object_needs(operation, parameters, account)
        return operation, required + resource_policies.sending_needs(service, operation, parameters, account)

    def _context(self, principal: Principal, region: str, environ: dict[str, Any]) -> dict[str, str]:
        """The condition keys that every request has."""
        now = datetime.now(UTC)
        return {
            "aws:CurrentTime": now.isoformat(timespec="seconds"),
            "aws:EpochTime": str(int(now.timestamp())),
            "aws:PrincipalAccount": self._identity.account_id,
            "aws:PrincipalArn": principal.role_arn or principal.arn,
            "aws:PrincipalType": "AssumedRole" if principal.role_arn else "Account",
            "aws:RequestedRegion": region,
            "aws:SecureTransport": "false" if environ.get(_PLAIN_KEY) == "http" else "true",
            "aws:SourceIp": str(environ.get("REMOTE_ADDR") or "127.0.0.1"),
            "aws:ViaAWSService": "false",
        }

    def _check_root(self, principal: Principal, service: str, region: str, environ: dict[str, Any]) -> None:
        """Not even the account's root may do what a bucket's policy denies, other than change the policy itself.

        Source: S3 User Guide, "Policies and permissions" (the root may always delete a bucket policy), Nov 2026.
        Raises: Refusal.
        """
        try:
            operation, required = self._needs(service, region, environ)
        except (Unmapped, Refusal):
            return  # nothing else binds the root, and a policy of ours denies nothing that has no entry
        if operation.endswith("BucketPolicy"):
            return
        account = Account(self._identity.account_id, region, self._identity.partition)
        context = self._context(principal, region, environ)
        caller = policies.Caller(principal.arn, principal.arn)
        for need in required:
            own = resource_policies.policy_of(need.action, need.resource, account) if need.action[:3] == "s3:" else None
            request = Request(caller, need.action, need.resource, {**context, **need.context})
            decision = decide(request, Policies((_ANYTHING,), None, own))
            if not decision.allowed:
                raise refusals.denied(
                    service,
                    f"User: {principal.arn} is not authorized to perform: {need.action} on resource: {need.resource} "
                    f"{decision.why}",
                )


_ANYTHING = {"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}


def _drain(environ: dict[str, Any]) -> None:
    """Read what the client still sends, or it sees a reset connection instead of the refusal."""
    left = int(environ.get("CONTENT_LENGTH") or 0)
    while left > 0 and (chunk := environ["wsgi.input"].read(min(left, 1 << 20))):
        left -= len(chunk)
