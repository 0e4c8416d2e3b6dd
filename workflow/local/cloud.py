"""The client's side of the local cloud: bring it up, reach it, end it. Imports nothing of moto."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from workflow.errors import KelpieError, NotRunning

if TYPE_CHECKING:
    import boto3

    from workflow.account import Account

LOG_FILE = "server.log"
_LOCK_FILE = "server.lock"
_CONNECTION_FILE = "connection.json"
_LOG_TAIL_LINES = 20
LOST_LOCK = 3
"""How a server ends that found another one in its home."""
_UP_SECONDS = 90.0
_DOWN_SECONDS = 20.0
_ANSWER_SECONDS = 10.0
_GUARD = str(Path(__file__).with_name("guard.py"))
_ROOT = Path(__file__).resolve().parents[2]

_servers: list[subprocess.Popen[bytes]] = []
"""Servers that this process started: kept so that they are reaped, and not reported as forgotten, when they end."""


@dataclass(frozen=True)
class Connection:
    """Where a running local cloud is, and the root key of its account."""

    endpoint_url: str
    region: str
    account_id: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    pid: int
    time_scale: float

    def session(self) -> boto3.Session:
        """Return a boto3 session with the account's root key. Clients from it need `endpoint_url`."""
        import boto3
        import botocore.session

        from workflow.service_models import service_models

        core = botocore.session.get_session()
        core.register_component("data_loader", service_models())
        return boto3.Session(
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            region_name=self.region,
            botocore_session=core,
        )

    def account(self) -> Account:
        """Return the operator's side of this account."""
        from workflow.account import Account

        return Account(self.session(), self.endpoint_url)

    def add_fault(self, kind: str, **values: Any) -> None:
        """Let something go wrong; kinds and values are those of `faults.KINDS`.

        Raises:
            KelpieError: if the server refuses, saying what is allowed, or cannot be reached.
        """
        self.control("POST", "faults", {"kind": kind, **values})

    def interrupt_spot(self, *, after_checkpoints: int = 1, count: int = 1, **values: Any) -> None:
        """Interrupt the current or next managed-spot training job `count` times, each after so many checkpoints."""
        self.add_fault("spot-interruption", after_checkpoints=after_checkpoints, count=count, **values)

    def fail_api(self, operation: str, code: str, message: str = "Injected fault", **values: Any) -> None:
        """Let requests for an operation such as "sagemaker:CreateModel" fail with an error code.

        `values`: `count`; `caller`, "states" for state machines or a function's name; `state`, for only one state.
        """
        self.add_fault("api-error", operation=operation, code=code, message=message, **values)

    def faults(self) -> dict[str, Any]:
        """`pending`: the faults still to come; `undocumented`: how what AWS documents nowhere is played."""
        return self.control("GET", "faults")

    def clear_faults(self) -> None:
        """Nothing goes wrong any more."""
        self.control("DELETE", "faults")

    def play(self, **values: bool) -> None:
        """Play what AWS documents nowhere: `stopped_fails`, `swap_generic_errors`.

        Raises:
            KelpieError: if the server refuses, or cannot be reached.
        """
        self.control("POST", "undocumented", values)

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call one of the server's control endpoints and return its JSON answer.

        Raises:
            KelpieError: if the server refuses or cannot be reached.
        """
        import http.client

        address = urlsplit(self.endpoint_url)
        client = http.client.HTTPConnection(str(address.hostname), address.port, timeout=_ANSWER_SECONDS)
        try:
            headers = {"x-kelpie-key": self.secret_access_key, "content-type": "application/json"}
            client.request(method, f"/kelpie/{path}", json.dumps(body or {}), headers)
            response = client.getresponse()
            content = response.read()
            answer = json.loads(content)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise KelpieError(
                "The local cloud does not answer",
                f"{method} {self.endpoint_url}/kelpie/{path}: {error}",
                "End it with: kelpie local down",
            ) from error
        finally:
            client.close()
        if response.status >= 300:
            raise KelpieError("The local cloud refused the request", f"{method} {path}: {answer.get('message')}")
        return dict(answer)


def default_home() -> Path:
    """Return the state folder: `$KELPIE_HOME/local`, else `.kelpie/local` under the current folder."""
    return (Path(os.environ.get("KELPIE_HOME") or ".kelpie") / "local").absolute()


@dataclass(frozen=True)
class Begun:
    """A server that imports its modules, and waits to be told its settings; it ends when it never is."""

    process: subprocess.Popen[bytes]
    log_path: Path
    log_start: int


def begin(home: Path, port: int = 0) -> Begun | None:
    """Start a server whose settings `up` will tell it, so that they can be read meanwhile; None when one runs already.

    Port 0 means any free one.
    """
    home = home.absolute()
    if connect(home) is not None:
        return None
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    log_path = home / LOG_FILE
    with log_path.open("ab") as log:
        log_start = log.tell()
        server = subprocess.Popen(
            [sys.executable, "-m", "workflow.local.server", "--home", str(home), "--port", str(port)],
            cwd=home,
            env=_server_environment(),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _servers.append(server)
    return Begun(server, log_path, log_start)


def up(
    home: Path,
    *,
    region: str = "us-east-1",
    time_scale: float = 30,
    port: int = 0,
    begun: Begun | None = None,
    meanwhile: Callable[[], object] | None = None,
) -> Connection:
    """Start the server and return when it answers; if it already runs with these settings, return its connection.

    The server is a process of its own that outlives the caller. Port 0 means any free one. `begun` is what `begin`
    started. `meanwhile` is called once while the server starts, and not when it runs already.

    Raises:
        KelpieError: if it runs with other settings, or does not start; the error quotes the end of its log.
    """
    home = home.absolute()
    server = begun or begin(home, port)
    if server is None:
        return _checked(require(home), region, time_scale)
    try:
        assert server.process.stdin is not None
        with suppress(BrokenPipeError), server.process.stdin as told:
            told.write(json.dumps({"region": region, "time_scale": time_scale}).encode())
        if meanwhile is not None:
            meanwhile()
        return _checked(_wait_until_healthy(home, server), region, time_scale)
    except BaseException:
        server.process.kill()
        server.process.wait()
        raise


def connect(home: Path) -> Connection | None:
    """Return the connection of the server that runs in `home`, or None; what a dead server left behind is ignored."""
    if not _is_running(home):
        return None
    try:
        return Connection(**json.loads((home / _CONNECTION_FILE).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None  # it is starting or ending


def require(home: Path) -> Connection:
    """The local cloud that runs at `home`.

    Raises:
        NotRunning: there is none.
    """
    connection = connect(home)
    if connection is None:
        raise NotRunning("no local cloud is running here", fix="kelpie local up")
    return connection


def status(home: Path) -> dict[str, Any] | None:
    """Return `endpoint_url`, `pid`, `time_scale` and `processes` ({name, pid} each), or None if nothing runs.

    Raises:
        KelpieError: if the server does not answer.
    """
    connection = connect(home)
    if connection is None:
        return None
    return {"endpoint_url": connection.endpoint_url, **connection.control("GET", "status")}


def down(home: Path) -> bool:
    """End the server and all its processes; return False if there was no server.

    Raises:
        KelpieError: if a process is still there afterwards; the error names it.
    """
    home = home.absolute()
    was_running = _is_running(home)
    children: set[int] = set()
    if was_running:
        connection = connect(home)
        with suppress(KelpieError):
            if connection is not None:
                children = {process["pid"] for process in connection.control("GET", "status")["processes"]}
                connection.control("POST", "shutdown")
        if connection is None:
            _signal_server(home, signal.SIGTERM)
        if not _wait(lambda: not _is_running(home), _DOWN_SECONDS):
            _signal_server(home, signal.SIGKILL)
            _wait(lambda: not _is_running(home), _DOWN_SECONDS)
    for server in _servers:
        server.poll()
    if not _wait(lambda: not _left_over(home, children), _DOWN_SECONDS):
        pids = sorted(_left_over(home, children))
        raise KelpieError(
            "The local cloud left processes behind",
            f"They still run: {', '.join(map(str, pids))}",
            f"End them with: kill -9 {' '.join(map(str, pids))}",
        )
    if not _is_running(home):
        (home / _CONNECTION_FILE).unlink(missing_ok=True)
    return was_running


def _server_environment() -> dict[str, str]:
    """Return the caller's environment without anything that could lead to a real account or another server."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MOTO_", "BOTO"))}
    python_path = [str(_ROOT), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "MOTO_DISABLE_GLOBAL_CORS": "1",  # no web page may read the answers
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "PYTHONPATH": os.pathsep.join(python_path),
        "PYTHONUNBUFFERED": "1",
    }


def _checked(running: Connection, region: str, time_scale: float) -> Connection:
    if (running.region, running.time_scale) != (region, time_scale):
        raise KelpieError(
            "The local cloud already runs with other settings",
            f"It has region {running.region} and time_scale {running.time_scale:g}, "
            f"wanted are {region} and {time_scale:g}.",
            "End it first (what it holds is lost): kelpie local down",
        )
    return running


def _wait_until_healthy(home: Path, begun: Begun) -> Connection:
    """The connection of this server, or of the one that somebody else started meanwhile and that won the lock."""
    server = begun.process
    deadline = time.monotonic() + _UP_SECONDS
    while (server.poll() is None or (server.returncode == LOST_LOCK and _is_running(home))) and (
        time.monotonic() < deadline
    ):
        connection = connect(home)
        if connection is not None and (connection.pid == server.pid or server.returncode == LOST_LOCK):
            with suppress(KelpieError):
                connection.control("GET", "status")
                return connection
        time.sleep(0.01)
    with begun.log_path.open("rb") as log:
        log.seek(begun.log_start)
        tail = log.read().decode(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
    why = f"did not answer within {_UP_SECONDS:g} s" if server.poll() is None else f"ended with {server.returncode}"
    raise KelpieError(
        "The local cloud did not start",
        f"Its server {why}. The end of {begun.log_path}:\n" + "\n".join(f"  {line}" for line in tail),
    )


def _is_running(home: Path) -> bool:
    """Tell whether a server holds the lock of `home`: unlike a pid, a lock never outlives its process."""
    try:
        with (home / _LOCK_FILE).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _signal_server(home: Path, signum: signal.Signals) -> None:
    with suppress(ValueError, ProcessLookupError):
        os.kill(int((home / _LOCK_FILE).read_text()), signum)


def _left_over(home: Path, children: set[int]) -> set[int]:
    """Return processes of a dead server: guards that carry this home in their command line, and known children."""
    import psutil  # type: ignore[import-untyped]

    left = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            # A guard and its child are one process group, so a child that kept its pid has kept its parent or died.
            is_ours = process.pid in children or _is_guard_of(home, process.cmdline())
            if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                left.add(process.pid)
    return left


def _is_guard_of(home: Path, command_line: list[str]) -> bool:
    return _GUARD in command_line and str(home) in command_line


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
