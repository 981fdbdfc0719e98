"""Another way to do the job, beside ours, as a bench report holds it."""

from __future__ import annotations

from typing import Literal

from zeroflaw_benchmarks.bench.machine.spread import Spread
from zeroflaw_benchmarks.bench.report.record import Positive, Record

PeerPart = Literal["inspection", "clip_encoder", "sam_encoder", "sam_decoder", "cascade", "clip"]


class Peer(Record, frozen=True, kw_only=True):
    """Another way to do the job or a part of it, on the same image, in the same run.

    Attributes:
        name: Of the peer, with its version.
        part: What it does: `inspection`, `clip_encoder`, `sam_encoder`, `sam_decoder` (one call),
            `cascade` (three decoder calls), `clip` (the encoder and the resizing before it).
        device: What it ran on, as `cpu` or `NVIDIA L4`; ours ran on the same. `cuda:0` if it did
            not run there; empty in older reports, where all is of the CPU, and for a peer of
            another device than ours.
        weights: Whether its weights are the bundle's own.
        seconds: Of the peer by the host's clock, on a GPU with the transfers of every input and
            output; None if it did not run.
        ours: Of zeroflaw doing the same.
        times_faster: Peer over ours, inside each round: over 1, zeroflaw is faster.
        resident: The same without transfers: inputs lie on the GPU, and outputs stay there. None
            on a CPU, and for whole inspections.
        ours_resident: Of zeroflaw doing the same.
        times_faster_resident: `resident` over `ours_resident`, inside each round.
        events: `resident` by the GPU's own events; None for zeroflaw, whose sessions wait for
            their stream inside a call.
        device_memory_gb: Memory of GPUs that the peer's process holds after its runs; None where
            it is not told.
        ours_device_memory_gb: The same of zeroflaw's.
        agreement: How near its result is to ours, in words and figures.
        why_not: Why it did not run; empty if it did.
        peak_rss_gb: Largest resident memory of the peer's processes; None in older reports.
        ours_peak_rss_gb: The same of zeroflaw's.
    """

    name: str
    part: PeerPart
    weights: str
    device: str = ""
    seconds: Spread | None = None
    ours: Spread | None = None
    times_faster: Spread | None = None
    agreement: str = ""
    why_not: str = ""
    peak_rss_gb: float | None = None
    ours_peak_rss_gb: float | None = None
    resident: Spread | None = None
    ours_resident: Spread | None = None
    times_faster_resident: Spread | None = None
    events: Spread | None = None
    device_memory_gb: Positive | None = None
    ours_device_memory_gb: Positive | None = None
