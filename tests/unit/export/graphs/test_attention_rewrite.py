"""Rewriting attention for TensorRT changes no number, whichever form the reference has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from segment_anything.modeling import Sam

from zeroflaw_engines.contract import EngineSizes, engine_contract
from zeroflaw_engines.errors import ExportError
from zeroflaw_export.graphs.attention_rewrite import (
    fuse_relative_positions,
    merge_head_groups,
    pad_attention,
)
from zeroflaw_export.graphs.onnx_writer import onnx_from_module
from zeroflaw_export.models.sam_encoder import SamEncoder

FORMS = ("additive", "extended", "extended_padded")


@pytest.fixture(scope="module", params=FORMS)
def encoder(request, tiny_sam: Sam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    side = tiny_sam.image_encoder.img_size
    sizes = EngineSizes(224, 64, side, side // 16, tiny_sam.prompt_encoder.embed_dim, 27)
    path = tmp_path_factory.mktemp(request.param) / "sam_encoder.onnx"
    module = SamEncoder(tiny_sam, request.param).eval()
    onnx_from_module(module, engine_contract("sam_encoder", sizes), path)
    return path


@pytest.fixture(scope="module")
def batch_encoder(tiny_sam: Sam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    side = tiny_sam.image_encoder.img_size
    channels = tiny_sam.prompt_encoder.embed_dim
    sizes = EngineSizes(224, 64, side, side // 16, channels, 27, max_batch=4)
    path = tmp_path_factory.mktemp("batches") / "sam_encoder.onnx"
    onnx_from_module(SamEncoder(tiny_sam).eval(), engine_contract("sam_encoder", sizes), path)
    return path


def test_a_batch_keeps_its_numbers_and_one_attention_a_block(batch_encoder: Path) -> None:
    model = ir.load(batch_encoder)
    fuse_relative_positions(model)
    merge_head_groups(model)
    pad_attention(model, 8)
    rewritten = batch_encoder.with_name("rewritten.onnx")
    ir.save(model, rewritten, external_data="rewritten.data")
    attentions = [node for node in model.graph if node.op_type == "Attention"]
    assert [node.inputs[0].shape[1] for node in attentions] == [2, 2], "both heads in one node"
    assert not any(node.op_type == "Softmax" for node in model.graph)

    rng = np.random.default_rng(0)
    side = 256
    for count in (1, 3):
        given = {
            "image": rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8),
            "image_size": np.array([[side - 40 * i, side] for i in range(count)], np.int32),
        }
        want, got = (
            ort.InferenceSession(str(path)).run(None, given)[0]
            for path in (batch_encoder, rewritten)
        )
        assert len(got) == count
        np.testing.assert_allclose(got, want, atol=2e-6 * np.abs(want).max())


def test_a_width_that_is_left_open_is_refused() -> None:
    def value(name: str, *shape: int | str) -> ir.Value:
        return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))

    q = value("q", "windows", 2, 5, "wide")
    node = ir.node("Attention", [q, q, q], name="a", outputs=[value("o", "windows", 2, 5, 6)])
    graph = ir.Graph([q], node.outputs, nodes=[node], opset_imports={"": 23}, name="g")
    with pytest.raises(ExportError, match="no fixed shape"):
        pad_attention(ir.Model(graph, ir_version=10), 8)


def features(path: Path) -> np.ndarray:
    session = ort.InferenceSession(str(path))
    side = session.get_inputs()[0].shape[1]
    image = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    size = np.array([side - 40, side], np.int32)
    return session.run(None, {"image": image, "image_size": size})[0]


def test_the_numbers_stay_and_the_heads_fit(encoder: Path) -> None:
    model = ir.load(encoder)
    fuse_relative_positions(model)
    merge_head_groups(model)
    pad_attention(model, 8)
    rewritten = encoder.with_name("rewritten.onnx")
    ir.save(model, rewritten, external_data="rewritten.data")
    want = features(encoder)
    np.testing.assert_allclose(features(rewritten), want, atol=2e-6 * np.abs(want).max())
    attentions = [node for node in model.graph if node.op_type == "Attention"]
    blocks = 2  # of the tiny architecture: one windowed, one global
    assert len(attentions) == blocks
    for node in attentions:
        widths = {value.shape[3] for value in node.inputs}
        assert len(widths) == 1
        assert widths.pop() % 8 == 0
        assert node.inputs[0].shape[1] == 2, "both heads in one node"
    assert not any(node.op_type == "Softmax" for node in model.graph)


def test_a_softmax_that_is_something_else_is_left_alone(tiny_bundle) -> None:
    model = ir.load(tiny_bundle.onnx_path("sam_decoder"))
    before = sum(node.op_type == "Softmax" for node in model.graph)
    fuse_relative_positions(model)
    assert sum(node.op_type == "Softmax" for node in model.graph) == before > 0


def test_padding_keeps_a_scale_that_was_not_written() -> None:
    def value(name: str, width: int) -> ir.Value:
        return ir.Value(
            name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, 2, 5, width])
        )

    q, k, v, out = value("q", 6), value("k", 6), value("v", 4), value("out", 4)
    node = ir.node("Attention", [q, k, v], name="attention", outputs=[value("attended", 4)])
    after = ir.node("Identity", [node.outputs[0]], name="after", outputs=[out])
    graph = ir.Graph([q, k, v], [out], nodes=[node, after], opset_imports={"": 23}, name="g")
    model = ir.Model(graph, ir_version=10)
    rng = np.random.default_rng(0)
    given = {n: rng.normal(size=(1, 2, 5, w)).astype(np.float32) for n, w in
             (("q", 6), ("k", 6), ("v", 4))}  # fmt: skip

    def run() -> np.ndarray:
        data = ir.serde.serialize_model(model).SerializeToString()
        return ort.InferenceSession(data).run(None, given)[0]

    before = run()
    assert pad_attention(model, 8)
    assert [value.shape[3] for value in node.inputs] == [8, 8, 8]
    np.testing.assert_allclose(run(), before, atol=1e-6)
    assert not pad_attention(model, 8), "what fits is left alone"
