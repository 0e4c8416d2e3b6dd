"""Train an image classifier: knobs, set-up, data, loop, evaluation, archive. To be read from top to bottom.

One process of this runs per host without GPUs, or per GPU. Whatever interrupts it, started again with the same flags
and the same checkpoints it ends with the same weights. Shape suffixes: N pictures, C channels, H/W size, K classes.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import math
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import numpy as np
import torch
from torch.multiprocessing.spawn import ProcessExitedException, spawn

from inference.contract import ModelContract
from training import checkpoint, data, engine, evaluate, evidence, export, features, precision, quarantine
from training.backbones import BackboneError, build, calibrate
from training.checkpoint import CheckpointError
from training.data import DataError, DataSet
from training.distributed import (
    DistributedError,
    Hosts,
    Worker,
    broadcast_bytes,
    connected,
    hosts,
    require_agreement,
)
from training.export import ExportError
from training.loader import stack
from training.mode import instructions, mode
from training.reading import BLOCK, Reading
from training.settings import Folders, Settings, SettingsError, failure_path, parse
from training.steps import FeatureSteps, PictureSteps, Steps
from training.trainee import Trainee, Validation, learning_rate

EXIT_FAILED, EXIT_INTERRUPTED = 1, 128 + signal.SIGTERM
LOG_INTERVAL_STEPS = 5
CALIBRATION_PICTURES = 64
COMPARED_PICTURES = 16

EXPECTED_ERRORS = (SettingsError, DataError, BackboneError, CheckpointError, DistributedError, ExportError)


# --- set-up ----------------------------------------------------------------------------------------------------------


class Interruption:
    """SIGTERM: noted while the loop runs, so that it ends at a step boundary; at any other time it ends at once."""

    def __init__(self) -> None:
        self.requested = False
        self.in_loop = False

    def __call__(self) -> bool:
        return self.requested

    def note(self, _signal: int, _frame: FrameType | None) -> None:
        self.requested = True
        if not self.in_loop:
            raise SystemExit(EXIT_INTERRUPTED)


def log(**values: object) -> None:
    """Print `name=value ...` on one line; a `__` in a name stands for the colon of a metric (`train__loss`)."""
    print(" ".join(f"{name.replace('__', ':')}={value}" for name, value in values.items()), flush=True)


def keep_freed_memory() -> None:
    """Stop glibc from handing large blocks back to the kernel and fetching them again at every layer.

    This more than doubles a CPU's pictures per second. The one arena is for threads: those of their own would give
    blocks back all the same. Other C libraries do not have the call, and keep their habits.
    """
    m_trim_threshold, m_mmap_max, m_arena_max = -1, -4, -8  # glibc's malloc.h
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_arena_max, 1)


# --- the run ---------------------------------------------------------------------------------------------------------


def run(
    settings: Settings, folders: Folders, worker: Worker, interruption: Interruption, reading: Reading | None
) -> None:
    """Train, evaluate and write the archive, as one of the job's processes."""
    # Not use_deterministic_algorithms(): that sets the same, and imports torch's compiler to tell it too.
    torch.set_deterministic_debug_mode("warn" if worker.device.type == "cuda" else "error")
    threads = torch.get_num_threads()
    first = worker.rank == 0

    # model: meanwhile a child process may still be looking at the files
    if reading is None:
        reading = Reading(data.find(folders.data), settings, worker.rank, worker.world_size)
    found, input = reading.found, export.input_contract(settings)
    model = build(
        settings.backbone, len(found.classes), source=settings.weights, path=folders.weights, seed=settings.seed
    )
    how = mode(settings.trainable, worker.device)
    compute = engine.of(model.backbone, input, how.dtype, worker.device, threads) if how.is_features else None

    # data
    bad = quarantine.bad_files(reading, worker, threads)
    if worker.device.type == "cuda":
        reading.release()  # other processes will decode
    pictures = data.split(quarantine.without(found, bad, settings.max_bad_share))
    left_out = [{"picture": found.name(p), "reason": why} for p, why in bad.items()]
    copied = [found.name(p) for p in quarantine.copies(pictures)]
    if first:
        quarantine.say(left_out, copied)
    for split in ("train", "valid", "test") if first else ():
        print(f"{len(getattr(pictures, split))} {split} pictures of {len(pictures.classes)} classes", flush=True)

    if settings.weights == "none":
        some = pictures.train[:: -(-len(pictures.train) // CALIBRATION_PICTURES)]
        calibrate(model, stack([data.plain(p, input) for p in some]))

    # mode
    if first:
        print(f"mode={how.name}: {how.reason}", flush=True)
    computer = f"{engine.name(worker.device)} {instructions()} {how.dtype}"
    require_agreement(worker, "processors or libraries", hashlib.sha256(computer.encode()).hexdigest())
    trainee = Trainee(settings, model, worker.device, how.dtype)
    without_effect = ("checkpoint_interval_steps", "max_bad_share", "precision", "min_agreement")
    result_settings = {k: v for k, v in asdict(settings).items() if k not in without_effect}
    identity = json.dumps([result_settings, pictures.manifest_sha256, export.weights_sha256(model)], sort_keys=True)
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()
    interruption.in_loop = True  # before they agree: a host that goes on knows that no other ends without a word
    require_agreement(worker, "pictures, settings or weights", fingerprint)

    # resume: steps are blocks of pictures that get their features, if only the head is trained, and then batches
    cache = None
    if how.is_features:
        torch.set_num_threads(1)  # more would get in the way of those that compute features, and change the head's bits
        cache = features.Features(
            f"{computer} {export.weights_sha256(model.backbone)}", model.head.in_features,
            (*pictures.train, *pictures.valid), input, worker, scratch=folders.failure.parent,
            dtype=how.dtype,
        )  # fmt: skip
        cache.restore(folders.checkpoints)
    feature_steps = len(cache.blocks) if cache else 0
    steps_per_epoch = len(data.epoch_batches(len(pictures.train), settings.batch_size, settings.seed, 0))
    total_steps = feature_steps + settings.epochs * steps_per_epoch
    step = cache.done if cache else 0
    payload = checkpoint.newest(folders.checkpoints) if first else None
    payload = broadcast_bytes(worker, payload, "resuming from rank 0's checkpoint")
    if payload:
        state = checkpoint.decode(payload)
        if state["fingerprint"] != fingerprint:
            raise CheckpointError(
                f"{folders.checkpoints} has checkpoints of a run with other pictures, settings or weights: "
                "use an empty folder, or the same values"
            )
        step = int(state["step"])
        trainee.restore(state)
    resumed_step = step
    log(
        host=worker.host, rank=worker.rank, world_size=worker.world_size, pid=os.getpid(), resumed_step=step,
        total_steps=total_steps,
    )  # fmt: skip

    def stop_at(step: int) -> None:
        print(f"interrupted: stopped after step {step} of {total_steps}", flush=True)
        raise SystemExit(EXIT_INTERRUPTED)

    # features: what is missing of them, each block on one host
    if cache is not None and compute is not None:
        interval = settings.checkpoint_interval_steps
        for done, stop in cache.computed(reading.pixels, compute, folders.checkpoints, threads, interval, interruption):
            step = max(step, done)
            tenths = [blocks * 10 // feature_steps for blocks in (done, done - worker.world_size)]
            if first and tenths[0] > tenths[1]:
                print(f"features of {done} of {feature_steps} blocks of {BLOCK} pictures", flush=True)
            if stop:
                stop_at(step)

    reading.release()
    del compute

    # loop
    steps: Steps = PictureSteps(trainee, worker, pictures, threads, interruption)
    if cache is not None:
        steps = FeatureSteps(trainee, worker, pictures, cache, interruption)
    validation = Validation(trainee, worker, [picture.label for picture in pictures.valid], steps.valid_inputs)
    while step < total_steps:
        epoch, step_of_epoch = divmod(step - feature_steps, steps_per_epoch)
        batches = data.epoch_batches(len(pictures.train), settings.batch_size, settings.seed, epoch)
        for sums in steps.sums(epoch, batches[step_of_epoch:]):
            trainee.update(sums, learning_rate(settings, step - feature_steps, total_steps - feature_steps))
            step += 1
            loss, stop = sums[-2:].tolist()
            if not math.isfinite(loss):
                raise DataError(f"the loss is {loss} at step {step}: try a lower --learning-rate")
            saved = step % settings.checkpoint_interval_steps == 0 or step == total_steps or stop
            if first and saved:
                whole = {"step": step, "fingerprint": fingerprint, **trainee.state()}
                checkpoint.save(folders.checkpoints, step, checkpoint.encode(whole))
            if first and (saved or step % LOG_INTERVAL_STEPS == 0):
                log(epoch=epoch + 1, step=step, train__loss=f"{loss:.4f}")
            if stop:
                stop_at(step)
        if pictures.valid:
            valid_loss, valid_accuracy = validation.score()
            if first:
                log(
                    epoch=epoch + 1, step=step, valid__loss=f"{valid_loss:.4f}",
                    valid__accuracy=f"{valid_accuracy:.4f}",
                )  # fmt: skip
    interruption.in_loop = False
    if interruption.requested:
        stop_at(step)

    # export
    weights_sha256 = export.weights_sha256(trainee.model)
    require_agreement(worker, "weights after training", weights_sha256)
    trained = {
        "settings": asdict(settings),
        "mode": how.name,
        "mode_reason": how.reason,
        "picture_counts": {split: len(getattr(pictures, split)) for split in ("train", "valid", "test")},
        "manifest_sha256": pictures.manifest_sha256,
        "weights_sha256": weights_sha256,
        "world_size": worker.world_size,
        "training_job": os.environ.get("TRAINING_JOB_NAME", ""),
    }
    contract = export.model_contract(settings, pictures.classes, trained)
    onnx_path = folders.model / "model.onnx"
    if first:
        folders.model.mkdir(parents=True, exist_ok=True)
        export.to_onnx(trainee.model, contract, onnx_path)
    onnx = broadcast_bytes(worker, onnx_path.read_bytes() if first else None, "waiting for rank 0's model.onnx")

    choice, networks = precision.choose(worker, settings, contract, pictures, onnx, threads)
    contract = replace(contract, precision=choice.served)
    if first:
        print(f"precision: serving {choice.served}: {choice.reason}", flush=True)

    # evaluation: what is measured is what will be served
    answers = evaluate.answers(worker, networks, contract, pictures.test, threads)
    matrix = evaluate.confusion(pictures.test, answers.labels, len(pictures.classes))
    evaluation = evaluate.report(pictures.classes, matrix)
    worst = evidence.worst(pictures.test, answers)
    evaluation["worst_pictures"] = evidence.worst_rows(found, pictures, answers, worst)
    evaluation |= {"left_out": left_out, "test_pictures_also_in_train": copied, "precision": asdict(choice)}
    contender = evaluate.champion(folders.champion, pictures.classes)
    comparable = contender.contract is not None
    evaluation["champion"] = {"comparable": comparable, "reason": contender.reason, "accuracy": None}
    if comparable:
        labels = evaluate.champion_labels(worker, contender, pictures.classes, pictures.test, threads)
        evaluation["champion"]["accuracy"] = float(np.mean(labels == [p.label for p in pictures.test]))

    # archive and evidence
    folders.output.mkdir(parents=True, exist_ok=True)
    train_count = len(pictures.train)
    host_file = {
        "rank": worker.rank,
        "world_size": worker.world_size,
        "host": worker.host,
        "pid": os.getpid(),
        "resumed_step": resumed_step,
        "total_steps": total_steps,
        "checkpoint_interval_steps": settings.checkpoint_interval_steps,
        "weights_sha256": weights_sha256,
        "epochs": [{"epoch": e, **evidence.listed(indices, train_count)} for e, indices in steps.seen.items()],
    }
    if cache is not None:
        host_file["features"] = evidence.listed([i for i in cache.own if i < train_count], train_count)
    (folders.output / f"host-{worker.rank}.json").write_text(json.dumps(host_file))
    if first:
        check_and_write(folders, trainee, contract, networks, pictures, evaluation, worst, threads)
        log(test__accuracy=f"{evaluation['accuracy']:.4f}")
        if comparable:
            log(champion__test_accuracy=f"{evaluation['champion']['accuracy']:.4f}")
        else:
            print(f"champion: not comparable: {contender.reason}", flush=True)


def check_and_write(
    folders: Folders,
    trainee: Trainee,
    contract: ModelContract,
    networks: Mapping[str, bytes],
    pictures: DataSet,
    evaluation: dict[str, Any],
    worst: Sequence[int],
    threads: int,
) -> None:
    """Compare ONNX Runtime with PyTorch, then write everything else that rank 0 writes."""
    some = pictures.test[:COMPARED_PICTURES]
    with evaluate.answering(networks, replace(contract, precision="float32"), threads) as answer:
        logits_NK = np.stack(list(answer(some)))
    x_NCHW = stack([data.plain(picture, contract.input) for picture in some])
    difference = export.check_agreement(trainee.model, x_NCHW, logits_NK)
    print(f"model.onnx agrees with the trained model: largest difference of a logit {difference:.1e}", flush=True)
    accuracy = {"test_accuracy": evaluation["accuracy"], "onnx_max_logit_difference": difference}
    contract = replace(contract, training=contract.training | accuracy)
    export.write_rest(folders.model, trainee.model, contract, networks)
    contract.dump(folders.output)
    (folders.output / "evaluation.json").write_text(json.dumps(evaluation, indent=2) + "\n")
    files = [row["file"] for row in evaluation["worst_pictures"]]
    shown = dict(zip(files, (pictures.test[i] for i in worst), strict=True))
    evidence.write_pictures(folders.output, pictures, shown)


# --- processes -------------------------------------------------------------------------------------------------------


def work(local_rank: int, settings: Settings, folders: Folders, group: Hosts, reading: Reading | None = None) -> None:
    """One process of the job, from joining the others to leaving them."""
    interruption = Interruption()
    signal.signal(signal.SIGTERM, interruption.note)
    keep_freed_memory()
    if group.gpu_count > 1:  # the processes of a host share its cores
        torch.set_num_threads(max(1, torch.get_num_threads() // group.gpu_count))
    with reported(folders.failure), connected(group, local_rank, os.environ) as worker:
        run(settings, folders, worker, interruption, reading)


@contextlib.contextmanager
def reported(failure: Path | None) -> Iterator[None]:
    """Turn an error into a message on stderr and in SageMaker's failure file, and exit code 1."""
    try:
        yield
    except Exception as error:
        expected = isinstance(error, EXPECTED_ERRORS)
        if not expected:
            traceback.print_exc()
        message = str(error) if expected else f"{type(error).__name__}: {error}"
        print(f"training failed: {message}", file=sys.stderr, flush=True)
        if failure is not None:
            failure.parent.mkdir(parents=True, exist_ok=True)
            failure.write_text(message)
        raise SystemExit(EXIT_FAILED) from None


def main(argv: Sequence[str] | None = None, reading: Reading | None = None) -> int:
    """Run the flags `argv` (default: the command line's) on this host; returns the exit code.

    `reading` is what `reading.begin` made of them, if it was called.

    Exits with 1 on failure, with 143 after SIGTERM (the checkpoints are complete then).
    """
    with reported(failure_path(os.environ)):
        settings, folders = parse(sys.argv[1:] if argv is None else argv)
    with reported(folders.failure):
        group = hosts(os.environ)
    if group.gpu_count > 1 and "LOCAL_RANK" not in os.environ:
        if reading is not None:
            reading.end()
        return work_per_gpu(settings, folders, group)
    work(0, settings, folders, group, reading)
    return 0


def run_and_leave(reading: Reading | None) -> NoReturn:
    """As `main`, and the end of the process, without what Python and C++ would tidy up in it.

    A host was aborted once after an agreed stop (exit code -6), most likely because its threads of communication were
    tidied up while another host closed its connections. Everything is written by then; the kernel frees the rest.
    """
    try:
        exit_code = main(reading=reading)
    except SystemExit as ended:
        if ended.code is not None and not isinstance(ended.code, int):
            raise  # Python says it
        exit_code = ended.code or 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def work_per_gpu(settings: Settings, folders: Folders, group: Hosts) -> int:
    """One process per GPU of this host. Not run by this project so far: its machines have no GPU."""
    children = spawn(work, (settings, folders, group), group.gpu_count, join=False)  # type: ignore[no-untyped-call]

    def forward(signal_number: int, _frame: FrameType | None) -> None:
        for pid in children.pids():
            os.kill(pid, signal_number)

    signal.signal(signal.SIGTERM, forward)
    try:
        while not children.join():
            pass
    except ProcessExitedException as error:
        return int(error.exit_code)
    return 0
