"""Many frames through one Inspector: whether memory grows, and how long the tail is."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from zeroflaw.inspector import Inspector
from zeroflaw_benchmarks.bench.frames import BenchFrame
from zeroflaw_benchmarks.bench.process.child_process import resident_bytes
from zeroflaw_benchmarks.bench.report.report import Endurance

_BLOCKS: Final = 10


def measure_endurance(
    inspector: Inspector, frame: BenchFrame, product: str, frames: int
) -> Endurance:
    """Inspect one frame many times, shifted a little each time, and watch resident memory.

    The Inspector is warm, and there are at least 20 frames.
    """
    totals, memory = [], []
    for number in range(frames):
        shifted = np.roll(frame.pixels, 16 * (number % 8), axis=1)
        totals.append(inspector.inspect(shifted, product=product).timings_ms["total"])
        memory.append(resident_bytes())
    slope, noise = growth_per_frame(np.array(memory, np.float64))
    p50, p99 = np.percentile(totals, [50, 99])
    return Endurance(
        frames=frames,
        rss_slope_kb=slope / 1e3,
        rss_slope_noise_kb=noise / 1e3,
        p99_over_p50=float(p99 / p50),
        totals_ms=tuple(totals),
        rss_mb=tuple(value / 1e6 for value in memory),
    )


def growth_per_frame(memory: NDArray[np.float64]) -> tuple[float, float]:
    """Fit the slope of resident memory over the second half, and how much it varies by itself.

    Successive values depend on each other, so the noise comes from the means of ten blocks, as
    if each block were one measurement.

    Args:
        memory: Bytes after each frame, at least 20.

    Returns:
        Bytes a frame, and half the width of its 95 % interval.
    """
    blocks = np.array_split(memory[len(memory) // 2 :], _BLOCKS)
    middles = np.cumsum([len(block) for block in blocks]) - [len(block) / 2 for block in blocks]
    means = [block.mean() for block in blocks]
    if np.ptp(means) == 0:  # of which SciPy's error is NaN
        return 0.0, 0.0
    fit = stats.linregress(middles, means)
    return float(fit.slope), float(fit.stderr * stats.t.ppf(0.975, _BLOCKS - 2))
