"""The server as SageMaker starts it: its own process, its own environment."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from serving_process import Server


@pytest.fixture
def serve(make_model: Callable[..., Path]) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def serve(program: str = "", **environment: str) -> Server:
        if program:
            environment["SAGEMAKER_PROGRAM"] = "program.py"
        servers.append(Server(make_model(program=program), **environment))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def test_it_listens_first_is_ready_when_warm_and_serves_without_torch(serve: Callable[..., Server]) -> None:
    program = "import time\nfrom inference import handler\ndef model_fn(d):\n    time.sleep(1)\n"
    server = serve(program + "    return handler.model_fn(d)\n")
    server.wait_for_ping(503)
    server.wait_for_ping(200)
    response = server.invoke()
    assert response.status_code == 200, response.text
    assert response.json()["predictions"][0]["class"] == "red"


SLOW = (
    "import time\nfrom inference import handler\n"
    "def input_fn(body, content_type, context):\n"
    "    if content_type == 'text/slow': time.sleep(1.5); content_type = 'image/png'\n"
    "    return handler.input_fn(body, content_type, context)\n"
)


def test_sigterm_lets_running_requests_finish_and_exits_with_0(serve: Callable[..., Server]) -> None:
    server = serve(SLOW)
    server.wait_for_ping(200)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.invoke, "text/slow")
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        assert running.result().status_code == 200
    assert server.process.wait(timeout=10) == 0


def test_sigterm_while_the_model_loads_ends_at_once(serve: Callable[..., Server]) -> None:
    server = serve("import time\ndef model_fn(model_dir):\n    time.sleep(60)\n")
    server.wait_for_ping(503)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=15) == 0


def test_the_thread_count_is_bounded_under_load(serve: Callable[..., Server]) -> None:
    server = serve()
    server.wait_for_ping(200)
    process = psutil.Process(server.process.pid)
    idle, seen = process.num_threads(), []

    def request(_: int) -> Any:
        response = server.invoke()
        seen.append(process.num_threads())
        return response.status_code

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        statuses = list(pool.map(request, range(200)))
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) > 20
    assert max(seen) <= idle + (os.cpu_count() or 1)  # one worker a core


def test_a_bad_port_is_named(serve: Callable[..., Server]) -> None:
    server = serve(SAGEMAKER_BIND_TO_PORT="eighty")
    assert server.process.wait(timeout=20) == 2
    assert "SAGEMAKER_BIND_TO_PORT must be a port from 1 to 65535, got 'eighty'" in server.process.stdout.read()
