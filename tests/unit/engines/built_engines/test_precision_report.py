"""Precision reports: of real plans of TensorRT-RTX, of their format, of inspector layers."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import tensorrt_rtx

from support import small_graphs
from zeroflaw_engines.builder.compiler import BuildLog, compile_engine
from zeroflaw_engines.builder.inspector_precision import inspector_precision, precision_of_layers
from zeroflaw_engines.builder.plan_precision import plan_precision
from zeroflaw_engines.built_engines.options import BuildOptions
from zeroflaw_engines.built_engines.precision_report import PrecisionReport, precision_report


def built(path: Path, dtype: str, **graph) -> tuple[Path, PrecisionReport | None]:
    contract = small_graphs.transformer(path, dtype, **graph)
    options = BuildOptions(backend="tensorrt-rtx", architectures=("sm86", "sm89"))
    compiled = compile_engine(tensorrt_rtx, path, contract, options, version="")
    plan = path.with_suffix(".engine")
    plan.write_bytes(memoryview(compiled.plan))
    return plan, plan_precision(plan, frozenset(compiled.attention_nodes))


def test_a_half_precision_plan(tmp_path: Path) -> None:
    _, report = built(tmp_path / "half.onnx", "float16")
    assert report is not None
    assert report.source == "plan"
    assert report.count("attention", "float16") == 2, "one fused kernel for each block"
    assert report.unfused_attention == 0
    assert report.count("gemm", "float16") == report.count("gemm") > 0
    assert report.count("norm", "float32") == 2, "norms are widened inside their kernels"
    assert report.half_share == 1
    assert "2 attention float16" in str(report)


def test_a_single_precision_plan(tmp_path: Path) -> None:
    """The same graph in float32: attention is not fused, and the report shows it."""
    _, report = built(tmp_path / "single.onnx", "float32")
    assert report is not None
    assert report.half_share == 0
    assert report.count("attention") == 0
    assert report.unfused_attention == 2
    assert report.count("softmax", "float32") == 2
    assert report.count("gemm", "float32") >= 2 * 5


def test_a_file_without_a_program(tmp_path: Path) -> None:
    path = tmp_path / "other.engine"
    for content in (b"x", b"NLYM", b"some bytes NLYM" + bytes(100), b"NLYM" + bytes([255] * 40)):
        path.write_bytes(content)
        assert plan_precision(path, frozenset()) is None


def program(body: str, types: dict[str, str], *, main: bool = True) -> bytes:
    tensors = "".join(
        f'  tensor={{ dims={{ 4 }} name="{n}" type={t} }}\n' for n, t in types.items()
    )
    accelerators = "sm86 " if main else "*"
    text = (
        f"header {{\n  accelerators={{{accelerators}}}\n}}\ndescriptors {{\n{tensors}}}\n"
        f"main {{\n label bb1: \n{body}}}\n"
    ).encode()
    return struct.pack("<4sIQ", b"NLYM", 2022049, len(text)) + text + b"\x04\0"


@pytest.mark.parametrize(
    ("line", "kind", "precision"),
    [
        ('fully_connected={ name="m" output={"y" } input={"h" "h" "f" "f" } layers="" }',
         "gemm", "float16"),
        ('fully_connected={ name="m" output={"y" } input={"h" "f" } layers="" }',
         "gemm", "mixed"),
        ('corrltn={ name="c" output={"y" } input={"f" "f" } layers="" }',
         "convolution", "float32"),
        ('function={ name=_gemm_mha_v2 fqn=x args={ "h" } input_args={ "h" "h" "h" } }',
         "attention", "float16"),
        ('function={ name=__myl_MeanSubMulMeanAddSqrtDivMul fqn=x input_args={ "h" } }',
         "norm", "float16"),
        ('function={ name=__myl_CastMeanSubMulMeanAddSqrtDivMul fqn=x input_args={ "h" } }',
         "norm", "float32"),
        ('function={ name=__myl_MaxrSubExpSumDivMul fqn=x input_args={ "f" } }',
         "softmax", "float32"),
        ('function={ name=__myl_MoveCast fqn=x input_args={ "f" } }', "cast", "float32"),
        ('function={ name=__myl_Something fqn=x input_args={ "i" } }', "other", "none"),
        ('runtime_fusion={ name=__myl_FcAdd input_args={ "f" "h" } binary=0 backbone=gemm }',
         "gemm", "float16"),
        ('runtime_fusion={ name=__myl_FcAdd input_args={ "f" "f" } binary=7 backbone=gemm }',
         "gemm", "float32"),
    ],
)  # fmt: skip
def test_operations_of_a_program(tmp_path: Path, line: str, kind: str, precision: str) -> None:
    types = {"h": "half", "f": "float", "i": "int32"}
    part = program('  fully_connected={ name="p" input={"h" "h" } }\n', types, main=False)
    path = tmp_path / "plan.engine"
    path.write_bytes(b"\0" * 10 + program(f"  {line}\n", types) + part)
    report = plan_precision(path, frozenset())
    assert report is not None
    [entry] = report.entries
    assert (entry.kind, entry.precision, entry.count) == (kind, precision, 1)


def test_bookkeeping_is_not_counted(tmp_path: Path) -> None:
    body = '  copy={ name="c" }\n  wait={ name="w" }\n  memset={ name="m" }\n'
    path = tmp_path / "plan.engine"
    path.write_bytes(program(body, {}))
    assert plan_precision(path, frozenset()) is None


def test_layers_of_the_inspector() -> None:
    """In the layout that NVIDIA documents for detailed verbosity."""

    def layer(name: str, kind: str, *formats: str) -> dict[str, object]:
        inputs = [{"Name": "t", "Dimensions": [1], "Format/Datatype": text} for text in formats]
        return {"Name": name, "LayerType": kind, "Inputs": inputs, "Outputs": []}

    report = precision_of_layers(
        [
            layer("_gemm_mha_v2_myl0_3", "kgen", "Half", "Half", "Half"),
            layer("block_0/q+block_0/k_myl0_2", "gemm", "Half", "Half", "Float"),
            layer("__myl_CastMeanSubMulMeanAddSqrt_myl0_1", "kgen", "Float"),
            layer("conv1", "CaskConvolution", "Row major linear FP32"),
            layer("head", "gemm", "Half", "Float"),
        ]
    )
    assert report is not None
    assert report.source == "inspector"
    assert {(one.kind, one.precision) for one in report.entries} == {
        ("attention", "float16"), ("gemm", "float16"), ("norm", "float32"),
        ("convolution", "float32"), ("gemm", "mixed"),
    }  # fmt: skip
    assert precision_of_layers(["conv1", "head"]) is None, "names alone, at another verbosity"
    assert precision_of_layers([]) is None


def test_the_inspector_needs_a_gpu(tmp_path: Path) -> None:
    """Here there is none: the real runtime refuses the engine, and no report is made up."""
    plan, _ = built(tmp_path / "half.onnx", "float16", blocks=1)
    logger = BuildLog().logger(tensorrt_rtx)
    assert inspector_precision(tensorrt_rtx, logger, plan.read_bytes()) is None


def test_shares() -> None:
    report = precision_report(
        "plan",
        [("gemm", "float16")] * 6 + [("attention", "float16"), ("gemm", "float32")]
        + [("norm", "float32")] * 9,
    )  # fmt: skip
    assert report.half_share == 7 / 8
    assert report.count("gemm") == 7
    assert report.count("gemm", "float32") == 1
    assert precision_report("plan", []).half_share == 1
