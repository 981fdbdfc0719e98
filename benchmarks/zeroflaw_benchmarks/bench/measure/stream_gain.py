"""What the pipelined mode of a stream gains over one frame after the other."""

from __future__ import annotations

import time
from statistics import median

from zeroflaw.inspector import Inspector
from zeroflaw.stream.stream import InspectionStream
from zeroflaw_benchmarks.bench.frames import BenchFrame
from zeroflaw_benchmarks.bench.machine.spread import spread, times_faster
from zeroflaw_benchmarks.bench.report.report import StreamGain
from zeroflaw_engines.errors import BenchmarkError


def measure_stream(
    inspector: Inspector, frame: BenchFrame, product: str, *, frames: int, rounds: int
) -> StreamGain:
    """Let frames flow through a stream in both modes, interleaved."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    waits: list[float] = []
    for _ in range(rounds):
        for pipelined in (True, False):
            taken, queue = _flow(inspector, frame, product, frames, pipelined=pipelined)
            seconds[pipelined].append(taken)
            waits += [queue] if pipelined else []
    return StreamGain(
        frames=frames,
        rounds=rounds,
        per_second=spread([frames / taken for taken in seconds[True]]),
        per_second_alone=spread([frames / taken for taken in seconds[False]]),
        gain=times_faster(seconds[False], seconds[True]),
        queue_ms=spread(waits),
    )


def _flow(
    inspector: Inspector, frame: BenchFrame, product: str, frames: int, *, pipelined: bool
) -> tuple[float, float]:
    """Seconds until all results are out, and the median wait in the queue, ms."""
    with InspectionStream(inspector, capacity=frames, pipelined=pipelined) as stream:
        start = time.perf_counter()
        for _ in range(frames):
            stream.submit(frame.pixels, product=product)
        results = list(stream.drain())
        seconds = time.perf_counter() - start
    for result in results:
        if result.inspection is None:
            raise BenchmarkError(
                f"frame {result.ticket} failed: {result.error}", "run `zeroflaw inspect`"
            )
    return seconds, median(result.queue_ms for result in results)
