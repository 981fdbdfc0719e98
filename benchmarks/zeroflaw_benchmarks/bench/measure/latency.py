"""Latency by stage: cold, warm, what of it is host code, and when each stage ran."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw.inspection import Inspection
from zeroflaw.inspector import Inspector
from zeroflaw.pictures.images import read_image
from zeroflaw.pipeline.encoding.frame import EncodedFrame
from zeroflaw.pipeline.stopwatch import Span, Stopwatch
from zeroflaw.stream.stream import InspectionStream
from zeroflaw_benchmarks.bench.frames import BenchFrame
from zeroflaw_benchmarks.bench.machine.spread import spread
from zeroflaw_benchmarks.bench.measure.transfers import resizes_on_device, transfers_of
from zeroflaw_benchmarks.bench.process.child_process import peak_rss
from zeroflaw_benchmarks.bench.process.run_on import warm_up_on_gpu
from zeroflaw_benchmarks.bench.report.report import Latency, StageKind, StageLatency, TimelineSpan
from zeroflaw_engines.contract import BOX_PROPOSER, REFERENCE_MATCHER
from zeroflaw_engines.errors import BenchmarkError
from zeroflaw_engines.parameters import Refiner

# Of one inspection, in its order, where the host resizes. `mask` is the refiner without its decoder
# calls, of which `sam_decoder` is the sum with box proposals; the matcher runs for products with a
# reference bank, `view` for those with settings, and `blend` for those that are seen in tiles,
# whose stages are sums over tiles.
STAGES: Final[dict[str, StageKind]] = {
    "queue": "queue",
    "decode": "host",
    "frame": "host",
    "view": "host",
    "squash": "host",
    "fit": "host",
    "clip_encoder": "engine",
    REFERENCE_MATCHER: "engine",
    BOX_PROPOSER: "engine",
    "sam_encoder": "engine",
    "prompt_points": "host",
    "sam_decoder_1": "engine",
    "sam_decoder_2": "engine",
    "sam_decoder_3": "engine",
    "sam_decoder": "engine",
    "mask": "host",
    "blend": "host",
    "score": "host",
    "regions": "host",
    "total": "total",
}
_OF_SOME_PRODUCTS: Final = (REFERENCE_MATCHER, "view", "blend")
# Those that not every refiner has.
_OF_REFINERS: Final[dict[str, tuple[Refiner, ...]]] = {
    BOX_PROPOSER: ("box_proposals",),
    "fit": ("cascade", "mmr", "box_proposals"),
    "sam_encoder": ("cascade", "mmr", "box_proposals"),
    "prompt_points": ("cascade", "mmr"),
    "sam_decoder_1": ("cascade", "mmr"),
    "sam_decoder_2": ("cascade",),
    "sam_decoder_3": ("cascade",),
    "sam_decoder": ("box_proposals",),
}
# Where the GPU resizes, they wait for calls of `frame_resizer`.
_RESIZING: Final[dict[str, StageKind]] = {"squash": "engine", "fit": "engine"}
_MIN_RUNS: Final = 3
_MAX_RUNS: Final = 200


@dataclass(frozen=True)
class TimedInspection:
    """One inspection and its times.

    Attributes:
        milliseconds: By stage of `STAGES`. `decode` is apart: the total begins with the pixels.
        spans: Of its stages, decoding included.
        status: Of the inspection.
    """

    milliseconds: dict[str, float]
    spans: tuple[Span, ...]
    status: str

    def host_ms(self, kinds: Mapping[str, StageKind]) -> float:
        """Return the total without the time in which any engine ran.

        Args:
            kinds: As `stage_kinds` returns them.
        """
        return _outside_engines(self.spans, {name for name in kinds if kinds[name] == "engine"})

    def host_work_ms(self, kinds: Mapping[str, StageKind]) -> float:
        """Sum all host stages but decoding, whether an engine ran beside it or not.

        Args:
            kinds: As `stage_kinds` returns them.
        """
        return sum(
            self.milliseconds.get(name, 0.0)  # not every product has every stage
            for name, kind in kinds.items()
            if kind == "host" and name != "decode"
        )


class WatchedInspector:
    """An Inspector for streams that keeps the stopwatch of every frame.

    Attributes:
        watches: Of the frames so far.
        refiner: That it runs.
    """

    def __init__(self, inspector: Inspector) -> None:
        self.watches: list[Stopwatch] = []
        self.refiner = inspector.parameters.refiner
        self._inspector = inspector

    def encode_frame(self, image: NDArray[Any], **options: Any) -> EncodedFrame:  # noqa: ANN401
        """Encode as `Inspector.encode_frame` does."""
        encoded = self._inspector.encode_frame(image, **options)
        self.watches.append(encoded.watch)
        return encoded

    def decode_frame(self, encoded: EncodedFrame, *, trace: bool = False) -> Inspection:
        """Decode as `Inspector.decode_frame` does."""
        return self._inspector.decode_frame(encoded, trace=trace)


def stage_kinds(inspector: Inspector, frame: tuple[int, int]) -> dict[str, StageKind]:
    """Say of what kind every stage is for frames of one size.

    Args:
        frame: Height and width, px.
    """
    return {**STAGES, **_RESIZING} if resizes_on_device(inspector, frame) else dict(STAGES)


def time_inspection(
    inspector: WatchedInspector, stream: InspectionStream, frame: BenchFrame, product: str
) -> TimedInspection:
    """Read the file, hand the pixels to the stream and wait for the result.

    Raises:
        BenchmarkError: There is no result.
    """
    file = Stopwatch()
    with file.stage("decode"):
        pixels = read_image(frame.path)
    stream.submit(pixels, product=product, copy=False)
    result = stream.poll()
    if result is None or result.inspection is None:
        raise BenchmarkError(
            f"the inspection failed: {result.error if result else 'the stream ended'}",
            "run `zeroflaw inspect` on the bundle",
        )
    watch = inspector.watches[-1]
    times = dict(watch.milliseconds)
    times["decode"] = file.milliseconds["decode"]
    times["queue"] = result.queue_ms
    decoding = sum(value for name, value in times.items() if name.startswith("sam_decoder"))
    for whole in ("cascade", "proposals"):
        if whole in times:
            times["mask"] = times.pop(whole) - decoding
    missing = [
        name
        for name in STAGES
        if name not in (*times, *_OF_SOME_PRODUCTS)
        and inspector.refiner in _OF_REFINERS.get(name, (inspector.refiner,))
    ]
    if missing:
        raise BenchmarkError(
            f"the inspection ended with status {result.inspection.status} and never reached:"
            f" {', '.join(missing)}",
            "choose another --frame: the bench has to see every stage",
        )
    return TimedInspection(
        milliseconds={name: times[name] for name in STAGES if name in times},
        spans=(*file.spans, *watch.spans),
        status=result.inspection.status,
    )


def measure_latency(
    inspector: Inspector,
    frame: BenchFrame,
    product: str,
    *,
    load_ms: float,
    runs: int = 0,
    seconds: float = 20.0,
) -> Latency:
    """Inspect one frame again and again, one at a time.

    The Inspector is fresh, so that its first inspection is the cold one; on a GPU it is warmed up
    after it, as a station does before its first frame: CUDA graphs are recorded. `runs` of 0 takes
    as many warm inspections as fit into `seconds`, 3 to 200.
    """
    watched = WatchedInspector(inspector)
    with InspectionStream(watched, capacity=1, pipelined=False) as stream:
        cold = time_inspection(watched, stream, frame, product)
        warm_up_on_gpu(inspector)
        warm: list[TimedInspection] = []
        end = time.perf_counter() + seconds
        while len(warm) < (runs or _MAX_RUNS):
            warm.append(time_inspection(watched, stream, frame, product))
            if not runs and len(warm) >= _MIN_RUNS and time.perf_counter() > end:
                break
    size = (frame.pixels.shape[0], frame.pixels.shape[1])
    kinds = stage_kinds(inspector, size)
    totals = [one.milliseconds["total"] for one in warm]
    work = [one.host_work_ms(kinds) for one in warm]
    median_run = warm[int(np.argsort(totals)[len(totals) // 2])]
    return Latency(
        load_ms=load_ms,
        stages=tuple(
            stage_latency(name, kind, cold, [one.milliseconds[name] for one in warm])
            for name, kind in kinds.items()
            if name in cold.milliseconds
        ),
        host_ms=spread([one.host_ms(kinds) for one in warm]),
        host_work_ms=spread(work),
        host_share=spread([one / total for one, total in zip(work, totals, strict=True)]),
        status=median_run.status,
        transfers=transfers_of(inspector, product, size),
        timeline=_timeline(median_run.spans),
        peak_rss_gb=peak_rss() / 1e9,
    )


def stage_latency(
    stage: str, kind: StageKind, cold: TimedInspection | None, samples: Sequence[float]
) -> StageLatency:
    """Compute the percentiles of one stage."""
    p50, p90, p99 = np.percentile(samples, [50, 90, 99])
    return StageLatency(
        stage=stage,
        kind=kind,
        cold_ms=cold.milliseconds[stage] if cold and kind != "queue" else None,
        minimum=min(samples),
        p50=float(p50),
        p90=float(p90),
        p99=float(p99),
        maximum=max(samples),
        samples_ms=tuple(samples),
    )


def _outside_engines(spans: Sequence[Span], engines: Collection[str]) -> float:
    """Milliseconds of the total in which no engine ran."""
    total = sum(span.end - span.start for span in spans if span.stage == "total")
    covered, reached = 0.0, -np.inf
    for span in sorted((s for s in spans if s.stage in engines), key=lambda span: span.start):
        covered += max(0.0, span.end - max(span.start, reached))
        reached = max(reached, span.end)
    return float(1e3 * (total - covered))


def _timeline(spans: Sequence[Span]) -> tuple[TimelineSpan, ...]:
    start = min(span.start for span in spans)
    return tuple(
        TimelineSpan(
            stage=span.stage,
            thread=span.thread,
            start_ms=1e3 * (span.start - start),
            end_ms=1e3 * (span.end - start),
        )
        for span in sorted(spans, key=lambda span: span.start)
        if span.stage not in {"total", "cascade"}
    )
