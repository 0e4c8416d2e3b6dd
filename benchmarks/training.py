"""Training: time to the same validation accuracy, pictures a second, two hosts against one, memory.

Every contestant is a program of its own, with the same pictures and the same pretrained weights. Time counts from the
start of the process to the line that tells the accuracy, so imports, scanning and decoding are in it.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import limits, pictures
from benchmarks.children import TUNED_ALLOCATOR, ChildFailed, Line, environment, own_python, run
from benchmarks.environment import usable_cores
from benchmarks.hosts import ACCURACY, two_hosts
from benchmarks.record import Row, Table
from inference import runtime
from training.reading import MAX_KEPT_BYTES
from training.settings import Settings

NAME = "training"
GFLOP_PER_PICTURE = 0.77
"""Forward pass of EfficientNet-Lite0 at 224 pixels, a multiplication and an addition being two. Source: 385 million
multiply-adds, as published with the network (tensorflow/tpu, efficientnet/lite, read 2026-11-22), times two."""
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
    rounds: int
    """Of Kelpie's features mode and the fair form, in turn; the others are run once."""
    host_images: int
    host_rounds: int
    start_images: int
    """Of a run that is hardly more than its start."""
    memory_images: tuple[int, ...]
    """To train on; names of `start_images` files."""


WHOLE = Size(1500, (0.85, 0.9, 0.95), 6, 3, 2, 224, 3, 3000, 5, 300, (1_000, 10_000, 100_000))
QUICK = Size(60, (0.05, 1.0), 1, 1, 1, 64, 1, 60, 1, 30, (30, 60))


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
    side: int = 224
    """Pixels of its pictures."""
    trains_all: bool = False
    """The backbone too: a step's backward pass is twice its forward pass."""
    keeps_features: bool = False
    """Each picture is decoded, and goes through the backbone, once for all epochs; in bfloat16 if the CPU has it."""

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


@dataclass(frozen=True)
class Work:
    """What a training consists of at least, as fast as all cores can do it."""

    train_count: int
    valid_count: int
    decodes_per_second: float
    """Of these pictures."""
    products: limits.Limits

    def least_seconds(self, recipe: Recipe, epochs: float) -> float:
        """The time of decoding and of the backbone's multiplications in so many epochs, if nothing else took any."""
        epochs = 1 if recipe.keeps_features else epochs
        passes = self.train_count * (3 if recipe.trains_all else 1) + self.valid_count
        fast = self.products.gemm("bfloat16") if recipe.keeps_features and runtime.cpu_feature("bfloat16") else None
        gflops = fast or self.products.gemm_f32_gflops_all
        picture_seconds = GFLOP_PER_PICTURE * (recipe.side / 224) ** 2 / gflops
        return epochs * (passes * picture_seconds + (self.train_count + self.valid_count) / self.decodes_per_second)


def work_on(data: Path, measured: limits.Limits, quick: bool) -> Work:
    """The work of training on `data`; decoding is measured on one of its pictures."""
    train, valid = (sorted((data / split).rglob("*.jpg")) for split in ("train", "valid"))
    rate = limits.jpeg_decodes(train[0].read_bytes(), usable_cores(), rounds=1 if quick else limits.ROUNDS)
    return Work(len(train), len(valid), rate, measured)


def _accuracy(text: str) -> float | None:
    if found := ACCURACY.search(text):
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
        Recipe(
            TORCHVISION, "benchmarks.baselines.torchvision_training", (*until_less, "--workers", cores), trains_all=True
        ),
    ]
    common = ("--weights", "package", "--image-size", str(size.side))
    fine = ("--trainable", "all", "--learning-rate", "0.0003", "--epochs", str(size.finetune_epochs))
    kelpie = [
        Recipe(
            FEATURES, "training", (*common, "--trainable", "head"), is_kelpie=True, side=size.side, keeps_features=True
        ),
        Recipe(
            SMALLER,
            "training",
            ("--weights", "package", "--trainable", "head"),
            is_kelpie=True,
            side=Settings.image_size,
            keeps_features=True,
        ),
        Recipe(FINETUNE, "training", (*common, *fine), is_kelpie=True, side=size.side, trains_all=True),
    ]
    return baselines, kelpie


AS_IS = "original recipe, as people run it"
FAIR = "original recipe, fair form"
TORCHVISION = "torchvision's reference recipe"
FEATURES = "Kelpie, features mode, 224 pixels"
SMALLER = "Kelpie, features mode, 160 pixels (its default)"
FINETUNE = "Kelpie, finetune mode, 224 pixels"


def to_accuracy(size: Size, data: Path, folder: Path, work: Work) -> list[Table]:
    """Each really run until the highest target is reached or the epochs end; features mode and fair form in turn."""
    baselines, kelpie = recipes(size)
    (as_is, fair, torchvision), (features, smaller, finetune) = baselines, kelpie
    order = [as_is, torchvision, finetune, *(fair, features, smaller) * size.rounds]
    outcomes: dict[str, list[Outcome]] = {}
    for n, recipe in enumerate(order):
        outcomes.setdefault(recipe.name, []).append(recipe.run(data, folder / f"run-{n}", work.train_count))
    everybody = (*baselines, *kelpie)
    names = [recipe.name for recipe in everybody]
    times = [to_target(everybody, outcomes, target, work) for target in size.targets]
    speed = [
        Row(
            name,
            [o.pictures_per_second for o in outcomes[name]],
            quality=_best(outcomes[name]),
            limit=work.products.gemm_f32_gflops_all / GFLOP_PER_PICTURE,
        )
        for name in names
    ]
    return [
        times[0],
        *(replace(table, headlines=()) for table in times[1:-1]),
        times[-1],
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


def to_target(recipes: Sequence[Recipe], outcomes: Mapping[str, Sequence[Outcome]], target: float, work: Work) -> Table:
    """How long each took to this accuracy, from the runs that were made to the highest."""
    note = (
        f"{work.train_count} drawn dogs to train on, EfficientNet-Lite0 with the same ImageNet weights, from the "
        f"start of the process to the first epoch with a validation accuracy of {target:.0%} or more. Who did not "
        "reach it has the time of all its epochs, and what is compared with that is a bound. The limit is what the "
        "pictures of these epochs, each as often as the recipe needs it, take to decode and to multiply with the "
        "backbone's weights at this machine's speed: the start of Python and PyTorch, and all the rest, is not in it."
    )
    rows = [_to_target_row(recipe, outcomes[recipe.name], target, work) for recipe in recipes]
    limit_name = "the time of decoding and the matrix product alone"
    title = f"Time to {target:.0%} validation accuracy"
    return Table(
        title, "s", "lower", rows, (AS_IS, FAIR, TORCHVISION), limit_name, note=note, headlines=(FEATURES, SMALLER)
    )


def _to_target_row(recipe: Recipe, outcomes: Sequence[Outcome], target: float, work: Work) -> Row:
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
    limit = work.least_seconds(recipe, more["epochs"])
    seconds = [line.seconds for line in lines]
    return Row(recipe.name, seconds, quality=quality, limit=limit, more=more, is_bound=missed)


# --- memory ----------------------------------------------------------------------------------------------------------


def memory(size: Size, data: Path, folder: Path) -> Table:
    """Peak memory of a features run at growing numbers of pictures, which are names of those in `data`."""
    rows = []
    for images in size.memory_images:
        base = folder / str(images)
        base.mkdir(parents=True)
        entries = pictures.many_names(data, base / "data", images)
        flags = ["--data", str(entries), "--output", str(base / "out"), "--weights", "package", "--epochs", "1"]
        argv = [own_python(), "-m", "training", *flags]
        name = f"{images:,} pictures"
        done = run(argv, name=name, cwd=base, env=environment(), timeout_seconds=_TIMEOUT_SECONDS)
        with_files = {"with mapped files": done.peak_rss_bytes / 2**20, "whole run, s": done.seconds}
        rows.append(Row(name, (done.peak_own_bytes / 2**20,), more=with_files))
    return Table(
        "Memory of training as the pictures grow in number",
        "MiB at most",
        "lower",
        tuple(rows),
        (rows[0].name,),
        note="Features mode at 160 pixels, evaluation and export included; all its processes together, sampled twenty "
        "times a second. The pictures are so many names of a few files, each read and computed as if it were another. "
        f"Up to {MAX_KEPT_BYTES >> 20} MiB are pixels of pictures that wait for their features, however many there "
        "are. Mapped files, the features among them, are memory that the kernel can take back.",
    )


def measure(quick: bool, folder: Path) -> list[Table]:
    """The script `training`."""
    size = QUICK if quick else WHOLE
    measured = limits.limits(quick)
    counts = (size.images, size.host_images, size.start_images)
    drawn = {count: pictures.dogs(folder / f"dogs-{count}", count) for count in sorted(set(counts))}
    data, of_hosts, of_start = (drawn[count] for count in counts)
    return [
        *to_accuracy(size, data, folder / "accuracy", work_on(data, measured, quick)),
        *two_hosts(size.host_rounds, size.side, of_hosts, of_start, folder / "hosts"),
        memory(size, of_start, folder / "memory"),
        limits.table(measured),
    ]
