"""Host code alone, with engines that cost nothing."""

from __future__ import annotations

from typing import Final

from zeroflaw_benchmarks.bench.machine.spread import spread
from zeroflaw_benchmarks.bench.measure.host_time import host_times
from zeroflaw_benchmarks.bench.report.report import HostTime
from zeroflaw_engines.process.cores import usable_cores

_RUNS: Final = 30


def measure_host(frame: tuple[int, int], runs: int = _RUNS) -> HostTime:
    """Host time by part for frames of one size, on all cores.

    Args:
        frame: Height and width, px.
        runs: Frames, after three that are not counted.
    """
    return HostTime(
        frame_height=frame[0],
        frame_width=frame[1],
        runs=runs,
        cores=usable_cores(),
        parts_ms={part: spread(times) for part, times in host_times(frame, runs).items()},
    )
