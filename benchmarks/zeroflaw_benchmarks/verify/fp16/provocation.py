"""Weights scaled so that FP16 overflows wherever a graph is not protected from it.

A transformer sums the outputs of its blocks into one stream, and norms divide the stream by its own
size. To scale what is added makes a network of which the stream is large and whose products read
normed values as before. In FP32 it is as sound as before; where the stream, a norm or a
length is in FP16, it overflows.
"""

from __future__ import annotations

import onnx_ir as ir

from zeroflaw_export.graphs.precision_recipe import FP16_RECIPE, PrecisionRecipe
from zeroflaw_export.graphs.typed_graph import LINEAR, MOVING, fp32_nodes


def scale_what_islands_read(
    model: ir.Model, factor: float, recipe: PrecisionRecipe = FP16_RECIPE
) -> int:
    """Scale the weights of the products that FP32 islands read, in an FP32 graph, in place.

    Returns:
        How many products were scaled.
    """
    islands = fp32_nodes(model.graph, recipe.islands)
    scaled: dict[ir.Value, ir.Value] = {}
    products = 0
    for node in model.graph:
        if node.op_type not in LINEAR or node in islands or not _reaches(node, islands):
            continue
        weights = [value for value in node.inputs[1:] if value and value.const_value is not None]
        if not weights:
            continue
        products += 1
        for reader, index in _parameters(node):
            value = reader.inputs[index]
            assert value is not None  # noqa: S101 - for mypy; `_parameters` has looked
            if value not in scaled:
                scaled[value] = _scaled(model.graph, value, factor)
            reader.replace_input_with(index, scaled[value])
    return products


def _reaches(node: ir.Node, islands: set[ir.Node]) -> bool:
    """Whether an island reads the product, across its bias and operators that only move data."""
    todo = [node]
    while todo:
        for after in todo.pop().successors():
            if after in islands and after.op_type not in {"Attention", "MatMul", "Softmax"}:
                return True
            if after.op_type in MOVING or (after.op_type == "Add" and after not in islands):
                todo.append(after)
    return False


def _parameters(node: ir.Node) -> list[tuple[ir.Node, int]]:
    """Where the product's weight and bias are read."""
    found = [
        (node, index)
        for index, value in enumerate(node.inputs)
        if index > 0 and value is not None and value.const_value is not None
    ]
    for after in node.successors():
        if after.op_type == "Add":
            found += [
                (after, index)
                for index, value in enumerate(after.inputs)
                if value is not None and value.const_value is not None
            ]
    return found


def _scaled(graph: ir.Graph, value: ir.Value, factor: float) -> ir.Value:
    source = value.const_value
    assert source is not None  # noqa: S101 - for mypy; the caller has looked
    name = f"{value.name}_scaled"
    tensor = ir.LazyTensor(
        lambda: ir.Tensor(source.numpy() * source.numpy().dtype.type(factor), name=name),
        dtype=source.dtype,
        shape=source.shape,  # type: ignore[arg-type]  # the library's own types disagree
        name=name,
    )
    made = ir.Value(
        name=name, type=ir.TensorType(source.dtype), shape=value.shape, const_value=tensor
    )
    graph.register_initializer(made)
    return made
