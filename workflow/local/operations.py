"""Which operation a request asks for, read so that moto cannot read another.

moto finds service, operation and parameters in several places (host, path, query string, form, headers, JSON), the
first that has them, and not in the order of botocore's models. So a request of a role is refused unless it can be
read in one way only, and moto is told the operation that was found here.
"""

from __future__ import annotations

import gzip
import io
import re
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from moto.core.model import OperationModel, StructureShape
from moto.core.parse import PROTOCOL_PARSERS, RequestParserError
from moto.core.request import Request, determine_request_protocol
from moto.core.responses import BaseResponse
from moto.core.routing import get_service_router
from moto.core.utils import get_service_model
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.utilities.constants import JSON_TYPES
from werkzeug.exceptions import NotFound

from workflow.local import signatures
from workflow.local.action_tables import SERVICES
from workflow.local.actions import Unmapped
from workflow.local.refusals import Refusal

HOOKS: tuple[str, ...] = (
    "moto.core.parse.PROTOCOL_PARSERS",
    "moto.core.request.determine_request_protocol",
    "moto.core.responses.BaseResponse._get_action",
    "moto.core.routing.get_service_router",
    "moto.core.utils.get_service_model",
    "moto.moto_server.werkzeug_app.DomainDispatcherApplication.infer_service_region_host",
    "moto.utilities.constants.JSON_TYPES",
)

SERVICE_KEY = "kelpie.service"
"""Key of the WSGI environment: the service that the signature names, as botocore calls it."""
OPERATION_KEY = "kelpie.operation"
"""Key of the WSGI environment: the operation that was authorised."""

_SERVICE_OF_SIGNING_NAME = {
    "monitoring": "cloudwatch",
    "states": "stepfunctions",
    "eventbridge": "events",
    "tagging": "resourcegroupstaggingapi",
}
_INVOCATION = re.compile(r"/endpoints/[^/]+/invocations(-response-stream)?")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")
_FORM = "application/x-www-form-urlencoded"
_original_get_action = BaseResponse._get_action
_original_infer = DomainDispatcherApplication.infer_service_region_host


def service_of(signing_name: str, environ: dict[str, Any]) -> str:
    """botocore's name of the service that a credential scope names."""
    service = _SERVICE_OF_SIGNING_NAME.get(signing_name, signing_name)
    if service == "sagemaker" and _INVOCATION.fullmatch(environ.get("PATH_INFO", "")):
        return "sagemaker-runtime"
    return service


def get_action(self: Any) -> Any:
    """For moto's BaseResponse: the operation that was authorised, if the request came through the door."""
    request = getattr(self, "normalized_request", None)
    found = request.environ.get(OPERATION_KEY) if request is not None else None
    return found or _original_get_action(self)


def infer_service_region_host(self: Any, environ: dict[str, Any], path: str) -> str | None:
    """For moto's dispatcher: what is signed for S3 goes to S3, whatever its path or form looks like."""
    if environ.get(SERVICE_KEY) == "s3":
        return "s3.us-east-1.amazonaws.com"
    return _original_infer(self, environ, path)


def check_target(service: str, environ: dict[str, Any], endpoint_url: str) -> None:
    """Refuse what moto would take for another service, bucket, account or region. Raises: Refusal."""
    address = urlsplit(endpoint_url)
    hosts = {address.netloc, f"localhost:{address.port}"}
    raw_path, _ = signatures.raw_target(environ)
    if environ.get("HTTP_HOST") not in hosts or not raw_path.startswith("/"):
        raise Refusal(service, "InvalidRequest", f"The host of a request must be one of {sorted(hosts)}", 400)
    if "HTTP_X_MOTO_ACCOUNT_ID" in environ:
        raise Refusal(service, "InvalidRequest", "The header x-moto-account-id is not allowed", 400)
    if "region/" in environ.get("HTTP_USER_AGENT", ""):  # moto would believe it more than the signature
        environ["HTTP_USER_AGENT"] = ""


def parse(service: str, environ: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The operation and its parameters by botocore's model. Raises: Unmapped, Refusal."""
    if service not in SERVICES:
        raise Unmapped(service)
    model = get_service_model(service)
    body = _body(service, environ)
    request = Request({**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))})
    try:
        protocol = determine_request_protocol(model, request.content_type)
        operation, labels = get_service_router(service).match(request)
        if protocol in ("json", "query"):
            _check_rpc(service, protocol, operation, request, body)
        else:
            _check_rest(service, operation, request, body)
        parameters = _parameters(operation, protocol, request, labels)
        if service == "s3" and not _BUCKET.fullmatch(str(parameters.get("Bucket", "none"))):
            raise _ambiguous(service, "its bucket has a name that no bucket may have")
    except (NotFound, NotImplementedError):
        raise Unmapped(f"{SERVICES[service].prefix}:{environ['REQUEST_METHOD']} {environ['PATH_INFO']}") from None
    except (ValueError, TypeError, LookupError, AttributeError, RequestParserError) as error:
        raise Refusal(service, "SerializationException", f"The request cannot be read: {error}", 400) from None
    return str(operation.name), parameters


def _ambiguous(service: str, why: str) -> Refusal:
    return Refusal(service, "InvalidRequest", f"The request can be read in more than one way: {why}", 400)


def _check_rpc(service: str, protocol: str, operation: OperationModel, request: Request, body: bytes) -> None:
    """JSON and query protocols: all is in the body, and the body is of the type that its protocol has."""
    if request.query_string:
        raise Unmapped(f"{service} with a query string")  # moto would read the operation from it
    if request.method != "POST" or request.raw_path != "/" or not body:
        raise _ambiguous(service, "it is not a POST of a body to /")
    if protocol == "json":
        if request.content_type not in JSON_TYPES:
            raise _ambiguous(service, f"its content type is none of {JSON_TYPES}")
        _check_no_form(service, operation, body)
        return
    names = [name for name, _ in parse_qsl(body.decode(), keep_blank_values=True)]
    if request.mimetype != _FORM or len(names) != len(set(names)) or "X-Amz-Target" in request.headers:
        raise _ambiguous(service, "its form gives a name twice, or is none")


def _check_rest(service: str, operation: OperationModel, request: Request, body: bytes) -> None:
    if "X-Amz-Target" in request.headers or "Action" in request.headers or "Action" in request.args:
        raise _ambiguous(service, "it names an action besides its path")
    own = set(operation.http_trait.query_args)
    others = {name for name in request.args if name in _subresources(service)} - own
    if others and operation.input_shape is not None:
        others -= {shape.serialization.get("name") for shape in operation.input_shape.members.values()}
    if others:
        raise _ambiguous(service, f"{sorted(others)} belong to another operation than {operation.name}")
    if len(list(request.args.items(multi=True))) != len(request.args):
        raise _ambiguous(service, "its query string gives a name twice")
    if service == "s3":
        if body and request.mimetype in (_FORM, "multipart/form-data"):
            raise _ambiguous(service, "its body is a form")
    elif body:
        _check_no_form(service, operation, body)


@lru_cache
def _subresources(service: str) -> frozenset[str]:
    """Names in the query string that choose an operation, such as S3's `policy` and `uploadId`."""
    model = get_service_model(service)
    found: set[str] = set()
    for name in model.operation_names:
        operation = model.operation_model(name)
        found |= set(operation.http_trait.query_args)
        if isinstance(operation.input_shape, StructureShape):
            found |= set(operation.input_shape.required_query_args)
    return frozenset(found)


def _check_no_form(service: str, operation: OperationModel, body: bytes) -> None:
    """A JSON body may hold "&EndpointName=other&": moto takes it for a form first."""
    if b"=" not in body:
        return
    shape = operation.input_shape
    members = {"Action", *(shape.members if shape is not None else ())}
    named = members & {name for name, _ in parse_qsl(body.decode("latin-1"), keep_blank_values=True)}
    if named:
        raise _ambiguous(service, f"its body is a form as well, which gives {sorted(named)}")


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
    """The request's body. S3's stays unparsed, but for the list of keys to delete."""
    if service == "s3" and environ["REQUEST_METHOD"] != "POST":
        return b""
    body = signatures.body_of(environ)
    if service != "s3" and environ.get("HTTP_CONTENT_ENCODING") == "gzip":
        return gzip.decompress(body)
    return body
