"""A tiny model that tells red, green and blue apart, and pictures for it."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper
from PIL import Image

from inference import runtime
from inference.contract import InputContract, ModelContract

CLASSES = ("red", "green", "blue")


def picture_bytes(colour: Any = "red", size: tuple[int, int] = (40, 30), kind: str = "PNG", mode: str = "RGB") -> bytes:
    content = BytesIO()
    Image.new(mode, size, colour).save(content, kind)
    return content.getvalue()


def network(image_size: int, class_count: int, input_name: str, output_name: str) -> onnx.ModelProto:
    """Mean colour times a diagonal matrix: the scores are ten times the mean of each channel."""
    weights = [10.0 if row == column else 0.0 for row in range(3) for column in range(class_count)]
    nodes = [
        helper.make_node("GlobalAveragePool", [input_name], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], [output_name]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, ["batch", 3, image_size, image_size])],
        [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, ["batch", class_count])],
        [helper.make_tensor("weights", TensorProto.FLOAT, [3, class_count], weights)],
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])


def model_folder(
    folder: Path,
    *,
    input_name: str = "images",
    output_name: str = "logits",
    class_count: int = 3,
    program: str = "",
    precision: str = "float32",
) -> Path:
    """Write model.json and its networks into the folder; `program` is the source of code/program.py."""
    folder.mkdir(parents=True, exist_ok=True)
    colours = InputContract(image_size=16, resize_size=18, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    ModelContract(classes=CLASSES, input=colours, precision=precision).dump(folder)
    onnx.save(network(16, class_count, input_name, output_name), folder / "model.onnx")
    if precision != "float32":
        openvino_files(folder)
    if program:
        (folder / "code").mkdir(exist_ok=True)
        (folder / "code" / "program.py").write_text(program)
    return folder


def openvino_files(folder: Path) -> Path:
    """Put model.xml and model.bin beside the model.onnx of the folder: the same network, for OpenVINO."""
    openvino = runtime.openvino()
    model = openvino.Core().read_model(str(folder / "model.onnx"))
    model.reshape([1, 3, 16, 16])
    openvino.save_model(model, str(folder / "model.xml"), compress_to_fp16=False)
    return folder
