"""Host code alone: everything outside engine calls, by part, with engines that cost nothing."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np

from zeroflaw_benchmarks.bench.machine.spread import spread
from zeroflaw_benchmarks.bench.measure.replayed_engines import replaying_inspector
from zeroflaw_benchmarks.bench.report.report import HostMask, HostPath, HostTime
from zeroflaw_engines.process.cores import usable_cores

_PARTS: Final = (
    "frame",
    "squash",
    "fit",
    "frame_information",
    "prompt_points",
    "cascade",
    "score",
    "regions",
    "total",
    "polygons",
)
_RUNS: Final = 30
_UNTIMED: Final = 3


def measure_host(
    frame: tuple[int, int], runs: int = _RUNS, *, path: HostPath = "cpu", mask: HostMask = "defect"
) -> HostTime:
    """Time host code for frames of one size, on all cores.

    Args:
        frame: Height and width, px.
        runs: Frames, after three that are not counted.
        path: As `replaying_inspector` takes it.
        mask: The same, as `shows`.
    """
    image = np.random.default_rng(0).integers(0, 256, (*frame, 3), dtype=np.uint8)
    times: dict[str, list[float]] = {part: [] for part in _PARTS}
    with (
        tempfile.TemporaryDirectory() as directory,
        replaying_inspector(frame, Path(directory), path=path, shows=mask) as inspector,
    ):
        for run in range(-_UNTIMED, runs):
            inspection = inspector.inspect(image)
            spent = dict(inspection.timings_ms)
            start = time.perf_counter()
            for region in inspection.regions:
                region.polygon  # noqa: B018 - traced when asked for
            spent["polygons"] = 1e3 * (time.perf_counter() - start)
            decoder = sum(value for name, value in spent.items() if name.startswith("sam_decoder"))
            spent["cascade"] -= decoder
            spent["total"] -= decoder + spent["clip_encoder"] + spent["sam_encoder"]
            if run >= 0:
                for part in _PARTS:
                    times[part].append(spent[part])
    return HostTime(
        frame_height=frame[0],
        frame_width=frame[1],
        runs=runs,
        cores=usable_cores(),
        parts_ms={part: spread(values) for part, values in times.items()},
        path=path,
        mask=mask,
    )
