"""Ours and its peers in turn: rounds interleaved, ratios inside each, failures with reasons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from msgspec.structs import replace as replaced

from zeroflaw_benchmarks.bench.machine.spread import spread, times_faster
from zeroflaw_benchmarks.bench.process.child_process import RunTimes
from zeroflaw_benchmarks.bench.process.run_on import RunOn
from zeroflaw_benchmarks.bench.report.peer import Peer
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.errors import BenchmarkError, ComparisonError

OURS: Final = "ours"
_CASCADES: Final = 15
_GPU_RUNS: Final = 30
_GPU_WARM_UPS: Final = 5


@dataclass(frozen=True)
class PeerTask:
    """What every peer is held against.

    Attributes:
        bundle: As `open_bundle` takes it.
        run_on: What runs zeroflaw; its threads are those of every peer.
        product: That the frame shows.
        frame: Path of the image file.
        cascades: Of three calls each, in each round of each decoder.
        runs: Of each process on a GPU that are timed.
        warm_ups: Of each process on a GPU that are not, before them.
        torch_device: Where PyTorch runs beside a GPU's engines, as `torch_device` takes it; None
            takes the GPU of `run_on`.
    """

    bundle: str
    run_on: RunOn
    product: str
    frame: str
    cascades: int = _CASCADES
    runs: int = _GPU_RUNS
    warm_ups: int = _GPU_WARM_UPS
    torch_device: str | None = None


# Runs one contender once, in a process of its own.
Once = Callable[[], RunTimes]
# How near what a peer left in a file is to what ours left, in words.
Agreement = Callable[[Any, Any], str]


@dataclass(frozen=True)
class Contender:
    """A peer that does one part: its row, how it runs, or why it cannot."""

    row: Peer
    once: Once
    why_not: str = ""


@dataclass
class Race:
    """Ours and its peers, part by part, every run in a process of its own.

    Attributes:
        names: Of the peers.
        rounds: In each of which everyone runs once.
        directory: Where contenders leave what is compared.
        report: Is told what runs now.
    """

    task: PeerTask
    names: tuple[str, ...]
    rounds: int
    directory: Path
    report: Callable[[str], None]

    @cached_property
    def weights(self) -> str:
        """Say what the weights of the reference models are."""
        from zeroflaw_benchmarks.reference.reference_models import weights_note

        return weights_note(open_bundle(self.task.bundle, verify_digests=False))

    def file(self, name: str) -> str:
        """Return where a contender leaves what is compared."""
        return str(self.directory / f"{Path(name).stem}.npy")

    def rows(
        self, part: str, ours: Once, peers: dict[str, Contender], agreement: Agreement
    ) -> Iterator[Peer]:
        """Run ours and the peers of one part, interleaved, and fill in their rows."""
        failures = {name: peer.why_not for name, peer in peers.items() if peer.why_not}
        runs = {name: peer.once for name, peer in peers.items() if name not in failures}
        times = self._interleaved(part, {OURS: ours, **runs}, failures) if runs else {}
        for name, peer in peers.items():
            if name in times and not _one_device(times[name], times[OURS]):
                failures[name] = (
                    f"it ran on {times[name][-1].device}, ours on {times[OURS][-1].device}"
                )
            text = ""
            if name in times and peer.row.weights.startswith("the bundle"):
                try:
                    files = (self.file(f"{part}_{who}") for who in (name, OURS))
                    text = agreement(*map(np.load, files))
                except ComparisonError as error:
                    failures[name] = error.cause
            if name in failures:
                yield replaced(peer.row, why_not=failures[name])
                continue
            yield measured_row(
                replaced(peer.row, agreement=text or peer.row.agreement), times[name], times[OURS]
            )

    def _interleaved(
        self, part: str, runs: dict[str, Once], failures: dict[str, str]
    ) -> dict[str, list[RunTimes]]:
        """Times of each round; why a peer failed goes into the failures. Ours must not fail."""
        times: dict[str, list[RunTimes]] = {name: [] for name in runs}
        for turn in range(self.rounds):
            for name, once in runs.items():
                if name in failures:
                    continue
                self.report(f"peers, round {turn + 1} of {self.rounds}: {part}, {name}")
                try:
                    times[name].append(once())
                except BenchmarkError as error:
                    if name == OURS:
                        raise
                    failures[name] = error.cause
                    times.pop(name)
        return times


def measured_row(row: Peer, theirs: list[RunTimes], ours: list[RunTimes]) -> Peer:
    """Fill in the row of a peer that ran, from its times and ours in each round."""
    seconds, ours_seconds = ([median(run.seconds) for run in runs] for runs in (theirs, ours))
    resident, ours_resident = (_resident(runs) for runs in (theirs, ours))
    events = [median(run.event_seconds) for run in theirs if run.event_seconds]
    notes = dict.fromkeys(run.note for run in theirs if run.note)
    return replaced(
        row,
        device=theirs[-1].device,
        seconds=spread(seconds),
        ours=spread(ours_seconds),
        times_faster=times_faster(seconds, ours_seconds),
        agreement="; ".join(filter(None, (row.agreement, *notes))),
        peak_rss_gb=max(run.peak_rss for run in theirs) / 1e9,
        ours_peak_rss_gb=max(run.peak_rss for run in ours) / 1e9,
        resident=spread(resident) if resident and ours_resident else None,
        ours_resident=spread(ours_resident) if resident and ours_resident else None,
        times_faster_resident=times_faster(resident, ours_resident)
        if resident and ours_resident
        else None,
        events=spread(events) if events else None,
        device_memory_gb=_device_gb(theirs),
        ours_device_memory_gb=_device_gb(ours),
    )


def _one_device(theirs: list[RunTimes], ours: list[RunTimes]) -> bool:
    """Whether all ran on the CPU or all on a GPU: a ratio across devices says nothing."""
    return len({run.device == "cpu" for run in (*theirs, *ours)}) == 1


def _resident(runs: list[RunTimes]) -> list[float]:
    """Medians of the runs without transfers; none if any process had no such."""
    found = [median(run.resident_seconds) for run in runs if run.resident_seconds]
    return found if len(found) == len(runs) else []


def _device_gb(runs: list[RunTimes]) -> float | None:
    held = [run.device_bytes for run in runs if run.device_bytes is not None]
    return max(held) / 1e9 if held else None
