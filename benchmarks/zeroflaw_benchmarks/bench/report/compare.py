"""Two reports against each other: what moved by more than the noise that they measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from zeroflaw_benchmarks.bench.machine.spread import Spread
from zeroflaw_benchmarks.bench.report.report import BenchReport

_FEW: Final = 5  # samples below which percentiles say nothing, and the range is the noise
_FORBID: Final = {
    "machine": ("processor", "cores", "system"),
    "subject": ("models", "threads", "encoder_schedule", "frame_height", "frame_width", "settings"),
}

FigureKind = Literal["time", "ratio", "count"]


@dataclass(frozen=True)
class Figure:
    """One figure of a report.

    Attributes:
        name: What it is.
        value: Median over the rounds.
        low: Lower end of what it varied by itself, in its own run.
        high: Upper end.
        kind: Times can be compared on one kind of machine alone, ratios and counts between
            machines; counts are exact.
        smaller_is_better: As for times.
    """

    name: str
    value: float
    low: float
    high: float
    kind: FigureKind
    smaller_is_better: bool = True


@dataclass(frozen=True)
class Change:
    """A figure in both reports.

    Attributes:
        name: What it is.
        old: Median in the older report.
        new: Median in the newer report.
        noise: How far medians may differ without meaning anything: half of what each run varied
            by itself, together.
        moved: Whether they differ by more.
        to_the_worse: Whether the new one is worse, by however little.
        worse: Whether it moved to the worse, and by the factor that was asked for.
    """

    name: str
    old: float
    new: float
    noise: float
    moved: bool
    to_the_worse: bool
    worse: bool


@dataclass(frozen=True)
class Difference:
    """Something else that differs between two reports.

    Attributes:
        text: In words.
        forbids_times: Whether times say nothing about each other because of it: another
            machine, other models, other threads or frames. Another version or backend may be
            the very thing to be compared.
    """

    text: str
    forbids_times: bool


@dataclass(frozen=True)
class Comparison:
    """Two reports against each other.

    Attributes:
        changes: Of every figure that was compared.
        differences: Of what was measured and where.
        left_out: Names of figures that only one of them has, or that cannot be compared.
    """

    changes: tuple[Change, ...]
    differences: tuple[Difference, ...]
    left_out: tuple[str, ...]

    @property
    def worse(self) -> tuple[Change, ...]:
        """Return what moved to the worse."""
        return tuple(change for change in self.changes if change.worse)


def compare(
    old: BenchReport, new: BenchReport, *, ratios_only: bool = False, worse_by: float = 1.0
) -> Comparison:
    """Compare every figure that both reports have.

    Times are compared only if both were measured on the same kind of machine with the same
    number of cores and threads; ratios and counts always.

    Ratios, too, differ between processors: `worse_by` is the factor from which on a figure that
    moved by more than the noise is called worse. Counts are exact: for them it is always 1.
    """
    differences = tuple(_differences(old, new))
    comparable = not any(difference.forbids_times for difference in differences)
    before = {figure.name: figure for figure in figures_of(old)}
    after = {figure.name: figure for figure in figures_of(new)}
    changes, left_out = [], sorted(before.keys() ^ after.keys())
    for name, figure in after.items():
        if name not in before:
            continue
        if figure.kind == "time" and (ratios_only or not comparable):
            left_out.append(name)
            continue
        changes.append(_change(before[name], figure, worse_by))
    return Comparison(tuple(changes), differences, tuple(left_out))


def figures_of(report: BenchReport) -> Iterator[Figure]:
    """Yield every figure of a report that can be compared."""
    latency = report.latency
    for stage in latency.stages:
        low, high = own_noise(stage.samples_ms)
        yield Figure(f"{stage.stage}, ms", stage.p50, low, high, kind="time")
    yield _of_spread("host on the critical path, ms", latency.host_ms, kind="time")
    yield _of_spread("host share", latency.host_share, kind="ratio")
    yield _of_spread("host code alone, ms", report.host.parts_ms["total"], kind="time")
    for row in report.roofline:
        call = row.call_ms
        yield Figure(
            f"{row.engine}, share of the roofline",
            row.fraction,
            row.floor_ms / call.most,
            row.floor_ms / call.least,
            kind="ratio",
            smaller_is_better=False,
        )
        for unit, count in (("GFLOP", row.gflop), ("MB", row.megabytes)):
            yield Figure(f"{row.engine}, {unit} a call", count, count, count, "count")
    for peer in report.peers:
        if peer.times_faster is not None:
            yield _gain(f"{peer.part}: {peer.name} over zeroflaw", peer.times_faster)
    if report.stream is not None:
        yield _gain("gain of the pipelined stream", report.stream.gain)
    for clones in report.clones:
        if clones.clones > 1:
            yield _gain(f"throughput of {clones.clones} clones over one", clones.ratio)
    for batches in report.batches:
        if batches.batch > 1:
            yield _gain(f"throughput in batches of {batches.batch} over one", batches.ratio)


def own_noise(samples: Sequence[float]) -> tuple[float, float]:
    """Return what a run varied by itself: its 10th to 90th percentile, or all of a few."""
    if len(samples) < _FEW:
        return min(samples), max(samples)
    low, high = np.percentile(samples, [10, 90])
    return float(low), float(high)


def _differences(old: BenchReport, new: BenchReport) -> Iterator[Difference]:
    for part, names in _FORBID.items():
        for name in names:
            before, after = (getattr(getattr(report, part), name) for report in (old, new))
            if before != after:
                yield Difference(f"{name} was {before}, is {after}", forbids_times=True)
    if old.subject.backend != new.subject.backend:
        yield Difference(
            f"backend was {old.subject.backend}, is {new.subject.backend}", forbids_times=False
        )
    for name in sorted(old.machine.versions.keys() | new.machine.versions.keys()):
        before, after = (report.machine.versions.get(name) for report in (old, new))
        if before != after:
            yield Difference(f"{name} was {before}, is {after}", forbids_times=False)


def _of_spread(name: str, value: Spread, *, kind: FigureKind) -> Figure:
    return Figure(name, value.middle, value.least, value.most, kind)


def _gain(name: str, value: Spread) -> Figure:
    return replace(_of_spread(name, value, kind="ratio"), smaller_is_better=False)


def _change(old: Figure, new: Figure, worse_by: float) -> Change:
    noise = (old.high - old.low + new.high - new.low) / 2
    moved = abs(new.value - old.value) > noise
    rose, fell = new.value > old.value, new.value < old.value
    to_the_worse = rose if new.smaller_is_better else fell
    smaller, larger = sorted((old.value, new.value))
    far = new.kind == "count" or larger >= worse_by * smaller
    return Change(
        name=new.name,
        old=old.value,
        new=new.value,
        noise=noise,
        moved=moved,
        to_the_worse=to_the_worse,
        worse=moved and far and to_the_worse,
    )
