"""Small ONNX graphs: for compilers, what they must build, and what they must refuse well.

And a proposal graph that a test can reason about: a grid of boxes, each as bright as its cell.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from zeroflaw_engines.contract import EngineContract, TensorSpec

ONNX_TYPES = {"float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT}
_NAMES = {value: name for name, value in ONNX_TYPES.items()}


def save(nodes, inputs, outputs, path: Path, constants=(), domains=()) -> EngineContract:
    """Saves a graph and gives the contract that it fulfils.

    Inputs and outputs are (name, ONNX type, shape).
    """
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*one) for one in outputs],
        list(constants),
    )
    opsets = [helper.make_opsetid("", 23), *(helper.make_opsetid(name, 1) for name in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    specs = [
        tuple(TensorSpec(name, _NAMES[kind], tuple(shape)) for name, kind, shape in side)
        for side in (inputs, outputs)
    ]
    return EngineContract("sam_encoder", *specs)


def transformer(path: Path, dtype: str = "float16", *, blocks: int = 2) -> EngineContract:
    """Blocks of norm, fused attention and MLP on [1, 64, 64], float32 at the borders."""
    tokens, width, heads = 64, 64, 2
    kind = ONNX_TYPES[dtype]
    rng = np.random.default_rng(0)
    constants, nodes = [], []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    def matrix(name: str, rows: int, columns: int) -> str:
        return constant(name, (rng.standard_normal((rows, columns)) / 8).astype(dtype))

    def node(operator: str, inputs: list[str], name: str, **attributes: object) -> str:
        nodes.append(helper.make_node(operator, inputs, [name], name=f"{name}_node", **attributes))
        return name

    x = node("Cast", ["x"], "x_cast", to=kind)
    split = constant("split", np.array([1, tokens, heads, width // heads]))
    joined = constant("joined", np.array([1, tokens, width]))
    for block in range(blocks):
        b = f"block_{block}_"
        ones = constant(b + "scale", np.ones(width, dtype))
        y = node("LayerNormalization", [x, ones], b + "norm", axis=-1)
        projected = []
        for letter in "qkv":
            z = node("MatMul", [y, matrix(b + letter, width, width)], f"{b}{letter}_matmul")
            z = node("Reshape", [z, split], f"{b}{letter}_split")
            projected.append(node("Transpose", [z], f"{b}{letter}_heads", perm=[0, 2, 1, 3]))
        y = node("Attention", projected, b + "attention")
        y = node("Transpose", [y], b + "tokens", perm=[0, 2, 1, 3])
        y = node("Reshape", [y, joined], b + "joined")
        x = node(
            "Add", [x, node("MatMul", [y, matrix(b + "o", width, width)], b + "out")], b + "sum"
        )
        h = node("MatMul", [x, matrix(b + "up", width, 2 * width)], b + "hidden")
        h = node("Relu", [h], b + "relu")
        h = node("MatMul", [h, matrix(b + "down", 2 * width, width)], b + "mlp")
        x = node("Add", [x, h], b + "block")
    node("Cast", [x], "y", to=TensorProto.FLOAT)
    shape = [1, tokens, width]
    return save(
        nodes,
        [("x", TensorProto.FLOAT, shape)],
        [("y", TensorProto.FLOAT, shape)],
        path,
        constants,
    )


def attention(
    path: Path, dtype: str = "float16", *, value_width=32, masked=False
) -> EngineContract:
    """One `Attention` alone, called `the_attention`."""
    kind = ONNX_TYPES[dtype]
    inputs = [
        ("q", kind, [1, 4, 64, 32]),
        ("k", kind, [1, 4, 64, 32]),
        ("v", kind, [1, 4, 64, value_width]),
    ]
    if masked:
        inputs.append(("mask", kind, [64, 64]))
    names = [name for name, *_ in inputs]
    nodes = [helper.make_node("Attention", names, ["y"], name="the_attention")]
    return save(nodes, inputs, [("y", kind, [1, 4, 64, value_width])], path)


def mixed_types(path: Path) -> EngineContract:
    """A float16 array times a float32 matrix, in the node `mixed`."""
    inputs = [("a", TensorProto.FLOAT16, [4, 8]), ("b", TensorProto.FLOAT, [8, 8])]
    nodes = [helper.make_node("MatMul", ["a", "b"], ["y"], name="mixed")]
    return save(nodes, inputs, [("y", TensorProto.FLOAT16, [4, 8])], path)


def unknown_operator(path: Path) -> EngineContract:
    """An operator that no backend has, in the node `strange`."""
    nodes = [helper.make_node("Frobnicate", ["a"], ["y"], name="strange", domain="acme")]
    tensors = [("a", TensorProto.FLOAT16, [4, 8])], [("y", TensorProto.FLOAT16, [4, 8])]
    return save(nodes, *tensors, path, domains=["acme"])


def with_external_weights(path: Path) -> Path:
    """Moves a graph's weights into a file of their own, and gives that file."""
    name = f"{path.name}.data"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=name, size_threshold=0)
    return path.with_name(name)


# Of the proposal graph: its image, px, and its boxes in a row.
PROPOSAL_SIDE, CELLS = 32, 4


def cell_boxes(cells: int = CELLS) -> np.ndarray:
    """float32 [cells², 4]: the cells row by row, as (x0, y0, x1, y1) in shares of the frame."""
    edges = np.arange(cells) / cells
    y, x = (axis.ravel() for axis in np.meshgrid(edges, edges, indexing="ij"))
    return np.stack([x, y, x + 1 / cells, y + 1 / cells], axis=1).astype(np.float32)


def write_proposal_graph(
    path: Path,
    *,
    boxes: np.ndarray | None = None,
    scale: float = 1 / 255,
    side: int = PROPOSAL_SIDE,
    external: bool = False,
    renamed: dict[str, str] | None = None,
) -> Path:
    """`scores` are the mean brightness of each cell times `scale`; `boxes` stay the same.

    `renamed` gives tensors other names: {"scores": "logits"}.
    """
    boxes = cell_boxes() if boxes is None else boxes.astype(np.float32)
    cells = round(len(boxes) ** 0.5)
    name = {one: (renamed or {}).get(one, one) for one in ("image", "boxes", "scores")}
    constants = {
        "grid": boxes[None],
        "scale": np.array(scale, np.float32),
        "flat": np.array([1, cells * cells]),
    }
    nodes = [
        helper.make_node("Cast", [name["image"]], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["grey"], axes=[3], keepdims=0),
        helper.make_node("Unsqueeze", ["grey", "one"], ["planes"]),
        helper.make_node(
            "AveragePool",
            ["planes"],
            ["means"],
            kernel_shape=[side // cells] * 2,
            strides=[side // cells] * 2,
        ),
        helper.make_node("Mul", ["means", "scale"], ["shares"]),
        helper.make_node("Reshape", ["shares", "flat"], [name["scores"]]),
        helper.make_node("Identity", ["grid"], [name["boxes"]]),
    ]
    constants["one"] = np.array([1])
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info(name["image"], TensorProto.UINT8, [1, side, side, 3])],
        [
            helper.make_tensor_value_info(name["boxes"], TensorProto.FLOAT, [1, len(boxes), 4]),
            helper.make_tensor_value_info(name["scores"], TensorProto.FLOAT, [1, len(boxes)]),
        ],
        [numpy_helper.from_array(value, one) for one, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    external_data = (
        {"save_as_external_data": True, "location": f"{path.stem}.bin", "size_threshold": 0}
        if external
        else {}
    )
    onnx.save(model, path, **external_data)
    return path
