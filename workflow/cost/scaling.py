"""On paper: how long a training job takes on 1 to 32 instances, what it costs, and where more of them stop paying.

Everything follows from what was measured on one instance and between two of them (`Measured`). With W instances, P
pictures, E epochs and batches of B pictures:

features   start + P x picture / W + P / 16 x (W - 1) / W x message(block) + E x ceil(P / B) x step + end
finetune   start + E x ceil(P / B) x (ceil(B / W) x picture + step + (W - 1) x message(gradients)) + end

message(bytes) is latency + bytes / bandwidth: what passes on to the next instance in the ring of an all-gather. In
features mode blocks of 16 pictures get their features on one instance each and go to all others, then every instance
trains the head for itself. In finetune mode every step sends the gradients of all instances to all others. Nothing is
taken to overlap, so the figures are careful ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, Self

INSTANCE_COUNTS = (1, 2, 4, 8, 16, 32)
BLOCK_PICTURES = 16
"""Pictures of a block. Source: `training.reading.BLOCK`; a test compares them."""

Mode = Literal["features", "finetune"]


@dataclass(frozen=True)
class Measured:
    """What one instance and two of them were measured at, in one mode."""

    start_seconds: float
    """From the start of the processes until all have met."""
    end_seconds: float
    """Export, evaluation and archive."""
    seconds_per_picture: float
    """A picture on one instance: decoding and forward pass; in finetune mode the backward pass too."""
    seconds_per_step: float
    """What a step takes besides its pictures: in features mode all of a step of the head."""
    message_bytes: int
    """What an instance sends at a time: the features of a block, or the gradients."""
    latency_seconds: float
    """Of a message without content between two instances."""
    bytes_per_second: float
    """Between two instances."""

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> Self:
        """From an object with these keys, all of them numbers; others are ignored.

        Raises:
            ValueError: names what is missing or is not a number that makes sense.
        """
        values = {}
        for field in fields(cls):
            value = document.get(field.name)
            if not isinstance(value, int | float) or not 0 <= value < math.inf or isinstance(value, bool):
                raise ValueError(f"{field.name} must be a number of 0 or more, got {value!r}")
            values[field.name] = value
        if not values["bytes_per_second"]:
            raise ValueError("bytes_per_second must be more than 0, got 0")
        return cls(**values)  # type: ignore[arg-type]

    @property
    def message_seconds(self) -> float:
        return self.latency_seconds + self.message_bytes / self.bytes_per_second


@dataclass(frozen=True)
class Work:
    """What is to be trained."""

    picture_count: int
    epochs: int
    batch_size: int

    @property
    def steps(self) -> int:
        return self.epochs * math.ceil(self.picture_count / self.batch_size)


@dataclass(frozen=True)
class Estimate:
    """A job on so many instances. Efficiency: how much of each instance's time one alone would have needed, 0 to 1."""

    instance_count: int
    seconds: float
    usd: float
    efficiency: float


def job_seconds(mode: Mode, measured: Measured, work: Work, instance_count: int) -> float:
    """The formula at the head of this module; whole picture counts are not rounded in features mode."""
    count, others = instance_count, instance_count - 1
    fixed = measured.start_seconds + measured.end_seconds
    if mode == "features":
        blocks = work.picture_count / BLOCK_PICTURES
        compute = work.picture_count * measured.seconds_per_picture / count
        return (
            fixed
            + compute
            + blocks * others / count * measured.message_seconds
            + work.steps * measured.seconds_per_step
        )
    step = math.ceil(work.batch_size / count) * measured.seconds_per_picture + measured.seconds_per_step
    return fixed + work.steps * (step + others * measured.message_seconds)


def estimates(
    mode: Mode,
    measured: Measured,
    work: Work,
    usd_per_hour: float,
    instance_counts: Sequence[int] = INSTANCE_COUNTS,
) -> list[Estimate]:
    """One for each count that the batch has pictures for."""
    alone = job_seconds(mode, measured, work, 1)
    found = []
    for count in instance_counts:
        if mode == "finetune" and count > work.batch_size:
            break
        seconds = job_seconds(mode, measured, work, count)
        found.append(Estimate(count, seconds, count * seconds / 3600 * usd_per_hour, alone / (count * seconds)))
    return found


def worthwhile(found: Sequence[Estimate]) -> int:
    """The most instances that pay: beyond them the bill grows faster than the time shrinks (least time x cost)."""
    return min(found, key=lambda one: (one.seconds * one.usd, one.instance_count)).instance_count


def table(found: Sequence[Estimate]) -> str:
    """As Markdown; the most that pay is marked."""
    most = worthwhile(found)
    lines = ["| Instances | Time, s | Cost, USD | Efficiency | |", "|---:|---:|---:|---:|---|"]
    for one in found:
        mark = "the most that pay" if one.instance_count == most else ""
        lines.append(
            f"| {one.instance_count} | {one.seconds:,.0f} | {one.usd:.4f} | {one.efficiency:.0%} | {mark} |".replace(
                "|  |", "| |"
            )
        )
    return "\n".join(lines) + "\n"
