"""The front door: a picture in, its likely classes out.

Environment: ENDPOINT_NAME (the SageMaker endpoint).
IAM: sagemaker:InvokeEndpoint on `endpoint/<ENDPOINT_NAME>`.
Timeout 70 s, memory 512 MB.

Event: a function URL or HTTP API event (payload format 2.0), or directly {"image_base64", "top_k"}.
Over HTTP: POST / with the picture as the body (and ?top_k=n), or with JSON like the direct event.
Returns {"predictions": [{"class", "probability"}, ...]}, most probable first.
Errors: a direct call raises InvalidRequest (the caller's mistake) or EndpointFailed; over HTTP the same
messages come as {"message"} with status 400, 413 or 415, and 429, 502, 503 or 504.

It never fetches a URL: a picture travels in the request or not at all.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from functools import cache
from http import HTTPStatus
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import LambdaFunctionUrlResolver, Response, content_types
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

logger = Logger(service="classify")
app = LambdaFunctionUrlResolver()

MAX_IMAGE_BYTES = 4_500_000
"""A Lambda request holds 6 MB, and base64 makes three bytes four.

Source: AWS Lambda developer guide, "Lambda quotas", invocation payload (read 2026-11-21).
"""
MAX_TOP_K = 1000
DEFAULT_TOP_K = 5


class InvalidRequest(Exception):
    """The caller's mistake; `status` is what it is called over HTTP."""

    def __init__(self, message: str, status: int = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = int(status)


class EndpointFailed(Exception):
    """The endpoint is missing, busy, broken or too slow; `status` is what it is called over HTTP."""

    def __init__(self, message: str, status: int = HTTPStatus.BAD_GATEWAY) -> None:
        super().__init__(message)
        self.status = int(status)


@cache
def runtime() -> Any:
    """Return the client of the endpoint, made once per container and not at import."""
    return boto3.client(
        "sagemaker-runtime",
        config=Config(connect_timeout=3, read_timeout=62, retries={"total_max_attempts": 1}),
    )


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer an HTTP request or a direct call.

    Raises:
        InvalidRequest, EndpointFailed: only for a direct call.
    """
    if isinstance(event, dict) and "requestContext" in event:
        if not _is_http(event):
            refused = {"message": "Invalid event: expected an HTTP event of payload format 2.0"}
            return {"statusCode": 400, "headers": {"Content-Type": "application/json"}, "body": json.dumps(refused)}
        answer: dict[str, Any] = app.resolve(event, context)
        return answer
    return classify(*parse_json(event))


def _is_http(event: dict[str, Any]) -> bool:
    """Whether the parts that are read have the types of payload format 2.0; who may invoke may send anything."""
    context = event["requestContext"]
    http = context.get("http") if isinstance(context, dict) else None
    body = event.get("body")
    texts = [event.get("rawPath"), "" if body is None else body, *(http.values() if isinstance(http, dict) else ())]
    for names in (event.get("headers"), event.get("queryStringParameters")):
        if names is None:
            continue
        if not isinstance(names, dict):
            return False
        texts += [*names, *names.values()]
    known = isinstance(http, dict) and {"method", "path"} <= set(http)
    return known and all(isinstance(text, str) for text in texts) and type(event.get("isBase64Encoded")) is bool


@app.post("/")
def post_picture() -> dict[str, Any]:
    """Take the picture of an HTTP request apart; Powertools does the routing and the answer."""
    event = app.current_event
    body = event.body or ""
    try:
        content = base64.b64decode(body, validate=True) if event.is_base64_encoded else body.encode()
    except (binascii.Error, ValueError):
        raise InvalidRequest("Invalid body: it says that it is base64, but it is not") from None
    headers = {str(key).lower(): str(value) for key, value in (event.headers or {}).items()}
    if headers.get("content-type", "").split(";")[0].strip().lower() == "application/json":
        try:
            request = json.loads(content)
        except (ValueError, RecursionError):
            raise InvalidRequest("Invalid body: it says that it is JSON, but it is not") from None
        return classify(*parse_json(request))
    asked = (event.query_string_parameters or {}).get("top_k", str(DEFAULT_TOP_K))
    return classify(content, parse_top_k(int(asked) if re.fullmatch("[0-9]{1,4}", asked) else asked))


@app.exception_handler([InvalidRequest, EndpointFailed])  # type: ignore[untyped-decorator]
def answer_error(error: InvalidRequest | EndpointFailed) -> Response[str]:
    """Turn an error into its HTTP answer."""
    busy = error.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
    return Response(
        status_code=error.status,
        content_type=content_types.APPLICATION_JSON,
        body=json.dumps({"message": str(error)}),
        headers={"Retry-After": "1"} if busy else {},
    )


def parse_json(request: Any) -> tuple[bytes, int]:
    """Return the picture and top_k of a JSON request.

    Raises:
        InvalidRequest: names the key and what is allowed.
    """
    if not isinstance(request, dict):
        raise InvalidRequest("Invalid request: expected an object with 'image_base64' and, optionally, 'top_k'")
    unknown = sorted(str(key) for key in set(request) - {"image_base64", "top_k"})
    if unknown:
        raise InvalidRequest(
            f"Unknown key {unknown[0][:80]!r}, expected 'image_base64' and, optionally, 'top_k'; "
            "a picture is sent in the request, it is never fetched from a URL"
        )
    text = request.get("image_base64")
    if not isinstance(text, str):
        raise InvalidRequest("Invalid image_base64: expected the base64 text of a JPEG, PNG or WebP picture")
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("Invalid image_base64: it is not base64") from None
    return content, parse_top_k(request.get("top_k", DEFAULT_TOP_K))


def parse_top_k(value: Any) -> int:
    """Return how many classes are asked for, from 1 to MAX_TOP_K.

    Raises:
        InvalidRequest: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_TOP_K:
        raise InvalidRequest(f"Invalid top_k {str(value)[:40]!r}, expected an integer from 1 to {MAX_TOP_K}")
    return value


def classify(image: bytes, top_k: int) -> dict[str, Any]:
    """Ask the endpoint and return its predictions.

    Raises:
        InvalidRequest: no JPEG, PNG or WebP, too large, or refused by the model with a 4xx.
        EndpointFailed: everything that is not the caller's fault.
    """
    content_type = _content_type(image)
    endpoint_name = os.environ["ENDPOINT_NAME"]
    try:
        answer = runtime().invoke_endpoint(
            EndpointName=endpoint_name,
            ContentType=content_type,
            Accept="application/json",
            CustomAttributes=f"top_k={top_k}",
            Body=image,
        )
        result = json.loads(answer["Body"].read())
        return {"predictions": [{key: row[key] for key in ("class", "probability")} for row in result["predictions"]]}
    except ClientError as error:
        raise _translated(error, endpoint_name) from error
    except (ValueError, KeyError, TypeError) as error:
        raise EndpointFailed(f"Endpoint {endpoint_name} answered in another form than expected") from error
    except (BotoCoreError, OSError) as error:
        raise EndpointFailed(f"Endpoint {endpoint_name} gave no answer in time", HTTPStatus.GATEWAY_TIMEOUT) from error


def _content_type(image: bytes) -> str:
    if len(image) > MAX_IMAGE_BYTES:
        raise InvalidRequest(
            f"The picture has {len(image):,} bytes, expected at most {MAX_IMAGE_BYTES:,}",
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        )
    if image.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if image.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "image/webp"
    raise InvalidRequest("The body is no picture, expected a JPEG, PNG or WebP file", HTTPStatus.UNSUPPORTED_MEDIA_TYPE)


def _translated(error: ClientError, endpoint_name: str) -> InvalidRequest | EndpointFailed:
    """Say whose fault an error of InvokeEndpoint is.

    ModelError carries the status and the text of the container. Source: service model of botocore 1.44.5.
    """
    response: dict[str, Any] = dict(error.response)
    code = str(response.get("Error", {}).get("Code", ""))
    status = response.get("OriginalStatusCode")
    logger.warning("endpoint error", extra={"code": code, "original_status": status})
    if isinstance(status, int) and 400 <= status < 500 and status != HTTPStatus.TOO_MANY_REQUESTS:
        return InvalidRequest(f"The model refused the picture: {_message(response)}", status)
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS) or code == "ServiceUnavailable":
        return EndpointFailed(f"Endpoint {endpoint_name} is busy, try again", HTTPStatus.SERVICE_UNAVAILABLE)
    if code in ("ThrottlingException", "TooManyRequestsException"):
        return EndpointFailed("Too many requests, try again", HTTPStatus.TOO_MANY_REQUESTS)
    if code in ("ValidationError", "ValidationException"):
        return EndpointFailed(f"Endpoint {endpoint_name} does not serve now", HTTPStatus.SERVICE_UNAVAILABLE)
    return EndpointFailed(f"Endpoint {endpoint_name} failed ({code})")


def _message(response: dict[str, Any]) -> str:
    """The container's message, which is {"message"} or {"error"} in JSON, or plain text."""
    text = str(response.get("OriginalMessage", ""))
    try:
        parsed = json.loads(text)
    except ValueError:
        return text[:300]
    if isinstance(parsed, dict):
        text = str(parsed.get("message") or parsed.get("error") or text)
    return text[:300]
