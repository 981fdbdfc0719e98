"""Each check of a GPU acceptance, with something that it must refuse."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from zeroflaw.sessions import Sessions
from zeroflaw_benchmarks.verify.gpu_acceptance.checks import (
    captured_parity,
    latency,
    overlap,
    soak,
)
from zeroflaw_benchmarks.verify.gpu_acceptance.device_memory import DeviceMemory


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


def test_capture_must_change_nothing_and_must_happen() -> None:
    assert captured_parity(three(), INPUTS, graphs=True).outcome == "passed"
    spoilt = three(sam_encoder=Engine("sam_encoder", spoilt=True))
    check = captured_parity(spoilt, INPUTS, graphs=True)
    assert (check.outcome, check.detail) == ("failed", "outputs of sam_encoder differ")
    without = three(clip_encoder=Engine("clip_encoder", captures=False))
    check = captured_parity(without, INPUTS, graphs=True)
    assert (check.outcome, check.detail) == ("failed", "clip_encoder could not be captured")
    assert captured_parity(three(), INPUTS, graphs=False).outcome == "not applicable"


def test_the_frame_resizer_is_run_and_never_captured() -> None:
    resizer = Engine("frame_resizer", captures=False)
    sessions = replace(three(), frame_resizer=resizer)
    inputs = {**INPUTS, "frame_resizer": {"x": np.zeros(3, np.uint8)}}
    assert captured_parity(sessions, inputs, graphs=True).outcome == "passed"
    assert not resizer.captured
    answers = iter(range(3))
    resizer.execute = lambda inputs: {"y": inputs["x"] + np.uint8(next(answers))}
    check = captured_parity(sessions, inputs, graphs=True)
    assert (check.outcome, check.detail) == ("failed", "outputs of frame_resizer differ")


class Clock:
    """A clock that engines move: side by side they share the time, in turn they add it.

    `scatter` is added to every second measurement.
    """

    def __init__(self, *, together: float, scatter: float = 0.0) -> None:
        self.seconds = 0.0
        self.work = iter([1.0, 2.0, together] * 20)
        self.scatter = scatter
        self.calls = 0

    def __call__(self) -> float:
        self.calls += 1
        if self.calls % 2 == 0:
            odd = self.calls // 6 % 2
            self.seconds += next(self.work) + self.scatter * odd
        return self.seconds


@pytest.mark.parametrize(
    ("together", "scatter", "outcome"),
    [
        (2.0, 0.0, "passed"),
        (2.89, 0.0, "passed"),
        # less than a tenth of the shorter encoder, not at all, and within the noise
        (2.91, 0.0, "failed"),
        (3.0, 0.0, "failed"),
        (3.5, 0.0, "failed"),
        (2.8, 2.0, "failed"),
    ],
)
def test_encoders_must_overlap_by_more_than_noise(together, scatter, outcome: str) -> None:
    clock = Clock(together=together, scatter=scatter)
    check = overlap(three(), INPUTS, streams=True, runs=20, clock=clock)
    assert check.outcome == outcome, check
    assert check.figures["gained, ms"] == pytest.approx(1e3 * (3 - together + 0.5 * scatter))


def test_overlap_runs_the_encoders_at_once() -> None:
    """Each waits for the other: in turn they would wait for ever."""
    barrier = threading.Barrier(2)
    measured = SimpleNamespace(calls=0)

    class Waiting(Engine):
        def execute(self, inputs):
            if measured.calls >= 5:  # the third measurement, of both
                barrier.wait(timeout=20)
            return {}

    def clock() -> float:
        measured.calls += 1
        return float(measured.calls)

    sessions = three(clip_encoder=Waiting("clip_encoder"), sam_encoder=Waiting("sam_encoder"))
    overlap(sessions, INPUTS, streams=True, runs=1, clock=clock)
    assert not barrier.broken
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


SEVEN = DeviceMemory(lambda: 7, "this process")


def test_memory_that_grows_and_masks_that_change_fail_the_soak() -> None:
    def memory(step):
        values = iter(range(0, 10**9, step))
        return lambda: next(values)

    frames = [np.zeros(1), np.ones(1)]
    steady = lambda frame: inspected(MASK)  # noqa: E731
    check, timings = soak(steady, frames, runs=30, host_memory=lambda: 5, device_memory=SEVEN)
    assert check.outcome == "passed"
    assert len(timings) == 30
    assert "device (this process) memory does not grow" in check.detail
    assert check.figures["device (this process) memory, most, bytes"] == 7
    for host, device, text in (
        (memory(1_000_000), SEVEN, "host memory"),
        (lambda: 5, DeviceMemory(memory(1_000_000), "all processes"), "device (all processes)"),
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


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_equal_outputs_that_are_not_finite_fail_the_capture(value: float) -> None:
    inputs = {name: {"x": np.full(3, value, np.float32)} for name in INPUTS}
    check = captured_parity(three(), inputs, graphs=True)
    assert check.outcome == "failed"
    assert "are not finite" in check.detail
