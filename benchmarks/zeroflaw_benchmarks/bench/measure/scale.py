"""How latency, throughput and memory grow, along one axis at a time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from zeroflaw_benchmarks.bench.machine.spread import spread
from zeroflaw_benchmarks.bench.process.child_process import run_child
from zeroflaw_benchmarks.bench.process.scale_run import HOST_STAGE, ScaleTask, ScaleTimes
from zeroflaw_benchmarks.bench.report.report import Axis, Growth, ScalePoint
from zeroflaw_engines.errors import BenchmarkError
from zeroflaw_engines.process.cores import usable_cores

AXES: Final[tuple[Axis, ...]] = (
    "frames_in_flight",
    "threads",
    "processes",
    "megapixels",
    "points",
    "products",
    "tiles",
)
MEGAPIXELS: Final = (0.25, 1.0, 4.0, 12.5, 25.0, 50.0)
TILE_SIDES: Final = (1, 2, 3, 4, 6)
_TILED_MEGAPIXELS: Final = 25.0
_ASPECT: Final = 4 / 3
# What the work of a stage grows with as the frame does: every pixel, or grids of a fixed size.
_EVERY_PIXEL: Final = ("frame", "squash", "fit", "mask", "regions")
_FIXED: Final = ("clip_encoder", "sam_encoder", "prompt_points", "score")
# What the host does for every tile; the frame stays the same.
_EVERY_TILE: Final = ("squash", "fit", "blend", HOST_STAGE)
# A stage of less than this is mostly call overhead, which does not grow.
_MEASURABLE_MS: Final = 1.0
# Above the exponent that is allowed; caches and page faults alone cost a little more than linear.
_TOLERANCE: Final = 0.25
_GATE_SECONDS: Final = 600.0


def measure_scale(
    task: ScaleTask,
    axes: Iterable[str],
    rounds: int,
    report: Callable[[str], None] = lambda _: None,
) -> tuple[ScalePoint, ...]:
    """Measure each setting of each axis, of those in `AXES`, in processes of its own.

    Raises:
        BenchmarkError: There is no such axis, or a process failed.
    """
    chosen = list(dict.fromkeys(axes))
    for axis in chosen:
        if axis not in AXES:
            raise BenchmarkError(f"there is no axis {axis!r}", f"choose from: {', '.join(AXES)}")
    points = []
    for axis in AXES:
        if axis in chosen:
            for value, run, processes in _settings(task, axis):
                report(f"scale: {axis} {value:g}")
                times = [_together(run, processes) for _ in range(rounds)]
                points.append(_point(axis, value, times))
    return tuple(points)


def growth_of(points: Iterable[ScalePoint]) -> tuple[Growth, ...]:
    """Fit how each stage grows along the axes whose work is known.

    A stage is a defect if the exponent over the upper half of the axis exceeds what its work
    grows with, though every stage whose time is mostly overhead is left out.
    """
    found: list[Growth] = []
    by_axis: dict[Axis, list[ScalePoint]] = {}
    for point in points:
        by_axis.setdefault(point.axis, []).append(point)
    for axis, along in by_axis.items():
        if axis not in {"megapixels", "points", "products", "tiles"} or len(along) < 3:
            continue
        tiled = axis == "tiles"
        upper = along[len(along) // 2 - 1 :]
        for stage in _EVERY_TILE if tiled else (*_EVERY_PIXEL, *_FIXED, "total"):
            times = [point.stages_ms.get(stage, 0.0) for point in upper]
            if min(times) < _MEASURABLE_MS:
                continue
            exponent = float(np.polyfit(np.log([p.value for p in upper]), np.log(times), 1)[0])
            linear = tiled or (axis == "megapixels" and stage in (*_EVERY_PIXEL, "total"))
            allowed = 1.0 if linear else 0.0
            found.append(
                Growth(
                    axis=axis,
                    stage=stage,
                    exponent=exponent,
                    allowed=allowed,
                    defect=exponent > allowed + _TOLERANCE,
                )
            )
    return tuple(found)


def _settings(task: ScaleTask, axis: Axis) -> Iterator[tuple[float, ScaleTask, int]]:
    """Value, task and number of processes of each setting."""
    cores = usable_cores()

    def on_threads(count: int) -> ScaleTask:
        return replace(task, run_on=replace(task.run_on, threads=count))

    powers = sorted({*(2**i for i in range(cores.bit_length())), cores})
    if axis == "frames_in_flight":
        for count in sorted({*powers, 2 * cores, 4 * cores}):
            yield count, replace(task, in_flight=count), 1
    elif axis == "threads":
        yield from ((count, on_threads(count), 1) for count in powers)
    elif axis == "processes":
        yield from ((count, on_threads(max(1, cores // count)), count) for count in powers)
    elif axis == "megapixels":
        yield from ((size, replace(task, frame=_frame_of(size)), 1) for size in MEGAPIXELS)
    elif axis == "tiles":
        large = replace(task, frame=_frame_of(_TILED_MEGAPIXELS))
        yield from ((side**2, replace(large, tiles_a_side=side), 1) for side in TILE_SIDES)
    else:
        for count in (1, 3, 5, 10) if axis == "points" else (10, 100, 1000):
            varied: dict[str, Any] = {axis: count}
            yield count, replace(task, **varied), 1


def _frame_of(megapixels: float) -> tuple[int, int]:
    width = round((megapixels * 1e6 * _ASPECT) ** 0.5)
    return round(width / _ASPECT), width


def _together(run: ScaleTask, processes: int) -> list[ScaleTimes]:
    """Runs several processes that begin together."""
    if processes == 1:
        return [run_child("process.scale_run", run, ScaleTimes)]
    with (
        tempfile.TemporaryDirectory(prefix="zeroflaw_gate_") as directory,
        ThreadPoolExecutor(processes) as pool,
    ):
        gate = Path(directory) / "gate"
        gated = replace(run, gate=str(gate))
        pending = [
            pool.submit(run_child, "process.scale_run", gated, ScaleTimes) for _ in range(processes)
        ]
        end = time.monotonic() + _GATE_SECONDS
        while len(list(Path(directory).iterdir())) < processes:
            if any(one.done() for one in pending) or time.monotonic() > end:
                break  # one of them failed: its result says why
            time.sleep(0.01)
        gate.touch()
        return [one.result() for one in pending]


def _point(axis: Axis, value: float, rounds: list[list[ScaleTimes]]) -> ScalePoint:
    runs = [run for together in rounds for run in together]
    latencies = [spent for run in runs for spent in run.latencies_ms]
    return ScalePoint(
        axis=axis,
        value=value,
        latency_ms=spread(latencies),
        per_second=max(sum(run.per_second for run in together) for together in rounds),
        stages_ms={stage: min(run.stages_ms[stage] for run in runs) for stage in runs[0].stages_ms},
        peak_rss_gb=max(sum(run.peak_rss for run in together) for together in rounds) / 1e9,
    )
