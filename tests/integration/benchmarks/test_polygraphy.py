"""Polygraphy, NVIDIA's tool for comparing backends: where it serves, and where it does not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import tensorrt_rtx
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.backend.trt import NetworkFromOnnxPath
from polygraphy.comparator import Comparator, CompareFunc, DataLoader
from polygraphy.exception import PolygraphyException

from support import small_graphs

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_it_compares_precisions_on_onnx_runtime(tmp_path: Path) -> None:
    runners = []
    for dtype in ("float32", "float16"):
        path = tmp_path / f"{dtype}.onnx"
        small_graphs.transformer(path, dtype)
        runners.append(OnnxrtRunner(SessionFromOnnx(str(path)), name=dtype))
    results = Comparator.run(runners, data_loader=DataLoader(seed=1, iterations=2))
    close, exact = (
        Comparator.compare_accuracy(results, compare_func=CompareFunc.simple(atol=atol, rtol=rtol))
        for atol, rtol in ((0.05, 0.05), (1e-7, 1e-7))
    )
    assert bool(close), "FP16 is near FP32"
    assert not bool(exact), "and is not FP32"


def test_its_tensorrt_backend_does_not_take_tensorrt_rtx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wants a module `tensorrt`, and refuses TensorRT-RTX's under that name for its version.

    When this test fails, docs/building.md may promise more.
    """
    path = tmp_path / "small.onnx"
    small_graphs.transformer(path)
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_rtx)
    with pytest.raises(PolygraphyException, match="not available on TensorRT version"):
        NetworkFromOnnxPath(str(path), strongly_typed=True)()
