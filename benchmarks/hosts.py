"""Hosts of a training job on this machine: two of one thread against one, and what the paper estimate is made of."""

from __future__ import annotations

import itertools
import json
import os
import re
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from benchmarks import scaling
from benchmarks.children import Child, ChildFailed, environment, free_port, own_python, running
from benchmarks.record import Row, Table
from workflow.cost.scaling import BLOCK_PICTURES, Measured

LITE0_FEATURES, LITE0_PARAMETERS = 1280, 3_383_818
"""Of the backbone and a head of ten classes; a test counts them."""
ACCURACY = re.compile(r"\bvalid:accuracy=([0-9.]+)")
"""How Kelpie's training tells its accuracy after an epoch."""
_BLOCKS = re.compile(r"^features of \d+ of (\d+) blocks")
_TIMEOUT_SECONDS = 1200


@dataclass(frozen=True)
class HostsRun:
    """A training job on so many hosts of this machine, one thread each."""

    start_seconds: float
    """Until every host has told its rank: imports, scanning, reading of its share, meeting the others."""
    train_seconds: float
    """From then on to the last epoch's accuracy."""
    whole_seconds: float
    feature_seconds: float
    """Of `train_seconds`, until the last block of pictures had its features; 0 in finetune mode."""
    feature_blocks: int
    steps: int
    """Of the optimizer."""
    epoch_seconds: float
    """Median of the epochs after the first; 0 if there is one only."""
    accuracy: float
    """The last epoch's, on the valid pictures."""
    is_bfloat16: bool
    loopback_bytes: int


def on_hosts(count: int, data: Path, folder: Path, flags: Sequence[str], first_core: int = 0) -> HostsRun:
    """Start the hosts as SageMaker starts them, each with one thread and, where there are enough, a core of its own."""
    cores = sorted(os.sched_getaffinity(0))[first_core:] if hasattr(os, "sched_getaffinity") else []
    names = [f"algo-{i + 1}" for i in range(count)]
    port = str(free_port())
    sent_before = psutil.net_io_counters(pernic=True)["lo"].bytes_sent
    started = time.monotonic()
    with ExitStack() as stack:
        hosts: list[Child] = []
        for number, name in enumerate(names):
            base = folder / name
            (base / "output").mkdir(parents=True)
            env = environment(
                SAGEMAKER_BASE_DIR=str(base),
                SM_MODEL_DIR=str(base / "model"),
                SM_OUTPUT_DATA_DIR=str(base / "output" / "data"),
                SM_CHANNEL_DATA=str(data),
                SM_HOSTS=json.dumps(names),
                SM_CURRENT_HOST=name,
                SM_NUM_GPUS="0",
                SM_NETWORK_INTERFACE_NAME="lo",
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=port,
                OMP_NUM_THREADS="1",
                TRAINING_JOB_NAME="benchmark",
            )
            own_core = ["taskset", "--cpu-list", str(cores[number])] if number < len(cores) else []
            argv = [*own_core, own_python(), "-m", "training.entry_point", *flags]
            hosts.append(stack.enter_context(running(argv, name=name, cwd=base, env=env)))
        for host in hosts:
            assert host.process is not None
            code = host.process.wait(_TIMEOUT_SECONDS)
            if code != 0:
                raise ChildFailed(f"{host.name} of {count} ended with {code}; its last lines:\n{host.tail()}")
    whole = time.monotonic() - started
    met = max(host.first("world_size=").seconds for host in hosts)
    told = [(line, found) for line in hosts[0].lines if (found := ACCURACY.search(line.text))]
    if not told:
        raise ChildFailed(f"{hosts[0].name} told no accuracy:\n{hosts[0].tail()}")
    steps = int(re.findall(r"total_steps=(\d+)", hosts[0].first("total_steps=").text)[0])
    blocks = [(line, found) for line in hosts[0].lines if (found := _BLOCKS.search(line.text))]
    block_count = int(blocks[-1][1][1]) if blocks else 0
    spans = [after.seconds - before.seconds for (before, _), (after, _) in itertools.pairwise(told)]
    return HostsRun(
        start_seconds=met,
        train_seconds=told[-1][0].seconds - met,
        whole_seconds=whole,
        feature_seconds=blocks[-1][0].seconds - met if blocks else 0.0,
        feature_blocks=block_count,
        steps=steps - block_count,
        epoch_seconds=statistics.median(spans) if spans else 0.0,
        accuracy=float(told[-1][1][1]),
        is_bfloat16="; bfloat16" in hosts[0].first("mode=").text,
        loopback_bytes=psutil.net_io_counters(pernic=True)["lo"].bytes_sent - sent_before,
    )


def beside_each_other(data: Path, folder: Path, flags: Sequence[str]) -> list[HostsRun]:
    """Two jobs of one host each at the same time, which have nothing in common but the machine."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda n: on_hosts(1, data, folder / str(n), flags, first_core=n), range(2)))


def two_hosts(rounds: int, side: int, data: Path, less_data: Path, folder: Path) -> list[Table]:
    """Two hosts of one thread against one, and on paper up to 32 of them; fine-tuning is measured on less data.

    `side` is that of the pictures in pixels.
    """
    flags = ("--weights", "package", "--image-size", str(side))
    fine = (*flags, "--trainable", "all", "--learning-rate", "0.0003", "--epochs", "2")
    one: list[HostsRun] = []
    two: list[HostsRun] = []
    beside: list[list[HostsRun]] = []
    for n in range(rounds):
        one.append(on_hosts(1, data, folder / f"{n}-1", flags))
        two.append(on_hosts(2, data, folder / f"{n}-2", flags))
        beside.append(beside_each_other(data, folder / f"{n}-beside", flags))
    finetuned = on_hosts(1, less_data, folder / "finetune", fine)
    counts, less = (
        {split: len(list((root / split).rglob("*.jpg"))) for split in ("train", "valid")} for root in (data, less_data)
    )
    slowed = _row("one host, while another job does the same", beside)
    table = Table(
        "Two hosts of one thread against one host of one thread, features mode",
        "s",
        "lower",
        (
            _row("one host", [[run] for run in one]),
            _row("two hosts", [[run] for run in two], limit=slowed.median / 2),
            slowed,
        ),
        ("one host",),
        "half the time of one host while another job does the same",
        note=f"{counts['train']} train and {counts['valid']} valid pictures at {side} pixels. "
        "From the meeting of the hosts, who have read their shares by "
        "then, to the last epoch; then the job. The cores share memory, caches and clock: two jobs that have nothing "
        "to do with each other are slower, too, than one alone, and that is the limit for two hosts here.",
        headlines=("two hosts",),
    )
    latency, bandwidth = scaling.loopback()
    # What two hosts share takes one of them half as long, be it before the hosts meet (reading) or after that.
    of_one, of_two = (statistics.median(r.start_seconds + r.feature_seconds for r in runs) for runs in (one, two))
    computing = statistics.median(r.feature_seconds for r in one)
    shared = min(of_one, max(computing, 2 * (of_one - of_two)))
    features = Measured(
        start_seconds=of_one - shared,
        end_seconds=statistics.median(r.whole_seconds - r.start_seconds - r.train_seconds for r in one),
        seconds_per_picture=shared / sum(counts.values()),
        seconds_per_step=statistics.median((r.train_seconds - r.feature_seconds) / r.steps for r in one),
        message_bytes=BLOCK_PICTURES * LITE0_FEATURES * (2 if one[0].is_bfloat16 else 4),
        latency_seconds=latency,
        bytes_per_second=bandwidth,
    )
    finetune = replace(
        features,
        seconds_per_picture=finetuned.epoch_seconds / sum(less.values()),
        seconds_per_step=0.0,  # in the picture's
        message_bytes=LITE0_PARAMETERS * 4,
    )
    sent = Row("bytes that loopback carried for two hosts, the whole job", [float(r.loopback_bytes) for r in two])
    return [table, *scaling.tables(features, finetune, sent)]


def _row(name: str, rounds: Sequence[Sequence[HostsRun]], limit: float | None = None) -> Row:
    """A value for each round, the mean of its jobs."""
    runs = list(itertools.chain(*rounds))
    more = {
        "whole job, s": statistics.median(run.whole_seconds for run in runs),
        "start, s": statistics.median(run.start_seconds for run in runs),
    }
    quality = f"valid {statistics.median(run.accuracy for run in runs):.1%}"
    values = [statistics.mean(run.train_seconds for run in jobs) for jobs in rounds]
    return Row(name, values, quality, limit, more)
