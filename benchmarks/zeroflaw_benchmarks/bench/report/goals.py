"""What must be reached, and whether it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from zeroflaw_benchmarks.bench.report.report import BenchReport, Goal
from zeroflaw_engines.bundle.shipped import SHIPPED_NAME
from zeroflaw_engines.contract import CLIP_ENCODER, REFERENCE_MATCHER, SAM_ENCODER

HOST_SHARE: Final = 0.015
HOST_MS: Final = 12.0
# Beside a GPU, by the frame's height and width, polygons included.
GPU_HOST_MS: Final = {(1024, 1024): 4.0, (3000, 4096): 12.0}
SPECKS_MS: Final = 10.0
DECODER_RATIO: Final = 1.5
LOAD_RATIO: Final = 2.0
TAIL: Final = 1.3
MATCHER_SHARE: Final = 0.1
MATCHER_MS: Final = 30.0
TILES_GB: Final = 1.5
# On a GPU.
MATRIX_SHARE: Final = 0.6
OVER_ENCODERS: Final = 1.15
_FRAME: Final = (1024, 1024)
OFFICIAL_DECODER: Final = "SamOnnxModel"


def goals_of(report: BenchReport) -> tuple[Goal, ...]:
    """List the goals that this report has figures for.

    They are for frames that are seen as a whole: there is none but memory and growth for a product
    with settings.
    """
    general = tuple(_tile_goals(report))
    return general if report.subject.settings is not None else (*_goals(report), *general)


def _goals(report: BenchReport) -> Iterator[Goal]:
    latency = report.latency
    if report.subject.models.endswith("vit_h at 1024 px"):
        note = "all host work, also what runs beside an engine"
        yield _at_most("host share of the total", HOST_SHARE, latency.host_share.middle, note)
    yield from _matcher_goals(report)
    yield from _gpu_goals(report)
    yield from _throughput_goals(report)
    host = report.host
    if (host.frame_height, host.frame_width) == _FRAME:
        total = host.parts_ms["total"]
        note = f"host code alone, {total}"
        yield _at_most("host time of a 1024x1024 frame, ms", HOST_MS, total.middle, note)
    yield from _gpu_host_goals(report)
    for peer in report.peers:
        if peer.part == "cascade" and OFFICIAL_DECODER in peer.name and peer.times_faster:
            yield Goal(
                goal=f"cascade against {peer.name}",
                limit=DECODER_RATIO,
                at_least=True,
                value=peer.times_faster.middle,
                met=peer.times_faster.middle >= DECODER_RATIO,
                note=str(peer.times_faster),
            )
    if report.load is not None:
        load = report.load
        digests = load.digests_ms.middle / load.load_ms.middle
        note = f"load alone {load.ratio}, of which digests take {digests:.0%}"
        goal = "load to first result over plain sessions"
        yield _at_most(goal, LOAD_RATIO, load.ratio_first.middle, note)
    if report.endurance is not None:
        seen = report.endurance
        goal = f"growth of memory over {seen.frames} frames, kB a frame"
        note = "the limit is the noise of the slope itself"
        yield _at_most(goal, seen.rss_slope_noise_kb, seen.rss_slope_kb, note)
        note = f"load average {report.before.load_average} before the run"
        yield _at_most(f"p99 over p50 of {seen.frames} frames", TAIL, seen.p99_over_p50, note)


def _tile_goals(report: BenchReport) -> Iterator[Goal]:
    """Hold the memory of one large frame in tiles against its goal, for the model that ships."""
    points = [point for point in report.scale if point.axis == "tiles"]
    if not points or report.subject.bundle != SHIPPED_NAME:
        return
    most = max(points, key=lambda point: point.peak_rss_gb)
    note = f"of the whole process, in {most.value:g} tiles"
    yield _at_most("memory of one frame of 25 MP in tiles, GB", TILES_GB, most.peak_rss_gb, note)


def _gpu_goals(report: BenchReport) -> Iterator[Goal]:
    """Hold encoders that ran on a GPU against its ceiling, and the inspection against them."""
    alone = {row.engine: row for row in report.roofline if row.matrix_share is not None}
    encoders = [alone[name] for name in (CLIP_ENCODER, SAM_ENCODER) if name in alone]
    for row in encoders:
        share = row.matrix_share or 0.0
        yield Goal(
            goal=f"{row.engine} over the measured rate of products of matrices",
            limit=MATRIX_SHARE,
            at_least=True,
            value=share,
            met=share >= MATRIX_SHARE,
            note=f"{row.gflop:.0f} GFLOP in {row.call_ms.middle:.2f} ms, without transfers",
        )
    if len(encoders) == 2:
        total = next(stage.p50 for stage in report.latency.stages if stage.kind == "total")
        both = sum(row.call_ms.middle for row in encoders)
        note = f"{total:.2f} ms, and {both:.2f} ms of both encoders, each alone"
        yield _at_most(
            "whole inspection over the sum of its encoders", OVER_ENCODERS, total / both, note
        )


def _gpu_host_goals(report: BenchReport) -> Iterator[Goal]:
    """Hold host code beside a GPU against its goals, which are for one core."""
    for host in report.host_beside_gpu:
        limit = GPU_HOST_MS.get((host.frame_height, host.frame_width))
        if limit is None:
            continue
        parts, cores = host.parts_ms, f"{host.cores} cores"
        size = f"{host.frame_width}x{host.frame_height}"
        if host.mask == "specks":
            regions = parts["regions"]
            goal = f"regions of thousands of specks at {size}, ms"
            yield _at_most(goal, SPECKS_MS, regions.middle, f"{regions}, {cores}")
        else:
            time = parts["total"].middle + parts["polygons"].middle
            note = f"{parts['total']} and polygons {parts['polygons']}, {cores}"
            yield _at_most(f"host time beside a GPU at {size}, ms", limit, time, note)


def _matcher_goals(report: BenchReport) -> Iterator[Goal]:
    """Hold matching with a full bank against the CLIP encoder, or against a time for small ones."""
    alone = {row.engine: row.call_ms for row in report.roofline}
    if REFERENCE_MATCHER not in alone:
        return
    matcher, encoder = alone[REFERENCE_MATCHER], alone[CLIP_ENCODER]
    share = matcher.middle / encoder.middle
    note = f"{matcher.middle:.1f} ms, {share:.1%} of the CLIP encoder, each alone"
    if report.subject.models.startswith("vit_l"):
        yield _at_most("a full reference bank over the CLIP encoder", MATCHER_SHARE, share, note)
    else:
        yield _at_most("matching with a full reference bank, ms", MATCHER_MS, matcher.middle, note)


def _throughput_goals(report: BenchReport) -> Iterator[Goal]:
    """Hold two clones and the largest batch against one, on a GPU: on CPUs all share the cores."""
    if not report.gpus:
        return
    found = [("2 clones", row.ratio) for row in report.clones if row.clones == 2]
    found += [(f"batches of {row.batch}", row.ratio) for row in report.batches[-1:]]
    for what, ratio in found:
        yield Goal(
            goal=f"frames a second of {what} over one",
            limit=1.0,
            at_least=True,
            value=ratio.middle,
            met=ratio.middle >= 1,
            note=str(ratio),
        )


def _at_most(goal: str, limit: float, value: float, note: str) -> Goal:
    return Goal(goal=goal, limit=limit, at_least=False, value=value, met=value <= limit, note=note)
