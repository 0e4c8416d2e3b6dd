"""The network that the baselines serve, the weights of Kelpie's archive, and the original handler's way to use it."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torchvision import models, transforms  # type: ignore[import-untyped]

_SQUASHED = transforms.Compose([transforms.Resize((224, 224)), transforms.ToTensor()])


def load(folder: Path) -> nn.Module:
    """The eager float32 ResNet-50 of a model folder that Kelpie's training wrote."""
    class_count = len(json.loads((folder / "model.json").read_text(encoding="utf-8"))["classes"])
    network: nn.Module = models.resnet50(weights=None, num_classes=class_count)
    names = {"backbone": "", "head": "fc."}
    tensors = {}
    for key, tensor in load_file(folder / "model.safetensors").items():
        part, _, rest = key.partition(".")
        tensors[names[part] + rest] = tensor
    network.load_state_dict(tensors)
    return network.eval()


def logits(network: nn.Module, body: bytes) -> list[float]:
    """What the original handler answers: Pillow, squashed to 224 x 224, not normalised, all logits."""
    image = Image.open(BytesIO(body)).convert("RGB")
    x_NCHW = _SQUASHED(image).unsqueeze(0)
    with torch.no_grad():
        numbers: list[float] = network(x_NCHW)[0].tolist()
    return numbers
