"""Throughput by clones and by batches, on engines whose speed is known: they sleep."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from support.bench_reports import bench_report
from zeroflaw import Inspection, Inspector
from zeroflaw_benchmarks.bench.frames import BenchFrame
from zeroflaw_benchmarks.bench.machine.spread import Spread
from zeroflaw_benchmarks.bench.measure.throughput import (
    IN_FLIGHT,
    measure_batches,
    measure_clones,
)
from zeroflaw_benchmarks.bench.process import scale_run
from zeroflaw_benchmarks.bench.process.run_on import RunOn
from zeroflaw_benchmarks.bench.report.compare import figures_of
from zeroflaw_benchmarks.bench.report.goals import goals_of
from zeroflaw_benchmarks.bench.report.gpu import GpuUse
from zeroflaw_benchmarks.bench.report.tables import tables_of
from zeroflaw_benchmarks.bench.report.throughput import BatchThroughput, CloneThroughput
from zeroflaw_engines.backends import BackendChoice
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import BenchmarkError, EngineError

CALL = 0.02  # seconds
FRAME = BenchFrame("noise", Path("noise.jpg"), np.full((96, 96, 3), 128, np.uint8))


@pytest.fixture(scope="module")
def inspection(tiny_bundle: Bundle) -> Inspection:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    with Inspector.load(tiny_bundle.path) as inspector:
        return inspector.inspect(pixels, product="object")


class Sleeping:
    """An Inspector whose call sleeps, whatever number of frames is in it."""

    def __init__(self, inspection: Inspection, max_batch: int = 1) -> None:
        self._inspection, self.max_batch = inspection, max_batch
        self.frames: list[int] = []
        self.fails = False
        self.choice = BackendChoice("onnxruntime", "fp32", "it was named")
        self.clones: list[Sleeping] = []
        self.warm_ups = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def clone(self) -> Sleeping:
        clone = Sleeping(self._inspection)
        clone.frames, clone.fails, clone.choice = self.frames, self.fails, self.choice
        self.clones.append(clone)
        return clone

    def warm_up(self) -> None:
        self.warm_ups += 1

    def inspect(self, image, *, product: str) -> Inspection:
        return self._inspection

    def encode_frame(self, image, **_: object) -> str:
        time.sleep(CALL)
        self.frames.append(1)
        if self.fails and len(self.frames) > 5:
            raise EngineError("the engine is broken", "mend it")
        return "encoded"

    def decode_frame(self, encoded, *, trace: bool) -> Inspection:
        return self._inspection

    def inspect_batch(self, images, *, product: str) -> list[Inspection]:
        time.sleep(CALL)
        self.frames.append(len(images))
        times = {"clip_encoder": 8.0, "sam_encoder": 16.0}
        return [replace(self._inspection, timings_ms=times)] * len(images)


def test_clones_share_the_frames_of_one_source(inspection: Inspection) -> None:
    sleeping = Sleeping(inspection)
    found = measure_clones(sleeping, FRAME, "object", frames=16, rounds=2, on_gpu=False)
    assert [row.clones for row in found] == [1, 2, 4]
    assert len(sleeping.frames) == 3 * 2 * 16, "each frame once"
    for row, ratio in zip(found, (1, 2, 4), strict=True):
        assert row.frames == 16
        assert row.ratio.middle == pytest.approx(ratio, rel=0.3)
        assert row.per_second.middle == pytest.approx(ratio / CALL, rel=0.3)
        # A frame waits for those that were under way before it.
        assert 1e3 * CALL <= row.latency_p50_ms <= row.latency_p99_ms <= 2e3 * IN_FLIGHT * CALL
        assert row.gpu_memory_gb is None
    assert not any(one.warm_ups for one in (sleeping, *sleeping.clones)), "a CPU records nothing"


def test_clones_on_a_gpu_are_warmed_up_as_the_first_is(inspection: Inspection) -> None:
    """Otherwise the first alone would replay CUDA graphs, and be held against those without."""
    sleeping = Sleeping(inspection)
    sleeping.choice = BackendChoice("tensorrt", "fp16", "it was named")
    measure_clones(sleeping, FRAME, "object", frames=4, rounds=1, on_gpu=True)
    assert [clone.warm_ups for clone in sleeping.clones] == [1, 1, 1]
    assert sleeping.warm_ups == 0, "`measure_latency` did it"


def test_processes_of_a_scale_are_warmed_up_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Inspector] = []
    monkeypatch.setattr(scale_run, "warm_up_on_gpu", seen.append)
    times = scale_run.run_scale(
        scale_run.ScaleTask("mini", RunOn(threads=1), "object", (96, 128), seconds=0.0)
    )
    assert len(times.latencies_ms) == 3
    assert len(seen) == 1


def test_a_frame_that_fails_ends_the_measurement(inspection: Inspection) -> None:
    sleeping = Sleeping(inspection)
    sleeping.fails = True
    with pytest.raises(BenchmarkError, match="the engine is broken"):
        measure_clones(sleeping, FRAME, "object", frames=8, rounds=1, on_gpu=False)


def test_batches_as_far_as_the_bundle_takes_them(inspection: Inspection) -> None:
    sleeping = Sleeping(inspection, max_batch=5)
    found = measure_batches(sleeping, FRAME, "object", frames=6, rounds=2)
    assert [row.batch for row in found] == [1, 2, 4]
    assert sum(sleeping.frames) == (1 + 2 + 4) + 2 * 3 * 8, "as many frames for every batch"
    for row in found:
        assert row.frames == 8
        assert row.ratio.middle == pytest.approx(row.batch, rel=0.3)
        assert row.encoders_ms == {"clip_encoder": 8 / row.batch, "sam_encoder": 16 / row.batch}
    assert measure_batches(Sleeping(inspection), FRAME, "object", frames=6, rounds=1) == ()


def ratio(value: float) -> Spread:
    return Spread(value, value - 0.1, value + 0.1)


def clones(*ratios: float) -> tuple[CloneThroughput, ...]:
    return tuple(
        CloneThroughput(
            clones=count, frames=8, per_second=ratio(10 * value), ratio=ratio(value),
            latency_p50_ms=20.0, latency_p99_ms=30.0, gpu_memory_gb=2.5,
        )
        for count, value in zip((1, 2, 4), ratios, strict=True)
    )  # fmt: skip


def batches(*ratios: float) -> tuple[BatchThroughput, ...]:
    return tuple(
        BatchThroughput(
            batch=size, frames=8, per_second=ratio(10 * value), ratio=ratio(value),
            encoders_ms={"clip_encoder": 3.25, "sam_encoder": 4.0},
        )
        for size, value in zip((1, 2), ratios, strict=True)
    )  # fmt: skip


def test_goals_are_held_on_a_gpu_alone() -> None:
    gpus = (GpuUse(name="a GPU", uuid="GPU-0", samples=3),)
    sections = {"clones": clones(1.0, 0.9, 1.5), "batches": batches(1.0, 1.7)}
    on_cpu, on_gpu = bench_report([5.0], **sections), bench_report([5.0], gpus=gpus, **sections)
    assert not [goal for goal in goals_of(on_cpu) if "frames a second" in goal.goal]
    found = {goal.goal: goal.met for goal in goals_of(on_gpu) if "frames a second" in goal.goal}
    assert found == {
        "frames a second of 2 clones over one": False,
        "frames a second of batches of 2 over one": True,
    }
    titles = {table.title.split(",")[0]: table for table in tables_of(on_cpu)}
    table = titles["Clones on the same weights"]
    assert table.rows[1] == ("2", str(ratio(9.0)), str(ratio(0.9)), "20.00", "30.00", "2.50")
    assert "share the same cores" in table.note
    assert titles["Batches"].rows[1][-2:] == ("3.25", "4.00")
    names = {figure.name: figure for figure in figures_of(on_gpu)}
    assert names["throughput of 4 clones over one"].value == 1.5
    assert not names["throughput in batches of 2 over one"].smaller_is_better
