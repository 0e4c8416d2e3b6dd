"""The model archive: model.onnx, model.safetensors, model.json and code/inference; model.xml and model.bin besides for
bfloat16 and int8."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

import inference
from inference.contract import InputContract, ModelContract
from training import network
from training.backbones import Classifier, normalisation
from training.settings import Settings

MAX_LOGIT_DIFFERENCE = 1e-3
"""Largest accepted difference between ONNX Runtime's and PyTorch's logits, relative to the largest (at least 1)."""
LIBRARIES = ("torch", "torchvision", "onnx", "onnxruntime", "openvino", "numpy", "pillow")


class ExportError(RuntimeError):
    """The exported model does not answer like the trained one."""


def input_contract(settings: Settings) -> InputContract:
    """How pictures become input."""
    norm = normalisation(settings.backbone)
    return InputContract(settings.image_size, settings.resize_size, norm.mean, norm.std)


def model_contract(settings: Settings, classes: Sequence[str], training: dict[str, object]) -> ModelContract:
    """The contract without its test accuracy, which is not known before the exported model has been run."""
    versions = {"python": sys.version.split()[0]} | {name: version(name) for name in LIBRARIES}
    return ModelContract(
        tuple(classes),
        input_contract(settings),
        backbone=settings.backbone,
        library_versions=versions,
        training=training,
    )


def weights_sha256(model: nn.Module) -> str:
    """A hash of all tensors by name: equal exactly when the weights are equal, bit by bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def to_onnx(model: Classifier, contract: ModelContract, path: Path) -> None:
    """Write the model with a free batch dimension, batch norm folded away."""
    backbone = network.of_backbone(model.backbone, contract.input)
    onnx.save(network.with_head(backbone, model.head, contract.output.name), path)


def check_agreement(model: Classifier, x_NCHW: Tensor, onnx_logits_NK: NDArray[np.float32]) -> float:
    """Compare with PyTorch on the same pictures; returns the largest difference of a logit.

    Raises:
        ExportError: it is above `MAX_LOGIT_DIFFERENCE`.
    """
    with torch.no_grad():
        logits_NK = model(x_NCHW.to(next(model.parameters()).device)).cpu().numpy()
    difference = float(np.abs(logits_NK - onnx_logits_NK).max())
    limit = MAX_LOGIT_DIFFERENCE * max(1.0, float(np.abs(logits_NK).max()))
    if not difference <= limit:
        raise ExportError(
            f"model.onnx differs from the trained model by {difference:.2g} in a logit, the limit is {limit:.2g}"
        )
    return difference


def write_rest(folder: Path, model: Classifier, contract: ModelContract, networks: Mapping[str, bytes]) -> None:
    """Put the other networks, model.safetensors, model.json and code/inference beside model.onnx."""
    for name, content in networks.items():
        (folder / name).write_bytes(content)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "model.safetensors").chmod(0o644)  # it is written for its owner alone; serving runs as another user
    contract.dump(folder / "model.json")
    package = Path(str(inference.__file__)).parent
    for source in sorted([*package.rglob("*.py"), package / "requirements.txt"]):
        if source.is_file():
            target = folder / "code" / "inference" / source.relative_to(package)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
