"""Frames a second: with clones of the Inspector, and in batches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import Empty, SimpleQueue
from statistics import median
from typing import Final

import numpy as np

from zeroflaw.inspector import Inspector
from zeroflaw.stream.stream import InspectionStream
from zeroflaw_benchmarks.bench.frames import BenchFrame
from zeroflaw_benchmarks.bench.machine import gpu_state
from zeroflaw_benchmarks.bench.machine.spread import spread, times_faster
from zeroflaw_benchmarks.bench.process.run_on import warm_up_on_gpu
from zeroflaw_benchmarks.bench.report.throughput import BatchThroughput, CloneThroughput
from zeroflaw_engines.contract import CLIP_ENCODER, SAM_ENCODER
from zeroflaw_engines.errors import BenchmarkError

CLONES: Final = (1, 2, 4)
BATCHES: Final = (1, 2, 4, 8)
# In each stream: one frame is decoded, one encoded, and one waits.
IN_FLIGHT: Final = 3


def measure_clones(
    inspector: Inspector,
    frame: BenchFrame,
    product: str,
    *,
    frames: int,
    rounds: int,
    on_gpu: bool,
) -> tuple[CloneThroughput, ...]:
    """Let one source feed clones of an Inspector, 1, 2 and 4 of them, interleaved.

    Args:
        inspector: Warmed up, where it runs on a GPU: its clones are, too.
        frames: Of each round, all clones together.
        on_gpu: Whether device memory is to be read.

    Raises:
        BenchmarkError: A frame failed.
        EngineError: There is not enough memory for the clones.
    """
    seconds: dict[int, list[float]] = {count: [] for count in CLONES}
    latencies: dict[int, list[float]] = {count: [] for count in CLONES}
    memory: dict[int, int | None] = dict.fromkeys(CLONES)
    with ExitStack() as made:
        clones = [inspector]
        for count in CLONES:  # memory grows with the clones: the least number comes first
            while len(clones) < count:
                clones.append(made.enter_context(inspector.clone()))
                # Graphs are of one clone: without its own it is held against one that has them.
                warm_up_on_gpu(clones[-1])
            for clone in clones:
                clone.inspect(frame.pixels, product=product)
            memory[count] = gpu_state.memory_used() if on_gpu else None
        for _ in range(rounds):
            for count in CLONES:
                taken, seen = _flow(clones[:count], frame, product, frames)
                seconds[count].append(taken)
                latencies[count] += seen
    return tuple(
        CloneThroughput(
            clones=count,
            frames=frames,
            per_second=spread([frames / taken for taken in seconds[count]]),
            ratio=times_faster(seconds[1], seconds[count]),
            latency_p50_ms=float(np.percentile(latencies[count], 50)),
            latency_p99_ms=float(np.percentile(latencies[count], 99)),
            gpu_memory_gb=None if used is None else used / 1e9,
        )
        for count, used in memory.items()
    )


def measure_batches(
    inspector: Inspector, frame: BenchFrame, product: str, *, frames: int, rounds: int
) -> tuple[BatchThroughput, ...]:
    """Inspect frames in batches of 1, 2, 4 and 8, as far as the bundle takes them, interleaved.

    Args:
        frames: Of each round, at least; the same for every batch.

    Returns:
        Nothing for a bundle that was exported for single frames.
    """
    sizes = [size for size in BATCHES if size <= inspector.max_batch]
    if len(sizes) < 2:
        return ()
    frames = -(-frames // sizes[-1]) * sizes[-1]
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    encoders: dict[int, dict[str, list[float]]] = {
        size: {CLIP_ENCODER: [], SAM_ENCODER: []} for size in sizes
    }
    for size in sizes:
        inspector.inspect_batch([frame.pixels] * size, product=product)
    for _ in range(rounds):
        for size in sizes:
            start = time.perf_counter()
            for _ in range(frames // size):
                first, *_ = inspector.inspect_batch([frame.pixels] * size, product=product)
                for name, times in encoders[size].items():
                    times.append(first.timings_ms[name] / size)
            seconds[size].append(time.perf_counter() - start)
    return tuple(
        BatchThroughput(
            batch=size,
            frames=frames,
            per_second=spread([frames / taken for taken in seconds[size]]),
            ratio=times_faster(seconds[1], seconds[size]),
            encoders_ms={name: median(times) for name, times in encoders[size].items()},
        )
        for size in sizes
    )


def _flow(
    inspectors: Sequence[Inspector], frame: BenchFrame, product: str, frames: int
) -> tuple[float, list[float]]:
    """Seconds until all results are out, and the latency of each frame, ms."""
    source: SimpleQueue[int] = SimpleQueue()
    for number in range(frames):
        source.put(number)
    with ThreadPoolExecutor(len(inspectors)) as pool:
        start = time.perf_counter()
        work = [pool.submit(_feed, one, source, frame, product) for one in inspectors]
        latencies = [value for done in work for value in done.result()]
        return time.perf_counter() - start, latencies


def _feed(
    inspector: Inspector, source: SimpleQueue[int], frame: BenchFrame, product: str
) -> list[float]:
    """Take frames from the source as long as there are any; return their latencies, ms."""
    latencies: list[float] = []
    with InspectionStream(inspector, capacity=IN_FLIGHT) as stream:
        under_way = 0
        while True:
            while under_way < IN_FLIGHT and _take(source):
                stream.submit(frame.pixels, product=product, copy=False)
                under_way += 1
            if not under_way:
                return latencies
            result = stream.poll()
            under_way -= 1
            if result is None or result.inspection is None:
                raise BenchmarkError(
                    f"a frame failed: {result.error if result else 'the stream ended'}",
                    "run `zeroflaw inspect`",
                )
            latencies.append(result.latency_ms)


def _take(source: SimpleQueue[int]) -> bool:
    try:
        source.get_nowait()
    except Empty:
        return False
    return True
