"""Multiply-accumulates of an ONNX graph, counted from its nodes and the shapes it records."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import onnx

_COUNTED: Final = ("MatMul", "Gemm", "Conv", "Attention", "Einsum")
_Shape = tuple[int, ...]


def graph_macs(path: Path) -> dict[str, int]:
    """Counts products of matrices, convolutions and attentions; the rest is not counted.

    Args:
        path: An ONNX file whose tensors have recorded, fixed shapes, as PyTorch's exporter
            writes it. Weights are not read.

    Returns:
        MACs by operator; a MAC is two FLOPs.

    Raises:
        ValueError: A shape is missing or not fixed.
    """
    graph = onnx.load(path, load_external_data=False).graph
    shapes: dict[str, _Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(dim.dim_value for dim in dims)
    counted: dict[str, int] = {}
    for node in graph.node:
        if node.op_type in _COUNTED:
            inputs = [_fixed(shapes, name) for name in node.input if name]
            output = _fixed(shapes, node.output[0])
            macs = _macs(node, inputs, output)
            counted[node.op_type] = counted.get(node.op_type, 0) + macs
    return counted


def _fixed(shapes: dict[str, _Shape], name: str) -> _Shape:
    shape = shapes.get(name)
    if shape is None or 0 in shape:
        raise ValueError(f"the graph records no fixed shape of {name}: {shape}")
    return shape


def _macs(node: onnx.NodeProto, inputs: list[_Shape], output: _Shape) -> int:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    first, second = inputs[:2]
    if node.op_type == "MatMul":
        return math.prod(output) * first[-1]
    if node.op_type == "Gemm":
        return math.prod(output) * first[0 if attributes.get("transA") else 1]
    if node.op_type == "Conv":
        return math.prod(output) * math.prod(second[1:])  # channels of one group and the kernel
    if node.op_type == "Attention":
        batch, heads, queries, width = first
        keys, value_width = second[2], inputs[2][3]
        return batch * heads * queries * keys * (width + value_width)
    terms, _ = attributes["equation"].decode().replace(" ", "").split("->")
    sizes: dict[str, int] = {}
    for labels, shape in zip(terms.split(","), inputs, strict=True):
        sizes.update(zip(labels, shape, strict=True))
    return math.prod(sizes.values())
