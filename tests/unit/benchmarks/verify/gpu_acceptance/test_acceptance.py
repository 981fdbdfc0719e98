"""GPU acceptance as a whole: for real on ONNX Runtime, and with what breaks on the way."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from support.exported_bundle import add_proposer
from support.small_graphs import write_proposal_graph
from zeroflaw.sessions import load_sessions
from zeroflaw_benchmarks.verify.gpu_acceptance import acceptance
from zeroflaw_benchmarks.verify.gpu_acceptance.__main__ import main
from zeroflaw_benchmarks.verify.gpu_acceptance.acceptance import accept, engine_inputs
from zeroflaw_benchmarks.verify.gpu_acceptance.building import build_command
from zeroflaw_benchmarks.verify.gpu_acceptance.frames import acceptance_frames, drawn_frames
from zeroflaw_benchmarks.verify.gpu_acceptance.options import AcceptanceOptions
from zeroflaw_benchmarks.verify.gpu_acceptance.report import Check, verdict_of
from zeroflaw_benchmarks.verify.gpu_acceptance.resizer_parity import RESIZER_PARITY
from zeroflaw_engines.backends import choose_backend, load_session
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.contract import FRAME_RESIZER
from zeroflaw_engines.errors import BackendUnavailableError
from zeroflaw_engines.sessions.cuda import CudaGpu

FRAME = next((Path(__file__).parents[5] / "examples" / "frames").glob("*dent.jpg"))
PASSED = Check(name="a", outcome="passed", detail="")
LEFT_OUT = Check(name="b", outcome="not applicable", detail="")
FAILED = Check(name="c", outcome="failed", detail="")
AFTER_LOAD = (
    "CUDA graphs", "encoders overlap", "parity of engines", "parity of masks", "soak",
    RESIZER_PARITY, "latency",
)  # fmt: skip


def options_of(**changes) -> AcceptanceOptions:
    options = AcceptanceOptions(
        bundle=open_bundle("mini"), backend="onnxruntime", precision=None, product="object",
        frames=(drawn_frames()[0],), soak_runs=12,
    )  # fmt: skip
    return replace(options, **changes)


def outcomes(report) -> dict[str, str]:
    return {check.name: check.outcome for check in report.checks}


@pytest.mark.long
def test_the_whole_script_on_onnx_runtime(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(main)
    words = ["mini", "--backend", "onnxruntime", "--images", FRAME, "--soak-runs", 24]
    words += ["--out", tmp_path / "report.json"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, (result.output, result.exception)
    report = json.loads((tmp_path / "report.json").read_text())
    assert {check["name"]: check["outcome"] for check in report["checks"]} == {
        "build": "not applicable",
        "cold start": "passed",
        "load": "passed",
        "CUDA graphs": "not applicable",
        "encoders overlap": "not applicable",
        "parity of engines": "passed",
        "parity of masks": "passed",
        "soak": "passed",
        "parity of frame_resizer": "not applicable",
        "latency": "passed",
    }
    assert not report["gpu_verified"]
    assert report["verdict"].startswith("no GPU was verified: the engines ran on onnxruntime")
    figures = {check["name"]: check["figures"] for check in report["checks"]}
    assert figures["parity of masks"]["mask IoU, least"] == 1
    assert figures["latency"]["sam_encoder p99, ms"] > 0
    start = figures["cold start"]
    assert start["first start, to the first result, s"] == pytest.approx(
        sum(start[f"first start, {part}, s"] for part in ("imports", "load", "first inspection"))
    )
    page = (tmp_path / "report.md").read_text()
    assert "no GPU was verified" in page
    assert "| soak | passed |" in page


@pytest.mark.parametrize(
    ("checks", "gpu", "text", "accepted", "verified"),
    [
        ((PASSED,), "L4", "verified on L4, rtx 1: a", True, True),
        ((PASSED, LEFT_OUT), "L4", "verified on L4, rtx 1: a (not applicable: b)", True, True),
        ((LEFT_OUT,), "L4", "NOT verified on L4: nothing", True, False),
        ((PASSED, LEFT_OUT), None, "no GPU was verified", True, False),
        ((PASSED, FAILED), "L4", "NOT verified: c failed", False, False),
        ((PASSED,), None, "no GPU was verified", True, False),
    ],
)
def test_the_verdict(checks, gpu, text, accepted, verified) -> None:
    got = verdict_of(checks, gpu, "rtx 1")
    assert got[0].startswith(text)
    assert got[1:] == (accepted, verified)


@pytest.mark.parametrize("proposer", [False, True])
def test_every_engine_that_is_loaded_has_inputs_to_be_captured_with(proposer, tmp_path) -> None:
    bundle = open_bundle("mini")
    if proposer:
        shutil.copytree(bundle.path, tmp_path / "boxes")
        add_proposer(tmp_path / "boxes", write_proposal_graph(tmp_path / "boxes.onnx"))
        bundle = open_bundle(tmp_path / "boxes")
    options = AcceptanceOptions(
        bundle=bundle, backend="onnxruntime", precision=None, product="object", frames=(),
        soak_runs=12,
    )  # fmt: skip
    inputs = engine_inputs(options)
    sessions = replace(
        load_sessions(bundle, choose_backend("onnxruntime")),
        frame_resizer=load_session(bundle, FRAME_RESIZER),
    )
    assert {session.contract.name for session in sessions} == inputs.keys()
    for session in sessions:
        for value in session.execute(inputs[session.contract.name]).values():
            assert np.isfinite(value).all()
    sessions.close()


@pytest.mark.parametrize(
    ("backend", "precision", "gpu"),
    [("tensorrt", "fp16", False), ("tensorrt-rtx", "fp32", True)],
)
def test_each_backend_is_built_by_options_that_it_takes(backend, precision, gpu) -> None:
    """`zeroflaw build --backend tensorrt --gpu` is refused: its engines are for this GPU."""
    command = build_command(options_of(backend=backend, precision=precision), "sm90")
    assert ("--gpu sm90" in " ".join(command)) == gpu
    assert command[command.index("--backend") + 1] == backend
    assert command[command.index("--precision") + 1] == precision


GPU = CudaGpu(name="Simulated", architecture="sm90", cuda="13.0")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cold starts that take no time; the whole script has real ones."""
    quick = Check(name="cold start", outcome="passed", detail="")
    monkeypatch.setattr(acceptance, "cold_start", lambda _options: quick)


def some_gpu() -> SimpleNamespace:
    return SimpleNamespace(gpu=lambda: GPU, used_memory=lambda: 5)


@pytest.mark.usefixtures("started")
def test_a_gpu_is_verified_without_built_engines() -> None:
    """What a backend such as onnxruntime-cuda does not have does not stand in its way."""
    report = accept(options_of(), open_cuda=some_gpu)
    assert report.gpu_verified
    assert report.verdict.startswith("verified on Simulated (sm90), CUDA driver 13.0, onnxruntime")
    assert "parity of engines, parity of masks, soak, latency" in report.verdict
    (soak,) = (check for check in report.checks if check.name == "soak")
    assert soak.figures["device (all processes) memory, most, bytes"] == 5


def test_after_a_failed_build_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptance, "load_sessions", lambda *_, **__: pytest.fail("loaded"))
    failed = Check(name="build", outcome="failed", detail="sm90 is none of its targets")
    report = accept(options_of(), build=lambda _options, _gpu: failed, open_cuda=some_gpu)
    assert report.verdict == "NOT verified: build failed"
    assert (report.accepted, report.gpu_verified) == (False, False)
    assert outcomes(report) == {
        "GPU": "passed", "build": "failed", "cold start": "not applicable",
        "load": "not applicable", **dict.fromkeys(AFTER_LOAD, "not applicable"),
    }  # fmt: skip
    assert {check.detail for check in report.checks[2:]} == {"the build failed"}


def test_a_machine_without_a_gpu_gives_a_report() -> None:
    def no_gpu():
        raise BackendUnavailableError("this machine has no NVIDIA GPU", "install the driver")

    report = accept(options_of(), open_cuda=no_gpu)
    assert report.verdict == "NOT verified: GPU failed"
    assert "this machine has no NVIDIA GPU" in report.checks[0].detail


@pytest.mark.parametrize("name", ["engine_parity", "soak", "cold_start"])
@pytest.mark.usefixtures("started")
def test_a_check_that_raises_has_failed_and_the_others_are_run(name, monkeypatch) -> None:
    def raises(*_args, **_kwargs):
        raise RuntimeError("CUDA error 700")

    monkeypatch.setattr(acceptance, name, raises)
    report = accept(options_of(), open_cuda=some_gpu)
    failed = [check for check in report.checks if check.outcome == "failed"]
    assert "RuntimeError: CUDA error 700" in failed[0].detail
    assert len(failed) == (2 if name == "soak" else 1), "latency rests on the soak"
    assert [check.name for check in report.checks][-len(AFTER_LOAD) :] == list(AFTER_LOAD)
    assert not report.accepted


@pytest.mark.usefixtures("started")
def test_engines_that_cannot_be_loaded_or_closed_give_a_report(monkeypatch) -> None:
    real = acceptance.load_sessions

    def closing_raises(*args, **kwargs):
        sessions = real(*args, **kwargs)
        sessions.close()
        monkeypatch.setattr(type(sessions), "close", raises)
        return real(*args, **kwargs)

    def raises(*_args, **_kwargs):
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr(acceptance, "load_sessions", raises)
    report = accept(options_of())
    assert outcomes(report)["load"] == "failed"
    assert all(outcomes(report)[name] == "not applicable" for name in AFTER_LOAD)
    monkeypatch.setattr(acceptance, "load_sessions", closing_raises)
    report = accept(options_of())
    assert report.verdict == "NOT verified: close failed"


@pytest.mark.usefixtures("started")
def test_what_is_killed_leaves_the_checks_so_far_behind() -> None:
    saved = []
    report = accept(options_of(), save=saved.append)
    assert [one.checks[-1].name for one in saved] == [
        "cold start", "load", *AFTER_LOAD
    ]  # fmt: skip
    for one in saved:
        assert re.match(r"NOT verified: [\w ]+ failed$", one.verdict)
        assert one.checks[-1].detail == "was begun and not finished"
    assert report.accepted


def test_frames_are_there_outside_a_checkout(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    frames, source = acceptance_frames(())
    assert source == "5 drawn frames"
    assert all(frame.shape == (512, 512, 3) and frame.dtype == np.uint8 for frame in frames)
    (tmp_path / "examples" / "frames").mkdir(parents=True)
    (tmp_path / "examples" / "frames" / "one.jpg").write_bytes(FRAME.read_bytes())
    frames, source = acceptance_frames(())
    assert (len(frames), source) == (1, "examples/frames")
    frames, source = acceptance_frames([FRAME])
    assert (len(frames), source) == (1, str(FRAME))
