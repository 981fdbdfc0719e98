"""What must be reached, and whether it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from zeroflaw_benchmarks.bench.report.report import BenchReport, Goal

HOST_SHARE: Final = 0.015
HOST_MS: Final = 12.0
DECODER_RATIO: Final = 1.5
LOAD_RATIO: Final = 2.0
TAIL: Final = 1.3
_FRAME: Final = (1024, 1024)
OFFICIAL_DECODER: Final = "SamOnnxModel"


def goals_of(report: BenchReport) -> tuple[Goal, ...]:
    """The goals that this report has figures for."""
    return tuple(_goals(report))


def _goals(report: BenchReport) -> Iterator[Goal]:
    latency = report.latency
    if report.subject.models.endswith("vit_h at 1024 px"):
        yield Goal(
            goal="host share of the total",
            limit=HOST_SHARE,
            at_least=False,
            value=latency.host_share.middle,
            met=latency.host_share.middle <= HOST_SHARE,
            note="all host work, also what runs beside an engine",
        )
    host = report.host
    if (host.frame_height, host.frame_width) == _FRAME:
        total = host.parts_ms["total"]
        yield Goal(
            goal="host time of a 1024x1024 frame, ms",
            limit=HOST_MS,
            at_least=False,
            value=total.middle,
            met=total.middle <= HOST_MS,
            note=f"host code alone, {total}",
        )
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
        yield Goal(
            goal="load to first result over plain sessions",
            limit=LOAD_RATIO,
            at_least=False,
            value=load.ratio_first.middle,
            met=load.ratio_first.middle <= LOAD_RATIO,
            note=f"load alone {load.ratio}, of which digests take"
            f" {load.digests_ms.middle / load.load_ms.middle:.0%}",
        )
    if report.endurance is not None:
        endurance = report.endurance
        yield Goal(
            goal=f"growth of memory over {endurance.frames} frames, kB a frame",
            limit=endurance.rss_slope_noise_kb,
            at_least=False,
            value=endurance.rss_slope_kb,
            met=endurance.rss_slope_kb <= endurance.rss_slope_noise_kb,
            note="the limit is the noise of the slope itself",
        )
        yield Goal(
            goal=f"p99 over p50 of {endurance.frames} frames",
            limit=TAIL,
            at_least=False,
            value=endurance.p99_over_p50,
            met=endurance.p99_over_p50 <= TAIL,
            note=f"load average {report.before.load_average} before the run",
        )
