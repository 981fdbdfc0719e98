"""What an ONNX graph costs: multiply-accumulates and bytes, from its nodes and recorded shapes.

    python -m zeroflaw_benchmarks.bench.machine.graph_macs my_bundle

prints it for the graphs of a bundle; nothing is run, so it says the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import onnx
import typer
from rich.console import Console
from rich.table import Table

from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.contract import (
    BOX_PROPOSER,
    CLIP_ENCODER,
    IMAGES,
    REFERENCE_MATCHER,
    SAM_DECODER,
    SAM_ENCODER,
    EngineName,
)
from zeroflaw_engines.process.terminal import run_module

_COUNTED: Final = ("MatMul", "Gemm", "Conv", "Attention", "Einsum")
_OF_AN_INSPECTION: Final[tuple[EngineName, ...]] = (
    CLIP_ENCODER, REFERENCE_MATCHER, BOX_PROPOSER, SAM_ENCODER, SAM_DECODER
)  # fmt: skip
_RENAMES: Final = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Constant", "Shape")
_Shape = tuple[int, ...]


@dataclass(frozen=True)
class GraphCost:
    """What one call of a graph costs.

    Attributes:
        macs: Multiply-accumulates by operator; a MAC is two FLOPs.
        weight_bytes: Of all weights.
        tensor_bytes: Of the graph's inputs and outputs.
        unfused_bytes: What nodes read and write if each of them goes through memory; nodes that
            only rename a tensor move nothing.
    """

    macs: dict[str, int]
    weight_bytes: int
    tensor_bytes: int
    unfused_bytes: int

    @property
    def flops(self) -> int:
        """Return the FLOPs of products, convolutions and attentions."""
        return 2 * sum(self.macs.values())

    @property
    def min_bytes(self) -> int:
        """Return what any run of the graph must move: weights, inputs and outputs, each once."""
        return self.weight_bytes + self.tensor_bytes


def graph_cost(path: Path, axes: Mapping[str, int] | None = None) -> GraphCost:
    """Count products of matrices, convolutions and attentions; the rest is not counted as MACs.

    Args:
        path: An ONNX file whose tensors have recorded shapes, as PyTorch's exporter writes it,
            or shapes that follow from its inputs'. Weights are not read.
        axes: Sizes of dynamic axes by name.

    Raises:
        ValueError: A shape is missing or not fixed, or products are in a branch, a loop or a
            function: nobody knows how often they run.
    """
    model = onnx.load(path, load_external_data=False)
    _require_flat(model)
    if not model.graph.value_info:
        model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    shapes: dict[str, _Shape] = {}
    sizes: dict[str, int] = {}
    for tensor in graph.initializer:
        shapes[tensor.name] = tuple(tensor.dims)
        sizes[tensor.name] = _item_bytes(tensor.data_type)
    weights = set(shapes)
    for value in (*graph.input, *graph.output, *graph.value_info):
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(_size(dim, axes or {}) for dim in dims)
        sizes[value.name] = _item_bytes(value.type.tensor_type.elem_type)
    counted: dict[str, int] = {}
    moved = 0

    def bytes_of(name: str) -> int:
        return math.prod(shapes.get(name, ())) * sizes.get(name, 0) if name else 0

    for node in graph.node:
        if node.op_type in _COUNTED:
            inputs = [_fixed(shapes, name) for name in node.input if name]
            output = _fixed(shapes, node.output[0])
            macs = _macs(node, inputs, output)
            counted[node.op_type] = counted.get(node.op_type, 0) + macs
        if node.op_type not in _RENAMES:
            moved += sum(map(bytes_of, (*node.input, *node.output)))
    borders = (*graph.input, *graph.output)
    return GraphCost(
        macs=counted,
        weight_bytes=sum(map(bytes_of, weights)),
        tensor_bytes=sum(bytes_of(value.name) for value in borders if value.name not in weights),
        unfused_bytes=moved,
    )


def _require_flat(model: onnx.ModelProto) -> None:
    inner = [node for function in model.functions for node in function.node]
    pending = list(model.graph.node)
    while pending:
        for attribute in pending.pop().attribute:
            graphs = (attribute.g, *attribute.graphs)
            nodes = [node for graph in graphs for node in graph.node]
            inner += nodes
            pending += nodes
    if any(node.op_type in _COUNTED for node in inner):
        raise ValueError("the graph has products in a branch, a loop or a function")


def _item_bytes(kind: int) -> int:
    return int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)


def _size(dim: Any, axes: Mapping[str, int]) -> int:  # noqa: ANN401 - protobuf's own type
    """Return the size of an axis, of which PyTorch writes products such as `4*images`; 0: open."""
    if not dim.dim_param:
        return int(dim.dim_value)
    return math.prod(
        int(part) if part.isdigit() else axes.get(part, 0) for part in dim.dim_param.split("*")
    )


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


def main(
    bundle: Annotated[str, typer.Argument(help="A bundle; its FP32 graphs are counted.")],
) -> None:
    """Print what one call of each engine costs, with one image and one prompt."""
    table = Table("graph", box=None)
    for head in ("GMAC", "weights, MB", "inputs and outputs, MB", "unfused, MB"):
        table.add_column(head, justify="right")
    opened = open_bundle(bundle)
    for engine in _OF_AN_INSPECTION:
        if engine not in opened.manifest.engines:
            continue
        try:
            cost = graph_cost(opened.onnx_path(engine), {"batch": 1, IMAGES: 1})
        except ValueError as error:  # a box proposer is whatever its owner exported
            table.add_row(engine, f"n/a: {error}")
            continue
        figures = (cost.flops / 2e9, *(n / 1e6 for n in (cost.weight_bytes, cost.tensor_bytes)))
        table.add_row(engine, *(f"{x:.2f}" for x in figures), f"{cost.unfused_bytes / 1e6:.0f}")
    Console(highlight=False).print(table)


if __name__ == "__main__":
    run_module(main)
