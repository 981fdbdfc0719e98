"""What the tests of sessions share."""

from __future__ import annotations

import pytest

from support.gpu.built_engines import publish
from support.gpu.engine_calls import engine_version
from support.gpu.simulated_gpu import SimulatedCuda
from support.gpu.simulated_tensorrt import SimulatedTensorRt
from zeroflaw_engines import tensorrt_bindings
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.sessions import cuda as cuda_runtime
from zeroflaw_engines.sessions import tensorrt_session

ENGINES = ("clip_encoder", "sam_encoder", "sam_decoder", "reference_matcher")


@pytest.fixture
def gpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> SimulatedTensorRt:
    """A simulated GPU of sm89, and engines of the small bundle that were built for it."""
    cuda = SimulatedCuda()
    plans = {}
    for name in ENGINES:
        plan = f"plan of {name}".encode() * 9
        publish(bundle, name, plan=plan, version=engine_version())
        plans[plan] = (bundle.onnx_path(name), bundle.contract(name))
    trt = SimulatedTensorRt(cuda, plans)
    monkeypatch.setattr(cuda_runtime, "load_cuda", lambda: cuda)
    monkeypatch.setattr(tensorrt_bindings, "load_bindings", lambda _: trt)
    monkeypatch.setattr(tensorrt_session, "load_bindings", lambda _: trt)
    return trt
