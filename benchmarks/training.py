"""Training: time to the same validation accuracy, pictures a second, two hosts against one, memory.

Every contestant is a program of its own, with the same pictures and the same pretrained weights. Time counts from the
start of the process to the line that tells the accuracy, so imports, scanning and decoding are in it.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from benchmarks import limits, pictures, scaling
from benchmarks.children import (
    TUNED_ALLOCATOR,
    Child,
    ChildFailed,
    Line,
    environment,
    free_port,
    own_python,
    run,
    running,
)
from benchmarks.environment import usable_cores
from benchmarks.record import Row, Table
from training.reading import MAX_KEPT_BYTES
from workflow.cost.scaling import BLOCK_PICTURES, Measured

NAME = "training"
GFLOP_PER_PICTURE = 0.77
"""Forward pass of EfficientNet-Lite0 at 224 pixels, a multiplication and an addition being two. Source: 385 million
multiply-adds, as published with the network (tensorflow/tpu, efficientnet/lite, read 2026-11-22), times two."""
LITE0_FEATURES, LITE0_PARAMETERS = 1280, 3_383_818
"""Of the backbone and a head of ten classes; a test counts them."""
_ACCURACY = re.compile(r"\bvalid:accuracy=([0-9.]+)")
_BLOCKS = re.compile(r"^features of \d+ of (\d+) blocks")
_TIMEOUT_SECONDS = 1200


@dataclass(frozen=True)
class Size:
    """How much is done."""

    images: int
    targets: tuple[float, ...]
    """Validation accuracies, the highest last: when it is reached, a baseline ends."""
    epochs: int
    """At most, for the original recipe."""
    torchvision_epochs: int
    """At most, for torchvision's, which takes longest for one."""
    finetune_epochs: int
    side: int
    """Pixels of Kelpie's pictures where the baselines have 224."""
    kelpie_runs: int
    host_images: int
    host_rounds: int
    memory_images: tuple[int, ...]


WHOLE = Size(1500, (0.85, 0.9, 0.95), 6, 3, 2, 224, 3, 3000, 5, (300, 1200))
QUICK = Size(60, (0.05, 1.0), 1, 1, 1, 64, 1, 60, 1, (30, 60))


@dataclass(frozen=True)
class Outcome:
    """What one run of one recipe reached."""

    told: Sequence[tuple[Line, float]]
    """The lines that told its accuracy, one an epoch."""
    whole_seconds: float
    pictures_per_second: float
    """Median over the epochs; validation is in it."""

    @property
    def accuracy(self) -> float:
        """The best of the epochs."""
        return max(accuracy for _, accuracy in self.told)

    def epochs_to(self, target: float) -> int | None:
        """Epochs until the accuracy was reached; None if it was not."""
        return next((n for n, (_, accuracy) in enumerate(self.told, 1) if accuracy >= target), None)


def outcome(told: Sequence[tuple[Line, float]], pictures_each: int, whole: float) -> Outcome:
    """Judge a run by the lines that told its accuracy, one an epoch."""
    if not told:
        raise ChildFailed("a training program told no validation accuracy")
    times = [line.seconds for line, _ in told]
    # The first epoch has the start of the process in it, unless there is no other.
    spans = [after - before for before, after in itertools.pairwise(times)] or times
    return Outcome(tuple(told), whole, pictures_each / max(1e-9, statistics.median(spans)))


@dataclass(frozen=True)
class Recipe:
    """A contestant: how its program is started, and how it tells its accuracy."""

    name: str
    module: str
    flags: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    is_kelpie: bool = False

    def run(self, data: Path, folder: Path, train_count: int) -> Outcome:
        folder.mkdir(parents=True)
        arguments = ["--data", str(data), *self.flags]
        if self.is_kelpie:
            arguments += ["--output", str(folder / "out")]
        argv = [own_python(), "-m", self.module, *arguments]
        env = environment(**dict(self.env))
        done = run(argv, name=self.name, cwd=folder, env=env, timeout_seconds=_TIMEOUT_SECONDS)
        told = [(line, accuracy) for line in done.child.lines if (accuracy := _accuracy(line.text)) is not None]
        return outcome(told, train_count, done.seconds)


def _accuracy(text: str) -> float | None:
    if found := _ACCURACY.search(text):
        return float(found[1])
    if text.startswith("{"):
        return float(json.loads(text)["valid_accuracy"])
    return None


def recipes(size: Size) -> tuple[list[Recipe], list[Recipe]]:
    """The baselines, and Kelpie's modes."""
    cores = str(usable_cores())
    target = ("--target", str(size.targets[-1]))
    until = ("--epochs", str(size.epochs), *target)
    until_less = ("--epochs", str(size.torchvision_epochs), *target)
    fair = tuple({"OMP_NUM_THREADS": cores, **TUNED_ALLOCATOR}.items())
    baselines = [
        Recipe(AS_IS, "benchmarks.baselines.original_training", until),
        Recipe(FAIR, "benchmarks.baselines.original_training", (*until, "--fair"), fair),
        Recipe(TORCHVISION, "benchmarks.baselines.torchvision_training", (*until_less, "--workers", cores)),
    ]
    common = ("--weights", "package", "--image-size", str(size.side))
    fine = ("--trainable", "all", "--learning-rate", "0.0003", "--epochs", str(size.finetune_epochs))
    kelpie = [
        Recipe(FEATURES, "training", (*common, "--trainable", "head"), is_kelpie=True),
        Recipe(SMALLER, "training", ("--weights", "package", "--trainable", "head"), is_kelpie=True),
        Recipe(FINETUNE, "training", (*common, *fine), is_kelpie=True),
    ]
    return baselines, kelpie


AS_IS = "original recipe, as people run it"
FAIR = "original recipe, fair form"
TORCHVISION = "torchvision's reference recipe"
FEATURES = "Kelpie, features mode, 224 pixels"
SMALLER = "Kelpie, features mode, 160 pixels (its default)"
FINETUNE = "Kelpie, finetune mode, 224 pixels"


def to_accuracy(size: Size, data: Path, folder: Path, measured: limits.Limits) -> list[Table]:
    """Kelpie's features mode between the baselines, each really run until it reaches the highest target or ends."""
    train_count = len(list((data / "train").rglob("*.jpg")))
    baselines, kelpie = recipes(size)
    features, smaller, finetune = kelpie
    order = [features]
    for n, recipe in enumerate([*baselines, finetune, smaller]):
        order += [recipe, *([features] if n + 1 < size.kelpie_runs else [])]
    outcomes: dict[str, list[Outcome]] = {}
    for n, recipe in enumerate(order):
        outcomes.setdefault(recipe.name, []).append(recipe.run(data, folder / f"run-{n}", train_count))
    names = [recipe.name for recipe in (*baselines, features, smaller, finetune)]
    speed = [
        Row(
            name,
            [o.pictures_per_second for o in outcomes[name]],
            quality=_best(outcomes[name]),
            limit=measured.gemm_f32_gflops_all / GFLOP_PER_PICTURE,
        )
        for name in names
    ]
    return [
        *(to_target({name: outcomes[name] for name in names}, target, train_count) for target in size.targets),
        Table(
            "Training pictures a second, validation included",
            "pictures/s",
            "higher",
            speed,
            (AS_IS, FAIR, TORCHVISION),
            "the float32 matrix product's speed on a forward pass",
            "Median of the epochs without the first. Features that are cached cost nothing in later epochs, and "
            "bfloat16 is faster than float32: the features mode may pass 100 %.",
        ),
    ]


def _best(outcomes: Sequence[Outcome]) -> str:
    return f"valid {statistics.median(o.accuracy for o in outcomes):.1%}"


def to_target(outcomes: Mapping[str, Sequence[Outcome]], target: float, train_count: int) -> Table:
    """How long each took to this accuracy, from the runs that were made to the highest."""
    note = (
        f"{train_count} drawn dogs to train on, EfficientNet-Lite0 with the same ImageNet weights, from the start of "
        f"the process to the first epoch with a validation accuracy of {target:.0%} or more. Who did not reach it has "
        "the time of all its epochs, and what is compared with that is a bound."
    )
    rows = [_to_target_row(name, some, target) for name, some in outcomes.items()]
    title = f"Time to {target:.0%} validation accuracy"
    return Table(title, "s", "lower", rows, (AS_IS, FAIR, TORCHVISION), note=note, headlines=(FEATURES,))


def _to_target_row(name: str, outcomes: Sequence[Outcome], target: float) -> Row:
    epochs = [outcome.epochs_to(target) for outcome in outcomes]
    counts = [count or len(outcome.told) for count, outcome in zip(epochs, outcomes, strict=True)]
    lines = [outcome.told[count - 1][0] for count, outcome in zip(counts, outcomes, strict=True)]
    more = {
        "epochs": statistics.median(counts),
        "CPU s": statistics.median(line.cpu_seconds for line in lines),
        "whole run, s": statistics.median(outcome.whole_seconds for outcome in outcomes),
    }
    missed = None in epochs
    quality = _best(outcomes) + (", the best" if missed else "")
    return Row(name, [line.seconds for line in lines], quality=quality, more=more, is_bound=missed)


# --- hosts -----------------------------------------------------------------------------------------------------------


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
    told = [line for line in hosts[0].lines if _accuracy(line.text) is not None]
    if not told:
        raise ChildFailed(f"{hosts[0].name} told no accuracy:\n{hosts[0].tail()}")
    steps = int(re.findall(r"total_steps=(\d+)", hosts[0].first("total_steps=").text)[0])
    blocks = [(line, found) for line in hosts[0].lines if (found := _BLOCKS.search(line.text))]
    block_count = int(blocks[-1][1][1]) if blocks else 0
    spans = [after.seconds - before.seconds for before, after in itertools.pairwise(told)]
    return HostsRun(
        start_seconds=met,
        train_seconds=told[-1].seconds - met,
        whole_seconds=whole,
        feature_seconds=blocks[-1][0].seconds - met if blocks else 0.0,
        feature_blocks=block_count,
        steps=steps - block_count,
        epoch_seconds=statistics.median(spans) if spans else 0.0,
        accuracy=_accuracy(told[-1].text) or 0.0,
        is_bfloat16="; bfloat16" in hosts[0].first("mode=").text,
        loopback_bytes=psutil.net_io_counters(pernic=True)["lo"].bytes_sent - sent_before,
    )


def beside_each_other(data: Path, folder: Path, flags: Sequence[str]) -> list[HostsRun]:
    """Two jobs of one host each at the same time, which have nothing in common but the machine."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda n: on_hosts(1, data, folder / str(n), flags, first_core=n), range(2)))


def two_hosts(size: Size, data: Path, less_data: Path, folder: Path) -> list[Table]:
    """Two hosts of one thread against one, and on paper up to 32 of them; fine-tuning is measured on less data."""
    flags = ("--weights", "package", "--image-size", str(size.side))
    fine = (*flags, "--trainable", "all", "--learning-rate", "0.0003", "--epochs", "2")
    one: list[HostsRun] = []
    two: list[HostsRun] = []
    beside: list[list[HostsRun]] = []
    for n in range(size.host_rounds):
        one.append(on_hosts(1, data, folder / f"{n}-1", flags))
        two.append(on_hosts(2, data, folder / f"{n}-2", flags))
        beside.append(beside_each_other(data, folder / f"{n}-beside", flags))
    finetuned = on_hosts(1, less_data, folder / "finetune", fine)
    counts, less = (
        {split: len(list((root / split).rglob("*.jpg"))) for split in ("train", "valid")} for root in (data, less_data)
    )
    slowed = _hosts_row("one host, while another job does the same", beside)
    table = Table(
        "Two hosts of one thread against one host of one thread, features mode",
        "s",
        "lower",
        (
            _hosts_row("one host", [[run] for run in one]),
            _hosts_row("two hosts", [[run] for run in two], limit=slowed.median / 2),
            slowed,
        ),
        ("one host",),
        "half the time of one host while another job does the same",
        note=f"{counts['train']} train and {counts['valid']} valid pictures at {size.side} pixels. "
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


def _hosts_row(name: str, rounds: Sequence[Sequence[HostsRun]], limit: float | None = None) -> Row:
    """A value for each round, the mean of its jobs."""
    runs = list(itertools.chain(*rounds))
    more = {
        "whole job, s": statistics.median(run.whole_seconds for run in runs),
        "start, s": statistics.median(run.start_seconds for run in runs),
    }
    quality = f"valid {statistics.median(run.accuracy for run in runs):.1%}"
    values = [statistics.mean(run.train_seconds for run in jobs) for jobs in rounds]
    return Row(name, values, quality, limit, more)


# --- memory ----------------------------------------------------------------------------------------------------------


def memory(size: Size, data_of: Callable[[int], Path], folder: Path) -> Table:
    """Peak resident memory of a features run at growing numbers of pictures."""
    rows = []
    for images in size.memory_images:
        base = folder / str(images)
        base.mkdir(parents=True)
        flags = ["--data", str(data_of(images)), "--output", str(base / "out"), "--weights", "package", "--epochs", "1"]
        argv = [own_python(), "-m", "training", *flags]
        done = run(argv, name=f"{images} pictures", cwd=base, env=environment(), timeout_seconds=_TIMEOUT_SECONDS)
        rows.append(Row(f"{images} pictures", (done.peak_rss_bytes / 2**20,)))
    return Table(
        "Memory of training as the pictures grow in number",
        "MiB at most",
        "lower",
        tuple(rows),
        (rows[0].name,),
        note="Features mode at 160 pixels, evaluation and export included; all its processes together, sampled twenty "
        f"times a second. Up to {MAX_KEPT_BYTES >> 20} MiB of it are pixels of pictures that wait for their features, "
        "however many there are. A test compares 999 with 99,999 pictures.",
    )


def measure(quick: bool, folder: Path) -> list[Table]:
    """The script `training`."""
    size = QUICK if quick else WHOLE
    measured = limits.limits(quick)
    drawn: dict[int, Path] = {}

    def data_of(images: int) -> Path:
        if images not in drawn:
            drawn[images] = pictures.dogs(folder / f"dogs-{images}", images)
        return drawn[images]

    return [
        *to_accuracy(size, data_of(size.images), folder / "accuracy", measured),
        *two_hosts(size, data_of(size.host_images), data_of(size.memory_images[0]), folder / "hosts"),
        memory(size, data_of, folder / "memory"),
        limits.table(measured),
    ]
