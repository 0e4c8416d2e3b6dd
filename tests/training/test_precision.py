"""What the model is served in: the conversion, the agreement gate and its ways back to float32."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from colour_model import CLASSES, model_folder, picture_bytes

from inference import runtime
from inference.contract import ModelContract
from training import evaluate, precision, quantisation
from training.data import DataSet, Picture, plain
from training.distributed import Worker
from training.settings import Settings

ALONE = Worker("algo-1", 0, 1, torch.device("cpu"))
needs_int8 = pytest.mark.skipif(bool(runtime.unsupported("int8")), reason=runtime.unsupported("int8"))
needs_bfloat16 = pytest.mark.skipif(bool(runtime.unsupported("bfloat16")), reason=runtime.unsupported("bfloat16"))
COLOURS = {"red": (250, 20, 20), "green": (20, 250, 20), "blue": (20, 20, 250)}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelContract, bytes]:
    folder = model_folder(tmp_path_factory.mktemp("model"))
    return ModelContract.load(folder), (folder / "model.onnx").read_bytes()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """Two pictures of each colour in train, four in valid, one in test."""
    root = tmp_path_factory.mktemp("colours")
    splits: dict[str, list[Picture]] = {"train": [], "valid": [], "test": []}
    for split, count in (("train", 2), ("valid", 4), ("test", 1)):
        for label, name in enumerate(CLASSES):
            for number in range(count):
                path = root / f"{split}-{name}-{number}.png"
                path.write_bytes(picture_bytes(COLOURS[name], size=(40 + number, 30)))
                splits[split].append(Picture(path, label, f"{split}{number}{name}"))
    return DataSet(CLASSES, tuple(splits["train"]), tuple(splits["valid"]), tuple(splits["test"]), "")


def choose(network: tuple[ModelContract, bytes], pictures: DataSet, **settings: Any) -> Any:
    contract, onnx = network
    return precision.choose(ALONE, Settings(**settings), contract, pictures, onnx, threads=2)


def test_float32_needs_no_conversion_and_stays_byte_for_byte(
    network: tuple[ModelContract, bytes], pictures: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantisation, "convert", lambda *_: pytest.fail("nothing to convert"))
    choice, files = choose(network, pictures)
    assert (choice.wanted, choice.served, choice.agreement) == ("float32", "float32", None)
    assert files == {"model.onnx": network[1]}


@pytest.mark.parametrize(
    "wanted", [pytest.param("int8", marks=needs_int8), pytest.param("bfloat16", marks=needs_bfloat16)]
)
def test_a_network_that_agrees_is_served_and_its_figures_are_told(
    wanted: str, network: tuple[ModelContract, bytes], pictures: DataSet
) -> None:
    choice, files = choose(network, pictures, precision=wanted)
    assert choice.served == wanted, choice
    assert (choice.agreement, choice.min_agreement) == (1.0, 0.98)
    assert (choice.split, choice.picture_count) == ("valid", 12)
    assert (choice.float32_accuracy, choice.accuracy) == (1.0, 1.0)
    assert sorted(files) == ["model.bin", "model.onnx", "model.xml"]
    assert files["model.onnx"] == network[1]


class Contrary:
    """Lets every second answer of a network in another precision than float32 be another class."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.real = evaluate.answers
        monkeypatch.setattr(evaluate, "answers", self)

    def __call__(self, worker: Any, files: Any, contract: ModelContract, some: Any, threads: int) -> evaluate.Answers:
        answers = self.real(worker, files, contract, some, threads)
        if contract.precision != "float32":
            answers.labels[::2] = (answers.labels[::2] + 1) % 3
        return answers


@needs_int8
def test_a_network_that_disagrees_is_not_served_and_both_figures_are_told(
    network: tuple[ModelContract, bytes], pictures: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    Contrary(monkeypatch)
    choice, files = choose(network, pictures, precision="int8", min_agreement=0.6)
    assert (choice.wanted, choice.served) == ("int8", "float32")
    assert choice.agreement == choice.accuracy == 0.5
    assert choice.float32_accuracy == 1.0
    assert "0.5000 of 12 valid pictures, below gate.min_agreement 0.6" in choice.reason
    assert list(files) == ["model.onnx"]
    enough, _ = choose(network, pictures, precision="int8", min_agreement=0.5)
    assert enough.served == "int8"


@needs_int8
def test_without_validation_pictures_test_pictures_are_compared(
    network: tuple[ModelContract, bytes], pictures: DataSet
) -> None:
    choice, _ = choose(network, replace(pictures, valid=()), precision="int8")
    assert (choice.split, choice.picture_count) == ("test", 3)


def test_a_cpu_that_cannot_compute_it_converts_nothing_and_says_why(
    network: tuple[ModelContract, bytes], pictures: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "CPU_FEATURES", {"bfloat16": ("no_such_flag",)})
    monkeypatch.setattr(quantisation, "convert", lambda *_: pytest.fail("nobody could measure it"))
    choice, files = choose(network, pictures, precision="bfloat16")
    assert (choice.served, choice.agreement) == ("float32", None)
    assert "is not made for bfloat16: it has none of no_such_flag" in choice.reason
    assert list(files) == ["model.onnx"]


def test_files_survive_the_way_between_processes() -> None:
    files = {"model.xml": b"<net>\n</net>", "model.bin": bytes(range(256)), "empty": b""}
    assert precision._unpacked(precision._packed(files)) == files


@needs_int8
def test_int8_is_calibrated_on_the_pictures_that_it_gets(
    network: tuple[ModelContract, bytes], pictures: DataSet
) -> None:
    """Calibrated on black pictures alone, the scales are those of black, and colours are cut off."""
    contract, onnx = network
    own = [plain(picture, contract.input) for picture in pictures.train]
    black = [np.zeros_like(own[0])]
    assert quantisation.convert(onnx, contract, "int8", own) != quantisation.convert(onnx, contract, "int8", black)
