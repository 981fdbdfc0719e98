"""The graph of `frame_resizer`: Pillow's resizing of 8-bit pictures as two products of matrices.

It has no weights of its own and is the same for every bundle, so it ships as a file of
zeroflaw_engines. After a change: `python -m zeroflaw_export.graphs.frame_resizer`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import onnx
from onnx import TensorProto, helper

from zeroflaw_engines.bundle.shipped import FRAME_RESIZER_PATH
from zeroflaw_engines.contract import (
    FRAME_RESIZER,
    WEIGHT_BITS,
    WEIGHT_UNIT,
    TensorSpec,
    frame_resizer_contract,
)

_OPSET: Final = 23
_IR_VERSION: Final = 10
_TYPES: Final = {
    "uint8": TensorProto.UINT8,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
}


def frame_resizer_model() -> onnx.ModelProto:
    """Write the graph; see `frame_resizer_contract`.

    The two parts of the weights are stacked, so that each pass is one product. Operands go
    through FP16, which holds all of them exactly: a backend may multiply them in FP16 or TF32
    with FP32 sums, and no bit changes.
    """
    contract = frame_resizer_contract()
    bottom = [helper.make_node(op, given, [out], **attributes) for op, given, out, attributes in (
        ("Cast", ["frame"], "frame_half", {"to": TensorProto.FLOAT16}),
        ("Transpose", ["frame_half"], "planes_half", {"perm": [2, 0, 1]}),
        ("Cast", ["planes_half"], "planes", {"to": TensorProto.FLOAT}),
        ("Shape", ["column_weights"], "width", {"start": 2, "end": 3}),
        ("Concat", ["rest", "width"], "column_shape", {"axis": 0}),
        ("Reshape", ["column_weights", "column_shape"], "columns_half", {}),
        ("Transpose", ["columns_half"], "columns_turned", {"perm": [1, 0]}),
        ("Cast", ["columns_turned"], "column_matrix", {"to": TensorProto.FLOAT}),
        ("Shape", ["row_weights"], "height", {"start": 2, "end": 3}),
        ("Concat", ["rest", "height"], "row_shape", {"axis": 0}),
        ("Reshape", ["row_weights", "row_shape"], "rows_half", {}),
        ("Cast", ["rows_half"], "row_matrix", {"to": TensorProto.FLOAT}),
        ("MatMul", ["planes", "column_matrix"], "row_sums", {"name": "row_pass"}),
    )]  # fmt: skip
    middle = [
        *_rounded("row_sums", "narrow_values", axis=2),
        helper.make_node("Cast", ["narrow_values"], ["narrow_half"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["narrow_half"], ["narrow"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["row_matrix", "narrow"], ["column_sums"], name="column_pass"),
        *_rounded("column_sums", "resized", axis=1),
    ]
    top = [
        helper.make_node("Transpose", ["resized"], ["picture"], perm=[1, 2, 0]),
        helper.make_node("Unsqueeze", ["picture", "first"], ["batch"]),
        # TensorRT has 8-bit integers at the border of a graph alone.
        helper.make_node("Cast", ["batch"], ["image"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        [*bottom, *middle, *top],
        FRAME_RESIZER,
        [_value(spec) for spec in contract.inputs],
        [_value(spec) for spec in contract.outputs],
        [
            helper.make_tensor("rest", TensorProto.INT64, [1], [-1]),
            helper.make_tensor("first", TensorProto.INT64, [1], [0]),
            _constant("half", 2.0 ** (WEIGHT_BITS - 1)),
            _constant("fine_scale", 1 / WEIGHT_UNIT),
            _constant("coarse_scale", WEIGHT_UNIT / 2.0**WEIGHT_BITS),
            _constant("black", 0.0),
            _constant("white", 255.0),
        ],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="zeroflaw",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def write_frame_resizer(path: Path = FRAME_RESIZER_PATH) -> None:
    """Write the graph's file.

    Raises:
        OSError: It cannot be written.
    """
    path.write_bytes(frame_resizer_model().SerializeToString(deterministic=True))


def _rounded(sums: str, values: str, *, axis: int) -> list[onnx.NodeProto]:
    """Add coarse and fine sums, and round and clip as Pillow does: floor((k + half) / 2^22).

    The whole sum does not fit into the 24 bits of FP32, so the fine half is rounded down to units
    of the coarse one first, which changes nothing: every number here is whole, below 2^24.
    """
    coarse, fine, halved, units, carried, total, scaled, whole = (
        f"{sums}_{part}"
        for part in ("coarse", "fine", "half", "units", "carried", "total", "scaled", "whole")
    )
    return [
        helper.make_node("Split", [sums], [coarse, fine], axis=axis, num_outputs=2),
        helper.make_node("Add", [fine, "half"], [halved]),
        helper.make_node("Mul", [halved, "fine_scale"], [units]),
        helper.make_node("Floor", [units], [carried]),
        helper.make_node("Add", [coarse, carried], [total]),
        helper.make_node("Mul", [total, "coarse_scale"], [scaled]),
        helper.make_node("Floor", [scaled], [whole]),
        helper.make_node("Clip", [whole, "black", "white"], [values]),
    ]


def _constant(name: str, value: float) -> onnx.TensorProto:
    return helper.make_tensor(name, TensorProto.FLOAT, [], [value])


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, _TYPES[spec.dtype], list(spec.shape))


if __name__ == "__main__":
    write_frame_resizer()
