"""Four times the load that the server carries: it goes on answering what it can, and refuses the rest at once."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from .test_server_process import Server

ROUNDS = 5
CALM_SECONDS, STORM_SECONDS = 4.0, 6.0
LOAD = 4
CLIENTS = 4
"""In the calm: more than the server has workers, so that it is never idle, and fewer than it admits."""


@dataclass
class Answers:
    """Seconds that each answer took, by status; those of answers after the phase are not counted."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0

    def add(self, status: int, sent: float) -> None:
        if not self.ended:
            self.seconds.setdefault(status, []).append(time.monotonic() - sent)

    def end(self) -> None:
        self.ended = time.monotonic()

    def goodput(self) -> float:
        """Pictures classified a second."""
        return len(self.seconds.get(200, [])) / (self.ended - self.began)


class Connections:
    """Keep-alive connections with one request ready as bytes, so that the client costs next to nothing."""

    def __init__(self, port: int, picture: bytes) -> None:
        self.port = port
        head = "POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: %d\r\n\r\n"
        self.request = (head % len(picture)).encode() + picture
        self.free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, answers: Answers) -> None:
        sent = time.monotonic()
        reader, writer = self.free.pop() if self.free else await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(self.request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        answers.add(int(head.split(b" ", 2)[1]), sent)
        self.free.append((reader, writer))

    async def close(self) -> None:
        for _, writer in self.free:
            writer.close()
            await writer.wait_closed()


async def calm(connections: Connections) -> Answers:
    """As much as the server carries: clients that wait for their answers."""
    answers = Answers()

    async def one() -> None:
        while time.monotonic() < answers.began + CALM_SECONDS:
            await connections.ask(answers)

    await asyncio.gather(*(one() for _ in range(CLIENTS)))
    answers.end()
    return answers


async def storm(connections: Connections, per_second: float) -> Answers:
    """Requests at fixed moments, whatever becomes of the ones before."""
    answers = Answers()
    async with asyncio.TaskGroup() as tasks:
        for number in range(round(per_second * STORM_SECONDS)):
            await asyncio.sleep(max(0.0, answers.began + number / per_second - time.monotonic()))
            tasks.create_task(connections.ask(answers))
        answers.end()
    return answers


def heavy_picture() -> bytes:
    """A PNG that is small on the wire and takes tens of milliseconds of one core to decode."""
    across = np.linspace(0, 255, 2400, dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(np.broadcast_to(across[None, :, None], (1800, 2400, 3)).copy()).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def server(make_model: Callable[..., Path]) -> Iterator[Server]:
    """The server on one core; this process has the others."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # a process inherits it
    server = Server(make_model())
    try:
        os.sched_setaffinity(0, cores - {min(cores)} or cores)
        server.wait_for_ping(200)
        yield server
    finally:
        os.sched_setaffinity(0, cores)
        server.close()


async def rounds(connections: Connections, process: psutil.Process) -> list[tuple[Answers, Answers, int]]:
    """Calm and storm in turn, and the server's memory in bytes after each round."""
    done = []
    for _ in range(ROUNDS):
        before = await calm(connections)
        done.append((before, await storm(connections, LOAD * before.goodput()), process.memory_info().rss))
    await connections.close()
    return done


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="gives the server a core of its own")
def test_four_times_the_load_leaves_nine_tenths_of_the_goodput_and_refuses_the_rest_at_once(server: Server) -> None:
    picture = heavy_picture()
    port = server.http.base_url.port
    assert port is not None

    done = asyncio.run(rounds(Connections(port, picture), psutil.Process(server.process.pid)))

    shares = [after.goodput() / before.goodput() for before, after, _ in done]
    refused = sorted(seconds for _, after, _ in done for seconds in after.seconds[503])
    service = statistics.median(seconds for before, _, _ in done for seconds in before.seconds[200]) / CLIENTS
    late = refused[int(len(refused) * 0.95)]
    grown = (done[-1][2] - done[0][2]) / 2**20
    print(
        f"goodput {[round(before.goodput(), 1) for before, _, _ in done]} a second when calm, shares of it in the "
        f"storm {[round(share, 2) for share in shares]}; {len(refused)} refused, half within "
        f"{statistics.median(refused) * 1000:.1f} ms, 95 % within {late * 1000:.1f} ms (a picture takes "
        f"{service * 1000:.0f} ms); memory {grown:+.1f} MiB from the first round to the last"
    )
    for before, after, _ in done:
        assert set(before.seconds) == {200}
        assert set(after.seconds) == {200, 503}
        assert after.ended - after.began < 1.1 * STORM_SECONDS, "the client was too slow to overload the server"
    assert statistics.median(shares) >= 0.9
    assert late < 2 * service, "a refusal does not wait for the pictures before it"
    assert grown < 16
    assert server.invoke().status_code == 200
