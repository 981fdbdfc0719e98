"""The acceptance of built engines on a simulated GPU, with the frame_resizer that was built."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from support.gpu.simulated_engines import ENGINES, simulate_gpu
from support.gpu.simulated_tensorrt import SimulatedTensorRt
from support.gpu.wrong_resizer import WrongResizer
from zeroflaw.pictures.images import read_image
from zeroflaw.sessions import Sessions
from zeroflaw_benchmarks.verify.gpu_acceptance import acceptance
from zeroflaw_benchmarks.verify.gpu_acceptance.acceptance import accept
from zeroflaw_benchmarks.verify.gpu_acceptance.options import AcceptanceOptions
from zeroflaw_benchmarks.verify.gpu_acceptance.report import AcceptanceReport, Check
from zeroflaw_benchmarks.verify.gpu_acceptance.resizer_parity import RESIZER_PARITY
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.shipped import bundle_path
from zeroflaw_engines.contract import FRAME_RESIZER
from zeroflaw_engines.sessions.cuda import Cuda

FRAME = next((Path(__file__).parents[5] / "examples" / "frames").glob("*dent.jpg"))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    shutil.copytree(bundle_path("mini"), tmp_path / "bundle")
    return open_bundle(tmp_path / "bundle", verify_digests=False)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No fresh processes, which would not be simulated, and no times of a simulated GPU."""
    for name in ("cold_start", "overlap"):
        passed = Check(name=name, outcome="passed", detail="")
        monkeypatch.setattr(acceptance, name, lambda *_, passed=passed, **__: passed)


def simulated(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> SimulatedTensorRt:
    return simulate_gpu(bundle, monkeypatch, (*ENGINES, FRAME_RESIZER))


def accepted(bundle: Bundle) -> tuple[AcceptanceReport, dict[str, Check]]:
    built = Check(name="build", outcome="passed", detail="")
    options = AcceptanceOptions(
        bundle=bundle, backend="tensorrt-rtx", precision=None, product="object",
        frames=(read_image(FRAME),), soak_runs=12,
    )  # fmt: skip
    report = accept(options, build=lambda *_: built, open_cuda=partial(Cuda, 0))
    return report, {check.name: check for check in report.checks}


@pytest.mark.long
def test_all_that_was_built_is_verified_and_the_frame_resizer_too(bundle, monkeypatch) -> None:
    gpu = simulated(bundle, monkeypatch)
    report, checks = accepted(bundle)
    assert report.gpu_verified, report.verdict
    assert {check.outcome for check in report.checks} == {"passed"}
    assert RESIZER_PARITY in report.verdict
    assert checks[RESIZER_PARITY].figures["pictures put on the device"] == 3
    # One graph for each engine but frame_resizer, whose frames are of no size that is captured.
    assert gpu.cuda.calls["cudaGraphInstantiate"] >= len(ENGINES)


@pytest.mark.long
def test_a_frame_resizer_that_is_wrong_is_not_verified(bundle, monkeypatch) -> None:
    """The Inspector leaves every frame to the host then: masks and soak are none of its own."""
    simulated(bundle, monkeypatch)
    real = acceptance.load_sessions

    def load(*args, **kwargs) -> Sessions:
        sessions = real(*args, **kwargs)
        wrong = WrongResizer(sessions.frame_resizer, bundle.manifest.sizes.sam_image_size)
        return replace(sessions, frame_resizer=wrong)

    monkeypatch.setattr(acceptance, "load_sessions", load)
    report, checks = accepted(bundle)
    assert report.verdict == f"NOT verified: {RESIZER_PARITY} failed"
    assert checks["parity of masks"].outcome == checks["soak"].outcome == "passed"
    assert "1 values of picture 1 for SAM differ" in checks[RESIZER_PARITY].detail
    assert "the host resized from then on" in checks[RESIZER_PARITY].detail
