"""The load client against small servers: it counts what happens, and notices a wrong answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.client import Load, Plan, Report, WrongAnswer, best_class

CLASSES = ["beagle", "corgi", "pug"]
Answer = Callable[[bytes, int], Awaitable[tuple[str, bytes]]]


def predictions(best: str) -> bytes:
    rest = [name for name in CLASSES if name != best]
    probabilities = zip([best, *rest], (0.6, 0.3, 0.1), strict=True)
    return json.dumps({"predictions": [{"class": name, "probability": p} for name, p in probabilities]}).encode()


async def corgi(_body: bytes, _number: int) -> tuple[str, bytes]:
    return "200 OK", predictions("corgi")


def run(answer: Answer, folder: Path, **changes: object) -> Report:
    """Put a load on a server that answers with `answer(body, number of the request)`."""

    async def work() -> Report:
        count = 0

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            try:
                while head := await reader.readuntil(b"\r\n\r\n"):
                    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                    body = await reader.readexactly(length)
                    count += 1
                    status, content = await answer(body, count)
                    extra = "Retry-After: 0.01\r\n" if status.startswith("503") else ""
                    writer.write(
                        f"HTTP/1.1 {status}\r\n{extra}Content-Length: {len(content)}\r\n\r\n".encode() + content
                    )
            except (EOFError, ConnectionError, asyncio.CancelledError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            paths = []
            for number in range(2):
                paths.append(folder / f"{number}.jpg")
                paths[-1].write_bytes(b"picture %d" % number)
            port = server.sockets[0].getsockname()[1]
            plan = Plan(port, "/invocations", "image/jpeg", [str(p) for p in paths], None, CLASSES, 3, 30.0, requests=9)
            report = await Load(replace(plan, **changes)).run()  # type: ignore[arg-type]
            await asyncio.sleep(0)
        return report

    return asyncio.run(work())


def test_every_request_is_answered_once_and_timed(tmp_path: Path) -> None:
    report = run(corgi, tmp_path)
    assert len(report.latencies_ms) == 9
    assert report.best == ["corgi", "corgi"]
    assert report.refused == report.unanswered == 0
    assert max(report.latencies_ms) <= report.seconds * 1000


@pytest.mark.parametrize(("reconnects", "connections"), [(False, 3), (True, 9)])
def test_a_caller_has_one_connection_or_one_for_each_request(
    reconnects: bool, connections: int, tmp_path: Path
) -> None:
    handlers = []

    async def answer(body: bytes, number: int) -> tuple[str, bytes]:
        handlers.append(asyncio.current_task())
        return await corgi(body, number)

    assert len(run(answer, tmp_path, reconnects=reconnects).latencies_ms) == 9
    assert len(set(handlers)) == connections


def test_both_pictures_are_sent_in_turn(tmp_path: Path) -> None:
    seen = []

    async def answer(body: bytes, _number: int) -> tuple[str, bytes]:
        seen.append(body)
        return "200 OK", predictions("pug")

    run(answer, tmp_path, concurrency=1)
    assert seen[:3] == [b"picture 0", b"picture 1", b"picture 0"]


def test_a_refusal_is_tried_again_and_counted(tmp_path: Path) -> None:
    async def answer(_body: bytes, number: int) -> tuple[str, bytes]:
        return ("503 Service Unavailable", b"{}") if number <= 2 else ("200 OK", predictions("pug"))

    report = run(answer, tmp_path)
    assert report.refused == 2
    assert len(report.latencies_ms) == 9


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        ("500 Internal Server Error", b"oops", "status 500"),
        ("200 OK", b"not json", "not JSON"),
        ("200 OK", predictions("pug"), "the best class is pug, expected corgi"),
        ("200 OK", b'{"predictions": [{"class": "poodle", "probability": 1}]}', "not the most probable"),
        ("200 OK", b"[0.5, 0.25]", "expected 3 logits"),
        ("200 OK", b"[0.5, 0.25, NaN]", "not finite"),
    ],
)
def test_a_wrong_answer_ends_the_load(status: str, body: bytes, why: str, tmp_path: Path) -> None:
    async def answer(_body: bytes, _number: int) -> tuple[str, bytes]:
        return status, body

    with pytest.raises(WrongAnswer, match=why):
        run(answer, tmp_path, expected=["corgi", "corgi"])


def test_an_answer_that_changes_is_wrong_although_nobody_said_which_is_right(tmp_path: Path) -> None:
    async def answer(_body: bytes, number: int) -> tuple[str, bytes]:
        return "200 OK", predictions(CLASSES[number % 2])

    with pytest.raises(WrongAnswer, match="the best class is"):
        run(answer, tmp_path, concurrency=1, pictures=[str(tmp_path / "0.jpg")])


def test_a_server_that_does_not_answer_is_left_and_counted(tmp_path: Path) -> None:
    async def answer(_body: bytes, _number: int) -> tuple[str, bytes]:
        await asyncio.sleep(60)
        raise AssertionError

    report = run(answer, tmp_path, seconds=1.0, drain_seconds=0.1)
    assert report.unanswered == 3
    assert report.latencies_ms == []


def test_logits_are_read_flat_or_in_a_batch_of_one() -> None:
    assert best_class(b"[0.1, 0.7, 0.2]", CLASSES) == "corgi"
    assert best_class(b"[[0.1, 0.2, 0.7]]", CLASSES) == "pug"
