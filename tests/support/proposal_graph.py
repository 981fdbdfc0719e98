"""A proposal graph that a test can reason about: a grid of boxes, each as bright as its cell."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.manifest import parameters_record, schema_version
from zeroflaw_engines.bundle.writer import write_manifest
from zeroflaw_engines.contract import BOX_PROPOSER
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_export.graphs.box_proposer import adopt_box_proposer

SIDE, CELLS = 32, 4


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
    side: int = SIDE,
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


def add_proposer(bundle: Path, graph: Path, **parameters: object) -> None:
    """Makes a bundle one that was exported with a proposal graph, which takes a minute."""
    opened = open_bundle(bundle)
    adopted = adopt_box_proposer(graph, bundle)
    manifest = opened.manifest
    recorded = MethodParameters(refiner="box_proposals", **parameters)
    write_manifest(
        bundle,
        msgspec.structs.replace(
            manifest,
            schema_version=schema_version(manifest.max_batch, parameters=recorded),
            engines={**manifest.engines, BOX_PROPOSER: adopted.engine},
            proposals=adopted.identity,
            parameters=parameters_record(recorded),
        ),
    )
