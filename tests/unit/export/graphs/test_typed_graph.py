"""The FP16 pass: what is FP16, what is not, and that nothing else changes."""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.errors import ExportError
from zeroflaw_export.graphs.precision_recipe import FP16_RECIPE, Island, PrecisionRecipe
from zeroflaw_export.graphs.typed_graph import RECIPE_KEY, apply_recipe, fp32_nodes
from zeroflaw_export.graphs.variants import FP16_ENGINES, fp16_model

EVERYTHING_FP16 = PrecisionRecipe(name="none", islands=())


def model_of(nodes, inputs, outputs, weights=()) -> ir.Model:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs],
        [numpy_helper.from_array(a, n) for n, a in weights],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(proto))


def run(model: ir.Model, **inputs: np.ndarray) -> list[np.ndarray]:
    proto = ir.serde.serialize_model(model)
    onnx.checker.check_model(proto, full_check=True)
    return ort.InferenceSession(proto.SerializeToString()).run(None, inputs)


def casts(model: ir.Model) -> int:
    return sum(node.op_type == "Cast" for node in model.graph)


def half_and_full(bundle: Bundle, engine: str) -> tuple[ir.Model, ir.Model]:
    full = ir.load(bundle.onnx_path(engine))
    half = ir.load(bundle.onnx_path(engine))
    fp16_model(half, engine, FP16_RECIPE)
    return half, full


@pytest.mark.parametrize("engine", FP16_ENGINES)
def test_the_contract_is_kept_and_the_graph_is_sound(
    tiny_bundle: Bundle, tmp_path: Path, engine: str
) -> None:
    half, full = half_and_full(tiny_bundle, engine)
    for side in ("inputs", "outputs"):
        before, after = getattr(full.graph, side), getattr(half.graph, side)
        assert [(v.name, v.dtype, v.shape) for v in before] == [
            (v.name, v.dtype, v.shape) for v in after
        ]
    assert half.metadata_props[RECIPE_KEY] == FP16_RECIPE.id
    # Full checking infers every type anew and compares it with the one that is declared.
    ir.save(half, tmp_path / "half.onnx", external_data="half.data")
    onnx.checker.check_model(str(tmp_path / "half.onnx"), full_check=True)


@pytest.mark.parametrize("engine", FP16_ENGINES)
def test_nothing_is_cast_twice(tiny_bundle: Bundle, engine: str) -> None:
    half, _ = half_and_full(tiny_bundle, engine)
    made = Counter(
        (node.inputs[0].name, node.attributes["to"].as_int())
        for node in half.graph
        if node.op_type == "Cast" and node.name.endswith(("_to_fp16", "_to_fp32"))
    )
    assert max(made.values()) == 1
    names = [value.name for value in half.graph.initializers.values()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("engine", FP16_ENGINES)
def test_the_heavy_work_is_in_fp16_and_the_islands_are_not(
    tiny_bundle: Bundle, engine: str
) -> None:
    half, _ = half_and_full(tiny_bundle, engine)
    kinds: dict[str, set[ir.DataType]] = {}
    for node in half.graph:
        kinds.setdefault(node.op_type, set()).add(node.outputs[0].dtype)
    full = {ir.DataType.FLOAT}
    assert kinds.get("LayerNormalization", full) == full
    for operator in ("Softmax", "ReduceL2", "Sin", "Cos", "Attention"):
        assert kinds.get(operator, full) == full
    products = [node for node in half.graph if node.op_type in {"MatMul", "Gemm", "Conv"}]
    in_half = sum(node.outputs[0].dtype == ir.DataType.FLOAT16 for node in products)
    assert in_half > 0.5 * len(products)
    for node in half.graph:
        if node.op_type == "Attention":
            for value in node.inputs:  # rounded to FP16 first: TensorRT fuses that
                cast = value.producer()
                assert cast.op_type == "Cast"
                assert cast.inputs[0].dtype == ir.DataType.FLOAT16


def test_weights_are_converted_once_and_only_for_fp16_readers() -> None:
    weight = np.eye(4, dtype=np.float32) * 0.1
    model = model_of(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("MatMul", ["b", "w"], ["c"]),
            helper.make_node("Relu", ["c"], ["d"]),
            helper.make_node("MatMul", ["d", "w"], ["y"]),
        ],
        [("x", [2, 4])],
        [("y", [2, 4])],
        [("w", weight)],
    )
    apply_recipe(model, FP16_RECIPE)
    # The last product belongs to the exit island and reads the weight as it was.
    kinds = {v.name: v.dtype for v in model.graph.initializers.values()}
    assert kinds == {"w": ir.DataType.FLOAT, "w_fp16": ir.DataType.FLOAT16}
    (y,) = run(model, x=np.ones((2, 4), np.float32))
    np.testing.assert_allclose(y, 1e-3, rtol=1e-3)


def test_a_residual_stream_is_summed_in_fp32() -> None:
    model = model_of(
        [
            helper.make_node("LayerNormalization", ["x", "one"], ["n"]),
            helper.make_node("MatMul", ["n", "w"], ["p"]),
            helper.make_node("Add", ["p", "bias"], ["q"]),
            helper.make_node("Add", ["x", "q"], ["s"]),
            helper.make_node("LayerNormalization", ["s", "one"], ["t"]),
            helper.make_node("MatMul", ["t", "w"], ["u"]),
            helper.make_node("Relu", ["u"], ["v"]),
            helper.make_node("MatMul", ["v", "w"], ["y"]),
        ],
        [("x", [3, 4])],
        [("y", [3, 4])],
        [("one", np.ones(4, np.float32)), ("w", np.eye(4, dtype=np.float32)),
         ("bias", np.ones(4, np.float32))],
    )  # fmt: skip
    apply_recipe(model, FP16_RECIPE)
    kinds = {value.name: value.dtype for node in model.graph for value in node.outputs}
    assert kinds["p"] == kinds["q"] == ir.DataType.FLOAT16, "a bias goes with its product"
    assert kinds["s"] == ir.DataType.FLOAT
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32) * 1e5
    assert np.isfinite(run(model, x=x)[0]).all(), "a stream beyond 65504 is no harm"


def test_what_is_added_to_a_stream_is_fp32_and_what_positions_are_added_to_is_not() -> None:
    model = model_of(
        [
            helper.make_node("Conv", ["x", "w"], ["p"], name="before"),
            helper.make_node("Gelu", ["p"], ["g"]),
            helper.make_node("Conv", ["g", "w"], ["patches"], name="patches"),
            helper.make_node("Reshape", ["patches", "shape"], ["moved"]),
            helper.make_node("Add", ["moved", "positions"], ["placed"]),
            helper.make_node("LayerNormalization", ["placed", "one"], ["n"]),
            helper.make_node("Gelu", ["n"], ["h"]),
            helper.make_node("Conv", ["h", "w"], ["lateral"], name="lateral"),
            helper.make_node("Add", ["lateral", "h"], ["sum"]),
            helper.make_node("LayerNormalization", ["sum", "one"], ["m"]),
            helper.make_node("Conv", ["m", "w"], ["y"], name="last"),
        ],
        [("x", [1, 2, 3, 3])],
        [("y", [1, 2, 3, 3])],
        [("one", np.ones(3, np.float32)), ("positions", np.ones((1, 2, 3, 3), np.float32)),
         ("shape", np.array([1, 2, 3, 3])),
         ("w", np.eye(2, dtype=np.float32)[:, :, None, None])],
    )  # fmt: skip
    apply_recipe(model, FP16_RECIPE)
    kinds = {value.name: value.dtype for node in model.graph for value in node.outputs}
    assert kinds["lateral"] == kinds["sum"] == kinds["placed"] == ir.DataType.FLOAT
    assert kinds["p"] == kinds["patches"] == ir.DataType.FLOAT16


def test_a_convolutional_trunk_is_fp32_and_what_reads_it_is_not() -> None:
    model = model_of(
        [
            helper.make_node("Conv", ["x", "w"], ["p"], name="stem"),
            helper.make_node("Clip", ["p", "low", "high"], ["c"]),
            helper.make_node("Conv", ["c", "w"], ["a"], name="narrow"),
            helper.make_node("Conv", ["a", "w"], ["b"], name="wide"),
            helper.make_node("Clip", ["b", "low", "high"], ["d"]),
            helper.make_node("Conv", ["d", "w"], ["e"], name="narrow again"),
            helper.make_node("Add", ["a", "e"], ["sum"]),
            helper.make_node("Conv", ["sum", "w"], ["lateral"], name="lateral"),
            helper.make_node("Gelu", ["lateral"], ["g"]),
            helper.make_node("Conv", ["g", "w"], ["y"], name="last"),
        ],
        [("x", [1, 2, 3, 3])],
        [("y", [1, 2, 3, 3])],
        [("w", np.eye(2, dtype=np.float32)[:, :, None, None]),
         ("low", np.float32(0)), ("high", np.float32(6))],
    )  # fmt: skip
    apply_recipe(model, FP16_RECIPE)
    kinds = {value.name: value.dtype for node in model.graph for value in node.outputs}
    assert {kinds[name] for name in ("p", "c", "a", "b", "d", "e", "sum")} == {ir.DataType.FLOAT}
    assert kinds["lateral"] == kinds["g"] == ir.DataType.FLOAT16


def test_the_highest_values_are_found_in_either_type_and_their_places_are_whole_numbers() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("TopK", ["b", "k"], ["values", "places"]),
        helper.make_node("MatMul", ["values", "v"], ["y"]),
    ]
    weights = [
        ("w", np.eye(4, dtype=np.float32)),
        ("v", np.ones((2, 1), np.float32)),
        ("k", np.array([2], np.int64)),
    ]
    behind = Island("behind", ("Relu",), "descendants", "for this test")
    full = PrecisionRecipe(name="full", islands=(behind,))
    for recipe, kind in ((EVERYTHING_FP16, ir.DataType.FLOAT16), (full, ir.DataType.FLOAT)):
        model = model_of(nodes, [("x", [1, 4])], [("y", [1, 1])], weights)
        apply_recipe(model, recipe)
        (top,) = [node for node in model.graph if node.op_type == "TopK"]
        assert [value.dtype for value in top.outputs] == [kind, ir.DataType.INT64]
        (y,) = run(model, x=np.array([[1, 4, 3, 2]], np.float32))
        assert y.item() == 7


def test_an_unknown_operator_is_named() -> None:
    model = model_of(
        [helper.make_node("Erf", ["x"], ["y"], name="node_7")], [("x", [2])], [("y", [2])]
    )
    with pytest.raises(ExportError, match="Erf") as caught:
        apply_recipe(model, FP16_RECIPE)
    assert "node_7" in caught.value.cause


def test_a_value_without_a_dtype_is_named() -> None:
    model = model_of(
        [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Relu", ["a"], ["y"])],
        [("x", [2])],
        [("y", [2])],
    )
    model.graph[0].outputs[0].type = None
    with pytest.raises(ExportError, match="no dtype"):
        apply_recipe(model, FP16_RECIPE)


def test_a_weight_that_fp16_cannot_hold_is_named() -> None:
    model = model_of(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("MatMul", ["b", "w"], ["y"]),
        ],
        [("x", [1, 1])],
        [("y", [1, 1])],
        [("w", np.array([[1e6]], np.float32))],
    )
    with pytest.raises(ExportError, match="the weight w has values beyond 65504"):
        apply_recipe(model, FP16_RECIPE)


def test_without_islands_all_between_the_borders_is_fp16(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    model = ir.load(tiny_bundle.onnx_path("sam_decoder"))
    apply_recipe(model, EVERYTHING_FP16)
    ir.save(model, tmp_path / "half.onnx", external_data="half.data")
    onnx.checker.check_model(str(tmp_path / "half.onnx"), full_check=True)
    outputs = set(model.graph.outputs)
    for node in model.graph:
        for value in node.outputs:
            if value not in outputs:
                assert value.dtype != ir.DataType.FLOAT, value.name


def test_the_identity_of_a_recipe_is_that_of_its_content() -> None:
    one = PrecisionRecipe(name="a", islands=(Island("x", ("Relu",), "node", "why"),))
    assert one.id == PrecisionRecipe(name="a", islands=one.islands).id
    assert one.id != PrecisionRecipe(name="a", islands=()).id
    assert one.id.startswith("a-")
    assert FP16_RECIPE.id != EVERYTHING_FP16.id


def test_every_island_is_somewhere(tiny_bundle: Bundle) -> None:
    """An island that no engine has would be a slip in the recipe or in the pass."""
    graphs = []
    for bundle, engine in product((tiny_bundle, open_bundle("mini")), FP16_ENGINES):
        model = ir.load(bundle.onnx_path(engine))
        fp16_model(model, engine, EVERYTHING_FP16)  # the form that the recipe is applied to
        graphs.append(model.graph)
    for island in FP16_RECIPE.islands:
        assert any(fp32_nodes(graph, [island]) for graph in graphs), island.name
