"""A graph that computes what an FP16 graph computes with FP16 storage, and watches its range.

A GPU multiplies FP16 numbers, sums in FP32 and stores FP16. ONNX Runtime's CPU provider has few
FP16 kernels: it runs most operators in FP32 and may leave out the rounding in between. Here every
operator gets its FP16 operands as FP32 and its result is rounded to FP16 by a Cast of its own, so
that each tensor of the FP16 graph is stored in FP16. Before each rounding the largest magnitude
is taken, inside the graph: nothing has to leave it, and a network of any size is watched whole
in one run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from zeroflaw_export.graphs.typed_graph import LARGEST_FP16, MOVING

SCAN_PREFIX: Final = "scan/"
WRITTEN_OUT: Final = frozenset({"LayerNormalization", "ReduceL2"})
_FP32: Final = ir.DataType.FLOAT
_FP16: Final = ir.DataType.FLOAT16
_TO_FP32: Final = {"to": int(_FP32)}
_TO_FP16: Final = {"to": int(_FP16)}


@dataclass(frozen=True)
class StoredTensor:
    """What a scan saw of one tensor that is stored in FP16.

    Attributes:
        operator: The operator that computes it.
        largest: Its largest magnitude before it is rounded; infinity if any is.
        has_nan: Whether any value is not a number.
    """

    name: str
    operator: str
    largest: float
    has_nan: bool

    @property
    def overflows(self) -> bool:
        """Say whether a value is not finite in FP16."""
        return self.has_nan or not self.largest <= LARGEST_FP16


def store_in_fp16(model: ir.Model) -> dict[str, str]:
    """Rewrite a strongly typed graph in place, to run it on ONNX Runtime's CPU provider.

    Adds two scalar outputs for each tensor that is stored in FP16: `scan/NAME/largest` and
    `scan/NAME/nan`, the latter 1 if any value is not a number.

    Norms and lengths whose type is FP16 are written out, with every step stored in FP16, as a
    kernel of that type may compute them.

    Returns:
        The operator by the name of each tensor that is watched.
    """
    storage = _Storage(model.graph)
    for node in list(model.graph):
        storage.rewrite(node)
    return storage.watched


class _Storage:
    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._widened: dict[ir.Value, ir.Value] = {}
        self.watched: dict[str, str] = {}

    def rewrite(self, node: ir.Node) -> None:
        halves = [value for value in node.outputs if value.dtype == _FP16]
        if node.op_type == "Cast":
            source = node.inputs[0]
            if halves and source is not None and source.dtype == _FP32:
                self._watch(source, halves[0], node.op_type)
        elif node.op_type in WRITTEN_OUT and halves:
            result = self._write_out(node)
            halves[0].replace_all_uses_with(result)
            self._graph.remove(node, safe=True)
        elif node.op_type not in MOVING:
            for index, value in enumerate(node.inputs):
                if value is not None:
                    node.replace_input_with(index, self._wide(value, node))
            for value in halves:
                value.dtype = _FP32
                readers = value.uses()
                stored = self._stored(value, node.op_type)
                for reader, index in readers:
                    reader.replace_input_with(index, stored)

    def _stored(self, exact: ir.Value, operator: str) -> ir.Value:
        """A value rounded to FP16, and watched."""
        half = self._new("Cast", [exact], f"{exact.name}_stored", _FP16, attributes=_TO_FP16)
        self._watch(exact, half, operator)
        return half

    def _wide(self, value: ir.Value, reader: ir.Node) -> ir.Value:
        if value.dtype != _FP16:
            return value
        if value not in self._widened:
            self._widened[value] = self._new(
                "Cast", [value], f"{value.name}_wide", _FP32, before=reader, attributes=_TO_FP32
            )
        return self._widened[value]

    def _watch(self, exact: ir.Value, half: ir.Value, operator: str) -> None:
        name = str(half.name)
        self.watched[name] = operator
        size = self._new("Abs", [exact], f"{name}_abs", _FP32)
        nan = self._new("IsNaN", [exact], f"{name}_is_nan", ir.DataType.BOOL)
        number = self._new("Cast", [nan], f"{name}_nan", _FP32, attributes=_TO_FP32)
        for value, what in ((size, "largest"), (number, "nan")):
            seen = self._new(
                "ReduceMax",
                [value],
                f"{SCAN_PREFIX}{name}/{what}",
                _FP32,
                shape=(),
                attributes={"keepdims": 0},
            )
            self._graph.outputs.append(seen)

    def _write_out(self, node: ir.Node) -> ir.Value:
        """A norm (over the last axis) or a length, step by step."""
        operands = [self._wide(value, node) for value in node.inputs if value is not None]
        x = operands[0]

        def step(operator: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
            name = f"{node.outputs[0].name}_{len(self.watched)}"
            exact = self._new(
                operator, list(inputs), name, _FP32, before=node, attributes=attributes
            )
            return self._wide(self._stored(exact, node.op_type), node)

        if node.op_type == "ReduceL2":
            axes = node.inputs[1]
            assert axes is not None  # noqa: S101 - opset 18 and later have it as an input
            squares = step("Mul", x, x)
            length = step("Sqrt", step("ReduceSum", squares, axes, keepdims=1))
            return self._narrow(length)
        axis = self._constant("last_axis", np.array([-1], np.int64))
        given = node.attributes.get("epsilon")
        epsilon = self._constant(
            f"{node.name}_epsilon", np.array(given.as_float() if given else 1e-5, np.float32)
        )
        centred = step("Sub", x, step("ReduceMean", x, axis, keepdims=1))
        variance = step("ReduceMean", step("Mul", centred, centred), axis, keepdims=1)
        unit = step("Div", centred, step("Sqrt", step("Add", variance, epsilon)))
        scaled = step("Mul", unit, operands[1])
        return self._narrow(step("Add", scaled, operands[2]) if len(operands) > 2 else scaled)

    def _narrow(self, wide: ir.Value) -> ir.Value:
        """The FP16 value that a wide one was made from."""
        cast = wide.producer()
        half = cast.inputs[0] if cast is not None else None
        assert half is not None  # noqa: S101 - for mypy; `_wide` made the Cast
        return half

    def _constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        if name not in self._graph.initializers:
            tensor = ir.Tensor(array, name=name)
            self._graph.register_initializer(
                ir.Value(
                    name=name,
                    type=ir.TensorType(tensor.dtype),
                    shape=tensor.shape,
                    const_value=tensor,
                )
            )
        return self._graph.initializers[name]

    def _new(
        self,
        operator: str,
        inputs: list[ir.Value],
        name: str,
        dtype: ir.DataType,
        *,
        before: ir.Node | None = None,
        shape: tuple[int, ...] | None = None,
        attributes: Mapping[str, int] | None = None,
    ) -> ir.Value:
        """A new node: before a node, or right after what it reads first."""
        made = ir.Value(
            name=name,
            type=ir.TensorType(dtype),
            shape=None if shape is None else ir.Shape(shape),
        )
        node = ir.node(operator, inputs, attributes or {}, name=f"{name}_node", outputs=[made])
        producer = inputs[0].producer()
        if before is not None:
            self._graph.insert_before(before, node)
        elif producer is not None:
            self._graph.insert_after(producer, node)
        else:
            self._graph.insert_before(self._graph[0], node)
        return made


def scan_report(watched: Mapping[str, str], outputs: Mapping[str, float]) -> list[StoredTensor]:
    """List what a run saw, in the order of the graph."""
    return [
        StoredTensor(
            name=name,
            operator=operator,
            largest=float(outputs[f"{SCAN_PREFIX}{name}/largest"]),
            has_nan=bool(outputs[f"{SCAN_PREFIX}{name}/nan"]),
        )
        for name, operator in watched.items()
    ]
