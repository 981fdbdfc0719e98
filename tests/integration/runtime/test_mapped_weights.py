"""Weights are mapped into memory, not copied."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np


def test_large_weights_are_mapped_not_copied(tmp_path: Path) -> None:
    """A graph with 400 MB of external weights loads without the memory for them."""
    import onnx
    from onnx import TensorProto, helper

    side = 10_000
    weight = np.zeros((side, side), np.float32)
    np.fill_diagonal(weight, 1)
    nodes = [helper.make_node("MatMul", ["features", "weight"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, side])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, side])],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = tmp_path / "large.onnx"
    onnx.save(model, path, save_as_external_data=True, location="large.onnx.data")
    code = f"""
import psutil, numpy as np
from pathlib import Path
from zeroflaw_engines.contract import EngineContract, TensorSpec
from zeroflaw_engines.sessions.onnxruntime_session import OnnxRuntimeSession
contract = EngineContract('sam_encoder', (TensorSpec('features', 'float32', (1, {side})),),
                          (TensorSpec('y', 'float32', (1, {side})),))
process = psutil.Process()
def private():
    memory = process.memory_info()
    return (memory.rss - memory.shared) / 1e6
before = private()
session = OnnxRuntimeSession(Path({str(path)!r}), contract)
loaded = private() - before
x = np.arange({side}, dtype=np.float32)[None]
assert np.array_equal(session.execute({{'features': x}})['y'], x)
print(loaded, private() - before)
"""
    assert os.path.getsize(tmp_path / "large.onnx.data") >= 4e8  # noqa: PTH202
    measured = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    loaded, used = map(float, measured.stdout.split())
    assert loaded < 60
    assert used < 120
