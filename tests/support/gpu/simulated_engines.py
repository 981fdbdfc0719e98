"""Engines of a bundle that were built for a simulated GPU, which runs their graphs."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from support.gpu.built_engines import publish
from support.gpu.engine_calls import engine_version
from support.gpu.simulated_gpu import SimulatedCuda
from support.gpu.simulated_tensorrt import SimulatedTensorRt
from zeroflaw_engines import tensorrt_bindings
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.contract import FRAME_RESIZER, EngineName
from zeroflaw_engines.sessions import cuda as cuda_runtime
from zeroflaw_engines.sessions import tensorrt_session

ENGINES: tuple[EngineName, ...] = (
    "clip_encoder", "sam_encoder", "sam_decoder", "reference_matcher",
)  # fmt: skip


def simulate_gpu(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, engines: Iterable[EngineName] = ENGINES
) -> SimulatedTensorRt:
    """Put a GPU of sm89 in the place of this machine's, with engines that were built for it."""
    cuda = SimulatedCuda()
    trt = SimulatedTensorRt(cuda, {})
    for name in engines:
        publish_simulated(bundle, trt, name)
    monkeypatch.setattr(cuda_runtime, "load_cuda", lambda: cuda)
    monkeypatch.setattr(tensorrt_bindings, "load_bindings", lambda _: trt)
    monkeypatch.setattr(tensorrt_session, "load_bindings", lambda _: trt)
    return trt


def publish_simulated(bundle: Bundle, gpu: SimulatedTensorRt, name: EngineName) -> None:
    """Add one engine to the bundle's cache."""
    plan, contract = f"plan of {name}".encode() * 9, bundle.contract(name)
    publish(bundle, name, plan=plan, version=engine_version())
    gpu.graphs[plan] = (bundle.onnx_path(name), contract)
    if name == FRAME_RESIZER:
        gpu.axes |= {axis: (1, most) for axis, most in contract.limits.items()}
