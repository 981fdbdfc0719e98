"""A strongly typed mixed-precision graph from an FP32 graph and a recipe.

The pass decides a type for every node that touches floats, converts each initializer once, and
puts one Cast where a value crosses a border, however many nodes read it there. Operators that
only move data have no type of their own: they follow their surroundings, so that a border lies
where the fewest bytes cross it. Inputs and outputs keep the dtypes of the engine contract.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
import onnx_ir as ir

from zeroflaw_engines.errors import ExportError
from zeroflaw_export.graphs.precision_recipe import Island, PrecisionRecipe

RECIPE_KEY: Final = "zeroflaw.precision_recipe"
LARGEST_FP16: Final = 65504.0

_FP32: Final = ir.DataType.FLOAT
_FP16: Final = ir.DataType.FLOAT16

LINEAR: Final = frozenset({"Conv", "Gemm", "MatMul"})
_WEIGHTED: Final = LINEAR | {"Attention", "LayerNormalization"}
MOVING: Final = frozenset(
    {"Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split",
     "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)  # fmt: skip
_COMPUTING: Final = frozenset(
    {"Add", "AveragePool", "Cast", "Clip", "Cos", "Div", "Gelu", "Mul", "Neg", "ReduceL2",
     "ReduceMax", "ReduceMean", "Relu", "Sigmoid", "Sin", "Softmax", "Sub", "TopK", "Where"}
)  # fmt: skip
# Operators whose float inputs and outputs all have one type: what the pass knows to retype.
_KNOWN: Final = _WEIGHTED | MOVING | _COMPUTING
# Operators that read floats and do not depend on their type.
_UNTYPED: Final = frozenset({"Shape", "Size"})


def apply_recipe(model: ir.Model, recipe: PrecisionRecipe) -> None:
    """Retype a graph in place: FP16 but for the recipe's islands.

    Args:
        model: An FP32 graph with the dtype of every value, as `onnx_from_module` writes it. Its
            weights may be external; they are converted when the graph is saved.

    Raises:
        ExportError: An operator is not known to the pass, or a value has no dtype.
    """
    nodes = [node for node in model.graph if _touches_floats(node)]
    for node in nodes:
        if node.op_type not in _KNOWN or node.domain:
            raise ExportError(
                f"the precision pass does not know {node.op_type} (node {node.name})",
                "add it to zeroflaw_export.graphs.typed_graph, with the precision that it needs",
            )
    types = _types(model.graph, nodes, fp32_nodes(model.graph, recipe.islands))
    rounded = fp32_nodes(model.graph, (i for i in recipe.islands if i.rounded))
    _Retyping(model.graph, types, rounded).run()
    model.metadata_props[RECIPE_KEY] = recipe.id


def fp32_nodes(graph: ir.Graph, islands: Iterable[Island]) -> set[ir.Node]:
    """Return the nodes of islands, without those that only move data."""
    found = set[ir.Node]()
    for island in islands:
        found |= _members(graph, island, found)
    # A bias goes with its product.
    products = {node for node in found if node.op_type in LINEAR}
    found |= {
        after
        for node in products
        for after in node.successors()
        if after.op_type == "Add" and _is_bias(after)
    }
    return {node for node in found if node.op_type not in MOVING}


def _touches_floats(node: ir.Node) -> bool:
    if node.op_type in _UNTYPED:
        return False
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    for value in values:
        if value.dtype is None:
            raise ExportError(
                f"{value.name} at node {node.name} has no dtype in the graph",
                "export the bundle again with this version of zeroflaw",
            )
    return any(value.dtype == _FP32 for value in values)


def _members(graph: ir.Graph, island: Island, so_far: set[ir.Node]) -> set[ir.Node]:
    start = {node for node in graph if node.op_type in island.operators}
    reaches: dict[str, Callable[[], set[ir.Node]]] = {
        "node": lambda: start,
        "sums": lambda: _walk(start, _sources, is_sum),
        "ancestors": lambda: _walk(start, _sources, lambda _: True),
        "descendants": lambda: _walk(start, _readers, lambda _: True),
        "readers": lambda: {n for n in _near(start, _readers) if n.op_type == "MatMul"},
        "trunk": lambda: _trunk(start),
        "stream": lambda: _stream(start),
        "entry": lambda: _entry(graph, so_far),
        "exit": lambda: _exit(graph),
    }
    return reaches[island.reach]()


def _walk(
    start: Iterable[ir.Node],
    neighbours: Callable[[ir.Node], Iterable[ir.Node]],
    belongs: Callable[[ir.Node], bool],
) -> set[ir.Node]:
    """Return all that is reached from the start through nodes that belong or only move data."""
    found = set(start)
    todo = list(found)
    while todo:
        for node in neighbours(todo.pop()):
            if node not in found and (node.op_type in MOVING or belongs(node)):
                found.add(node)
                todo.append(node)
    return found


def _sources(node: ir.Node) -> Iterable[ir.Node]:
    return node.predecessors()


def _readers(node: ir.Node) -> Iterable[ir.Node]:
    return node.successors()


def _trunk(start: set[ir.Node]) -> set[ir.Node]:
    """Return activations, the products before and after them, and the sums of these."""
    near = _near(start, _sources) | _near(start, _readers)
    products = {node for node in near if node.op_type in LINEAR}
    return start | products | _sums(products, _readers)


def _stream(start: set[ir.Node]) -> set[ir.Node]:
    """Return the stream that the norms read, to its end, and the products that read it.

    Convolutions that are added to it belong to it: those of a pyramid have no norm before them.
    The patches of a ViT do not, which positions are added to.
    """
    sums = _sums(_sums(start, _sources), _readers)
    added = {n for n in _near(filter(_joins, sums), _sources) if n.op_type == "Conv"}
    return sums | added | {node for node in _near(sums | added, _readers) if node.op_type in LINEAR}


def _sums(start: set[ir.Node], neighbours: Callable[[ir.Node], Iterable[ir.Node]]) -> set[ir.Node]:
    """Return the additions that are reached from the start through such additions."""
    return {node for node in _walk(start, neighbours, is_sum) if node.op_type == "Add"}


def _near(
    nodes: Iterable[ir.Node], neighbours: Callable[[ir.Node], Iterable[ir.Node]]
) -> set[ir.Node]:
    """Return the neighbours of nodes, across operators that only move data."""
    reached = _walk(nodes, neighbours, lambda _: False)
    return {near for node in reached for near in neighbours(node)}


def _joins(node: ir.Node) -> bool:
    """Return whether a node adds two streams, neither of which is a weight."""
    return node.op_type == "Add" and all(v and v.const_value is None for v in node.inputs)


def is_sum(node: ir.Node) -> bool:
    """Return whether a node adds two computed values, rather than a bias to a product."""
    return node.op_type == "Add" and not _is_bias(node)


def _is_bias(node: ir.Node) -> bool:
    """Return whether an Add is the bias of a matrix product, which a kernel adds as it writes."""
    first, second = node.inputs
    for product, bias in ((first, second), (second, first)):
        if product is None or bias is None or bias.const_value is None:
            continue
        producer = product.producer()
        if producer is not None and producer.op_type in LINEAR:
            return True
    return False


def _entry(graph: ir.Graph, so_far: set[ir.Node]) -> set[ir.Node]:
    """Return unweighted nodes that depend on the inputs through such nodes and islands alone."""
    known, found = set(graph.inputs), set[ir.Node]()
    for node in graph:
        given = [value for value in node.inputs if value is not None]
        if (node.op_type not in _WEIGHTED or node in so_far) and all(
            value in known or value.const_value is not None for value in given
        ):
            found.add(node)
            known.update(node.outputs)
    return found


def _exit(graph: ir.Graph) -> set[ir.Node]:
    found, todo = set[ir.Node](), [value.producer() for value in graph.outputs]
    while todo:
        node = todo.pop()
        if node is None or node in found:
            continue
        found.add(node)
        # Behind a sum of two streams lie all the blocks that added to it.
        if node.op_type not in LINEAR and not _joins(node):
            todo.extend(node.predecessors())
    return found


def _types(
    graph: ir.Graph, nodes: list[ir.Node], islands: set[ir.Node]
) -> dict[ir.Node, ir.DataType]:
    types = {
        node: _FP32 if node in islands else _FP16 for node in nodes if node.op_type not in MOVING
    }
    # From the outputs to the inputs: which moving nodes are read in FP32?
    outputs, read_in_fp32 = set(graph.outputs), set[ir.Node]()
    for node in reversed(nodes):
        if node.op_type in MOVING and (
            any(value in outputs for value in node.outputs)
            or any(
                after in read_in_fp32 or types.get(after) == _FP32 for after in node.successors()
            )
        ):
            read_in_fp32.add(node)
    # From the inputs to the outputs: does FP32 come in where FP32 is read?
    for node in nodes:
        if node.op_type in MOVING:
            comes = any(
                value.dtype == _FP32
                and (value.is_graph_input() or _type_of_source(types, value) == _FP32)
                for value in node.inputs
                if value is not None and value.const_value is None
            )
            constant = all(v is None or v.const_value is not None for v in node.inputs)
            fp32 = node in read_in_fp32 and (comes or constant)
            types[node] = _FP32 if fp32 else _FP16
    return types


def _type_of_source(types: dict[ir.Node, ir.DataType], value: ir.Value) -> ir.DataType | None:
    producer = value.producer()
    return None if producer is None else types.get(producer)


class _Retyping:
    """A graph being retyped by a decision: initializers, Casts, and the dtypes of values."""

    def __init__(
        self, graph: ir.Graph, types: dict[ir.Node, ir.DataType], rounded: set[ir.Node]
    ) -> None:
        self._graph = graph
        self._types = types
        self._rounded = rounded
        self._outputs = set(graph.outputs)
        self._converted: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def run(self) -> None:
        graph, decided = self._graph, dict(self._types)
        floats = {
            value
            for node in decided
            for value in (*node.inputs, *node.outputs)
            if value is not None and value.dtype == _FP32
        }
        for node, dtype in decided.items():
            for value in node.outputs:
                if value in floats and value not in self._outputs:
                    value.dtype = dtype
            if node.op_type == "Cast" and node.outputs[0] in floats:
                node.attributes["to"] = ir.AttrInt64("to", dtype)
        for node, dtype in decided.items():
            for index, given in enumerate(node.inputs):
                if given is not None and given in floats:
                    half = self._as(given, _FP16) if node in self._rounded else given
                    node.replace_input_with(index, self._as(half, dtype))
        for index, output in enumerate(graph.outputs):
            producer = output.producer()
            if output in floats and producer is not None and decided[producer] != _FP32:
                self._cast_output(index, output)
        for name, initializer in list(graph.initializers.items()):
            if not initializer.uses() and initializer not in self._outputs:
                del graph.initializers[name]

    def _as(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Return the value in a type: itself, a converted initializer, or one shared Cast."""
        producer = value.producer()
        has = self._types[producer] if producer is not None else value.dtype
        if has == dtype:
            return value
        key = (value, dtype)
        if key not in self._converted:
            if value.const_value is not None and dtype == _FP16:
                made = half_initializer(value)
                self._graph.register_initializer(made)
            else:
                made = self._cast(value, dtype)
            self._converted[key] = made
        return self._converted[key]

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        suffix = "fp16" if dtype == _FP16 else "fp32"
        cast = ir.node(
            "Cast",
            [value],
            {"to": int(dtype)},
            name=f"{value.name}_to_{suffix}",
            outputs=[
                ir.Value(name=f"{value.name}_{suffix}", type=ir.TensorType(dtype),
                         shape=value.shape)
            ],
        )  # fmt: skip
        self._types[cast] = dtype
        producer = value.producer()
        if producer is None:
            self._graph.insert_before(self._graph[0], cast)
        else:
            self._graph.insert_after(producer, cast)
        return cast.outputs[0]

    def _cast_output(self, index: int, value: ir.Value) -> None:
        name = value.name
        value.name, value.dtype = f"{name}_fp16", _FP16
        self._outputs.discard(value)
        cast = self._cast(value, _FP32)
        cast.name = name
        self._graph.outputs[index] = cast


def half_initializer(value: ir.Value) -> ir.Value:
    """Wrap an FP32 initializer in FP16, which is converted when it is written.

    Raises:
        ExportError: A weight is not finite in FP16.
    """
    source = value.const_value
    assert source is not None  # noqa: S101 - for mypy; the callers have looked
    numbers = source.numpy()
    if numbers.size and not max(-float(numbers.min()), float(numbers.max())) <= LARGEST_FP16:
        raise ExportError(
            f"the weight {value.name} has values beyond {LARGEST_FP16:g}, the largest of FP16",
            "use the FP32 engine of these weights",
        )
    name = f"{value.name}_fp16"
    lazy = ir.LazyTensor(
        lambda: ir.Tensor(source.numpy().astype(np.float16), name=name),
        dtype=_FP16,
        shape=source.shape,  # type: ignore[arg-type]  # the library's own types disagree
        name=name,
    )
    return ir.Value(name=name, type=ir.TensorType(_FP16), shape=value.shape, const_value=lazy)
