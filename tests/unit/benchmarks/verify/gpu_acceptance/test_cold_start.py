"""Cold starts: what a process says that fails, and one that hangs."""

from __future__ import annotations

from zeroflaw_benchmarks.verify.gpu_acceptance.cold_start import StartTimes, cold_start
from zeroflaw_benchmarks.verify.gpu_acceptance.frames import drawn_frames
from zeroflaw_benchmarks.verify.gpu_acceptance.options import AcceptanceOptions
from zeroflaw_engines.bundle.bundle import open_bundle


def options(backend: str) -> AcceptanceOptions:
    return AcceptanceOptions(
        bundle=open_bundle("mini"), backend=backend, precision=None, product="object",
        frames=drawn_frames()[:1], soak_runs=12,
    )  # fmt: skip


def test_a_process_that_fails_says_why() -> None:
    check = cold_start(options("nothing"))
    assert check.outcome == "failed"
    assert check.detail.startswith("first start: the process ended with code 1: ")
    assert "no backend 'nothing'" in check.detail


def test_a_process_that_hangs_has_failed() -> None:
    check = cold_start(options("onnxruntime"), timeout_s=0.01)
    assert check.outcome == "failed"
    assert "timed out" in check.detail


def test_what_the_first_inspection_compiles() -> None:
    times = StartTimes(imports=1.0, load=2.0, first=5.0, second=0.5)
    assert (times.compiling, times.to_first_result) == (4.5, 8.0)
    assert StartTimes(imports=0, load=0, first=1.0, second=1.5).compiling == 0
