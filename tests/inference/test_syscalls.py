"""What a request costs the kernel: calls that read and write, and pages of memory touched for the first time.

A process that opens files for a request, wakes its threads more than it has to, or hands memory back after each picture
to fetch it again, shows in these counts on any machine. Source of the counts: proc_pid_io(5) and proc_pid_stat(5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from colour_model import model_folder
from serving_process import Server

REQUESTS = 10
pytestmark = pytest.mark.skipif(not psutil.LINUX, reason="the counts are those of Linux")


@dataclass
class Cost:
    """By request."""

    reads: float
    writes: float
    page_faults: float


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(model_folder(tmp_path_factory.mktemp("served") / "model"))
    server.wait_for_ping(200)
    yield server
    server.close()


def cost(server: Server, picture: bytes, content_type: str) -> Cost:
    process = psutil.Process(server.process.pid)

    def counted() -> tuple[int, int, int]:
        counters = process.io_counters()
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return counters.read_count, counters.write_count, int(fields[7])

    def ask() -> None:
        response = server.http.post("/invocations", content=picture, headers={"content-type": content_type})
        assert response.status_code == 200

    for _ in range(4):
        ask()
    before = counted()
    for _ in range(REQUESTS):
        ask()
    return Cost(*((b - a) / REQUESTS for a, b in zip(before, counted(), strict=True)))


def test_a_request_reads_and_writes_its_sockets_and_no_file(server: Server, picture: Callable[..., bytes]) -> None:
    """It reads head and body, writes the answer, and wakes a worker and the event loop."""
    found = cost(server, picture(size=(60, 40), kind="PNG"), "image/png")
    assert found.reads <= 4
    assert found.writes <= 5


def test_a_photograph_is_decoded_in_memory_that_is_there_already(server: Server, picture: Callable[..., bytes]) -> None:
    """Its pixels are 2,900 pages, which would be touched anew for each picture if their memory was handed back."""
    found = cost(server, picture(size=(2000, 1500), kind="PNG"), "image/png")
    assert found.page_faults <= 300
