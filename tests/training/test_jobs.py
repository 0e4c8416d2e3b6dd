"""Whole jobs, each host a process started as SageMaker starts it: SM_* variables, its own tree, gloo on loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors import safe_open
from training_hosts import ROOT, SMALL, STEPS, Host, Job, kill_together

from inference.contract import ModelContract
from training.data import plain, scan
from training.main import main

Start = Callable[..., list[Host]]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """`start(folder, data, host_count=2, **hyperparameters)` starts a job's hosts; whatever still runs is killed."""
    job = Job()
    yield job.start
    job.close()


@pytest.fixture(scope="module")
def pictures(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn pictures, 48, with two files beside them that are none."""
    folder = shutil.copytree(pictures, tmp_path_factory.mktemp("as-they-come") / "pictures")
    whole = (folder / "train/cross/0.png").read_bytes()
    (folder / "train/cross/cut short.png").write_bytes(whole[: len(whole) // 2])
    (folder / "train/disc/EMPTY.JPG").touch()
    return folder


@pytest.fixture(scope="module")
def finished(start: Start, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Host]:
    """An uninterrupted job of two hosts."""
    job = start(tmp_path_factory.mktemp("finished"), pictures)
    codes = [host.finish() for host in job]
    assert codes == [0, 0], job[0].log + job[1].log
    return job


def test_two_hosts_see_disjoint_pictures_and_together_all(finished: list[Host]) -> None:
    first, second = (host.evidence["features"]["picture_indices"] for host in finished)  # type: ignore[index]
    assert first
    assert second
    assert not set(first) & set(second)
    assert sorted(first + second) == list(range(30))


def test_two_hosts_end_with_equal_weights(finished: list[Host]) -> None:
    first, second = (host.evidence for host in finished)
    assert first["weights_sha256"] == second["weights_sha256"]
    assert (first["rank"], second["rank"]) == (0, 1)
    assert first["pid"] != second["pid"]


def test_files_that_are_no_pictures_are_left_out_and_listed(finished: list[Host]) -> None:
    evaluation = json.loads((finished[0].base / "output/data/evaluation.json").read_text())
    left_out = {entry["picture"]: entry["reason"] for entry in evaluation["left_out"]}
    assert list(left_out) == ["train/cross/cut short.png", "train/disc/EMPTY.JPG"]
    assert left_out["train/disc/EMPTY.JPG"] == "the file is empty"
    for name, reason in left_out.items():
        assert f"left out: {name}: {reason}" in finished[0].lines
    assert "left out" not in finished[1].log


def test_every_host_says_who_it_is(finished: list[Host]) -> None:
    for rank, host in enumerate(finished):
        line = (
            f"host=algo-{rank + 1} rank={rank} world_size=2 pid={host.process.pid} resumed_step=0 total_steps={STEPS}"
        )
        assert line in host.lines


def test_the_first_host_alone_logs_metrics(finished: list[Host]) -> None:
    log = finished[0].log
    for metric in ("train:loss", "valid:loss", "valid:accuracy", "test:accuracy"):
        values = re.findall(rf"{metric}=([0-9.eE+-]+)", log)
        assert values
        assert all(np.isfinite(float(value)) for value in values)
        assert f"{metric}=" not in finished[1].log
    assert re.search(rf"epoch=150 step={STEPS} train:loss=", log)
    assert "champion:test_accuracy" not in log


def test_the_log_has_no_warnings(finished: list[Host]) -> None:
    assert not [line for host in finished for line in host.lines if "warn" in line.lower()]


def test_the_mode_is_said_with_its_reason_and_written_into_the_contract(finished: list[Host]) -> None:
    (line,) = [line for line in finished[0].lines if line.startswith("mode=")]
    training = ModelContract.load(finished[0].base / "model").training
    assert line == f"mode={training['mode']}: {training['mode_reason']}"
    assert training["mode"] == "features"
    assert "trainable=head" in line
    assert "mode=" not in finished[1].log


def test_the_archive_is_complete_and_of_one_host(finished: list[Host]) -> None:
    files = {
        p.relative_to(finished[0].base / "model").as_posix()
        for p in (finished[0].base / "model").rglob("*")
        if p.is_file()
    }
    assert {"model.onnx", "model.safetensors", "model.json", "code/inference/contract.py"} <= files
    assert not [f for f in files if "__pycache__" in f or f.endswith((".pkl", ".pth"))]
    assert not (finished[1].base / "model").exists()
    assert not (finished[1].base / "checkpoints").exists()


def test_the_contract_says_how_pictures_become_input(finished: list[Host]) -> None:
    contract = ModelContract.load(finished[0].base / "model")
    assert contract.classes == ("cross", "disc", "square")
    assert contract.input.image_size == 32
    assert np.allclose(contract.input.mean, 127 / 255)
    assert np.allclose(contract.input.std, 128 / 255)
    evaluation = json.loads((finished[0].base / "output/data/evaluation.json").read_text())
    assert contract.training["test_accuracy"] == evaluation["accuracy"]


def test_the_reported_accuracy_is_what_the_archive_scores(finished: list[Host], pictures: Path) -> None:
    folder = finished[0].base / "model"
    contract = ModelContract.load(folder)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    test = scan(pictures).test
    labels = [int(session.run(None, {"images": plain(p, contract.input)[None]})[0].argmax()) for p in test]
    accuracy = np.mean([label == p.label for label, p in zip(labels, test, strict=True)])
    evaluation = json.loads((finished[0].base / "output/data/evaluation.json").read_text())
    assert evaluation["accuracy"] == accuracy
    assert f"test:accuracy={accuracy:.4f}" in finished[0].log
    assert np.trace(evaluation["confusion_matrix"]) == accuracy * len(test)
    assert evaluation["champion"] == {"comparable": False, "reason": "there is no champion yet", "accuracy": None}


def test_the_tensors_are_there_without_pickle(finished: list[Host]) -> None:
    with safe_open(finished[0].base / "model/model.safetensors", "np") as tensors:
        assert tensors.get_tensor("head.weight").shape == (3, 1280)


def test_smoke_pictures_are_copies_of_test_pictures(finished: list[Host], pictures: Path) -> None:
    smoke = finished[0].base / "output/data/smoke"
    copies = sorted(p.relative_to(smoke) for p in smoke.rglob("*.png"))
    assert len(copies) == 6
    assert all((pictures / "test" / copy).read_bytes() == (smoke / copy).read_bytes() for copy in copies)
    small = smoke.parent / "smoke-thumbnails"
    assert sorted(p.relative_to(small).as_posix() for p in small.rglob("*.jpg")) == [f"{copy}.jpg" for copy in copies]


def test_the_worst_pictures_come_with_thumbnails_and_agree_with_the_confusion_matrix(finished: list[Host]) -> None:
    output = finished[0].base / "output/data"
    evaluation = json.loads((output / "evaluation.json").read_text())
    worst = evaluation["worst_pictures"]
    assert len(worst) == evaluation["picture_count"] == 12
    assert [row["label_probability"] for row in worst] == sorted(row["label_probability"] for row in worst)
    wrong = sum(row["label"] != row["predicted"] for row in worst)
    assert wrong == round(12 * (1 - evaluation["accuracy"]))
    for row in worst:
        assert row["picture"].startswith(f"test/{row['label']}/")
        assert (output / row["file"]).read_bytes().startswith(b"\xff\xd8\xff")
    assert json.loads((output / "model.json").read_text()) == json.loads(
        (finished[0].base / "model/model.json").read_text()
    )


def resumed_step(host: Host) -> int:
    (step,) = re.findall(r"resumed_step=(\d+)", host.log)
    return int(step)


def test_a_job_killed_stopped_and_damaged_ends_like_an_uninterrupted_one(
    start: Start, pictures: Path, tmp_path: Path, finished: list[Host]
) -> None:
    # SIGKILL to both hosts.
    first = start(tmp_path, pictures)
    first[0].read_until("step=10 ")
    kill_together(first)
    assert [host.finish() for host in first] == [-signal.SIGKILL] * 2
    last_step = max(int(step) for step in re.findall(r"epoch=\d+ step=(\d+)", first[0].log))

    # Started again; SIGTERM to one host ends both, at the same step, with a checkpoint of that step. The first host has
    # just begun its loop then, and the other one is perhaps not there yet.
    second = start(tmp_path, pictures)
    second[0].read_until("resumed_step=")
    second[1].process.send_signal(signal.SIGTERM)
    assert [host.finish() for host in second] == [143, 143]
    assert resumed_step(second[0]) == resumed_step(second[1])
    assert resumed_step(second[0]) >= 9
    assert last_step - resumed_step(second[0]) < 5 + 3  # every fifth step is logged, every third is kept
    stopped = [re.findall(rf"stopped after step (\d+) of {STEPS}", host.log) for host in second]
    assert stopped[0] == stopped[1] != []
    kept = sorted((tmp_path / "algo-1/checkpoints").glob("*.ckpt"))
    assert kept[-1].name == f"step-{int(stopped[0][0]):09d}.ckpt"
    assert not (tmp_path / "algo-2/checkpoints").exists()

    # The newest checkpoint is cut short, and one process alone goes on, with plain flags, and scores the champion.
    kept[-1].write_bytes(kept[-1].read_bytes()[:-100])
    shutil.copytree(tmp_path / "algo-1/checkpoints", tmp_path / "out/checkpoints")
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.add(finished[0].base / "model", ".")
    flags = [part for name, value in SMALL.items() for part in (f"--{name}", str(value))]
    argv = [sys.executable, "-m", "training", "--data", str(pictures), "--output", str(tmp_path / "out"), *flags]
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    third = subprocess.run(
        [*argv, "--champion", str(tmp_path)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200
    )
    assert third.returncode == 0, third.stdout + third.stderr
    assert f"{kept[-1].name} is damaged" in third.stdout
    evidence = json.loads((tmp_path / "out/output/host-0.json").read_text())
    assert evidence["resumed_step"] == int(kept[-2].stem.removeprefix("step-"))
    assert evidence["weights_sha256"] == finished[0].evidence["weights_sha256"]

    own, champion = (
        re.findall(rf"{name}=([0-9.]+)", third.stdout) for name in ("test:accuracy", "champion:test_accuracy")
    )
    assert own == champion != []


def test_a_killed_host_fails_the_other_at_once(start: Start, pictures: Path, tmp_path: Path) -> None:
    job = start(tmp_path, pictures)
    job[0].read_until("step=5 ")
    os.killpg(job[1].process.pid, signal.SIGKILL)
    assert job[0].finish() == 1
    assert "lost contact with another host" in job[0].failure
    assert "Traceback" not in job[0].log


def test_checkpoints_of_other_settings_are_refused(
    pictures: Path, tmp_path: Path, finished: list[Host], in_process: None
) -> None:
    shutil.copytree(finished[0].base / "checkpoints", tmp_path / "checkpoints")
    given = SMALL | {"learning-rate": 0.02, "data": pictures, "output": tmp_path}
    with pytest.raises(SystemExit, match="1"):
        main([part for name, value in given.items() for part in (f"--{name}", str(value))])
    assert "checkpoints of a run with other pictures, settings or weights" in (tmp_path / "failure").read_text()


def test_a_bad_flag_is_the_failure_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(tmp_path))
    with pytest.raises(SystemExit, match="1"):
        main(["--epochs", "many"])
    assert "--epochs" in (tmp_path / "output" / "failure").read_text()


@pytest.mark.slow
def test_fine_tuning_ends_with_the_same_weights_on_one_two_and_four_hosts(
    start: Start, pictures: Path, tmp_path: Path
) -> None:
    hashes = set()
    for host_count in (1, 2, 4):
        job = start(tmp_path / str(host_count), pictures, host_count=host_count, trainable="all", epochs=2)
        assert [host.finish() for host in job] == [0] * host_count, job[0].log
        assert "mode=finetune: trainable=all" in job[0].log
        hashes |= {host.evidence["weights_sha256"] for host in job}
        for epoch in (0, 1):
            read = [host.evidence["epochs"][epoch]["picture_indices"] for host in job]  # type: ignore[index]
            assert all(read)
            assert sorted(i for indices in read for i in indices) == list(range(30))
    assert len(hashes) == 1


@pytest.mark.slow
def test_a_random_torchvision_network_trains(start: Start, pictures: Path, tmp_path: Path) -> None:
    given = {"backbone": "resnet18", "weights": "none", "trainable": "all", "image_size": 64, "learning_rate": 0.0003}
    job = start(tmp_path, pictures, epochs=25, **given)
    assert [host.finish() for host in job] == [0, 0], job[0].log
    (accuracy,) = re.findall("test:accuracy=([0-9.]+)", job[0].log)
    assert float(accuracy) >= 0.75  # chance is 0.33
