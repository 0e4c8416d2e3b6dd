"""The network behind the handler: ONNX Runtime computes float32, OpenVINO computes bfloat16 and int8.

Training's agreement gate and evaluation run networks through this module too, so what is measured is what is served.

Shape suffixes: N pictures, C channels, H/W size, K classes.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.contract import NETWORK_FILES, InputContract, InvalidContract, ModelContract
from inference.preprocessing import to_tensor

log = logging.getLogger("inference")

CPU_FEATURES = {
    "bfloat16": ("amx_bf16", "AuthenticAMD avx512_bf16"),
    "int8": ("avx512_vnni", "avx_vnni", "amx_int8"),
}
"""By precision, what /proc/cpuinfo must say of a CPU, one entry of them: flags, and the vendor where they mean speed on
its CPUs only. Without them bfloat16 is slower than float32, as it is with avx512_bf16 on Intel's CPUs, where AMD's take
half the time (measured, docs/decisions/0026), and int8 sums may saturate, so that answers differ from those that were
measured elsewhere.
Source: OpenVINO, "Saturation (overflow) Issue Workaround", read 2026-11-22."""


Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class Network:
    """A loaded network, which several threads may run at once."""

    precision: str
    """What it computes in."""
    run: Run
    """From the RGB pixels of pictures (N, H, W, C), 0 to 255, to logits (N, K); N is 1 but in float32."""


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_feature(precision: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The first entry of `CPU_FEATURES` that this machine fulfils; empty if it fulfils none."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    fields = (line.partition(":") for line in lines if line.startswith(("vendor_id", "flags")))
    words = {word for _, _, said in fields for word in said.split()}
    return next((each for each in CPU_FEATURES[precision] if words.issuperset(each.split())), "")


def unsupported(precision: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Why this machine does not compute in the precision as it was measured; empty if it does."""
    if precision not in CPU_FEATURES or cpu_feature(precision, cpuinfo):
        return ""
    return f"this machine's CPU is not made for {precision}: it has none of {', '.join(CPU_FEATURES[precision])}"


def load(folder: Path, contract: ModelContract, threads: int) -> Network:
    """Load the network of a model folder, for up to `threads` calls of `run` at once, each on one core.

    A precision that the CPU is not made for is served in float32, with a warning: the network that it agrees with.

    Raises:
        InvalidContract: the network is not the one that the contract describes.
    """
    reason = unsupported(contract.precision)
    if reason:
        log.warning("%s; serving float32", reason)
    precision = "float32" if reason else contract.precision
    loaded = _onnx(folder, contract) if precision == "float32" else _openvino(folder, contract, precision, threads)
    return Network(precision, loaded)


def _check(file: str, contract: ModelContract, inputs: Sequence[str], shapes: Mapping[str, Sequence[Any]]) -> None:
    """Compare the names and the number of classes; a size that the network leaves open is no integer."""
    if list(inputs) != [contract.input.name]:
        raise InvalidContract(f"{file} has the inputs {list(inputs)}, model.json says {contract.input.name!r}")
    if contract.output.name not in shapes:
        raise InvalidContract(f"{file} has the outputs {sorted(shapes)}, model.json says {contract.output.name!r}")
    shape = list(shapes[contract.output.name])
    count = len(contract.classes)
    if len(shape) != 2 or (isinstance(shape[1], int) and shape[1] != count):
        raise InvalidContract(f"{file} answers with shape {shape}, model.json lists {count} classes")


def _onnx(folder: Path, contract: ModelContract) -> Run:
    import onnxruntime  # type: ignore[import-untyped] # here, so that a user's own model_fn does not need it

    options = onnxruntime.SessionOptions()
    # One call is one core's work: threads inside a call would fight over the cores with the other calls.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    [file] = NETWORK_FILES["float32"]
    # CUDA's provider is there when a user's image has onnxruntime-gpu. Never run by this project: it has no GPU.
    there = onnxruntime.get_available_providers()
    providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in there]
    session = onnxruntime.InferenceSession(str(folder / file), options, providers=providers)
    inputs = [entry.name for entry in session.get_inputs()]
    _check(file, contract, inputs, {entry.name: entry.shape for entry in session.get_outputs()})
    names, name = [contract.output.name], contract.input.name

    def run(pixels_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        tensors_CHW = [to_tensor(pixels_HWC, contract.input) for pixels_HWC in pixels_NHWC]
        x_NCHW = tensors_CHW[0][None] if len(tensors_CHW) == 1 else np.stack(tensors_CHW)  # stack() would copy
        logits_NK: NDArray[np.float32] = session.run(names, {name: x_NCHW})[0]
        return logits_NK

    return run


def openvino() -> Any:
    """The module `openvino`, ready for several threads.

    Without the messages to Google Analytics that its import sends when it finds openvino-telemetry, on which its
    package depends. And with its first look at NumPy behind it: two threads that take it at once wait for each other
    for ever (2026.4.1), one with the interpreter's lock and one for it.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino  # type: ignore[import-untyped]

    openvino.Type.u8.to_dtype()
    return openvino


def settings(is_bfloat16: bool, threads: int) -> dict[str, object]:
    """OpenVINO's, for up to `threads` calls at once."""
    return {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": str(threads),  # each computes one call, on one thread
        "INFERENCE_NUM_THREADS": str(threads),
        "ENABLE_CPU_PINNING": False,  # others may have work on the same cores
        # It would choose bfloat16 by itself where the CPU has it.
        "INFERENCE_PRECISION_HINT": "bf16" if is_bfloat16 else "f32",
    }


def from_pixels(model: Any, input: InputContract) -> Any:
    """OpenVINO's model with the normalisation in front: its input becomes uint8 (N, H, W, C).

    The answers are those of normalised tensors, to float32's rounding, without a pass over the pixels in NumPy.
    """
    steps = openvino().preprocess.PrePostProcessor(model)
    tensor, network = steps.input().tensor(), steps.input().model()
    layout, type_of = openvino().Layout, openvino().Type
    tensor.set_element_type(type_of.u8).set_layout(layout("NHWC"))
    network.set_layout(layout("NCHW"))
    mean, std = ([255 * value for value in values] for values in (input.mean, input.std))
    steps.input().preprocess().convert_element_type(type_of.f32).mean(mean).scale(std)
    return steps.build()


def _openvino(folder: Path, contract: ModelContract, precision: str, threads: int) -> Run:
    core = openvino().Core()
    file = NETWORK_FILES[precision][0]
    model = core.read_model(str(folder / file))
    if any(entry.partial_shape.is_dynamic for entry in model.inputs):  # see training/quantisation.py
        raise InvalidContract(f"{file} leaves the shape of its input open: it must be fixed, for one picture")
    shapes = {
        entry.any_name: [size.get_length() if size.is_static else str(size) for size in entry.partial_shape]
        for entry in model.outputs
    }
    _check(file, contract, [entry.any_name for entry in model.inputs], shapes)
    compiled = core.compile_model(from_pixels(model, contract.input), "CPU", settings(precision == "bfloat16", threads))
    output = compiled.output(contract.output.name)
    of_thread = threading.local()

    def run(pixels_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        request = getattr(of_thread, "request", None)
        if request is None:
            request = of_thread.request = compiled.create_infer_request()
        logits_NK: NDArray[np.float32] = request.infer({0: pixels_NHWC}, share_inputs=True)[output]
        return logits_NK

    return run
