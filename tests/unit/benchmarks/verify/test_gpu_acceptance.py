"""GPU acceptance: for real on ONNX Runtime, and each check with something that it must refuse."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from zeroflaw.sessions import Sessions, load_sessions
from zeroflaw_benchmarks.verify import gpu_acceptance
from zeroflaw_benchmarks.verify.gpu_acceptance import AcceptanceOptions, engine_inputs
from zeroflaw_benchmarks.verify.gpu_acceptance_checks import (
    captured_parity,
    latency,
    mask_parity,
    overlap,
    soak,
)
from zeroflaw_benchmarks.verify.gpu_acceptance_report import Check, verdict_of
from zeroflaw_engines.backends import choose_backend
from zeroflaw_engines.bundle.bundle import open_bundle

FRAME = next((Path(__file__).parents[4] / "examples" / "frames").glob("*.jpg"))
PASSED = Check(name="a", outcome="passed", detail="")
LEFT_OUT = Check(name="b", outcome="not applicable", detail="")
FAILED = Check(name="c", outcome="failed", detail="")


def test_the_whole_script_on_onnx_runtime(tmp_path: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(gpu_acceptance.main)
    words = ["mini", "--backend", "onnxruntime", "--images", FRAME, "--soak-runs", 24]
    words += ["--out", tmp_path / "report.json"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, (result.output, result.exception)
    report = json.loads((tmp_path / "report.json").read_text())
    outcomes = {check["name"]: check["outcome"] for check in report["checks"]}
    assert outcomes == {
        "build": "not applicable",
        "CUDA graphs": "not applicable",
        "encoders overlap": "not applicable",
        "parity of masks": "passed",
        "soak": "passed",
        "latency": "passed",
    }
    assert not report["gpu_verified"]
    assert report["verdict"].startswith("no GPU was verified: the engines ran on onnxruntime")
    figures = {check["name"]: check["figures"] for check in report["checks"]}
    assert figures["parity of masks"]["mask IoU, least"] == 1
    assert figures["latency"]["sam_encoder p99, ms"] > 0
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


class Engine:
    """An engine whose output changes once it is captured, if it is told to."""

    def __init__(self, name: str, *, captures: bool = True, spoilt: bool = False) -> None:
        self.contract = SimpleNamespace(name=name)
        self.captured = False
        self._captures, self._spoilt = captures, spoilt

    def prepare(self) -> None:
        pass

    def capture(self) -> None:
        self.captured = self._captures

    def execute(self, inputs):
        return {"y": inputs["x"] + np.float32(self.captured and self._spoilt)}


def three(**changes) -> Sessions:
    names = ("clip_encoder", "sam_encoder", "sam_decoder")
    return Sessions(**{name: changes.get(name, Engine(name)) for name in names})


INPUTS = {name: {"x": np.zeros(3, np.float32)} for name in vars(three())}


def test_every_engine_that_is_loaded_has_inputs_to_be_captured_with() -> None:
    bundle = open_bundle("mini")
    options = AcceptanceOptions(
        bundle=bundle, backend="onnxruntime", precision=None, product="object", frames=(),
        soak_runs=12,
    )  # fmt: skip
    inputs = engine_inputs(options)
    sessions = load_sessions(bundle, choose_backend("onnxruntime"))
    assert {session.contract.name for session in sessions} == inputs.keys()
    for session in sessions:
        for value in session.execute(inputs[session.contract.name]).values():
            assert np.isfinite(value).all()
    sessions.close()


def test_capture_must_change_nothing_and_must_happen() -> None:
    assert captured_parity(three(), INPUTS, graphs=True).outcome == "passed"
    spoilt = three(sam_encoder=Engine("sam_encoder", spoilt=True))
    check = captured_parity(spoilt, INPUTS, graphs=True)
    assert (check.outcome, check.detail) == ("failed", "outputs of sam_encoder differ")
    without = three(clip_encoder=Engine("clip_encoder", captures=False))
    check = captured_parity(without, INPUTS, graphs=True)
    assert (check.outcome, check.detail) == ("failed", "clip_encoder could not be captured")
    assert captured_parity(three(), INPUTS, graphs=False).outcome == "not applicable"


@pytest.mark.parametrize(("one_at_a_time", "outcome"), [(False, "passed"), (True, "failed")])
def test_encoders_must_overlap(one_at_a_time: bool, outcome: str) -> None:
    """A clock that counts the time of the engine: side by side they share it, in turn they add."""
    now = SimpleNamespace(seconds=0.0)
    barrier, lock = threading.Barrier(2), threading.Lock()
    main = threading.current_thread()
    alone = {"clip": 1.0, "sam": 2.0}
    together = threading.Event()

    class Timed:
        def __init__(self, name: str) -> None:
            self.contract = SimpleNamespace(name=name)
            self.key = name.partition("_")[0]

        def execute(self, inputs):
            if together.is_set():
                barrier.wait(timeout=20)
                with lock:
                    if self.key == "sam" or one_at_a_time:
                        now.seconds += alone[self.key]
                barrier.wait(timeout=20)
            else:
                now.seconds += alone[self.key]
            return {}

    calls = SimpleNamespace(count=0)

    def clock() -> float:
        calls.count += 1
        # The third measurement is that of both at once.
        if calls.count == 2 * 2 * 1 + 1:
            together.set()
        assert threading.current_thread() is main
        return now.seconds

    sessions = three(clip_encoder=Timed("clip_encoder"), sam_encoder=Timed("sam_encoder"))
    check = overlap(sessions, INPUTS, streams=True, runs=1, clock=clock)
    assert check.outcome == outcome
    assert overlap(sessions, INPUTS, streams=False, runs=1).outcome == "not applicable"


def inspected(mask, total=1.0, decision="accept", anomaly_map=None, image_score=0.25):
    values = np.full((4, 4), 0.5, np.float32) if anomaly_map is None else anomaly_map
    return SimpleNamespace(
        mask=mask,
        anomaly_map=values,
        decision=decision,
        image_score=image_score,
        timings_ms={"total": total},
    )


MASK = np.zeros((8, 8), bool)
MASK[2:5, 2:6] = True
OTHER = np.roll(MASK, 1, axis=0)


@pytest.mark.parametrize(
    ("got", "outcome"),
    [
        (inspected(MASK), "passed"),
        (inspected(OTHER), "failed"),
        (inspected(MASK, decision="reject"), "failed"),
        (inspected(MASK, anomaly_map=np.eye(4, dtype=np.float32)), "failed"),
        (inspected(MASK, anomaly_map=np.full((4, 4), np.nan, np.float32)), "failed"),
        (inspected(MASK, anomaly_map=np.full((4, 4), np.inf, np.float32)), "failed"),
        (inspected(MASK, anomaly_map=np.full((1, 4), 0.5, np.float32)), "failed"),
        (inspected(MASK, anomaly_map=np.zeros((4, 4), np.float32)), "failed"),
        (inspected(MASK, image_score=np.nan), "failed"),
        (inspected(MASK[:1]), "failed"),
    ],
    ids=[
        "same", "mask", "decision", "map", "NaN map", "infinite map", "small map", "zero map",
        "NaN score", "small mask",
    ],
)  # fmt: skip
def test_masks_maps_and_decisions_must_agree(got, outcome: str) -> None:
    def inspector(result):
        return SimpleNamespace(inspect=lambda frame, product: result)

    check = mask_parity(inspector(inspected(MASK)), inspector(got), [FRAME], "object")
    assert check.outcome == outcome


def test_memory_that_grows_and_masks_that_change_fail_the_soak() -> None:
    def memory(step):
        values = iter(range(0, 10**9, step))
        return lambda: next(values)

    frames = [np.zeros(1), np.ones(1)]
    steady = lambda frame: inspected(MASK)  # noqa: E731
    check, timings = soak(steady, frames, runs=30, host_memory=lambda: 5, device_memory=lambda: 7)
    assert check.outcome == "passed"
    assert len(timings) == 30
    for host, device, text in (
        (memory(1_000_000), lambda: 7, "host memory"),
        (lambda: 5, memory(1_000_000), "device memory"),
    ):
        check, _ = soak(steady, frames, runs=30, host_memory=host, device_memory=device)
        assert check.outcome == "failed"
        assert text in check.detail
    answers = iter([MASK, MASK, MASK, OTHER])
    check, _ = soak(
        lambda frame: inspected(next(answers)),
        frames,
        runs=4,
        host_memory=lambda: 5,
        device_memory=None,
    )
    assert check.detail == "1 masks are not those of the first run"


def test_latency_percentiles() -> None:
    check = latency([{"total": float(ms), "sam_encoder": 2.0} for ms in range(1, 101)])
    assert check.figures["total p50, ms"] == pytest.approx(50.5)
    assert check.figures["total max, ms"] == 100
    assert check.figures["sam_encoder p99, ms"] == 2
    assert latency([]).outcome == "failed"


def test_frames_without_a_mask_prove_nothing() -> None:
    empty = SimpleNamespace(inspect=lambda frame, product: inspected(MASK & False))
    check = mask_parity(empty, empty, [FRAME, FRAME], "object")
    assert (check.outcome, "none of 2 frames has a mask" in check.detail) == ("failed", True)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_equal_outputs_that_are_not_finite_fail_the_capture(value: float) -> None:
    inputs = {name: {"x": np.full(3, value, np.float32)} for name in INPUTS}
    check = captured_parity(three(), inputs, graphs=True)
    assert check.outcome == "failed"
    assert "are not finite" in check.detail
