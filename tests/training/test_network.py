"""Graphs that are written layer by layer: the answers are the module's, and no compiler is needed for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from inference.contract import InputContract
from training import network
from training.backbones import Classifier, build

INPUT = InputContract(64, 72, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def answers(graph: onnx.ModelProto, x_NCHW: Tensor) -> np.ndarray:
    onnx.checker.check_model(graph, full_check=True)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {INPUT.name: x_NCHW.numpy()})
    return output


def no_exporter(*_: object) -> None:
    pytest.fail("torch's exporter is not needed for this")


class Small(nn.Module):
    """Every layer and function that has an entry, and most settings."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.ZeroPad2d((0, 1, 2, 3)), nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU6()
        )
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 2, dilation=2, groups=4), nn.BatchNorm2d(8), nn.ReLU())
        self.pool, self.mean, self.drop = nn.MaxPool2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Dropout()
        self.wide = nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.Identity())

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y_NCHW = self.stem(x_NCHW)
        y_NCHW = self.pool(y_NCHW + self.deep(y_NCHW))
        mean_ND = torch.flatten(nn.functional.adaptive_avg_pool2d(y_NCHW, (1, 1)), 1)
        return torch.add(self.wide(self.mean(self.drop(y_NCHW))), self.wide(mean_ND))


def small() -> Classifier:
    torch.manual_seed(0)
    return Classifier(Small(), 6, 5)


def from_library(name: str) -> Classifier:
    return build(name, 5, source="package" if name == "efficientnet_lite0" else "none", path=None, seed=0)


@pytest.mark.parametrize(
    "made",
    [
        small,
        lambda: from_library("efficientnet_lite0"),
        pytest.param(lambda: from_library("resnet18"), marks=pytest.mark.slow),
        pytest.param(lambda: from_library("mobilenet_v2"), marks=pytest.mark.slow),
    ],
    ids=["small", "efficientnet_lite0", "resnet18", "mobilenet_v2"],
)
def test_a_graph_answers_what_the_classifier_answers(
    made: Callable[[], Classifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_exported", no_exporter)
    model = made()
    backbone = network.of_backbone(model.backbone, INPUT)
    whole = network.with_head(backbone, model.head, "logits")
    torch.manual_seed(0)
    for count in (1, 3):
        x_NCHW = torch.randn(count, 3, 64, 64)
        with torch.no_grad():
            expected, features_ND = model(x_NCHW).numpy(), model.backbone(x_NCHW).numpy()
        assert np.allclose(answers(backbone, x_NCHW), features_ND, atol=1e-4)
        assert np.allclose(answers(whole, x_NCHW), expected, atol=1e-4)
    assert [entry.name for entry in whole.graph.output] == ["logits"]


class Other(nn.Module):
    """A layer that is written only here."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 8, 3, stride=2)
        self.layer, self.pool, self.flat = layer, nn.AdaptiveAvgPool2d(1), nn.Flatten()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        features: Tensor = self.flat(self.pool(self.layer(self.before(x_NCHW))))
        return features


@pytest.mark.parametrize(
    "layer",
    [
        nn.SiLU(),
        nn.Conv2d(8, 8, 3, padding="same"),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.AdaptiveAvgPool2d(2),
    ],
    ids=str,
)
def test_any_other_layer_is_left_to_the_exporter(layer: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = onnx.ModelProto()
    monkeypatch.setattr(network, "_exported", lambda *_: exported)
    assert network.of_backbone(Other(layer), INPUT) is exported


@pytest.mark.slow
def test_what_the_exporter_writes_gets_its_head_too() -> None:
    backbone, head, x_NCHW = Other(nn.SiLU()).eval(), nn.Linear(8, 5), torch.randn(3, 3, 64, 64)
    graph = network.with_head(network.of_backbone(backbone, INPUT), head, "logits")
    with torch.no_grad():
        expected = head(backbone(x_NCHW)).numpy()
    assert np.allclose(answers(graph, x_NCHW), expected, atol=1e-5)
