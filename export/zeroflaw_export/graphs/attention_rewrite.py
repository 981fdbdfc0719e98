"""`Attention` as TensorRT imports and fuses it: all heads in one node, of one width. All exact.

- Relative positions are channels of queries and keys instead of a mask, where they are one.
- A graph for CPUs computes global attention in groups of heads, to hold fewer scores at once. A
  fused kernel holds none, and TensorRT-RTX has none for a single head on 1024 tokens.
- Values are as wide as queries and keys. Zero channels of queries and keys add nothing to their
  products, and zero channels of the values come out as zeros, which are sliced away.
"""

from __future__ import annotations

import math
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
    for softmax in list(model.graph):
        found = _additive(softmax) if softmax.op_type == "Softmax" else None
        if found is None:
            continue
        weighing, queries, keys, rows, columns = found
        values, old = weighing.inputs[1], weighing.outputs[0]
        places = _key_places(model.graph, _shape(keys), _shape(rows)[3])
        made = []
        for name, parts in (("queries", [queries, rows, columns]), ("keys", [keys, places])):
            width = sum(_shape(part)[3] for part in parts)
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


def _key_places(graph: ir.Graph, keys: list[int], side: int) -> ir.Value:
    """Add the one-hot places of the keys: float32 [windows, heads, side * side, 2 * side]."""
    name = f"key_places_{'_'.join(map(str, keys[:2]))}_{side}"
    if name not in graph.initializers:
        place = np.arange(side * side)
        one_hot = np.eye(side, dtype=np.float32)
        both = np.concatenate([one_hot[place // side], one_hot[place % side]], axis=1)
        _register(graph, name, np.tile(both, (*keys[:2], 1, 1)))
    return graph.initializers[name]


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
            shape = [_shape(part) for part in parts]
            heads = sum(one[1] for one in shape)
            given = _value(f"{old.name}_{'qkv'[index]}", old, [shape[0][0], heads, *shape[0][2:]])
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


def _shape(value: ir.Value | None) -> list[int]:
    shape = value.shape if value is not None else None
    if shape is None or not all(isinstance(size, int) for size in shape):
        raise ExportError(
            f"{value.name if value else 'a tensor'} has no fixed shape in the graph",
            "export the bundle again with this version of zeroflaw",
        )
    return [size for size in shape if isinstance(size, int)]


def _value(name: str, like: ir.Value, shape: list[int]) -> ir.Value:
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
        widths = [_shape(value)[3] for value in node.inputs[:3]]
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
    shape = _shape(value)
    made = _value(f"{node.name}_{value.name}_padded", value, [*shape[:3], shape[3] + by])
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
