"""`Attention` as TensorRT imports and fuses it: all heads in one node, of one width. Both exact.

- A graph for CPUs computes global attention in groups of heads, to hold fewer scores at once. A
  fused kernel holds none, and TensorRT-RTX has none for a single head on 1024 tokens.
- Values are as wide as queries and keys. Zero channels of queries and keys add nothing to their
  products, and zero channels of the values come out as zeros, which are sliced away.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from zeroflaw_engines.errors import ExportError


def merge_head_groups(model: ir.Model) -> None:
    """Puts groups of heads of one attention into one node, in place.

    A group is an `Attention` whose queries, keys and values are slices of the heads (axis 1) of
    three common tensors, and whose result goes into a `Concat` of all groups in order.
    """
    for concat in list(model.graph):
        if concat.op_type != "Concat" or concat.attributes["axis"].as_int() != 1:
            continue
        groups = [value.producer() for value in concat.inputs if value is not None]
        if len(groups) < 2 or any(node is None or node.op_type != "Attention" for node in groups):
            continue
        whole = _common_source([node for node in groups if node is not None])
        first = groups[0]
        if whole is None or first is None:
            continue
        old = concat.outputs[0]
        new = ir.Value(name=f"{old.name}_heads", type=ir.TensorType(_dtype(old)), shape=old.shape)
        merged = ir.node(
            "Attention", whole, first.attributes, name=f"{concat.name}_attention", outputs=[new]
        )
        model.graph.insert_before(concat, merged)
        old.replace_all_uses_with(new)
        slices = [value.producer() for node in groups if node for value in node.inputs]
        for node in (concat, *groups, *slices):
            if node is not None and not node.outputs[0].uses() and node.graph is not None:
                model.graph.remove(node, safe=True)


def _common_source(groups: list[ir.Node]) -> list[ir.Value] | None:
    """Queries, keys and values of which the groups are the successive slices, or None."""
    whole: list[ir.Value] = []
    for index in range(3):
        start, source = 0, None
        for node in groups:
            value = node.inputs[index]
            cut = value.producer() if value is not None else None
            if cut is None or cut.op_type != "Slice" or len(cut.inputs) < 4:
                return None
            numbers = [
                int(given.const_value.numpy().item())
                if given is not None and given.const_value is not None
                else None
                for given in cut.inputs[1:]
            ]
            if numbers[0] != start or numbers[2] != 1 or numbers[3:] not in ([], [1]):
                return None
            if source not in (None, cut.inputs[0]) or numbers[1] is None:
                return None
            source, start = cut.inputs[0], numbers[1]
        heads = source.shape[1] if source is not None and source.shape is not None else None
        if source is None or not isinstance(heads, int) or start < heads:
            return None
        whole.append(source)
    return whole


def _dtype(value: ir.Value) -> ir.DataType:
    if value.dtype is None:
        raise ExportError(
            f"{value.name} has no dtype in the graph",
            "export the bundle again with this version of zeroflaw",
        )
    return value.dtype


def pad_attention(model: ir.Model, multiple: int) -> bool:
    """Pads the heads of every `Attention` to one width, in place.

    Args:
        model: A graph whose `Attention` nodes have queries, keys and values of 4 axes.
        multiple: The width becomes a multiple of this.

    Returns:
        Whether any node was padded.

    Raises:
        ExportError: The heads of a node have no fixed width.
    """
    padded = False
    for node in list(model.graph):
        if node.op_type != "Attention":
            continue
        widths = [_width(node, value) for value in node.inputs[:3]]
        wide = -(-max(widths) // multiple) * multiple
        if widths == [wide] * 3:
            continue
        padded = True
        if "scale" not in node.attributes:
            node.attributes["scale"] = ir.AttrFloat32("scale", 1 / math.sqrt(widths[0]))
        for index, width in enumerate(widths):
            if width < wide:
                value = node.inputs[index]
                assert value is not None  # noqa: S101 - for mypy; `_width` has looked
                node.replace_input_with(index, _pad(model.graph, node, value, wide - width))
        if widths[2] < wide:
            _slice(model.graph, node, widths[2], wide)
    return padded


def _width(node: ir.Node, value: ir.Value | None) -> int:
    shape = value.shape if value is not None else None
    if shape is None or len(shape) != 4 or not isinstance(shape[3], int):
        raise ExportError(
            f"the heads of {node.name} have no fixed width",
            "export the bundle again with this version of zeroflaw",
        )
    return shape[3]


def _pad(graph: ir.Graph, node: ir.Node, value: ir.Value, by: int) -> ir.Value:
    pads = _constant(graph, f"attention_pads_{by}", [0, 0, 0, 0, 0, 0, 0, by])
    assert value.shape is not None  # noqa: S101 - for mypy; `_width` has looked
    made = ir.Value(
        name=f"{value.name}_padded",
        type=ir.TensorType(_dtype(value)),
        shape=ir.Shape([*value.shape[:3], value.shape[3] + by]),
    )
    pad = ir.node("Pad", [value, pads], name=f"{value.name}_pad", outputs=[made])
    graph.insert_before(node, pad)
    return made


def _slice(graph: ir.Graph, node: ir.Node, width: int, wide: int) -> None:
    out = node.outputs[0]
    made = ir.Value(name=f"{out.name}_sliced", type=ir.TensorType(_dtype(out)), shape=out.shape)
    out.replace_all_uses_with(made)
    assert out.shape is not None  # noqa: S101 - for mypy; the exporter gives every shape
    out.shape = ir.Shape([*out.shape[:3], wide])
    start = _constant(graph, "attention_start", [0])
    stop = _constant(graph, f"attention_stop_{width}", [width])
    axis = _constant(graph, "attention_axis", [3])
    cut = ir.node("Slice", [out, start, stop, axis], name=f"{out.name}_slice", outputs=[made])
    graph.insert_after(node, cut)


def _constant(graph: ir.Graph, name: str, numbers: list[int]) -> ir.Value:
    if name not in graph.initializers:
        tensor = ir.tensor(np.array(numbers, np.int64), name=name)
        graph.register_initializer(
            ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape,
                     const_value=tensor)
        )  # fmt: skip
    return graph.initializers[name]
