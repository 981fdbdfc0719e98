"""TensorRT-RTX's probe with the real compiler; what the engine computes only a GPU can tell."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorrt_rtx

from zeroflaw_benchmarks.verify.gpu_kit import rtx_probe, runner, steps

WEIGHTS = np.random.default_rng(0).random((64, 64)).astype(np.float16)


def test_the_network_is_the_softmax_of_a_product() -> None:
    network = rtx_probe.model(WEIGHTS)
    onnx.checker.check_model(onnx.load(io.BytesIO(network)), full_check=True)
    x = np.random.default_rng(1).random((1, 128, 64)).astype(np.float16)
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    [found] = session.run(None, {"x": x})
    product = x.astype(np.float64) @ WEIGHTS.astype(np.float64)
    powers = np.exp(product - product.max(-1, keepdims=True))
    np.testing.assert_allclose(found, powers / powers.sum(-1, keepdims=True), atol=1e-2)


@pytest.mark.parametrize("target", ["unset", "SM80"])
def test_the_compiler_builds_for_targets_that_need_no_gpu(target: str) -> None:
    log = tensorrt_rtx.Logger(tensorrt_rtx.Logger.ERROR)
    plan = rtx_probe.build(tensorrt_rtx, log, target, rtx_probe.model(WEIGHTS))
    assert plan is not None
    assert len(plan) > WEIGHTS.nbytes
    assert b"vtrt" in plan[:16]


def test_every_target_is_one_of_the_compilers() -> None:
    known = tensorrt_rtx.ComputeCapability.__members__
    assert [name for name in rtx_probe.TARGETS if name not in known] == ["unset"]


def test_what_is_no_network_is_not_built() -> None:
    log = tensorrt_rtx.Logger(tensorrt_rtx.Logger.INTERNAL_ERROR)
    assert rtx_probe.build(tensorrt_rtx, log, "unset", b"no network") is None


def test_the_exit_code_of_a_refusal_is_that_which_the_runner_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rtx_probe, "build", lambda *_: None)
    code = rtx_probe.main()
    assert code == steps.EXIT_REFUSED == runner.EXIT_REFUSED
    # An exception and wrong words have others: they must not look like a refusal.
    for command in (["-c", "raise ValueError"], ["-m", "json.tool", "--no-such-option"]):
        done = subprocess.run([sys.executable, *command], capture_output=True, check=False)
        assert done.returncode not in {0, code}
