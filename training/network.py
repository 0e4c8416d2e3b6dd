"""A trained network as an ONNX graph, written layer by layer from the folded module.

torch's own exporter takes seconds for what these layers say in milliseconds. It is what remains for a network with any
other layer, so every backbone that can be folded has a graph. Whoever writes one compares its answers with PyTorch's.

Shape suffixes: N pictures, C channels, H/W size, D features, K classes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn

from inference.contract import InputContract
from training.backbones import folded

OPSET, IR_VERSION = 18, 10
FEATURES = "features"


class _Unknown(Exception):
    """A layer that has no entry here."""


def _pair(value: int | tuple[int, int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _window(layer: nn.Conv2d | nn.MaxPool2d) -> dict[str, Any]:
    if isinstance(layer.padding, str):
        raise _Unknown
    return {
        "kernel_shape": _pair(layer.kernel_size),  # type: ignore[arg-type]
        "strides": _pair(layer.stride),  # type: ignore[arg-type]
        "pads": _pair(layer.padding) * 2,  # type: ignore[arg-type]
        "dilations": _pair(layer.dilation),  # type: ignore[arg-type]
    }


class _Graph:
    """Nodes and tensors, as they are added; a method per kind of layer answers with the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def node(self, operation: str, *inputs: str, to: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operation, inputs, [to], name=to, **attributes))
        return to

    def tensor(self, name: str, value: Tensor | np.ndarray[Any, Any]) -> str:
        array = value.detach().cpu().contiguous().numpy() if isinstance(value, Tensor) else value
        self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def layer(self, layer: nn.Module, x: str, to: str) -> str:
        """Raises _Unknown: there is no entry for its kind, or for its settings."""
        match layer:
            case nn.Conv2d(padding_mode="zeros") | nn.Linear():
                parts = [self.tensor(f"{to}.weight", layer.weight)]
                parts += [self.tensor(f"{to}.bias", layer.bias)] if layer.bias is not None else []
                if isinstance(layer, nn.Linear):
                    return self.node("Gemm", x, *parts, to=to, transB=1)
                return self.node("Conv", x, *parts, to=to, group=layer.groups, **_window(layer))
            case nn.ReLU6():
                bounds = [self.tensor(f"{to}.{bound}", np.array(bound, np.float32)) for bound in (0, 6)]
                return self.node("Clip", x, *bounds, to=to)
            case nn.ReLU():
                return self.node("Relu", x, to=to)
            case nn.Identity() | nn.Dropout():
                return x
            case nn.ZeroPad2d(padding=(left, right, top, bottom)):
                pads = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
                return self.node("Pad", x, self.tensor(f"{to}.pads", pads), to=to)
            case nn.MaxPool2d(ceil_mode=False, return_indices=False):
                return self.node("MaxPool", x, to=to, **_window(layer))
            case nn.AdaptiveAvgPool2d(output_size=1 | (1, 1)):
                return self.node("GlobalAveragePool", x, to=to)
            case nn.Flatten(start_dim=1, end_dim=-1):
                return self.node("Flatten", x, to=to, axis=1)
        raise _Unknown

    def call(self, function: Callable[..., object], names: tuple[str, ...], rest: tuple[object, ...], to: str) -> str:
        """A function of one or two tensors. Raises _Unknown: there is no entry for it."""
        if function in (operator.add, operator.iadd, torch.add) and len(names) == 2 and not rest:
            return self.node("Add", *names, to=to)
        if function is torch.flatten and rest == (1,):
            return self.node("Flatten", *names, to=to, axis=1)
        if function is nn.functional.adaptive_avg_pool2d and rest == ((1, 1),):
            return self.node("GlobalAveragePool", *names, to=to)
        raise _Unknown


def _written(module: nn.Module, input_name: str) -> onnx.GraphProto:
    assert isinstance(module, fx.GraphModule)
    graph, layers = _Graph(), dict(module.named_modules())
    names: dict[fx.Node, str] = {}
    for node in module.graph.nodes:
        inputs = tuple(names[argument] for argument in node.args if isinstance(argument, fx.Node))
        if node.op == "placeholder":
            names[node] = input_name
        elif node.op == "call_module" and len(inputs) == len(node.args) == 1 and not node.kwargs:
            names[node] = graph.layer(layers[node.target], inputs[0], node.name)
        elif node.op == "call_function" and inputs and not node.kwargs:
            rest = tuple(argument for argument in node.args if not isinstance(argument, fx.Node))
            names[node] = graph.call(node.target, inputs, rest, node.name)
        elif node.op == "output" and len(inputs) == 1:
            graph.node("Identity", inputs[0], to=FEATURES)
        else:
            raise _Unknown
    return helper.make_graph(graph.nodes, "network", [], [], graph.tensors)


def _exported(module: nn.Module, input_name: str, image_size: int) -> onnx.ModelProto:
    x_NCHW = torch.zeros(2, 3, image_size, image_size)
    with torch.no_grad():
        program = torch.export.export(module, (x_NCHW,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False)
        exported = torch.onnx.export(
            program, dynamo=True, input_names=[input_name], output_names=[FEATURES], verbose=False
        )
    assert exported is not None
    proto: onnx.ModelProto = exported.model_proto
    return proto


def _values(name: str, *sizes: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)


def of_backbone(backbone: nn.Module, input: InputContract) -> onnx.ModelProto:
    """From pictures x_NCHW, any number of them, to features f_ND; batch norm is folded away."""
    module = folded(backbone).cpu()
    try:
        graph = _written(module, input.name)
    except _Unknown:
        return _exported(module, input.name, input.image_size)
    graph.input.append(_values(input.name, "batch", 3, input.image_size, input.image_size))
    graph.output.append(_values(FEATURES, "batch", "features"))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def with_head(backbone: onnx.ModelProto, head: nn.Linear, output_name: str) -> onnx.ModelProto:
    """The same graph with the head behind it: to logits_NK."""
    whole = onnx.ModelProto()
    whole.CopyFrom(backbone)
    weight, bias = (
        numpy_helper.from_array(value.detach().cpu().numpy(), f"head.{name}")
        for name, value in (("weight", head.weight), ("bias", head.bias))
    )
    whole.graph.initializer.extend([weight, bias])
    whole.graph.node.append(
        helper.make_node("Gemm", [FEATURES, weight.name, bias.name], [output_name], name="head", transB=1)
    )
    del whole.graph.output[:]
    whole.graph.output.append(_values(output_name, "batch", head.out_features))
    return whole
