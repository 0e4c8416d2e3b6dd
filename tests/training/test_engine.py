"""Engines: the same features from both."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from inference.contract import InputContract
from inference.preprocessing import to_tensor
from training import engine
from training.backbones import build

INPUT = InputContract(64, 72, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def backbone() -> torch.nn.Module:
    return build("efficientnet_lite0", 3, source="package", path=None, seed=0).backbone


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    small = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    large = [np.asarray(Image.fromarray(one).resize((64, 64), Image.Resampling.BILINEAR)) for one in small]
    return torch.from_numpy(np.stack(large))


def test_both_compute_what_the_module_computes_of_normalised_pixels(
    backbone: torch.nn.Module, pixels: torch.Tensor
) -> None:
    x_NCHW = torch.from_numpy(np.stack([to_tensor(one, INPUT) for one in pixels.numpy()]))
    with torch.no_grad():
        expected = backbone(x_NCHW)
    for made in (engine.by_openvino, engine.by_torch):
        features_ND = made(backbone, INPUT, torch.float32, CPU, 1)(pixels)
        assert features_ND.dtype == torch.float32
        assert torch.allclose(features_ND, expected, atol=1e-4), made


@pytest.mark.slow
def test_in_bfloat16_both_are_as_near_to_float32(backbone: torch.nn.Module, pixels: torch.Tensor) -> None:
    exact = engine.by_torch(backbone, INPUT, torch.float32, CPU, 1)(pixels)
    for made in (engine.by_openvino, engine.by_torch):
        features_ND = made(backbone, INPUT, torch.bfloat16, CPU, 1)(pixels)
        assert features_ND.dtype == torch.bfloat16
        assert torch.cosine_similarity(features_ND.float(), exact).min() > 0.97, made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_picture_gets_the_same_bits_whatever_is_computed_beside_it(
    backbone: torch.nn.Module, pixels: torch.Tensor, dtype: torch.dtype
) -> None:
    alone = engine.by_openvino(backbone, INPUT, dtype, CPU, 1)
    expected = torch.cat([alone(one[None]) for one in pixels])
    several = engine.by_openvino(backbone, INPUT, dtype, CPU, 3)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(several, [pixels, pixels.flip(0)] * 10))
    for forwards, backwards in zip(found[::2], found[1::2], strict=True):
        assert torch.equal(forwards, expected)
        assert torch.equal(backwards, expected.flip(0))


def test_an_engine_is_named_with_its_version() -> None:
    assert engine.name(CPU).startswith("openvino 20")
    assert engine.name(torch.device("cuda")) == f"torch {torch.__version__}"
