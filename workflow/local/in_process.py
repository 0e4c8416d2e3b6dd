"""Requests of the server to itself: the same application, and the same door in front of it, without a socket between.

A Task of a state machine and a resource of a stack are calls of AWS's APIs, signed with a role's or the root's key like
anybody's. Sent over loopback, each costs a connection and a thread besides the work.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from botocore.awsrequest import AWSResponse
from urllib3 import HTTPHeaderDict, HTTPResponse

if TYPE_CHECKING:
    from workflow.local.engine import Engine

WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]
_log = logging.getLogger(__name__)


def connect(client: Any, engine: Engine) -> None:
    """Let a boto3 client of this server's endpoint ask the server's application, once there is one."""

    def answer(request: Any, **_: Any) -> AWSResponse | None:
        body = request.body or b""
        body = body.encode() if isinstance(body, str) else body
        if engine.application is None or not isinstance(body, bytes | bytearray):
            return None  # botocore then sends it
        return _answer(engine.application, request, bytes(body))

    client.meta.events.register("before-send", answer, unique_id="kelpie-in-process")


def _answer(application: WsgiApp, request: Any, body: bytes) -> AWSResponse:
    begun: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
        begun.append((status, headers))

    try:
        content = b"".join(application(_environ(request, body), start_response))
        status, headers = begun[-1]
    except Exception as error:  # as the WSGI server does
        _log.exception("%s %s failed", request.method, request.url)
        status, headers, content = "500 INTERNAL SERVER ERROR", [], str(error).encode()
    code = int(status.split()[0])
    raw: Any = HTTPResponse(io.BytesIO(content), HTTPHeaderDict(headers), code, preload_content=False)
    return AWSResponse(request.url, code, raw.headers, raw)


def _environ(request: Any, body: bytes) -> dict[str, Any]:
    """What werkzeug's server makes of the same request."""
    url = urlsplit(request.url)
    environ: dict[str, Any] = {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": url.scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(url.path or "/").encode().decode("latin-1"),
        "QUERY_STRING": url.query,
        "REQUEST_URI": request.url.partition(url.netloc)[2] or "/",
        "RAW_URI": request.url.partition(url.netloc)[2] or "/",
        "REMOTE_ADDR": "127.0.0.1",
        "SERVER_NAME": url.hostname,
        "SERVER_PORT": str(url.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": url.netloc,
    }
    for name, value in request.headers.items():
        key = name.upper().replace("-", "_")
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = text
    environ["CONTENT_LENGTH"] = str(len(body))
    return environ
