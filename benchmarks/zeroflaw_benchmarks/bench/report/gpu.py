"""What a bench report says of the GPUs that a run had."""

from __future__ import annotations

from typing import Literal

import msgspec

from zeroflaw_benchmarks.bench.machine.spread import Spread
from zeroflaw_benchmarks.bench.report.record import Positive, Record


class GpuUse(Record, frozen=True, kw_only=True):
    """One GPU while the bench ran, as `nvidia-smi` saw it; what it does not tell is None.

    Attributes:
        name: As `NVIDIA L4`.
        uuid: As the driver names it.
        samples: That the figures are of.
        clock_mhz: Of the multiprocessors.
        memory_clock_mhz: Of its memory.
        power_w: Drawn.
        power_limit_w: What it may draw.
        temperature_c: Of its core.
        memory_used_gb: Of all processes; `most` is the peak.
        held_back: Why clocks were lowered, and in which share of the samples, in [0, 1].
    """

    name: str
    uuid: str
    samples: int
    clock_mhz: Spread | None = None
    memory_clock_mhz: Spread | None = None
    power_w: Spread | None = None
    power_limit_w: Positive | None = None
    temperature_c: Spread | None = None
    memory_used_gb: Spread | None = None
    held_back: dict[str, float] = msgspec.field(default_factory=dict)


class PinnedCopy(Record, frozen=True, kw_only=True):
    """How fast pinned host memory and a GPU's memory are copied to each other.

    Attributes:
        direction: `in` is from the host to the GPU, as for transfers.
        gigabytes_per_second: Of a large copy, by the GPU's events.
    """

    direction: Literal["in", "out"]
    gigabytes_per_second: Positive
