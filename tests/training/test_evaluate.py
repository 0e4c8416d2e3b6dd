from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.contract import InputContract, ModelContract
from training import evaluate
from training.backbones import build
from training.data import Picture
from training.export import ExportError, check_agreement

CLASSES = ("cross", "disc", "square")


def contract(classes: tuple[str, ...] = CLASSES) -> ModelContract:
    return ModelContract(classes, InputContract(32, 36, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))


def archive(folder: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(folder / "model.tar.gz", "w:gz") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return folder


def a_json(classes: tuple[str, ...] = CLASSES, precision: str = "float32") -> bytes:
    return json.dumps(replace(contract(classes), precision=precision).to_json()).encode()


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def test_the_champion_is_read_from_its_archive(tmp_path: Path) -> None:
    members = {"./model.onnx": b"onnx", "code/surprise.py": b"raise SystemExit", "model.json": a_json(CLASSES[::-1])}
    found = evaluate.champion(archive(tmp_path, members), CLASSES)
    assert (found.files, found.reason) == ({"model.onnx": b"onnx"}, "")
    assert found.contract is not None
    assert found.contract.classes == CLASSES[::-1]


def test_a_champion_is_read_with_the_network_that_it_serves(tmp_path: Path) -> None:
    files = {"model.xml": b"<net/>", "model.onnx": b"onnx", "model.bin": b"weights"}
    found = evaluate.champion(archive(tmp_path, {**files, "model.json": a_json(precision="int8")}), CLASSES)
    assert found.files == files
    assert found.contract is not None
    assert found.contract.precision == "int8"


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"model.onnx": b"onnx", "model.json": a_json(("cat", "dog"))}, "other classes"),
        ({"model.json": a_json()}, "lacks model.onnx"),
        ({"model.onnx": b"", "model.xml": b"", "model.json": a_json(precision="int8")}, "lacks model.bin"),
        ({"model.onnx": link("model.onnx", "/etc/passwd"), "model.json": a_json()}, "lacks model.onnx"),
        ({"../model.onnx": b"onnx", "model.json": a_json()}, "lacks model.onnx"),
        ({"model.onnx": b"onnx", "model.json": b"{}"}, "format must be"),
        ({"model.onnx": b"onnx", "model.json": b"\xff"}, "cannot be used"),
    ],
)
def test_a_champion_that_cannot_be_compared_says_why(tmp_path: Path, members: dict[str, bytes], reason: str) -> None:
    found = evaluate.champion(archive(tmp_path, members), CLASSES)
    assert found.contract is None
    assert reason in found.reason


def test_no_champion_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "marker.json").write_text("{}")
    assert evaluate.champion(tmp_path, CLASSES).reason == "there is no champion yet"
    assert evaluate.champion(None, CLASSES).contract is None


def test_a_truncated_champion_is_not_comparable(tmp_path: Path) -> None:
    path = archive(tmp_path, {"model.onnx": bytes(range(256)) * 400, "model.json": a_json()}) / "model.tar.gz"
    path.write_bytes(path.read_bytes()[:300])
    assert "cannot be used" in evaluate.champion(tmp_path, CLASSES).reason


def test_an_oversized_champion_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "MAX_CHAMPION_BYTES", 100)
    found = evaluate.champion(archive(tmp_path, {"model.onnx": bytes(101), "model.json": a_json()}), CLASSES)
    assert "101 bytes" in found.reason


def test_the_report_counts_by_true_class() -> None:
    pictures = [Picture(Path("x"), label, "") for label in (0, 0, 1, 2)]
    matrix = evaluate.confusion(pictures, np.array([0, 1, 1, 0]), 3)
    report = evaluate.report(CLASSES, matrix)
    assert report["confusion_matrix"] == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert report["accuracy"] == 0.5
    assert [c["accuracy"] for c in report["per_class"]] == [0.5, 1.0, 0.0]


def test_a_model_that_answers_differently_is_not_accepted() -> None:
    model = build("efficientnet_lite0", 3, source="none", path=None, seed=0)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        logits = model(x).numpy()
    assert check_agreement(model, x, logits) == 0
    with pytest.raises(ExportError, match=r"differs .* by 0\.01"):
        check_agreement(model, x, logits + np.float32(0.01))
    with pytest.raises(ExportError):
        check_agreement(model, x, logits * np.float32("nan"))
