"""On paper, from what was measured: a training job on 1 to 32 instances, by `workflow.cost.scaling`.

Between two instances only loopback was measured; what a network of a data centre would do is assumed, and said so.
"""

from __future__ import annotations

import socket
import statistics
import threading
import time
from dataclasses import asdict, replace

from benchmarks.record import Row, Table
from workflow.config import Config
from workflow.cost.pricing import load_prices
from workflow.cost.scaling import Measured, Mode, Work, estimates, worthwhile

ASSUMED_LATENCY_SECONDS, ASSUMED_BYTES_PER_SECOND = 0.0005, 1.25e9
"""Assumed, not measured: half a millisecond and 10 Gbit/s."""
WORK = Work(picture_count=100_000, epochs=10, batch_size=32)
_PINGS = 2000
_STREAM_BYTES = 256 << 20
_CHUNK_BYTES = 1 << 20


def loopback() -> tuple[float, float]:
    """Seconds of a message without content, one way, and bytes a second of a long one, by TCP over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answering = threading.Thread(target=_answer, args=(listener,))
        answering.start()
        with socket.create_connection(listener.getsockname()) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            spans = []
            for _ in range(_PINGS):
                started = time.perf_counter()
                connection.sendall(b"?")
                connection.recv(1)
                spans.append(time.perf_counter() - started)
            chunk = bytes(_CHUNK_BYTES)
            started = time.perf_counter()
            for _ in range(_STREAM_BYTES // _CHUNK_BYTES):
                connection.sendall(chunk)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
            seconds = time.perf_counter() - started
        answering.join()
    return statistics.median(spans) / 2, _STREAM_BYTES / seconds


def _answer(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(_PINGS):
            connection.sendall(connection.recv(1))
        buffer = bytearray(_CHUNK_BYTES)
        while connection.recv_into(buffer):
            pass
        connection.sendall(b"!")


def tables(features: Measured, finetune: Measured, more: Row) -> list[Table]:
    """What the estimate is made of, and the estimate of each mode."""
    rows = [
        Row(f"{mode}: {name}", (float(value),))
        for mode, measured in (("features", features), ("finetune", finetune))
        for name, value in asdict(measured).items()
    ]
    units = "Seconds and bytes, of a host of one thread. A picture and a step of fine-tuning are one figure."
    inputs = Table("What the scaling estimate is made of", "as named", "lower", (*rows, more), note=units)
    return [inputs, estimate("features", features), estimate("finetune", finetune)]


def estimate(mode: Mode, measured: Measured) -> Table:
    """1 to 32 instances: time, cost, efficiency, and where more of them stop paying."""
    instance_type = Config().training.instance_type
    price = load_prices().instance_hour("training", instance_type)
    title = f"On paper: {WORK.picture_count:,} pictures on 1 to 32 instances, {mode} mode"
    if price is None:
        missing = f"{instance_type} has no price in the table"
        return Table(title, "s", "lower", (Row("1 to 32 instances", missing=missing),))
    network = replace(measured, latency_seconds=ASSUMED_LATENCY_SECONDS, bytes_per_second=ASSUMED_BYTES_PER_SECOND)
    found, assumed = (estimates(mode, one, WORK, price) for one in (measured, network))
    most, most_assumed = worthwhile(found), worthwhile(assumed)
    rows = [
        Row(
            f"{one.instance_count} instance{'s' if one.instance_count > 1 else ''}",
            (one.seconds,),
            more={
                "USD": one.usd,
                "efficiency": f"{one.efficiency:.0%}",
                "s by a network as assumed": other.seconds,
                "its efficiency": f"{other.efficiency:.0%}",
                "": _pays(one.instance_count, most, most_assumed),
            },
        )
        for one, other in zip(found, assumed, strict=True)
    ]
    note = (
        f"Calculated, not run: {WORK.epochs} epochs, batches of {WORK.batch_size}, instances as fast as one thread "
        f"here, at {price} USD an hour ({instance_type}). The messages between them: as over loopback, and as by a "
        f"network of {ASSUMED_LATENCY_SECONDS * 1000:g} ms and {ASSUMED_BYTES_PER_SECOND / 1e9:g} GB/s (assumed)."
    )
    return Table(title, "s", "lower", tuple(rows), (rows[0].name,), note=note)


def _pays(count: int, most: int, most_assumed: int) -> str:
    said = ["the most that pay"] if count == most else []
    said += ["the most that pay by the assumed network"] if count == most_assumed != most else []
    return ", ".join(said)
