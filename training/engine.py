"""What computes features: the frozen backbone as a function from pixels, by OpenVINO on CPUs and by PyTorch on GPUs.

Shape suffixes: N pictures, C channels, H/W size, D features.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor, nn

from inference import runtime
from inference.contract import InputContract
from training import network
from training.backbones import folded

Compute = Callable[[Tensor], Tensor]
"""From pictures cut to the model's square, pixels_NHWC of 0 to 255 in the CPU's memory, to their features f_ND there.
Several threads may call it at once; each call is one thread's work."""


def name(device: torch.device) -> str:
    """The engine and its version: another one may compute other bits."""
    return f"openvino {version('openvino')}" if device.type == "cpu" else f"torch {torch.__version__}"


def of(backbone: nn.Module, input: InputContract, dtype: torch.dtype, device: torch.device, threads: int) -> Compute:
    """The engine for the device, for up to `threads` calls at once."""
    return (by_openvino if device.type == "cpu" else by_torch)(backbone, input, dtype, device, threads)


def by_openvino(
    backbone: nn.Module, input: InputContract, dtype: torch.dtype, _device: torch.device, threads: int
) -> Compute:
    """By OpenVINO, each call on one core.

    Pictures go through one by one, so what one of them gets depends on no other, and the shape of the input is fixed:
    with a free batch size OpenVINO 2026.4.1 computed wrongly elsewhere (see training/quantisation.py).
    """
    core = runtime.openvino().Core()
    model = core.read_model(network.of_backbone(backbone, input).SerializeToString(), b"")
    side = input.image_size
    model.reshape([1, 3, side, side])
    settings = runtime.settings(dtype == torch.bfloat16, threads)
    compiled = core.compile_model(runtime.from_pixels(model, input), "CPU", settings)
    of_thread = threading.local()

    def compute(pixels_NHWC: Tensor) -> Tensor:
        request = getattr(of_thread, "request", None)
        if request is None:
            request = of_thread.request = compiled.create_infer_request()
        each_HWC = pixels_NHWC.numpy()
        rows_1D = [request.infer({0: pixels[None]}, share_inputs=True)[0].copy() for pixels in each_HWC]
        return torch.from_numpy(np.concatenate(rows_1D)).to(dtype)

    return compute


def by_torch(
    backbone: nn.Module, input: InputContract, dtype: torch.dtype, device: torch.device, _threads: int
) -> Compute:
    """By PyTorch, the pictures as one batch. Its use, on GPUs, was not run by this project so far."""
    module = folded(backbone).to(device, dtype)
    mean_C11, std_C11 = (torch.tensor(v, device=device).view(3, 1, 1) for v in (input.mean, input.std))

    @torch.inference_mode()
    def compute(pixels_NHWC: Tensor) -> Tensor:
        pixels_NCHW = pixels_NHWC.to(device, non_blocking=True).permute(0, 3, 1, 2)
        x_NCHW = (pixels_NCHW.to(torch.float32) / 255 - mean_C11) / std_C11
        features_ND: Tensor = module(x_NCHW.to(dtype)).cpu()
        return features_ND

    return compute
