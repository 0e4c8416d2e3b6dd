"""A load client: so many callers, each with connections of its own, for so long; it waits for the answers and ends.

`python -m benchmarks.client` runs as a process of its own, so that the server under test shares no interpreter with it.
Standard library only. It reads one JSON document on stdin (`Plan`) and writes one on stdout (`Report`).

A caller sends a request as soon as it has the answer to its last one (a closed loop). Where the server says 503 with
Retry-After, the caller waits and asks again, and its time goes on counting from the first attempt.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

DRAIN_SECONDS = 30.0
"""How long answers are still waited for after the last request was sent."""
_MAX_ATTEMPTS = 100


class WrongAnswer(RuntimeError):
    """The server did not answer as it must; the message has the picture and the answer."""


@dataclass
class Plan:
    """What to send, and what the right answers are."""

    port: int
    path: str
    content_type: str
    pictures: list[str]
    """Files, sent in turn."""
    expected: list[str] | None
    """For each picture the name of its best class; None takes what comes, as long as it is an answer."""
    classes: list[str]
    concurrency: int
    seconds: float
    drain_seconds: float = DRAIN_SECONDS
    requests: int = 0
    """End after so many requests, if it is not zero."""
    reconnects: bool = False
    """A connection for each request, and not one for each caller."""


@dataclass
class Report:
    """What happened; times in milliseconds, in the order of the answers."""

    seconds: float = 0.0
    """From the first request to the last answer."""
    latencies_ms: list[float] = field(default_factory=list)
    refused: int = 0
    """Answers 503 with Retry-After; each was tried again."""
    unanswered: int = 0
    """Requests without an answer when the time was over; their latencies are in no percentile."""
    best: list[str] = field(default_factory=list)
    """The best class of each picture that was answered, by the picture's position; empty for the others."""


def best_class(body: bytes, classes: list[str]) -> str:
    """The best class of an answer: Kelpie's `predictions`, or a list of logits in the order of the classes.

    Raises:
        WrongAnswer: it is neither, has another number of classes, or numbers that are not finite.
    """
    try:
        document = json.loads(body)
    except ValueError:
        raise WrongAnswer(f"not JSON: {body[:200]!r}") from None
    if isinstance(document, dict) and isinstance(document.get("predictions"), list):
        return _best_of_predictions(document["predictions"], classes)
    while isinstance(document, list) and len(document) == 1 and isinstance(document[0], list):
        document = document[0]
    if not isinstance(document, list) or len(document) != len(classes):
        raise WrongAnswer(f"expected {len(classes)} logits, got {str(document)[:200]}")
    if not all(isinstance(logit, (int, float)) and math.isfinite(logit) for logit in document):
        raise WrongAnswer(f"logits that are not finite: {str(document)[:200]}")
    return classes[max(range(len(classes)), key=document.__getitem__)]


def _best_of_predictions(predictions: list[Any], classes: list[str]) -> str:
    try:
        names = [str(entry["class"]) for entry in predictions]
        probabilities = [float(entry["probability"]) for entry in predictions]
    except (TypeError, KeyError, ValueError):
        raise WrongAnswer(f"not a list of predictions: {str(predictions)[:200]}") from None
    ordered = probabilities == sorted(probabilities, reverse=True)
    if not names or not set(names) <= set(classes) or not ordered or not 0 < sum(probabilities) < 1.001:
        raise WrongAnswer(f"not the most probable of the classes, best first: {str(predictions)[:200]}")
    return names[0]


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """One HTTP/1.1 response: status, headers, body.

    Raises:
        EOFError, ValueError: the connection ended, or this is not HTTP.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *rest = head.rstrip().split("\r\n")
    status = int(first.split(" ")[1])
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return status, headers, body


class Load:
    """The callers and what they have met."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.report = Report(best=[""] * len(plan.pictures))
        self.requests = [self._request(Path(picture).read_bytes()) for picture in plan.pictures]
        self.sent = 0
        self.deadline = 0.0

    def _request(self, body: bytes) -> bytes:
        connection = "Connection: close\r\n" if self.plan.reconnects else ""
        head = (
            f"POST {self.plan.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.plan.port}\r\n"
            f"Content-Type: {self.plan.content_type}\r\nAccept: application/json\r\n"
            f"{connection}Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def _next(self) -> int | None:
        if time.monotonic() >= self.deadline or (self.plan.requests and self.sent >= self.plan.requests):
            return None
        self.sent += 1
        return (self.sent - 1) % len(self.requests)

    async def _caller(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.plan.port)
        try:
            while (picture := self._next()) is not None:
                started = time.monotonic()
                for _ in range(_MAX_ATTEMPTS):
                    if writer is None or writer.is_closing():
                        reader, writer = await asyncio.open_connection("127.0.0.1", self.plan.port)
                    writer.write(self.requests[picture])
                    await writer.drain()
                    status, headers, body = await _answer(reader)
                    if self.plan.reconnects or headers.get("connection", "").lower() == "close":
                        writer.close()
                    if status != 503 or "retry-after" not in headers:
                        break
                    self.report.refused += 1
                    await asyncio.sleep(float(headers["retry-after"]))
                self._note(picture, status, body, started)
        finally:
            writer.close()

    def _note(self, picture: int, status: int, body: bytes, started: float) -> None:
        self.report.latencies_ms.append((time.monotonic() - started) * 1000)
        name = self.plan.pictures[picture]
        if status != 200:
            raise WrongAnswer(f"{name}: status {status}: {body[:300]!r}")
        try:
            best = best_class(body, self.plan.classes)
        except WrongAnswer as error:
            raise WrongAnswer(f"{name}: {error}") from None
        wanted = self.plan.expected[picture] if self.plan.expected else self.report.best[picture]
        if wanted and best != wanted:
            raise WrongAnswer(f"{name}: the best class is {best}, expected {wanted}")
        self.report.best[picture] = best

    async def run(self) -> Report:
        """Make the load.

        Raises:
            WrongAnswer: another status than 200, another best class than expected, or a connection without an answer.
        """
        started = time.monotonic()
        self.deadline = started + self.plan.seconds
        callers = [asyncio.create_task(self._caller()) for _ in range(self.plan.concurrency)]
        limit = self.plan.seconds + self.plan.drain_seconds
        done, late = await asyncio.wait(callers, timeout=limit, return_when=asyncio.FIRST_EXCEPTION)
        self.report.seconds = time.monotonic() - started
        failed = [error for caller in done if (error := caller.exception())]
        for caller in late:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        if failed:
            if isinstance(failed[0], WrongAnswer):
                raise failed[0]
            raise WrongAnswer(f"no answer: {type(failed[0]).__name__}: {failed[0]}")
        self.report.unanswered = len(late)
        return self.report


def main() -> int:
    """Carry out the plan on stdin; exit code 1 and a message on stderr for a wrong answer."""
    plan = Plan(**json.load(sys.stdin))
    try:
        report = asyncio.run(Load(plan).run())
    except (WrongAnswer, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    json.dump(asdict(report), sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
