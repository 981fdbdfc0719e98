"""What a machine can do at best, and how near an engine comes to it, as a bench report holds it."""

from __future__ import annotations

from typing import Literal

from zeroflaw_benchmarks.bench.machine.spread import Spread
from zeroflaw_benchmarks.bench.report.record import Positive, Record


class Ceiling(Record, frozen=True, kw_only=True):
    """The best that this machine does, measured in the same run.

    Attributes:
        precision: Of the products.
        gflops: Best rate of products of matrices, of any library; on a GPU of any size.
        library: Whose rate it is.
        gigabytes_per_second: Best rate at which all cores read memory, or at which a GPU copies
            its own: bytes that it reads and writes.
        threads: That multiplied and read; None on a GPU.
        device: Name of the GPU; empty for the CPU.
        size: Rows, inner size and columns of the product that was the fastest; None on a CPU.
    """

    precision: str
    gflops: Positive
    library: str
    gigabytes_per_second: Positive
    threads: int | None
    device: str = ""
    size: tuple[int, int, int] | None = None


class EngineRoofline(Record, frozen=True, kw_only=True):
    """One engine against the machine's ceilings.

    Attributes:
        engine: `clip_encoder`, `sam_encoder`, `sam_decoder`, or `reference_matcher` where the
            bundle has it, with a full bank.
        calls: In one inspection; the matcher is called for products with a reference bank.
        gflop: Of one call: products of matrices, convolutions and attentions of its graph.
        megabytes: That one call must move at least: weights, inputs and outputs, each once.
        megabytes_unfused: That it would move if every node read and wrote memory.
        floor_ms: The least time of one call: the greater of its arithmetic and its traffic.
        bound: Which of them it is.
        call_ms: Of one call, alone on the machine; on a GPU without transfers: inputs lie there
            and outputs stay there.
        fraction: `floor_ms` over the median of `call_ms`: 1 is the limit.
        matrix_share: Rate of the call over the measured rate of products of matrices; None on a
            CPU.
        with_transfers_ms: Of one call on a GPU from host memory to host memory; None on a CPU.
    """

    engine: str
    calls: int
    gflop: Positive
    megabytes: Positive
    megabytes_unfused: Positive
    floor_ms: Positive
    bound: Literal["arithmetic", "memory"]
    call_ms: Spread
    fraction: float
    matrix_share: float | None = None
    with_transfers_ms: Spread | None = None
