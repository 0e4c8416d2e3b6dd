"""The supervisor process: moto's server with the hooks installed, listening on loopback. Started by `cloud.up`.

The WSGI server is Werkzeug's, with one thread per request: the engines behind it call this same server again while a
request waits for them, so that a pool of threads with a fixed size could wait for itself for ever.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # until everything is imported: it stays, and looking for garbage among it takes long

import argparse
import fcntl
import hmac
import importlib
import json
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

from moto.core.config import default_user_config
from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import BaseWSGIServer, make_server

from workflow.local.clock import TIME_SCALE_HEADER, Clock
from workflow.local.cloud import LOST_LOCK
from workflow.local.dispatch import Dispatcher
from workflow.local.engine import ACCOUNT_ID, Engine
from workflow.local.faults import Faults, Undocumented, fault_of
from workflow.local.identity import Identity
from workflow.local.images import Images
from workflow.local.processes import Processes

HOOKS: tuple[str, ...] = (
    "moto.core.config.default_user_config",
    "moto.moto_server.werkzeug_app.MotoRequestHandler",
    "moto.settings.moto_server_port",
)
HOOKING_MODULES = (
    "service_models",
    "dispatch",
    "cloudformation",
    "authorization",
    "stepfunctions",
    "sagemaker",
    "functions",
    "autoscaling",
    "codebuild",
    "event_bus",
    "scheduler",
)
"""Modules whose `install` is called, in this order."""

LOCK_FILE = "server.lock"
CONNECTION_FILE = "connection.json"
CONTROL_PREFIX = "/kelpie/"

_FOLDERS_OF_A_RUN = ("jobs", "endpoints", "sandboxes")
_LOCK_PATIENCE_SECONDS = 2.0
_COLLECT_AFTER_OBJECTS = 400_000
_MAX_CONTROL_BODY_BYTES = 64 * 1024

StartResponse = Callable[..., Any]
_log = logging.getLogger(__name__)


class AlreadyRunning(RuntimeError):
    """Another server holds the lock of this home."""


class _RequestHandler(MotoRequestHandler):
    disable_nagle_algorithm = True

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log nothing: a training run makes thousands of requests."""


class Application:
    """moto's application, the time scale on every response, and the control endpoints beside the AWS APIs."""

    def __init__(self, engine: Engine, shut_down: Callable[[], None]) -> None:
        self._engine = engine
        self._shut_down = shut_down
        self._aws = Dispatcher()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""

        def start_with_time_scale(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            headers = [*headers, (TIME_SCALE_HEADER, f"{self._engine.clock.time_scale:g}")]
            return start_response(status, headers, *more)

        key = environ.get("HTTP_X_KELPIE_KEY")
        # Without the key it is an S3 request for a bucket of that name.
        if key is None or not environ.get("PATH_INFO", "").startswith(CONTROL_PREFIX):
            answer: Iterable[bytes] = self._aws(environ, start_with_time_scale)
            return answer
        status, body = self._control(key, environ)
        content = json.dumps(body).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
        start_with_time_scale(f"{status.value} {status.phrase}", headers)
        return [content]

    def _control(self, key: str, environ: dict[str, Any]) -> tuple[HTTPStatus, dict[str, Any]]:
        if not hmac.compare_digest(key.encode(), self._engine.identity.root_secret_access_key.encode()):
            return HTTPStatus.FORBIDDEN, {"message": "Invalid x-kelpie-key, expected the one of connection.json"}
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix(CONTROL_PREFIX)
        try:
            match method, path:
                case "GET", "status":
                    return HTTPStatus.OK, self._status()
                case "POST", "shutdown":
                    self._shut_down()
                    return HTTPStatus.ACCEPTED, {}
                case "GET", "authorizations":
                    return HTTPStatus.OK, self._engine.identity.record.describe()
                case "DELETE", "authorizations":
                    self._engine.identity.record.clear()
                    return HTTPStatus.OK, {}
                case "GET" | "POST" | "DELETE", "clock":
                    return HTTPStatus.OK, _clock(self._engine, method, _json_body(environ))
                case _, "faults" | "undocumented":
                    return HTTPStatus.OK, _faults(self._engine.faults, method, path, _json_body(environ))
        except (OverflowError, TypeError, ValueError) as error:
            return HTTPStatus.BAD_REQUEST, {"message": str(error)}
        return HTTPStatus.NOT_FOUND, {"message": f"There is no {method} {CONTROL_PREFIX}{path}"}

    def _status(self) -> dict[str, Any]:
        running = self._engine.processes.running()
        return {
            "pid": os.getpid(),
            "time_scale": self._engine.clock.time_scale,
            "processes": [{"name": process.name, "pid": process.pid} for process in running],
        }


def _faults(faults: Faults, method: str, path: str, values: dict[str, Any]) -> dict[str, Any]:
    """List, add or clear faults, or say how the undocumented is played; the answer is what holds now."""
    match method, path:
        case "GET", "faults":
            pass
        case "DELETE", "faults":
            faults.clear()
        case "POST", "faults":
            faults.add(fault_of(**{"kind": "", **values}))
        case "POST", "undocumented":
            faults.undocumented = Undocumented(**{**asdict(faults.undocumented), **values})
        case _:
            raise ValueError(f"There is no {method} {CONTROL_PREFIX}{path}")
    return faults.describe()


def _clock(engine: Engine, method: str, values: dict[str, Any]) -> dict[str, Any]:
    """Show the clock of the schedules, move it to `now` or on by `advance_seconds`, or let it go right again."""
    assert engine.scheduler is not None
    if method == "DELETE":
        engine.scheduler.move_clock(None)
    elif method == "POST":
        match values:
            case {"now": str(text)} if len(values) == 1:
                engine.scheduler.move_clock(datetime.fromisoformat(text))
            case {"advance_seconds": int() | float() as seconds} if len(values) == 1:
                engine.scheduler.move_clock(engine.wall_clock.now() + timedelta(seconds=seconds))
            case _:
                raise ValueError('Invalid body, expected {"now": TIME WITH ZONE} or {"advance_seconds": NUMBER}')
    return engine.scheduler.describe()


def _json_body(environ: dict[str, Any]) -> dict[str, Any]:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > _MAX_CONTROL_BODY_BYTES:
        raise ValueError(f"Invalid body of {length} bytes, expected at most {_MAX_CONTROL_BODY_BYTES}")
    body = json.loads(environ["wsgi.input"].read(length) or b"{}")
    if not isinstance(body, dict):
        raise ValueError("Invalid body, expected a JSON object")
    return body


def build_engine(home: Path, region: str, time_scale: float, endpoint_url: str) -> Engine:
    """Return the engine of a server that listens at `endpoint_url`."""
    return Engine(
        home=home,
        account_id=ACCOUNT_ID,
        region=region,
        endpoint_url=endpoint_url,
        clock=Clock(time_scale),
        processes=Processes(owner=str(home)),
        identity=Identity(ACCOUNT_ID, region, endpoint_url),
        images=Images(),
        faults=Faults(),
    )


def install_hooks(engine: Engine) -> None:
    """Configure moto to execute, and let every hooking module put its part into it."""
    default_user_config["stepfunctions"]["execute_state_machine"] = True
    default_user_config["lambda"]["use_docker"] = False
    for name in HOOKING_MODULES:
        importlib.import_module(f"workflow.local.{name}").install(engine)
    gc.freeze()
    # Frozen objects do not count, so that every collection would soon be one of all others: a tenth of a second each.
    gc.set_threshold(_COLLECT_AFTER_OBJECTS)
    gc.enable()


def take_lock(home: Path) -> IO[str]:
    """Take the lock of a home for as long as the returned file is open; it holds the pid of its owner.

    Raises:
        AlreadyRunning: if another server has it.
    """
    lock = (home / LOCK_FILE).open("a+")
    deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS  # somebody may just be looking whether it is taken
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                lock.seek(0)
                pid = lock.read().strip()
                lock.close()
                raise AlreadyRunning(f"A local cloud already runs in {home} (process {pid})") from None
            time.sleep(0.05)
        else:
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            return lock


def write_connection(engine: Engine) -> None:
    """Tell clients where the server is and with which key it is reached; only the user may read it."""
    connection = {
        "endpoint_url": engine.endpoint_url,
        "region": engine.region,
        "account_id": engine.account_id,
        "access_key_id": engine.identity.root_access_key_id,
        "secret_access_key": engine.identity.root_secret_access_key,
        "pid": os.getpid(),
        "time_scale": engine.clock.time_scale,
    }
    path = engine.home / CONNECTION_FILE
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(connection, file, indent=2)
    unfinished.replace(path)


def serve(home: Path, region: str, time_scale: float, port: int) -> None:
    """Run until a signal or the control endpoint ends it, then end every process that it started."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(512)
        port = listener.getsockname()[1]
        os.environ["MOTO_PORT"] = str(port)  # read by moto's state machine interpreter
        engine = build_engine(home, region, time_scale, f"http://127.0.0.1:{port}")
        install_hooks(engine)
        servers: list[BaseWSGIServer] = []

        def shut_down(*_: Any) -> None:
            # From a thread of its own: the call waits for the loop that this thread may be running.
            threading.Thread(target=servers[0].shutdown, name="shutdown", daemon=True).start()

        application = engine.application = Application(engine, shut_down)
        servers.append(
            make_server(
                "127.0.0.1", port, application, threaded=True, request_handler=_RequestHandler, fd=listener.fileno()
            )
        )
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, shut_down)
        write_connection(engine)
        _log.info("Serving %s with waits divided by %g", engine.endpoint_url, time_scale)
        try:
            servers[0].serve_forever()
        finally:
            engine.processes.close()
            with suppress(FileNotFoundError):
                (home / CONNECTION_FILE).unlink()
            _log.info("Ended")


def main() -> None:
    """Parse the flags of `cloud.begin`, read the settings that `cloud.up` tells, and serve."""
    parser = argparse.ArgumentParser(description="The local cloud's server; start it with: kelpie local up")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("botocore", "boto3", "urllib3", "werkzeug"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    told = sys.stdin.read()
    if not told:  # who started it ended before it knew the settings
        return
    settings = json.loads(told)
    try:
        lock = take_lock(arguments.home)
    except AlreadyRunning as error:
        print(error, file=sys.stderr)
        sys.exit(LOST_LOCK)
    (arguments.home / CONNECTION_FILE).unlink(missing_ok=True)
    for name in _FOLDERS_OF_A_RUN:  # they belong to resources that ended with the server before
        shutil.rmtree(arguments.home / name, ignore_errors=True)
    exit_code = 1
    try:
        serve(arguments.home, str(settings["region"]), float(settings["time_scale"]), arguments.port)
        exit_code = 0
    except Exception:
        _log.exception("The local cloud's server failed")
    finally:
        lock.flush()
        logging.shutdown()
        # Threads of running executions and jobs would hold the interpreter back; nothing of them is kept.
        os._exit(exit_code)


if __name__ == "__main__":
    main()
