"""What a bench report says of throughput: by clones of the Inspector, and by frames of a call."""

from __future__ import annotations

from zeroflaw_benchmarks.bench.machine.spread import Spread
from zeroflaw_benchmarks.bench.report.record import Positive, Record


class CloneThroughput(Record, frozen=True, kw_only=True):
    """Frames through clones that share the weights, each with a pipelined stream of its own.

    Attributes:
        clones: How many, the Inspector itself among them.
        frames: Of each round, all clones together.
        per_second: Frames a second, all clones together.
        ratio: To one clone inside each round; over 1 is more.
        latency_p50_ms: From `submit` to the result, of all rounds; some frames are always waiting.
        latency_p99_ms: From `submit` to the result, of all rounds.
        gpu_memory_gb: Device memory in use once each has run, of all processes; None without a GPU.
    """

    clones: int
    frames: int
    per_second: Spread
    ratio: Spread
    latency_p50_ms: Positive
    latency_p99_ms: Positive
    gpu_memory_gb: float | None = None


class BatchThroughput(Record, frozen=True, kw_only=True):
    """Frames through `Inspector.inspect_batch`, one call after the other.

    Attributes:
        batch: Frames of one call.
        frames: Of each round.
        per_second: Frames a second.
        ratio: To one frame a call inside each round; over 1 is more.
        encoders_ms: The encoders' calls of a batch, over its frames: median of all, each encoder's
            beside the other's unless the schedule is `clip_first`.
    """

    batch: int
    frames: int
    per_second: Spread
    ratio: Spread
    encoders_ms: dict[str, float]
