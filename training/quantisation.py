"""From model.onnx to the network that computes in bfloat16 or int8: OpenVINO's model.xml and model.bin.

int8 is static: the range of a tensor is the one that it has over all calibration pictures. Activations are unsigned and
weights signed, each channel with its own scale: the combination that x86's VNNI computes.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference import runtime
from inference.contract import NETWORK_FILES, ModelContract


class _Calibration:
    """What onnxruntime.quantization asks for one input after the other."""

    def __init__(self, name: str, pictures_CHW: Iterable[NDArray[np.float32]]) -> None:
        self._inputs = ({name: picture_CHW[None]} for picture_CHW in pictures_CHW)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._inputs, None)


def convert(
    onnx: bytes, contract: ModelContract, precision: str, pictures_CHW: Iterable[NDArray[np.float32]]
) -> dict[str, bytes]:
    """The files of the network in `precision`, by name; `pictures_CHW` calibrate int8."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "model.onnx"
        source.write_bytes(onnx)
        if precision == "int8":
            source = _quantised(source, contract, pictures_CHW)
        openvino = runtime.openvino()
        model = openvino.Core().read_model(str(source))
        # Not only for speed: with a free batch size OpenVINO 2026.4.1 answered most pictures wrongly in int8, with AMX.
        model.reshape([1, 3, contract.input.image_size, contract.input.image_size])
        # bfloat16 has 8 significant bits and float16 has 11, so weights in float16 lose nothing that is used, and the
        # server holds half as many bytes.
        xml, binary = NETWORK_FILES[precision]
        openvino.save_model(model, str(folder / xml), compress_to_fp16=precision == "bfloat16")
        return {file: (folder / file).read_bytes() for file in (xml, binary)}


def _quantised(source: Path, contract: ModelContract, pictures_CHW: Iterable[NDArray[np.float32]]) -> Path:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static  # type: ignore[import-untyped]
    from onnxruntime.quantization.shape_inference import quant_pre_process  # type: ignore[import-untyped]

    prepared, quantised = source.with_name("prepared.onnx"), source.with_name("quantised.onnx")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends the step above, after that step
    try:
        quantize_static(
            str(prepared),
            str(quantised),
            _Calibration(contract.input.name, pictures_CHW),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
    finally:
        root.setLevel(level)
    return quantised
