"""Spot drills: a training job is taken down again and again, and must end with the weights of an undisturbed one.

`python tests/spot_drills.py` runs them for 1, 2 and 4 processes and writes docs/reference/spot.md. A slow test runs
them too.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from training_hosts import ENTRY, ROOT, Host, Job
from training_pictures import picture_folder

from training.distributed import START_TIMEOUT_SECONDS, TIMEOUT_SECONDS

DIES_WHILE_SAVING = """
import os, runpy, signal, sys

moment = sys.argv.pop(1)
real, calls = os.fsync, 0

def fsync(descriptor):  # of each checkpoint, the first call is for the file and the second for the folder
    global calls
    calls += 1
    if calls == (6 if moment == "renamed" else 5):
        if moment == "half":
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)

os.fsync = fsync
runpy.run_module("training.entry_point", run_name="__main__")
"""
KINDS = {
    "random": "SIGKILL to all hosts at a random moment",
    "half": "SIGKILL inside a checkpoint's write, half of it written",
    "whole": "SIGKILL inside a checkpoint's write, before its rename",
    "renamed": "SIGKILL right after a checkpoint's rename",
    "truncated": "SIGKILL to all hosts, then the newest checkpoint truncated",
    "one": "SIGKILL to one host at a random moment; the others end by themselves",
    "notice": "SIGTERM to one host; all stop at the same step",
}
ENDS_IN_TIME = (
    f"A host that dies ends the job at once, because its connections close. One that hangs ends it {TIMEOUT_SECONDS} s",
    "later at most: the others wait so long for it at any step, then fail and say that they lost contact. While",
    f"hosts start, which they do minutes apart, it is {START_TIMEOUT_SECONDS} s.",
    "Tests: `tests/training/test_jobs.py` (dies), `tests/training/test_spot.py` (hangs).",
    "",
    "There is no training on spot capacity without checkpoints: the definition always sets `CheckpointConfig`, and no",
    "setting leaves it out (`tests/contracts/test_spot_rules.py`).",
)
ORDER = ("random", "half", "truncated", "one", "whole", "random", "renamed", "notice", "random")
HOST_COUNTS = (1, 2, 4)
MOMENT_SECONDS = 0.1
"""At most, from a job's start or first loss to the moment at which it is taken down. With more, a fast machine has
trained to the end before all interruptions have met it."""
TRAIN_PER_CLASS, EPOCHS = 60, 50
FEATURE_STEPS, STEPS = 12, 12 + 1150
"""Of 180 train and 6 valid pictures: blocks of 16, then batches of 8 in each epoch."""


@dataclass(frozen=True)
class Drill:
    """What a drilled job went through, by kind of interruption, and its result."""

    host_count: int
    kinds: tuple[str, ...]
    resumed_steps: tuple[int, ...]
    weights_sha256: str


def uninterrupted(job: Job, folder: Path, data: Path) -> str:
    """The weights' hash of a job of one process that nothing happens to."""
    (host,) = job.start(folder, data, host_count=1, epochs=EPOCHS)
    assert host.finish() == 0, host.log
    return str(host.evidence["weights_sha256"])


def drill(job: Job, folder: Path, data: Path, host_count: int, seed: int) -> Drill:
    """Take a job down once for each of `ORDER`, starting it again each time, then let it end."""
    moments = random.Random(f"{seed} {host_count}")
    kinds = [kind for kind in ORDER if kind != "one" or host_count > 1]
    steps = []
    for kind in kinds:
        entry = ("-c", DIES_WHILE_SAVING, kind) if kind in ("half", "whole", "renamed") else ENTRY
        hosts = job.start(folder, data, host_count=host_count, entry=entry, epochs=EPOCHS)
        steps.append(_resumed_step(hosts[0]))
        _interrupt(kind, hosts, moments)
    hosts = job.start(folder, data, host_count=host_count, epochs=EPOCHS)
    steps.append(_resumed_step(hosts[0]))
    codes = [host.finish() for host in hosts]
    assert codes == [0] * host_count, "\n".join(host.log for host in hosts)
    (weights_sha256,) = {str(host.evidence["weights_sha256"]) for host in hosts}
    return Drill(host_count, tuple(kinds), tuple(steps), weights_sha256)


def _resumed_step(host: Host) -> int:
    line = host.read_until("resumed_step=")
    assert f"total_steps={STEPS}" in line
    return int(line.split("resumed_step=")[1].split()[0])


def _interrupt(kind: str, hosts: list[Host], moments: random.Random) -> None:
    victim = hosts[moments.randrange(len(hosts))]
    if kind in ("random", "truncated", "one"):
        if kind == "truncated":
            hosts[0].read_until("train:loss")  # so that there is a checkpoint
        time.sleep(moments.uniform(0, MOMENT_SECONDS))
        for host in [victim] if kind == "one" else hosts:
            host.kill()
    elif kind == "notice":
        hosts[0].read_until("train:loss")
        victim.process.send_signal(signal.SIGTERM)
    codes = [host.finish() for host in hosts]
    expected = {"notice": {143}, "one": {-9, 1}}.get(kind, {-9} if len(hosts) == 1 else {-9, 1})
    assert set(codes) <= expected, f"{kind}: exit codes {codes}\n" + "\n".join(host.log for host in hosts)
    if kind == "truncated":
        newest = max((hosts[0].base / "checkpoints").glob("*.ckpt"))
        os.truncate(newest, newest.stat().st_size // 3)


def table(drills: list[Drill], expected: str) -> str:
    """The text of docs/reference/spot.md."""
    lines = [
        "# Spot drills: interruptions x processes x identical weights",
        "",
        "Made by `python tests/spot_drills.py`; do not edit. Each column is one job on the CPU that was taken down",
        "that often and started again from its checkpoints each time; its final weights are compared, bit by bit,",
        f"with those of one process that nothing happened to. The first {FEATURE_STEPS} steps compute features, the",
        "others train.",
        "",
        "| Interruption | " + " | ".join(f"{d.host_count} process{'es' * (d.host_count > 1)}" for d in drills) + " |",
        "|---|" + "---|" * len(drills),
    ]
    for kind, text in KINDS.items():
        lines.append(f"| {text} | " + " | ".join(str(Counter(d.kinds)[kind]) for d in drills) + " |")
    lines += [
        f"| Resumed at steps, of {STEPS} | "
        + " | ".join(", ".join(map(str, d.resumed_steps[1:])) for d in drills)
        + " |",
        "| Final weights identical | " + " | ".join(["no", "yes"][d.weights_sha256 == expected] for d in drills) + " |",
    ]
    lines += ["", *ENDS_IN_TIME]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the drills on drawn pictures and write the table."""
    job, drills = Job(), []
    with tempfile.TemporaryDirectory() as folder:
        data = picture_folder(Path(folder) / "pictures", train=TRAIN_PER_CLASS)
        try:
            expected = uninterrupted(job, Path(folder) / "undisturbed", data)
            for host_count in HOST_COUNTS:
                drills.append(drill(job, Path(folder) / str(host_count), data, host_count, seed=0))
                print(drills[-1], flush=True)
        finally:
            job.close()
    (ROOT / "docs/reference/spot.md").write_text(table(drills, expected))


if __name__ == "__main__":
    main()
