"""What compilers say, in words that help. The messages are those of TensorRT and TensorRT-RTX."""

from __future__ import annotations

import pytest

from zeroflaw_engines.builder.diagnosis import (
    SIGNS,
    FailedOperation,
    build_failure,
    parse_failure,
)

NO_GPU = (
    "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at"
    " checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient))"
)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("[virtualMemoryBuffer.cpp] OutOfMemory (Requested size was 68 bytes.)", "enough memory"),
        ("Error Code 2: OutOfMemory (no further information)", "enough memory"),
        ("std::bad_alloc", "enough memory"),
        ("write failed: No space left on device", "the disk is full"),
        ("Could not find any implementation; insufficient workspace", "workspace limit"),
        ("No importer registered for op: Foo", "does not have the operator"),
        ("No CUDA-capable device is detected", "needs a GPU"),
        ("something new", "gives no reason that is known here"),
    ],
)
def test_reasons(message: str, reason: str) -> None:
    cause, remedy = build_failure("sam_encoder", [message], attention=[], layers=[])
    assert reason in cause
    assert message in cause
    assert remedy


def test_every_sign_has_a_reason_and_a_remedy() -> None:
    for sign in SIGNS:
        assert sign.pattern
        assert sign.reason
        assert sign.remedy


def test_the_layer_that_the_message_names_is_named_first() -> None:
    message = "Could not find any implementation for node {ForeignNode[a_1...matmul_12]}"
    cause, _ = build_failure(
        "sam_encoder", [message], attention=[], layers=["", "matmul_1", "matmul_12", "other"]
    )
    assert "the operation matmul_12 cannot be built" in cause


def test_a_missing_gpu_is_not_taken_for_the_reason() -> None:
    """TensorRT-RTX adds it to every error of its parser on a machine without a GPU."""
    failed = FailedOperation(
        "n", "Attention", f"x: Key and Value must have the same shape\n{NO_GPU}"
    )
    cause, remedy = parse_failure("g.onnx", [failed])
    assert "V as wide as K" in cause
    assert "cudaError" not in cause
    assert "export" in remedy


def test_the_first_named_operation_is_told_of_and_the_others_counted() -> None:
    failures = [
        FailedOperation("", "", "bad input"),
        FailedOperation("conv_7", "Conv", "unsupported node"),
    ]
    cause, _ = parse_failure("g.onnx", failures)
    assert "the operator Conv (node conv_7)" in cause
    assert "(1 more)" in cause
    assert "does not say why" in parse_failure("g.onnx", [])[0]
    assert "without a name" in parse_failure("g.onnx", [FailedOperation("", "Conv", "x")])[0]


def test_long_messages_are_cut() -> None:
    cause, _ = build_failure("sam_encoder", ["word " * 1000], attention=[], layers=[])
    assert len(cause) < 700
