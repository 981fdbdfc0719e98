"""Host code alone: everything outside engine calls, by part, with engines that cost nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from zeroflaw_benchmarks.bench.machine.spread import spread
from zeroflaw_benchmarks.bench.measure.replayed_engines import replaying_inspector
from zeroflaw_benchmarks.bench.report.report import HostTime
from zeroflaw_engines.process.cores import usable_cores

_PARTS: Final = ("frame", "squash", "fit", "prompt_points", "cascade", "score", "regions", "total")
_RUNS: Final = 30
_UNTIMED: Final = 3


def measure_host(frame: tuple[int, int], runs: int = _RUNS) -> HostTime:
    """Time host code for frames of one size that have one defect, on all cores.

    Args:
        frame: Height and width, px.
        runs: Frames, after three that are not counted.
    """
    image = np.random.default_rng(0).integers(0, 256, (*frame, 3), dtype=np.uint8)
    times: dict[str, list[float]] = {part: [] for part in _PARTS}
    with (
        tempfile.TemporaryDirectory() as directory,
        replaying_inspector(frame, Path(directory)) as inspector,
    ):
        for run in range(-_UNTIMED, runs):
            spent = dict(inspector.inspect(image).timings_ms)
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
    )
