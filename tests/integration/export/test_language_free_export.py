"""VisualAD's graphs for TensorRT: FP16 beside FP32, and compiled by TensorRT-RTX."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorrt_rtx

from support.exported_bundle import tiny_job
from zeroflaw_engines.builder.compiler import compile_engine
from zeroflaw_engines.built_engines.options import BuildOptions
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.contract import CLIP_ENCODER
from zeroflaw_export.export import export_bundle

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def visualad_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    target = tmp_path_factory.mktemp("visualad") / "bundle"
    job = tiny_job("object")
    export_bundle(
        dataclasses.replace(job, localizer="visualad", precision="fp16", max_batch=4), target
    )
    return open_bundle(target)


def test_the_graph_in_fp16_is_checked_against_pytorch(visualad_bundle: Bundle) -> None:
    figures = [
        figure
        for figure in visualad_bundle.manifest.parity
        if figure.engine == CLIP_ENCODER and figure.target == "tensorrt"
    ]
    assert {figure.image for figure in figures} == {"real", "noise"}
    maps = [figure.value for figure in figures if "anomaly map" in figure.quantity]
    # Cosines have no factor of 100 before the sigmoid, as logits of texts have.
    assert np.all((np.array(maps) > 0) & (np.array(maps) < 1e-3))


def test_tensorrt_rtx_compiles_it(visualad_bundle: Bundle) -> None:
    (half,) = visualad_bundle.manifest.engines[CLIP_ENCODER].variants
    plan = compile_engine(
        tensorrt_rtx,
        visualad_bundle.path / half.onnx,
        visualad_bundle.contract(CLIP_ENCODER),
        BuildOptions(backend="tensorrt-rtx", architectures=("sm86",), precision="fp16"),
        version=tensorrt_rtx.__version__,
    )
    assert bytes(memoryview(plan.plan)[:8]).startswith(b"vtrt")
    # 4 of the tower's and 3 of SCA and SAF in each block at least.
    assert plan.network_precision.count("gemm", "float16") >= 4 * (4 + 3)
