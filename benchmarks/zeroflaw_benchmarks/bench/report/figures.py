"""A bench report as plots, each an SVG that stands in the page."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure  # without pyplot: no display, no global state

from zeroflaw_benchmarks.bench.report.report import BenchReport, Endurance, Latency, ScalePoint

_KIND_COLOURS: Final = {
    "engine": "#1b6ca8", "host": "#e07a1f", "queue": "#8a5fb0", "total": "#555555"
}  # fmt: skip
_STYLE: Final[Any] = {
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "zeroflaw",
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_AXES: Final = {
    "frames_in_flight": "frames in flight",
    "threads": "threads of each engine",
    "processes": "processes",
    "megapixels": "frame, MP",
    "points": "points of each sign",
    "products": "products in the bundle",
    "tiles": "tiles of a frame of 25 MP",
}
_Draw = Callable[[Figure], None]


def plots_of(report: BenchReport) -> Iterator[tuple[str, str]]:
    """Yield title and SVG of every plot that the report has figures for."""
    latency = report.latency
    yield "Latency of one inspection", _svg((7, 2.6), lambda f: _distribution(f, latency))
    yield "Stages, p50 and p99", _svg((7, 3.4), lambda f: _stages(f, latency))
    yield "One inspection in time", _svg((7, 2.6), lambda f: _timeline(f, latency))
    if report.roofline:
        yield "Roofline", _svg((7, 3.6), lambda f: _roofline(f, report))
    for axis in dict.fromkeys(point.axis for point in report.scale):
        points = [point for point in report.scale if point.axis == axis]
        yield f"Scale: {_AXES[axis]}", _svg((7, 2.8), partial(_scale, points=points))
    if any(peer.times_faster for peer in report.peers):
        yield "Peers", _svg((7, 0.8 + 0.4 * len(report.peers)), lambda f: _peers(f, report))
    if report.endurance is not None:
        yield "Many frames", _svg((7, 3.0), partial(_endurance, endurance=report.endurance))


def _svg(size: tuple[float, float], draw: _Draw) -> str:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _distribution(figure: Figure, latency: Latency) -> None:
    axes = figure.subplots()
    total = next(stage for stage in latency.stages if stage.kind == "total")
    axes.hist(total.samples_ms, bins=min(40, max(5, len(total.samples_ms) // 3)), color="#1b6ca8")
    for name, value, style in (("p50", total.p50, "-"), ("p99", total.p99, "--")):
        axes.axvline(value, color="black", linestyle=style, label=f"{name} {value:.1f} ms")
    if total.cold_ms is not None:
        axes.plot([], [], " ", label=f"cold {total.cold_ms:.1f} ms")
    axes.set(xlabel="total, ms", ylabel="inspections")
    axes.legend(frameon=False)


def _stages(figure: Figure, latency: Latency) -> None:
    axes = figure.subplots()
    stages = [stage for stage in latency.stages if stage.kind != "total"][::-1]
    places = range(len(stages))
    axes.barh(
        places,
        [max(stage.p50, 1e-3) for stage in stages],
        color=[_KIND_COLOURS[stage.kind] for stage in stages],
        xerr=[[0] * len(stages), [stage.p99 - stage.p50 for stage in stages]],
    )
    axes.set_yticks(places, [stage.stage for stage in stages])
    axes.set(xscale="log", xlabel="ms: bar p50, whisker p99; blue engines, orange host")


def _timeline(figure: Figure, latency: Latency) -> None:
    axes = figure.subplots()
    threads = list(dict.fromkeys(span.thread for span in latency.timeline))
    kinds = {stage.stage: stage.kind for stage in latency.stages}
    longest = max(span.end_ms for span in latency.timeline)
    for span in latency.timeline:
        place, width = threads.index(span.thread), span.end_ms - span.start_ms
        colour = _KIND_COLOURS[kinds.get(span.stage, "host")]
        axes.barh(place, width, left=span.start_ms, color=colour, edgecolor="white", height=0.6)
        if width > 0.06 * longest:
            middle = span.start_ms + width / 2
            axes.text(middle, place, span.stage, ha="center", va="center", color="white", size=7)
    axes.set_yticks(range(len(threads)), [f"thread {i + 1}" for i in range(len(threads))])
    axes.set(xlabel="ms since its file was opened")


def _roofline(figure: Figure, report: BenchReport) -> None:
    axes = figure.subplots()
    intensities = np.array([row.gflop * 1e3 / row.megabytes for row in report.roofline])
    x = np.geomspace(min(1.0, *intensities), max(1000.0, *intensities) * 2, 100)
    for ceiling in report.ceilings:
        y = np.minimum(ceiling.gflops, x * ceiling.gigabytes_per_second)
        axes.plot(x, y, label=f"{ceiling.precision}: {ceiling.gflops:.0f} GFLOP/s")
    for row, intensity in zip(report.roofline, intensities, strict=True):
        reached = row.gflop / (row.call_ms.middle / 1e3)
        axes.plot(intensity, reached, "o")
        axes.annotate(
            f"{row.engine} {100 * row.fraction:.0f} %",
            (intensity, reached),
            xytext=(4, -10),
            textcoords="offset points",
        )
    axes.set(xscale="log", yscale="log", xlabel="FLOP a byte (least traffic)", ylabel="GFLOP/s")
    axes.legend(frameon=False)


def _scale(figure: Figure, points: list[ScalePoint]) -> None:
    latency, throughput, memory = figure.subplots(1, 3)
    values = [point.value for point in points]
    series: list[tuple[Any, str, list[float]]] = [
        (latency, "latency, ms", [point.latency_ms.middle for point in points]),
        (throughput, "inspections a second", [point.per_second for point in points]),
        (memory, "peak memory, GB", [point.peak_rss_gb for point in points]),
    ]
    for axes, name, heights in series:
        axes.plot(values, heights, "o-", color="#1b6ca8")
        axes.set(xlabel=_AXES[points[0].axis], title=name, ylim=(0, 1.15 * max(heights)))
    if points[0].axis == "megapixels":
        for stage in ("frame", "squash", "fit", "mask", "regions"):
            latency.plot(values, [p.stages_ms.get(stage, 0.0) for p in points], "-", label=stage)
        latency.legend(frameon=False, fontsize=6)
        latency.set(yscale="log", ylim=(None, None))


def _peers(figure: Figure, report: BenchReport) -> None:
    axes = figure.subplots()
    ran = [peer for peer in report.peers if peer.times_faster is not None][::-1]
    middles = [peer.times_faster.middle for peer in ran if peer.times_faster]
    low = [p.times_faster.middle - p.times_faster.least for p in ran if p.times_faster]
    high = [p.times_faster.most - p.times_faster.middle for p in ran if p.times_faster]
    axes.barh(range(len(ran)), middles, xerr=[low, high], color="#1b6ca8")
    axes.axvline(1, color="black")
    axes.set_yticks(range(len(ran)), [f"{peer.part}: {peer.name}" for peer in ran])
    axes.set(xlabel="zeroflaw is faster, times")


def _endurance(figure: Figure, endurance: Endurance) -> None:
    times, memory = figure.subplots(2, 1, sharex=True)
    times.plot(endurance.totals_ms, ".", markersize=2)
    times.set(ylabel="total, ms")
    memory.plot(endurance.rss_mb)
    memory.set(ylabel="resident, MB", xlabel="frame")
