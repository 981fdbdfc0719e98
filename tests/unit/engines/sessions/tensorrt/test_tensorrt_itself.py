"""Sessions on TensorRT itself, which lacks what TensorRT-RTX alone has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.gpu.built_engines import sidecar_for
from support.gpu.engine_calls import decoder_inputs, reference
from support.gpu.simulated_tensorrt import SimulatedTensorRt
from support.gpu.tensorrt_bindings_alone import import_bindings_alone
from zeroflaw_engines.built_engines.lookup import BuiltEngine
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.machine import Gpu
from zeroflaw_engines.sessions import tensorrt_session
from zeroflaw_engines.sessions.tensorrt_session import TensorRtSession


@pytest.mark.parametrize("fails", [False, True])
def test_it_is_captured_or_says_why_not(
    bundle: Bundle, gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog, fails: bool
) -> None:
    trt = SimulatedTensorRt(gpu.cuda, gpu.graphs, rtx=False)
    monkeypatch.setattr(tensorrt_session, "load_bindings", lambda _: trt)
    plan = next(plan for plan, (path, _) in gpu.graphs.items() if path.stem == "sam_decoder")
    (tmp_path / "plan").write_bytes(plan)
    sidecar = sidecar_for(
        bundle, plan=plan, backend="tensorrt", architectures=(), gpu=Gpu("NVIDIA L4", "sm89")
    )
    built = BuiltEngine(tmp_path / "plan", sidecar, tmp_path / "runtime_cache")
    session = TensorRtSession(built, bundle.contract("sam_decoder"))
    session.prepare()
    if fails:
        refused = gpu.cuda.cudaError_t.cudaErrorStreamCaptureUnsupported
        gpu.cuda.cudaStreamBeginCapture.side_effect = lambda *_: (refused,)
    session.capture()
    assert session.captured is not fails
    assert ("cudaErrorStreamCaptureUnsupported" in caplog.text) is fails
    for seed, batch in enumerate((1, 2, 1)):
        inputs = decoder_inputs(bundle, batch, seed)
        got, want = session.execute(inputs), reference(bundle, "sam_decoder", inputs)
        np.testing.assert_array_equal(got["low_res_logits"], want["low_res_logits"])
    session.close()
    assert not gpu.cuda.memory
    assert not (tmp_path / "runtime_cache").exists()


def test_the_bindings_have_what_sessions_call(tmp_path: Path) -> None:
    """Those of TensorRT itself; the simulated GPU checks the calls against TensorRT-RTX's."""
    tensorrt = import_bindings_alone(tmp_path)
    for holder, names in {
        "ExecutionContextAllocationStrategy": ("USER_MANAGED",),
        "ICudaEngine": (
            "create_execution_context", "device_memory_size_v2", "get_tensor_profile_shape",
            "get_tensor_dtype", "get_tensor_mode", "get_tensor_name", "get_tensor_shape",
            "num_io_tensors",
        ),
        "IExecutionContext": (
            "execute_async_v3", "set_device_memory", "set_input_shape", "set_tensor_address",
        ),
        "ILogger": ("ERROR", "INTERNAL_ERROR"),
        "Runtime": ("deserialize_cuda_engine", "engine_host_code_allowed"),
    }.items():  # fmt: skip
        for name in names:
            assert hasattr(getattr(tensorrt, holder), name), f"{holder}.{name}"
    assert "strategy: tensorrt" in tensorrt.ICudaEngine.create_execution_context.__doc__
