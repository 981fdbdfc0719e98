"""FP16 storage on a CPU: the rounding is there, and the scan sees what does not fit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from zeroflaw_benchmarks.verify.fp16.storage import StoredTensor, scan_report, store_in_fp16
from zeroflaw_export.graphs.precision_recipe import PrecisionRecipe
from zeroflaw_export.graphs.typed_graph import apply_recipe

ALL_FP16 = PrecisionRecipe(name="none", islands=())
SIZE = 16


def chain(*operators: str) -> ir.Model:
    """x through products with `w` and the operators, all FP16 between its FP32 borders."""
    nodes, last = [], "x"
    for i, operator in enumerate(operators):
        inputs = [last, "w"] if operator in {"MatMul", "Add", "Mul"} else [last]
        if operator == "LayerNormalization":
            inputs = [last, "one"]
        if operator == "ReduceL2":
            inputs = [last, "axes"]
        nodes.append(helper.make_node(operator, inputs, [f"v{i}"], name=f"n{i}"))
        last = f"v{i}"
    nodes.append(helper.make_node("Identity", [last], ["y"]))
    weight = np.random.default_rng(1).normal(size=(SIZE, SIZE)).astype(np.float32) / 4
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(np.ones(SIZE, np.float32), "one"),
            numpy_helper.from_array(np.array([-1]), "axes"),
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    model = ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))
    apply_recipe(model, ALL_FP16)
    return model


def run(model: ir.Model, x: np.ndarray) -> tuple[np.ndarray, list[StoredTensor]]:
    watched = store_in_fp16(model)
    data = ir.serde.serialize_model(model).SerializeToString()
    onnx.checker.check_model(data, full_check=True)
    session = ort.InferenceSession(data)
    names = [out.name for out in session.get_outputs()]
    values = dict(zip(names, session.run(names, {"x": x}), strict=True))
    return values["y"], scan_report(watched, values)


def half(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float32)


def emulated(x: np.ndarray, *operators: str) -> np.ndarray:
    """NumPy: FP16 operands, FP32 arithmetic, every result rounded to FP16."""
    weight = half(np.random.default_rng(1).normal(size=(SIZE, SIZE)).astype(np.float32) / 4)
    steps: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "MatMul": lambda v: v @ weight,
        "Add": lambda v: v + weight,
        "Mul": lambda v: v * weight,
        "Relu": lambda v: np.maximum(v, 0),
        "Sigmoid": lambda v: 1 / (1 + np.exp(-v)),
    }
    value = half(x)
    for operator in operators:
        value = half(steps[operator](value))
    return value


LONG = ("MatMul", "Add", "Relu", "MatMul", "Mul", "MatMul", "Sigmoid", "MatMul", "Add", "MatMul")


def test_every_result_is_rounded() -> None:
    x = np.random.default_rng(0).normal(size=(SIZE, SIZE)).astype(np.float32)
    got, scan = run(chain(*LONG), x)
    want = emulated(x, *LONG)
    # NumPy and ONNX Runtime sum in other orders: now and then another way to round, by one step.
    assert (got == want).mean() > 0.95
    np.testing.assert_allclose(got, want, rtol=2**-9, atol=1e-3)
    np.testing.assert_array_equal(got, half(got))
    assert len(scan) == len(LONG) + 1  # and the rounding of the input
    assert not any(tensor.overflows for tensor in scan)


def test_it_differs_from_fp32_and_from_what_a_provider_skips() -> None:
    """Were the rounding elided anywhere, the result would be nearer to FP32 than it may be."""
    x = np.random.default_rng(0).normal(size=(SIZE, SIZE)).astype(np.float32)
    got, _ = run(chain(*LONG), x)
    plain = ort.InferenceSession(ir.serde.serialize_model(chain(*LONG)).SerializeToString())
    want = emulated(x, *LONG)
    by_provider = plain.run(None, {"x": x})[0]
    assert np.abs(got - want).mean() < np.abs(by_provider - want).mean()


def test_an_overflow_is_seen_where_it_happens() -> None:
    x = np.full((SIZE, SIZE), 250.0, np.float32)
    _, scan = run(chain("Relu", "LayerNormalization"), x)
    assert not any(tensor.overflows for tensor in scan), "all deviations are 0"
    x[0] = 1000.0
    _, scan = run(chain("Relu", "LayerNormalization"), x.T.copy())
    worst = next(tensor for tensor in scan if tensor.overflows)
    assert worst.operator == "LayerNormalization"
    assert worst.largest == pytest.approx(703.125**2, rel=1e-2), "the square of the deviation"


def test_lengths_are_written_out_too() -> None:
    x = np.full((SIZE, SIZE), 200.0, np.float32)
    _, scan = run(chain("Relu", "ReduceL2"), x)
    assert next(tensor.operator for tensor in scan if tensor.overflows) == "ReduceL2"
    got, scan = run(chain("Relu", "ReduceL2"), x / 100)
    assert not any(tensor.overflows for tensor in scan)
    np.testing.assert_allclose(got, 8, rtol=1e-3)


def test_a_norm_that_is_written_out_is_the_norm() -> None:
    x = np.random.default_rng(0).normal(size=(SIZE, SIZE)).astype(np.float32)
    got, _ = run(chain("Add", "LayerNormalization"), x)
    weight = np.random.default_rng(1).normal(size=(SIZE, SIZE)).astype(np.float32) / 4
    value = x + weight
    want = (value - value.mean(-1, keepdims=True)) / value.std(-1, keepdims=True)
    np.testing.assert_allclose(got, want, atol=6e-3)


def test_what_is_not_a_number_is_seen() -> None:
    x = np.ones((SIZE, SIZE), np.float32)
    x[3, 4] = np.nan
    _, scan = run(chain("Mul", "Add"), x)
    assert all(tensor.has_nan and tensor.overflows for tensor in scan)
    x[3, 4] = np.inf
    _, scan = run(chain("Add"), x)
    assert all(tensor.overflows for tensor in scan)
