"""The door of the server: every HTTP request is authenticated and authorised here before moto sees it.

The root key may do everything. A role session may do what its identity policies allow, request by request: each
need of `actions.needs`, the roles it passes included. What nobody mapped is denied. Resource policies (bucket, key,
topic policies) are not evaluated: in one account an identity policy that allows is enough, and theirs only add.
Signatures are not recomputed; a role session must show its session token.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import secrets
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from moto.core.model import OperationModel
from moto.core.parse import PROTOCOL_PARSERS, RequestParserError
from moto.core.request import Request, determine_request_protocol
from moto.core.routing import get_service_router
from moto.core.utils import get_service_model
from moto.moto_server import werkzeug_app
from moto.sts.models import STSBackend
from werkzeug.exceptions import NotFound

from workflow.local import identity as identities
from workflow.local import policies
from workflow.local.action_tables import SERVICES
from workflow.local.actions import Account, Need, Unmapped, needs
from workflow.local.identity import Identity, Principal
from workflow.local.s3_needs import object_needs

if TYPE_CHECKING:
    from workflow.local.engine import Engine

HOOKS: tuple[str, ...] = (
    "moto.moto_server.werkzeug_app.DomainDispatcherApplication.__call__",
    "moto.core.parse.PROTOCOL_PARSERS",
    "moto.core.request.determine_request_protocol",
    "moto.core.routing.get_service_router",
    "moto.core.utils.get_service_model",
    "moto.sts.models.STSBackend.get_caller_identity",
)

WsgiApp = Callable[[Any, dict[str, Any], Any], Iterable[bytes]]
_STATUS = {400: "400 Bad Request", 403: "403 Forbidden"}
_SERVICE_OF_SIGNING_NAME = {"monitoring": "cloudwatch", "states": "stepfunctions", "eventbridge": "events"}
_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)/\d+/([^/]+)/([^/]+)/aws4_request")
# A custom resource answers here without a signature, as it does to a pre-signed URL on AWS.
_CUSTOM_RESOURCE_ANSWER = re.compile(r"/cloudformation_[^/]+/cfnresponse")
# moto's own control pages, which could reset the account or list what is in it.
_CONTROL_PATHS = ("/moto-api", "/latest/meta-data", "/latest/api")


def replace(owner: Any, name: str, value: object) -> None:
    """Put our own thing where moto keeps its; the places are listed in the HOOKS of the module that does it."""
    setattr(owner, name, value)


class AccessDenied(Exception):
    """The principal may not do it; the text is AWS's."""


@dataclass(frozen=True)
class Refusal(Exception):
    """An answer other than the service's own; `service` decides its protocol."""

    service: str
    code: str
    message: str
    status: int = 403


def authorize(principal: Principal, action: str, resource: str, context: policies.Context) -> None:
    """Raises: AccessDenied unless the principal's policies allow the action on the resource."""
    if principal.kind == "root" or principal.role_arn is None:
        return
    user = f"User: {principal.arn} is not authorized to perform: {action} on resource: {resource}"
    try:
        effect = policies.evaluate(identities.policy_documents(principal.role_arn), action, resource, context)
        boundary = identities.boundary_document(principal.role_arn)
        bounded = policies.evaluate([boundary], action, resource, context) if boundary else policies.Effect.ALLOW
    except policies.UnsupportedPolicy as error:
        raise AccessDenied(f"{user} because its policies use what the local cloud cannot evaluate: {error}") from None
    if policies.Effect.EXPLICIT_DENY in (effect, bounded):
        raise AccessDenied(f"{user} with an explicit deny in an identity-based policy")
    if effect is not policies.Effect.ALLOW:
        raise AccessDenied(f"{user} because no identity-based policy allows the {action} action")
    if bounded is not policies.Effect.ALLOW:
        raise AccessDenied(f"{user} because no permissions boundary allows the {action} action")


def install(engine: Engine) -> None:
    """Put the door in front of every application that moto's server makes."""
    door = Door(engine.identity)
    original: WsgiApp = _ORIGINAL_CALL

    def call(app: Any, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        try:
            door.check(environ)
        except Refusal as refusal:
            status, headers, body = _answer(refusal, environ)
            _drain(environ)
            start_response(status, headers)
            return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]
        return original(app, environ, start_response)

    replace(werkzeug_app.DomainDispatcherApplication, "__call__", call)
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

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def check(self, environ: dict[str, Any]) -> None:
        """Return if the request may go on. Raises: Refusal."""
        path = environ.get("PATH_INFO", "")
        access_key_id, region, service, token = self._credentials(environ)
        principal = self._identity.principal(access_key_id) if access_key_id else None
        if principal is None:
            if not access_key_id and _CUSTOM_RESOURCE_ANSWER.fullmatch(path):
                return
            raise _unknown_key(service, bool(access_key_id))
        if principal.kind == "root":
            return
        if not secrets.compare_digest((token or "").encode(), (principal.session_token or "").encode()):
            raise _unknown_key(service, True)
        if path.startswith(_CONTROL_PATHS):
            raise _denied(service, f"User: {principal.arn} is not authorized to use {path}")
        self._check_role(principal, service, region, environ)

    def _check_role(self, principal: Principal, service: str, region: str, environ: dict[str, Any]) -> None:
        account = Account(self._identity.account_id, region, self._identity.partition)
        try:
            operation, parameters = _parse(service, environ)
            required = needs(service, operation, parameters, account)
        except Unmapped as error:
            raise _denied(
                service,
                f"User: {principal.arn} is not authorized to perform: {error} because the local cloud has no entry "
                "for this operation (workflow/local/action_tables.py)",
            ) from None
        if service == "s3":
            required += object_needs(operation, parameters, account)
        base = {
            "aws:SecureTransport": "true",  # loopback stands for TLS: policies that demand it must not block all
            "aws:PrincipalArn": str(principal.role_arn),
            "aws:PrincipalAccount": account.account_id,
            "aws:ResourceAccount": account.account_id,
            "aws:RequestedRegion": region,
            "aws:ViaAWSService": "false",
        }
        for need in required:
            try:
                authorize(principal, need.action, need.resource, {**base, **need.context})
                self._check_assume_role(principal, need)
            except AccessDenied as error:
                raise _denied(service, str(error)) from None

    @staticmethod
    def _check_assume_role(principal: Principal, need: Need) -> None:
        """The other half of sts:AssumeRole: the role must trust who wants to assume it."""
        if need.action != "sts:AssumeRole":
            return
        role = identities.find_role(need.resource)
        trusted = role is not None and policies.trusts(
            role.assume_role_policy_document, "AWS", str(principal.role_arn), need.context
        )
        if not trusted:
            raise AccessDenied(
                f"User: {principal.arn} is not authorized to perform: sts:AssumeRole on resource: {need.resource}"
            )

    def _credentials(self, environ: dict[str, Any]) -> tuple[str, str, str, str | None]:
        """Access key, region, service (botocore's name) and session token, from header or pre-signed URL."""
        query = {name.lower(): values[0] for name, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
        header = environ.get("HTTP_AUTHORIZATION", "")
        token = environ.get("HTTP_X_AMZ_SECURITY_TOKEN") or query.get("x-amz-security-token")
        match = _CREDENTIAL.search(header or f"Credential={query.get('x-amz-credential', '')}")
        if match is None:  # not signed, or a URL that was pre-signed with version 2, as S3's clients still do
            service = "" if environ.get("HTTP_X_AMZ_TARGET") else "s3"
            return query.get("awsaccesskeyid", "") if service else "", self._identity.region, service, token
        service = _SERVICE_OF_SIGNING_NAME.get(match[3].lower(), match[3].lower())
        if service == "sagemaker" and "/invocations" in environ.get("PATH_INFO", ""):
            service = "sagemaker-runtime"
        return match[1], match[2], service, token


def _parse(service: str, environ: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The operation and its parameters by botocore's model, from a copy of the request. Raises: Unmapped."""
    if service not in SERVICES:
        raise Unmapped(service)
    model = get_service_model(service)
    body = _body(service, environ)
    request = Request({**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))})
    try:
        protocol = determine_request_protocol(model, request.content_type)
        if protocol in ("json", "query") and environ.get("QUERY_STRING"):
            raise Unmapped(f"{service} with a query string")  # moto would read the operation from it
        operation, labels = get_service_router(service).match(request)
        parameters = _parameters(operation, protocol, request, labels)
    except (NotFound, NotImplementedError):
        raise Unmapped(f"{SERVICES[service].prefix}:{environ['REQUEST_METHOD']} {environ['PATH_INFO']}") from None
    except (ValueError, TypeError, LookupError, AttributeError, RequestParserError) as error:
        raise Refusal(service, "SerializationException", f"The request cannot be read: {error}", 400) from None
    return str(operation.name), parameters


def _parameters(operation: OperationModel, protocol: str, request: Request, labels: dict[str, Any]) -> dict[str, Any]:
    parsed: dict[str, Any] = PROTOCOL_PARSERS[protocol](operation).parse(
        {
            "method": request.method,
            "values": request.values,
            "headers": request.headers,
            "body": request.data,
            "url_path": request.path,
            "url_params": labels,
        }
    )
    return {name: value for name, value in parsed.items() if value is not None}


def _body(service: str, environ: dict[str, Any]) -> bytes:
    """The request's body, put back for moto. S3's stays unread, but for the list of keys to delete."""
    if service == "s3" and "delete" not in parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True):
        return b""
    stream = environ["wsgi.input"]
    length = environ.get("CONTENT_LENGTH")
    body: bytes = stream.read(int(length)) if length else stream.read() if environ.get("wsgi.input_terminated") else b""
    environ["wsgi.input"] = io.BytesIO(body)
    return gzip.decompress(body) if environ.get("HTTP_CONTENT_ENCODING") == "gzip" else body


def _drain(environ: dict[str, Any]) -> None:
    """Read what the client still sends, or it sees a reset connection instead of the refusal."""
    left = int(environ.get("CONTENT_LENGTH") or 0)
    while left > 0 and (chunk := environ["wsgi.input"].read(min(left, 1 << 20))):
        left -= len(chunk)


def _denied(service: str, message: str) -> Refusal:
    codes = {"s3": "AccessDenied", "sns": "AuthorizationError", "cloudwatch": "AccessDenied"}
    code = codes.get(service, "AccessDenied" if _is_query(service) else "AccessDeniedException")
    return Refusal(service, code, message)


def _unknown_key(service: str, signed: bool) -> Refusal:
    if not signed:
        code = "AccessDenied" if service == "s3" else "MissingAuthenticationToken"
        return Refusal(service, code, "Request is missing Authentication Token" if service != "s3" else "Access Denied")
    if service == "s3":
        message = "The AWS Access Key Id you provided does not exist in our records."
        return Refusal(service, "InvalidAccessKeyId", message)
    code = "InvalidClientTokenId" if _is_query(service) else "UnrecognizedClientException"
    return Refusal(service, code, "The security token included in the request is invalid.")


def _is_query(service: str) -> bool:
    return service in SERVICES and str(get_service_model(service).protocol) == "query"


def _answer(refusal: Refusal, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes]:
    """The refusal in the protocol of its service."""
    request_id = str(uuid.uuid4())
    headers = [("x-amzn-RequestId", request_id), ("x-amz-request-id", request_id)]
    message, status = refusal.message, refusal.status
    if refusal.service == "s3":
        message = re.sub(r"on resource: (\S+)", r'on resource: "\1"', message)
        content_type = "application/xml"
        text = f"<Error><Code>{refusal.code}</Code><Message>{escape(message)}</Message></Error>"
    elif _is_query(refusal.service):
        content_type = "text/xml"
        text = (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>{refusal.code}</Code>"
            f"<Message>{escape(message)}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
        )
    else:
        content_type = "application/x-amz-json-1.1"
        text = json.dumps({"__type": refusal.code, "Message": message})
        headers.append(("x-amzn-ErrorType", refusal.code))
        if refusal.service == "cloudwatch":
            headers.append(("x-amzn-query-error", f"{refusal.code};Sender"))
        status = 400 if environ.get("HTTP_X_AMZ_TARGET") else status
    return _STATUS[status], [*headers, ("Content-Type", content_type)], text.encode()
