"""The way of a request to a model server when servers are slow, gone or refuse."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from workflow.local import router as router_module
from workflow.local.clock import Clock
from workflow.local.faults import Faults
from workflow.local.router import MAX_BODY_BYTES, Answer, Route, Router


class Fleet:
    """Servers that are handed out in order, as long as they are not to be avoided."""

    def __init__(self, *servers: SimpleNamespace) -> None:
        self.servers = list(servers)
        self.size = len(servers)

    @contextmanager
    def least_busy(self, avoid: Any = None) -> Iterator[Any]:
        yield next((server for server in self.servers if server.process is not avoid), None)


def server(port: int) -> SimpleNamespace:
    return SimpleNamespace(port=port, process=object(), instance_id="i-1")


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def answering() -> Iterator[int]:
    """The port of a server that answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found.server_address[1]
        found.shutdown()


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that accepts and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def router(monkeypatch: pytest.MonkeyPatch) -> Iterator[Router]:
    monkeypatch.setattr(router_module, "_WAIT_FOR_SERVER_SECONDS", 0.2)
    monkeypatch.setattr(router_module, "INVOCATION_TIMEOUT_SECONDS", 0.2)
    engine: Any = SimpleNamespace(clock=Clock(1.0), account_id="123456789012", region="us-east-1", faults=Faults())
    found = Router(engine)
    yield found
    found.close()


def ask(router: Router, *ports: int, body: bytes = b"picture") -> Answer:
    fleet: Any = Fleet(*map(server, ports))
    router.set_routes("kelpie", [Route("AllTraffic", fleet, 1.0, "config")])
    return router.invoke("kelpie", body, {})


def code(answer: Answer) -> str:
    return answer.headers["x-amzn-errortype"]


def test_a_lost_connection_is_tried_once_more_elsewhere(router: Router, answering: int) -> None:
    answer = ask(router, closed_port(), answering)
    assert (answer.status, answer.body) == (200, b"picture")


def test_two_lost_connections_are_a_503(router: Router, answering: int) -> None:
    assert code(ask(router, closed_port(), closed_port())) == "ServiceUnavailable"


def test_no_server_at_all_is_a_503_after_a_short_wait(router: Router) -> None:
    answer = ask(router)
    assert (answer.status, code(answer)) == (503, "ServiceUnavailable")


def test_a_server_that_takes_too_long_is_a_model_error_and_not_asked_again(
    router: Router, silent: int, answering: int
) -> None:
    answer = ask(router, silent, answering)
    assert (answer.status, code(answer)) == (424, "ModelError")
    body = json.loads(answer.body)
    assert body["OriginalStatusCode"] == 0
    assert "timed out" in body["Message"]


def test_a_body_over_the_limit_is_refused(router: Router, answering: int) -> None:
    assert ask(router, answering, body=b"x" * MAX_BODY_BYTES).status == 200
    assert code(ask(router, answering, body=b"x" * (MAX_BODY_BYTES + 1))) == "ValidationError"


def test_the_weights_share_the_traffic_and_a_target_variant_overrides_them(router: Router, answering: int) -> None:
    fleet: Any = Fleet(server(answering))
    router.set_routes("kelpie", [Route("old", fleet, 0.0, "config"), Route("new", fleet, 1.0, "config")])
    variants = {router.invoke("kelpie", b"", {}).headers["x-Amzn-Invoked-Production-Variant"] for _ in range(20)}
    assert variants == {"new"}
    aimed = router.invoke("kelpie", b"", {"X-Amzn-SageMaker-Target-Variant": "old"})
    assert aimed.headers["x-Amzn-Invoked-Production-Variant"] == "old"
    assert code(router.invoke("kelpie", b"", {"x-amzn-sagemaker-target-variant": "none"})) == "ValidationError"
