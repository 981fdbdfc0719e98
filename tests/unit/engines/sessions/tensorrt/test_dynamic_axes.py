"""Engines with any dynamic axes: buffers for the largest shapes, ranges that are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from support.gpu.built_engines import sidecar_for
from zeroflaw_engines.built_engines.lookup import BuiltEngine
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.contract import EngineContract, TensorSpec
from zeroflaw_engines.errors import EngineContractError
from zeroflaw_engines.sessions.tensorrt_session import TensorRtSession

CONTRACT = EngineContract(
    "sam_encoder",
    (
        TensorSpec("weights", "float32", ("rows", "height")),
        TensorSpec("frame", "float32", ("height", "width")),
    ),
    (TensorSpec("image", "float32", (1, "rows", "width")),),
)
AXES = {"rows": (2, 5), "height": (3, 9), "width": (1, 7)}


@pytest.fixture
def session(bundle: Bundle, gpu, tmp_path: Path) -> TensorRtSession:
    """A product of two matrices of any size, for shapes up to (5, 9) and (9, 7)."""
    floats = TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info(s.name, floats, s.shape) for s in CONTRACT.inputs]
    outputs = [helper.make_tensor_value_info(s.name, floats, s.shape) for s in CONTRACT.outputs]
    nodes = [
        helper.make_node("MatMul", ["weights", "frame"], ["product"]),
        helper.make_node("Unsqueeze", ["product", "axis"], ["image"]),
    ]
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [0])
    graph = helper.make_graph(nodes, "product", inputs, outputs, [axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "product.onnx")
    plan = tmp_path / "product.plan"
    plan.write_bytes(b"plan of a product")
    gpu.graphs[plan.read_bytes()] = (tmp_path / "product.onnx", CONTRACT)
    gpu.axes = AXES
    built = BuiltEngine(plan, sidecar_for(bundle), tmp_path / "product.runtime_cache")
    return TensorRtSession(built, CONTRACT)


def matrices(rows: int, height: int, width: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows * 100 + height * 10 + width)
    shapes = {"weights": (rows, height), "frame": (height, width)}
    return {n: rng.integers(-9, 9, shape).astype(np.float32) for n, shape in shapes.items()}


def test_every_shape_in_the_range_gives_the_product(session: TensorRtSession, gpu) -> None:
    session.capture()
    assert session.captured
    launches = gpu.cuda.calls["cudaGraphLaunch"]
    for sizes in ((5, 9, 7), (2, 3, 1), (4, 4, 4), (2, 9, 1), (2, 3, 1)):
        given = matrices(*sizes)
        got = session.execute(given)["image"]
        np.testing.assert_array_equal(got, (given["weights"] @ given["frame"])[None])
    # The smallest shapes alone are those of the graph.
    assert gpu.cuda.calls["cudaGraphLaunch"] - launches == 2
    assert gpu.contexts == 2


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ((6, 3, 1), "takes 2 to 5 in the axis 'rows' of weights, not 6"),
        ((2, 2, 1), "takes 3 to 9 in the axis 'height' of weights, not 2"),
        ((2, 3, 8), "takes 1 to 7 in the axis 'width' of frame, not 8"),
    ],
)
def test_other_shapes_are_refused(
    session: TensorRtSession, sizes: tuple[int, int, int], text: str
) -> None:
    with pytest.raises(EngineContractError, match=text):
        session.execute(matrices(*sizes))
    assert session.execute(matrices(2, 3, 1))["image"].shape == (1, 2, 1)
