"""`Attention` as TensorRT imports and fuses it: all heads in one node, of one width. All exact.

- Relative positions are channels of queries and keys instead of a mask, where they are one.
- A graph for CPUs computes global attention in groups of heads, to hold fewer scores at once. A
  fused kernel holds none, and TensorRT-RTX has none for a single head on 1024 tokens.
- Values are as wide as queries and keys. Zero channels of queries and keys add nothing to their
  products, and zero channels of the values come out as zeros, which are sliced away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from zeroflaw_engines.errors import ExportError


def fuse_relative_positions(model: ir.Model) -> None:
    """Turn attention with SAM's relative positions as a mask into one `Attention`, in place.

    The mask is the sum of a product for each row and one for each column of the keys. As further
    channels of the queries, over one-hot places as those of the keys, they add up to the same
    scores, and no kernel has to read a mask of the scores' size (see `sam_attention`).
    """
    spread: dict[str, ir.Value] = {}
    for softmax in list(model.graph):
        found = _additive(softmax) if softmax.op_type == "Softmax" else None
        if found is None:
            continue
        weighing, queries, keys, rows, columns = found
        values, old = weighing.inputs[1], weighing.outputs[0]
        places = _key_places(model.graph, weighing, keys, _width(rows), spread)
        made = []
        for name, parts in (("queries", [queries, rows, columns]), ("keys", [keys, places])):
            width = sum(map(_width, parts))
            wide = _value(f"{old.name}_{name}", old, [*_shape(keys)[:3], width])
            concat = ir.node("Concat", parts, {"axis": -1}, name=wide.name, outputs=[wide])
            model.graph.insert_before(weighing, concat)
            made.append(wide)
        new = _value(f"{old.name}_attended", old, _shape(old))
        attention = ir.node(
            "Attention", [*made, values], {"scale": 1.0}, name=f"{old.name}_attention",
            outputs=[new],
        )  # fmt: skip
        model.graph.insert_before(weighing, attention)
        old.replace_all_uses_with(new)
    RemoveUnusedNodesPass()(model)


def _additive(
    softmax: ir.Node,
) -> tuple[ir.Node, ir.Value, ir.Value, ir.Value, ir.Value] | None:
    """Find the product with the values, and queries, keys, rows and columns before a softmax."""
    total = _producer(softmax.inputs[0], "Add")
    readers = list(softmax.outputs[0].uses())
    if total is None or len(readers) != 1 or readers[0].node.op_type != "MatMul":
        return None
    for first, second in (total.inputs, reversed(total.inputs)):
        product, mask = _producer(first, "MatMul"), _producer(second, "Reshape")
        both = _producer(mask.inputs[0], "Add") if mask else None
        transposed = _producer(product.inputs[1], "Transpose") if product else None
        if product is None or both is None or transposed is None:
            continue
        parts = {}
        for value in both.inputs:
            spread = _producer(value, "Unsqueeze")
            axis = _number(spread.inputs[1]) if spread else None
            if spread is not None and axis is not None:
                parts[axis % 5] = spread.inputs[0]
        queries, keys = product.inputs[0], transposed.inputs[0]
        rows, columns = parts.get(4), parts.get(3)
        if queries is not None and keys is not None and rows is not None and columns is not None:
            return readers[0].node, queries, keys, rows, columns
    return None


def _key_places(
    graph: ir.Graph, before: ir.Node, keys: ir.Value, side: int, spread: dict[str, ir.Value]
) -> ir.Value:
    """Add the one-hot places of the keys: float32 [windows, heads, side * side, 2 * side].

    Args:
        before: Where they are needed.
        spread: Those that were spread over a number of windows that the graph leaves open.
    """
    windows, heads = _shape(keys)[0], _size(keys, 1)
    count = windows if isinstance(windows, int) else 1
    name = f"key_places_{count}_{heads}_{side}"
    if name not in graph.initializers:
        place = np.arange(side * side)
        one_hot = np.eye(side, dtype=np.float32)
        both = np.concatenate([one_hot[place // side], one_hot[place % side]], axis=1)
        _register(graph, name, np.tile(both, (count, heads, 1, 1)))
    places = graph.initializers[name]
    if windows == count:
        return places
    key = f"{name}_{windows}"
    if key not in spread:
        spread[key] = _spread(graph, before, places, keys, f"{name}_{len(spread)}")
    return spread[key]


def _spread(
    graph: ir.Graph, before: ir.Node, places: ir.Value, keys: ir.Value, name: str
) -> ir.Value:
    """Repeat constants [1, ...] for each of the windows that the keys have when the graph runs."""
    windows, *_ = _shape(keys)
    rest = _shape(places)[1:]
    fixed = _register(graph, f"{name}_rest", np.array(rest, np.int64))
    counted, shape = (
        ir.Value(name=f"{name}_{what}", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([n]))
        for what, n in (("windows", 1), ("shape", 4))
    )
    made = _value(f"{name}_spread", places, [windows, *rest])
    for node in (
        ir.node("Shape", [keys], {"start": 0, "end": 1}, name=counted.name, outputs=[counted]),
        ir.node("Concat", [counted, fixed], {"axis": 0}, name=shape.name, outputs=[shape]),
        ir.node("Expand", [places, shape], name=made.name, outputs=[made]),
    ):
        graph.insert_before(before, node)
    return made


def merge_head_groups(model: ir.Model) -> None:
    """Put groups of heads of one attention into one node, in place.

    A group is an `Attention` whose result goes into a `Concat` of all groups along the heads
    (axis 1).
    """
    for concat in list(model.graph):
        if concat.op_type != "Concat" or concat.attributes["axis"].as_int() != 1:
            continue
        groups = [_producer(value, "Attention") for value in concat.inputs]
        whole = [node for node in groups if node is not None]
        if len(whole) < 2 or len(whole) < len(groups):
            continue
        old = concat.outputs[0]
        merged = []
        for index in range(3):
            parts = [node.inputs[index] for node in whole]
            windows, _, *rest = _shape(parts[0])
            heads = sum(_size(part, 1) for part in parts)
            given = _value(f"{old.name}_{'qkv'[index]}", old, [windows, heads, *rest])
            joined = ir.node("Concat", parts, {"axis": 1}, name=given.name, outputs=[given])
            model.graph.insert_before(concat, joined)
            merged.append(given)
        new = _value(f"{old.name}_heads", old, _shape(old))
        attention = ir.node(
            "Attention", merged, whole[0].attributes, name=f"{old.name}_attention", outputs=[new]
        )
        model.graph.insert_before(concat, attention)
        old.replace_all_uses_with(new)
    RemoveUnusedNodesPass()(model)


def _producer(value: ir.Value | None, operator: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == operator else None


def _number(value: ir.Value | None) -> int | None:
    if value is None or value.const_value is None or value.const_value.size != 1:
        return None
    return int(value.const_value.numpy().item())


def _shape(value: ir.Value | None) -> list[int | ir.SymbolicDim]:
    """Return sizes that are fixed but for the first, of which windows of a batch make more."""
    shape = list(value.shape) if value is not None and value.shape is not None else []
    open_axes = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
    if not shape or (open_axes and (open_axes != [0] or shape[0] == ir.SymbolicDim(None))):
        raise ExportError(
            f"{value.name if value else 'a tensor'} has no fixed shape in the graph",
            "export the bundle again with this version of zeroflaw",
        )
    return shape


def _size(value: ir.Value | None, axis: int) -> int:
    size = _shape(value)[axis]
    assert isinstance(size, int)  # noqa: S101 - for mypy; `_shape` has looked
    return size


def _width(value: ir.Value | None) -> int:
    return _size(value, 3)


def _value(name: str, like: ir.Value, shape: Sequence[int | ir.SymbolicDim]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(_dtype(like)), shape=ir.Shape(shape))


def _dtype(value: ir.Value) -> ir.DataType:
    if value.dtype is None:
        raise ExportError(
            f"{value.name} has no dtype in the graph",
            "export the bundle again with this version of zeroflaw",
        )
    return value.dtype


def pad_attention(model: ir.Model, multiple: int) -> bool:
    """Pad the heads of every `Attention` to one width, in place.

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
        widths = [_width(value) for value in node.inputs[:3]]
        wide = -(-max(widths) // multiple) * multiple
        if widths == [wide] * 3:
            continue
        padded = True
        if "scale" not in node.attributes:
            node.attributes["scale"] = ir.AttrFloat32("scale", 1 / math.sqrt(widths[0]))
        for index, width in enumerate(widths):
            if width < wide:
                value = node.inputs[index]
                assert value is not None  # noqa: S101 - for mypy; `_shape` has looked
                node.replace_input_with(index, _pad(model.graph, node, value, wide - width))
        if widths[2] < wide:
            _slice(model.graph, node, widths[2], wide)
    return padded


def _pad(graph: ir.Graph, node: ir.Node, value: ir.Value, by: int) -> ir.Value:
    pads = _register(graph, f"attention_pads_{by}", np.array([0] * 7 + [by]))
    made = _value(
        f"{node.name}_{value.name}_padded", value, [*_shape(value)[:3], _width(value) + by]
    )
    graph.insert_before(node, ir.node("Pad", [value, pads], name=made.name, outputs=[made]))
    return made


def _slice(graph: ir.Graph, node: ir.Node, width: int, wide: int) -> None:
    out = node.outputs[0]
    made = _value(f"{out.name}_sliced", out, _shape(out))
    out.replace_all_uses_with(made)
    out.shape = ir.Shape([*_shape(out)[:3], wide])
    bounds = [
        _register(graph, f"attention_{name}_{number}", np.array([number]))
        for name, number in (("start", 0), ("stop", width), ("axis", 3))
    ]
    cut = ir.node("Slice", [out, *bounds], name=made.name, outputs=[made])
    graph.insert_after(node, cut)


def _register(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    if name not in graph.initializers:
        tensor = ir.Tensor(array, name=name)
        made = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor
        )
        graph.register_initializer(made)
    return graph.initializers[name]
