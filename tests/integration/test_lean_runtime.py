"""What the station install promises: quick to import, no torch, mapped weights."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from zeroflaw_engines.bundle.bundle import Bundle


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_import_is_quick_and_without_torch() -> None:
    code = (
        # CPU time: the same as wall time on an idle machine, and no worse on a busy one
        "import sys, time; start = time.process_time(); import zeroflaw;"
        "print(time.process_time() - start, 'torch' in sys.modules)"
    )
    seconds = []
    for _ in range(5):
        spent, torch = run(code).split()
        assert torch == "False"
        seconds.append(float(spent))
    assert min(seconds) <= 0.3


def test_every_public_name_is_there() -> None:
    import zeroflaw

    for name in zeroflaw.__all__:
        assert getattr(zeroflaw, name) is not None
    assert set(dir(zeroflaw)) == set(zeroflaw.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Detector'"):
        zeroflaw.Detector  # noqa: B018


def test_inspecting_never_imports_torch_or_the_export(tiny_bundle: Bundle) -> None:
    code = (
        "import sys, numpy as np, zeroflaw;"
        f"inspector = zeroflaw.Inspector.load({str(tiny_bundle.path)!r});"
        "inspector.inspect(np.zeros((64, 64, 3), np.uint8), product='object');"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('torch', 'zeroflaw_export')))"
    )
    assert run(code) == "[]"


def test_lean_packages_do_not_name_torch_or_the_export() -> None:
    root = Path(__file__).parents[2]
    for folder in ("engines", "runtime"):
        for path in (root / folder).rglob("*.py"):
            for line in path.read_text().splitlines():
                words = line.split()
                if words[:1] in (["import"], ["from"]):
                    assert words[1].split(".")[0] not in ("torch", "zeroflaw_export"), path
    for path in (root / "engines").rglob("*.py"):
        assert "from zeroflaw." not in path.read_text(), f"{path} imports against the flow"


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
    loaded, used = map(float, run(code).split())
    assert loaded < 60
    assert used < 120
