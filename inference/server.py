"""The HTTP server of SageMaker's container contract: GET /ping and POST /invocations.

`python -m inference.server serve` serves the model in `$SAGEMAKER_BASE_DIR/model` (default /opt/ml/model) on the port
`$SAGEMAKER_BIND_TO_PORT` (default 8080); `$SAGEMAKER_PROGRAM` names the user's own handler in the model's `code/`.

Source: "Custom Inference Code with Hosting Services", Amazon SageMaker AI Developer Guide, read 2026-11-21: `serve` is
the container's argument, /ping answers 200 once the container takes requests, SIGKILL follows SIGTERM after 30 seconds.
"""

from __future__ import annotations

import os

if __name__ == "__main__":
    # A worker thread is one core's work, so no library needs threads of its own. Libraries look at this when they are
    # loaded: NumPy's, uvloop's (for looking host names up), and those of a user's own handler.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "UV_THREADPOOL_SIZE"):
        os.environ.setdefault(variable, "1")

import argparse
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from inference.errors import BodyTooLarge, NotReady, status_of
from inference.service import Limits, Service

DRAIN_SECONDS = 25
KEEP_ALIVE_SECONDS = 75
CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"

log = logging.getLogger("inference")


def _error(status: int, name: str, message: str) -> Response:
    headers = {"Retry-After": "1"} if status == 503 else None
    body = json.dumps({"error": name, "message": message})
    return Response(body, status, headers, media_type="application/json")


async def _body(request: Request, limit: int) -> bytes:
    """The request's body.

    Raises:
        BodyTooLarge: more than `limit` bytes; no more than that is kept in memory.
    """
    too_large = BodyTooLarge(f"the body has more than {limit} bytes")
    announced = request.headers.get("content-length", "0")
    if announced.isascii() and announced.isdigit() and int(announced[:18]) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


def create_app(model_dir: Path, *, program: str = "", limits: Limits | None = None) -> Starlette:
    """The application; its lifespan loads the model in the background."""
    service = Service(model_dir, program=program, limits=limits)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()

    async def ping(_: Request) -> Response:
        try:
            service.check_ready()
        except NotReady as error:
            return _error(503, "NotReady", str(error))
        return Response(status_code=200)

    async def invocations(request: Request) -> Response:
        accept = request.headers.get("accept", "*/*")
        try:
            answer = await service.answer(
                lambda: _body(request, service.limits.body_bytes),
                request.headers.get("content-type", ""),
                "application/json" if "*" in accept else accept,
                request.headers.get(CUSTOM_ATTRIBUTES, ""),
            )
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:
            status = status_of(error)
            if status is not None:
                return _error(status, type(error).__name__, str(error))
            log.exception("the handler failed")
            return _error(500, "InternalError", "the handler failed; the reason is in the log")
        return Response(answer.body, media_type=answer.content_type)

    async def no_such_route(_: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        name = {404: "NotFound", 405: "MethodNotAllowed"}.get(status, "InvalidRequest")
        return _error(status, name, "this server answers GET /ping and POST /invocations")

    app = Starlette(
        routes=[Route("/ping", ping, methods=["GET"]), Route("/invocations", invocations, methods=["POST"])],
        exception_handlers={HTTPException: no_such_route},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect would send the caller wherever its Host header says
    return app


def _stop(_signum: int, _frame: Any) -> None:
    sys.exit(0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM, then finish the requests that run and exit with 0."""
    parser = argparse.ArgumentParser(prog="python -m inference.server", description="Serve a model as SageMaker does.")
    parser.add_argument("command", nargs="?", choices=["serve"], help="SageMaker passes it; it is the only command")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    options = parser.parse_args(arguments)
    port = os.environ.get("SAGEMAKER_BIND_TO_PORT") or "8080"
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        parser.error(f"SAGEMAKER_BIND_TO_PORT must be a port from 1 to 65535, got {port!r}")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    # Uvicorn drains on SIGTERM and then raises the signal again: what it meets then decides the exit code. As a
    # container's first process, one without a handler would not even get the signal.
    signal.signal(signal.SIGTERM, _stop)
    model_dir = Path(os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml") / "model"
    uvicorn.run(
        create_app(model_dir, program=os.environ.get("SAGEMAKER_PROGRAM", "")),
        host=options.host,
        port=int(port),
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


if __name__ == "__main__":
    main()
