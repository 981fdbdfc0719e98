"""The graph of frame_resizer that ships is the one that the export writes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
import pytest

from support.small_bundle import write_small_bundle
from zeroflaw_engines.bundle import shipped
from zeroflaw_engines.bundle.shipped import FRAME_RESIZER_PATH, shipped_frame_resizer
from zeroflaw_engines.contract import FRAME_RESIZER
from zeroflaw_engines.errors import EngineError
from zeroflaw_export.graphs.frame_resizer import frame_resizer_model, write_frame_resizer


def test_what_ships_is_what_is_written(tmp_path: Path) -> None:
    write_frame_resizer(tmp_path / "again.onnx")
    assert onnx.load(tmp_path / "again.onnx") == onnx.load(FRAME_RESIZER_PATH)


def test_every_operand_of_its_products_was_in_fp16() -> None:
    """So that FP16 and TF32 give the same bits as FP32."""
    graph = frame_resizer_model().graph
    made_by = {name: node for node in graph.node for name in node.output}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    assert len(products) == 2
    for node in products:
        for operand in node.input:
            cast = made_by[operand]
            assert cast.op_type == "Cast"
            before = made_by[cast.input[0]]
            while before.op_type in {"Transpose", "Reshape"} and before.input[0] in made_by:
                before = made_by[before.input[0]]
            halves = {onnx.TensorProto.FLOAT16}
            is_cast = before.op_type == "Cast" and before.attribute[0].i in halves
            assert is_cast or before.input[0] in {"row_weights", "column_weights"}


def test_every_bundle_has_it(tmp_path: Path) -> None:
    small_bundle = write_small_bundle(tmp_path / "bundle")
    assert FRAME_RESIZER not in small_bundle.manifest.engines
    graph = small_bundle.graph(FRAME_RESIZER, "tensorrt")
    assert graph == small_bundle.graph(FRAME_RESIZER, "onnxruntime") == shipped_frame_resizer()
    assert graph.precision == "fp32"
    assert graph.recipe is None
    assert graph.opset == onnx.load(graph.path).opset_import[0].version
    digest = hashlib.sha256(FRAME_RESIZER_PATH.read_bytes()).hexdigest()
    assert graph.sha256 == {"frame_resizer.onnx": digest}
    assert small_bundle.onnx_path(FRAME_RESIZER) == FRAME_RESIZER_PATH
    assert small_bundle.contract(FRAME_RESIZER).outputs[0].name == "image"


def test_an_installation_without_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shipped, "FRAME_RESIZER_PATH", tmp_path / "frame_resizer.onnx")
    with pytest.raises(EngineError, match="this installation of zeroflaw lacks"):
        shipped_frame_resizer.__wrapped__()
