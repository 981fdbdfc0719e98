"""What graphs cost, against the arithmetic by hand and the published counts."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from zeroflaw_benchmarks.bench.machine.gemm_rate import gemm_rates
from zeroflaw_benchmarks.bench.machine.graph_macs import graph_cost
from zeroflaw_benchmarks.bench.machine.spread import spread, times_faster
from zeroflaw_benchmarks.reference.plain_encoder import PlainEncoder
from zeroflaw_engines.contract import (
    CLIP_ENCODER,
    SAM_DECODER,
    SAM_ENCODER,
    EngineContract,
    EngineSizes,
    engine_contract,
)
from zeroflaw_export.graphs.onnx_writer import onnx_from_module
from zeroflaw_export.models.adapters import LinearAdapters
from zeroflaw_export.models.architectures import clip_architecture, sam_architecture
from zeroflaw_export.models.clip_encoder import ClipEncoder
from zeroflaw_export.models.reference_matcher import reference_sizes
from zeroflaw_export.models.sam_decoder import SamDecoder
from zeroflaw_export.models.sam_encoder import SamEncoder


def macs_of(path: Path, axes=None) -> int:
    return sum(graph_cost(path, axes).macs.values())


def encoder_contract(side: int, channels: int) -> EngineContract:
    return engine_contract(SAM_ENCODER, EngineSizes(side, 1, side, side // 16, channels, 1))


def one_node(path: Path, node: onnx.NodeProto, inputs, output) -> Path:
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(node.input, inputs, strict=True)
    ]
    result = helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, output)
    onnx.save(helper.make_model(helper.make_graph([node], "one", values, [result])), path)
    return path


@pytest.mark.parametrize(
    ("node", "inputs", "output", "macs"),
    [
        (helper.make_node("MatMul", "ab", "y"), [(5, 2, 3), (3, 4)], (5, 2, 4), 5 * 2 * 3 * 4),
        (helper.make_node("Gemm", "abc", "y"), [(2, 3), (3, 4), (4,)], (2, 4), 24),
        (helper.make_node("Gemm", "ab", "y", transA=1), [(3, 2), (3, 4)], (2, 4), 24),
        (
            helper.make_node("Conv", "xw", "y", group=2),
            [(1, 4, 9, 9), (6, 2, 3, 3)],
            (1, 6, 7, 7),
            6 * 7 * 7 * 2 * 3 * 3,
        ),
        (
            helper.make_node("Attention", "qkv", "y"),
            [(2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 4)],
            (2, 3, 5, 4),
            2 * 3 * 5 * 7 * (8 + 4),
        ),
        (
            helper.make_node("Einsum", "ab", "y", equation="bhwc, hkc -> bhwk"),
            [(2, 3, 4, 5), (3, 6, 5)],
            (2, 3, 4, 6),
            2 * 3 * 4 * 6 * 5,
        ),
        (helper.make_node("Add", "ab", "y"), [(2, 3), (2, 3)], (2, 3), 0),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else None,
)
def test_macs_of_a_node(tmp_path: Path, node, inputs, output, macs: int) -> None:
    path = one_node(tmp_path / "one.onnx", node, inputs, output)
    assert macs_of(path) == macs


def test_a_graph_without_fixed_shapes_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", "ab", "y")
    path = one_node(tmp_path / "one.onnx", node, [("batch", 3), (3, 4)], ("batch", 4))
    with pytest.raises(ValueError, match="no fixed shape of a"):
        graph_cost(path)


def test_shapes_that_follow_from_the_inputs_need_not_be_recorded(tmp_path: Path) -> None:
    """A box proposer is whatever its owner exported."""
    nodes = [helper.make_node("MatMul", "ab", "h"), helper.make_node("MatMul", "hb", "y")]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, (4, 4)) for n in "aby"]
    graph = helper.make_graph(nodes, "two", values[:2], values[2:])
    onnx.save(helper.make_model(graph), tmp_path / "two.onnx")
    assert macs_of(tmp_path / "two.onnx") == 2 * 4 * 4 * 4


def test_products_in_a_branch_are_not_counted_as_none(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, (4, 4))
    inner = helper.make_graph([helper.make_node("MatMul", "ab", "y")], "branch", [], [value])
    node = helper.make_node("If", "c", "y", then_branch=inner, else_branch=inner)
    path = one_node(tmp_path / "one.onnx", node, [()], (4, 4))
    with pytest.raises(ValueError, match="in a branch"):
        graph_cost(path)


@pytest.mark.long
def test_the_tiny_graphs_have_the_macs_of_the_arithmetic(tmp_path: Path) -> None:
    """Window padding before QKV in the plain graph; extra channels in the extended one."""
    sam = sam_architecture("tiny").build()
    contract = encoder_contract(256, 32)
    counted = {}
    for form in ("additive", "extended"):
        onnx_from_module(SamEncoder(sam, form).eval(), contract, tmp_path / f"{form}.onnx")
        counted[form] = macs_of(tmp_path / f"{form}.onnx")
    plain = EngineContract(contract.name, contract.inputs[:1], contract.outputs)
    onnx_from_module(PlainEncoder(sam).eval(), plain, tmp_path / "plain.onnx")
    counted["plain"] = macs_of(tmp_path / "plain.onnx")
    width, tokens, padded, heads, side = 32, 256, 28 * 28, 2, 14
    linear = 4 * width * width  # QKV and the projection
    window_scores, global_scores = 4 * heads * (side**2) ** 2, heads * tokens**2
    rel_pos = padded * 2 * side * width + tokens * 2 * 16 * width
    arithmetic = (
        tokens * (3 * 16 * 16 * width + 2 * linear + 2 * 8 * width * width)
        + 2 * width // heads * (window_scores + global_scores)
        + rel_pos
        + tokens * (width * width + 9 * width * width)
    )
    assert counted["additive"] == arithmetic
    assert counted["plain"] == arithmetic + (padded - tokens) * linear
    extra = window_scores * 2 * side + global_scores * 2 * 16
    assert counted["extended"] == arithmetic + extra


def test_ratios_are_taken_inside_each_round() -> None:
    """A machine that is twice as slow in one round does not change them."""
    got = times_faster([10.0, 20.0, 12.0], [5.0, 10.0, 4.0])
    assert (got.middle, got.least, got.most) == (2.0, 2.0, 3.0)
    assert str(got) == "2.00 (2.00-3.00)"
    assert spread([3.0, 1.0]).middle == 2.0


def test_every_library_multiplies() -> None:
    rates = gemm_rates(((64, 32, 48),), repeats=1)
    assert {"numpy", "torch", "onnxruntime"} <= rates["fp32"].keys()
    assert "torch" in rates["bf16"]
    assert min(min(by_library.values()) for by_library in rates.values()) > 0


@pytest.mark.full_size
@pytest.mark.parametrize(("name", "gmac"), [("vit_h", 2980.5), ("vit_l", 1492.8), ("vit_b", 486.0)])
def test_the_published_macs(tmp_path: Path, name: str, gmac: float) -> None:
    """deployment.md 2.2; the plain graph, whose count the floor is made of."""
    contract = encoder_contract(1024, 256)
    plain = EngineContract(contract.name, contract.inputs[:1], contract.outputs)
    onnx_from_module(
        PlainEncoder(sam_architecture(name).build()).eval(), plain, tmp_path / "plain.onnx"
    )
    assert macs_of(tmp_path / "plain.onnx") / 1e9 == pytest.approx(gmac, abs=0.1)


@pytest.mark.full_size
def test_the_published_macs_of_clip(tmp_path: Path) -> None:
    """506.8 GMAC of the tower; the adapters add 4.3 and the maps almost nothing."""
    architecture = clip_architecture("vit_l_14_336")
    with torch.device("cpu"):
        clip = architecture.build(518)
    adapters = LinearAdapters(4, 1024, 768)
    banks = reference_sizes(architecture, 518, 16 * 10**6)
    sizes = EngineSizes(518, 768, 1024, 64, 256, 27, banks)
    encoder = ClipEncoder(clip, adapters, architecture.tapped_blocks, 518).eval()
    onnx_from_module(encoder, engine_contract(CLIP_ENCODER, sizes), tmp_path / "clip.onnx")
    assert macs_of(tmp_path / "clip.onnx") / 1e9 == pytest.approx(511.2, abs=0.4)


@pytest.mark.full_size
def test_the_published_macs_of_the_decoder(tmp_path: Path) -> None:
    """1.82 GMAC for 1 point to 2.08 for 32 (deployment.md 2.2), and our 27 rows between them."""
    sam = sam_architecture("vit_b").build()  # every SAM has the same decoder
    sizes = EngineSizes(518, 768, 1024, 64, 256, 27)
    path = tmp_path / "decoder.onnx"
    onnx_from_module(SamDecoder(sam).eval(), engine_contract(SAM_DECODER, sizes), path)
    gmac = macs_of(path, {"batch": 1}) / 1e9
    a_point = (2.08 - 1.82) / 31
    assert gmac == pytest.approx(1.82 + 25.5 * a_point, abs=a_point)
