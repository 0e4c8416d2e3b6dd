"""Answers that are not the service's own: refusals and injected errors, each in the protocol of its service."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from xml.sax.saxutils import escape

from moto.core.utils import get_service_model

from workflow.local.action_tables import SERVICES

HOOKS: tuple[str, ...] = ("moto.core.utils.get_service_model",)

Answer = tuple[str, list[tuple[str, str]], bytes]
"""Status line, headers and body."""


@dataclass(eq=False)
class Refusal(Exception):
    """An answer other than the service's own; `service` (botocore's name) decides its protocol."""

    service: str
    code: str
    message: str
    status: int = 403


def denied(service: str, message: str) -> Refusal:
    """Who asks is known, but may not do it."""
    codes = {"s3": "AccessDenied", "sns": "AuthorizationError", "cloudwatch": "AccessDenied"}
    code = codes.get(service, "AccessDenied" if is_query(service) else "AccessDeniedException")
    return Refusal(service, code, message)


def unsigned(service: str) -> Refusal:
    """Nobody says that he asks."""
    if service == "s3":
        return Refusal(service, "AccessDenied", "Access Denied")
    return Refusal(service, "MissingAuthenticationToken", "Request is missing Authentication Token")


def unknown_key(service: str) -> Refusal:
    """The key, or its session token, was never issued."""
    if service == "s3":
        message = "The AWS Access Key Id you provided does not exist in our records."
        return Refusal(service, "InvalidAccessKeyId", message)
    code = "InvalidClientTokenId" if is_query(service) else "UnrecognizedClientException"
    return Refusal(service, code, "The security token included in the request is invalid.")


def malformed(service: str, why: str) -> Refusal:
    """The request's signature cannot be read."""
    code = "AuthorizationHeaderMalformed" if service == "s3" else "IncompleteSignature"
    return Refusal(service, code, f"The request cannot be authenticated: {why}.", 400)


def mismatch(service: str, why: str) -> Refusal:
    """The signature is not the one of the key's secret."""
    is_json = service != "s3" and not is_query(service)
    return Refusal(service, "InvalidSignatureException" if is_json else "SignatureDoesNotMatch", why)


def api_error(service: str, code: str, message: str) -> Refusal:
    """An error of the service itself, with the HTTP status of its model where it has one."""
    for shape in get_service_model(service).error_shapes:
        error = shape.metadata.get("error", {})
        if code in (shape.name, error.get("code")):
            default = 500 if getattr(shape, "_shape_model", {}).get("fault") else 400
            return Refusal(service, error.get("code", code), message, int(error.get("httpStatusCode", default)))
    unavailable = re.fullmatch(r"ServiceUnavailable(Exception)?|SlowDown", code)
    return Refusal(service, code, message, 503 if unavailable else 500 if code.startswith("Internal") else 400)


def is_query(service: str) -> bool:
    """Tell whether a service answers in XML as those of the query protocol do."""
    return service in SERVICES and str(get_service_model(service).protocol) == "query"


def answer(refusal: Refusal, environ: dict[str, Any]) -> Answer:
    """The refusal in the protocol of its service."""
    request_id = str(uuid.uuid4())
    headers = [("x-amzn-RequestId", request_id), ("x-amz-request-id", request_id)]
    message, status = refusal.message, refusal.status
    if refusal.service == "s3":
        message = re.sub(r"on resource: (\S+)", r'on resource: "\1"', message)
        content_type = "application/xml"
        text = f"<Error><Code>{refusal.code}</Code><Message>{escape(message)}</Message></Error>"
    elif is_query(refusal.service):
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
        status = 400 if environ.get("HTTP_X_AMZ_TARGET") and status < 500 else status
    line = f"{status} {HTTPStatus(status).phrase}"
    return line, [*headers, ("Content-Type", content_type)], text.encode()
