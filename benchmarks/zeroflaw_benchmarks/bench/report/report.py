"""What `zeroflaw bench` measured, as `bench.json` holds it; docs/bench.schema.json describes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from zeroflaw_benchmarks.bench.machine.machine_state import MachineRecord, MachineState
from zeroflaw_benchmarks.bench.machine.spread import Spread
from zeroflaw_benchmarks.bench.report.gpu import GpuUse, PinnedCopy
from zeroflaw_benchmarks.bench.report.peer import Peer
from zeroflaw_benchmarks.bench.report.record import Positive, Record
from zeroflaw_benchmarks.bench.report.rooflines import Ceiling, EngineRoofline
from zeroflaw_benchmarks.bench.report.throughput import BatchThroughput, CloneThroughput
from zeroflaw_engines.errors import BenchmarkError

BENCH_SCHEMA_VERSION: Final = 1

StageKind = Literal["queue", "host", "engine", "total"]
# Which way a frame goes to the encoders, and what its mask shows.
HostPath = Literal["cpu", "gpu"]
HostMask = Literal["defect", "specks"]
Axis = Literal[
    "frames_in_flight", "threads", "processes", "megapixels", "points", "products", "tiles"
]


class Subject(Record, frozen=True, kw_only=True):
    """What was measured.

    Attributes:
        bundle: As it was named on the command line.
        identity: Digest of its engines and weights.
        models: Its CLIP and its SAM.
        random_weights: Seed, if any part of the weights is random; times do not depend on it.
        backend: What ran the engines: name, version, device and precision.
        threads: Threads of each engine; 0 takes every core.
        encoder_schedule: `side_by_side` or `clip_first`.
        frame: What was inspected.
        frame_height: px.
        frame_width: px.
        parameters: Method parameters that differ from the bundle's, and why.
        settings: Digest of the product's settings; None if its frames are seen as a whole.
    """

    bundle: str
    identity: str
    models: str
    random_weights: int | None
    backend: str
    threads: int
    encoder_schedule: str
    frame: str
    frame_height: int
    frame_width: int
    parameters: dict[str, str]
    settings: str | None = None


class StageLatency(Record, frozen=True, kw_only=True):
    """Milliseconds of one stage over the warm inspections; percentiles interpolate linearly.

    Attributes:
        stage: Its name; docs/bench.md says what each contains.
        kind: `engine` calls, `host` code, the `queue` of a stream, or the `total`.
        cold_ms: In the first inspection after loading, without a warm-up; None in a queue.
        samples_ms: Of each warm inspection, in the order in which they ran.
    """

    stage: str
    kind: StageKind
    cold_ms: Positive | None
    minimum: Positive
    p50: Positive
    p90: Positive
    p99: Positive
    maximum: Positive
    samples_ms: tuple[float, ...]


class Transfer(Record, frozen=True, kw_only=True):
    """A tensor that one inspection hands to an engine or takes from it.

    Attributes:
        engine: Whose.
        tensor: As the engine's contract names it.
        direction: `in` or `out`, seen from the engine.
        megabytes: 1e6 bytes, all calls of one inspection together.
        crosses: Whether it is copied between host memory and the backend's; a tensor that stays
            where an engine left it does not.
    """

    engine: str
    tensor: str
    direction: Literal["in", "out"]
    megabytes: Positive
    crosses: bool


class TimelineSpan(Record, frozen=True, kw_only=True):
    """When a stage of one inspection ran, in milliseconds since its start."""

    stage: str
    thread: str
    start_ms: float
    end_ms: float


class Latency(Record, frozen=True, kw_only=True):
    """Latency by stage.

    Attributes:
        load_ms: `Inspector.load`, digests and all, with the files in the file cache.
        stages: In the order of the inspection.
        host_ms: All that is outside engines: the total without the time in which any engine ran.
        host_work_ms: The work of all host stages, whether an engine ran beside it or not.
        host_share: `host_work_ms` over the total, of each inspection, in [0, 1].
        status: Of the inspections; a bench always runs the whole cascade.
        transfers: Of one inspection.
        timeline: Of the inspection whose total is the median.
        peak_rss_gb: Largest resident memory of the process so far, mapped files included.
    """

    load_ms: Positive
    stages: tuple[StageLatency, ...]
    host_ms: Spread
    host_work_ms: Spread
    host_share: Spread
    status: str
    transfers: tuple[Transfer, ...]
    timeline: tuple[TimelineSpan, ...]
    peak_rss_gb: float


class HostTime(Record, frozen=True, kw_only=True):
    """Host code alone: engines of full size that answer at once, so that nothing contends with it.

    The contract is that of ViT-L/14 at 518 px and a SAM at 1024 px, whatever the bundle holds.

    Attributes:
        frame_height: px.
        frame_width: px.
        runs: Inspections.
        cores: That it could use.
        parts_ms: Of each part, `total` among them. `polygons`, which are made when somebody asks
            for them, come after the total.
        path: `cpu` resizes frames on the host; `gpu` copies them to where a GPU reads them.
        mask: One `defect`, or the `specks` of random low-res logits.
    """

    frame_height: int
    frame_width: int
    runs: int
    cores: int
    parts_ms: dict[str, Spread]
    path: HostPath = "cpu"
    mask: HostMask = "defect"


class StreamGain(Record, frozen=True, kw_only=True):
    """Frames that flow through `InspectionStream`, pipelined and one after the other.

    Attributes:
        frames: Of each round.
        rounds: Interleaved.
        per_second: Frames a second, pipelined.
        per_second_alone: Frames a second, one after the other.
        gain: Their ratio inside each round; over 1 is faster.
        queue_ms: Wait of the frames before their inspection began, pipelined.
    """

    frames: int
    rounds: int
    per_second: Spread
    per_second_alone: Spread
    gain: Spread
    queue_ms: Spread


class ScalePoint(Record, frozen=True, kw_only=True):
    """One setting on one axis.

    Attributes:
        axis: What is varied.
        value: A count, or megapixels, as the axis says.
        latency_ms: Of one inspection.
        per_second: Inspections a second, all threads and processes together.
        stages_ms: Median of each stage.
        peak_rss_gb: Largest resident memory, all processes together.
    """

    axis: Axis
    value: float
    latency_ms: Spread
    per_second: float
    stages_ms: dict[str, float]
    peak_rss_gb: float


class Growth(Record, frozen=True, kw_only=True):
    """How a stage grows along an axis.

    Attributes:
        axis: What is varied.
        stage: As `Inspection.timings_ms` names it.
        exponent: Of the power law over the upper half of the axis: time ~ value ** exponent.
        allowed: What its work grows with: 1 for a stage that sees every pixel of a frame or
            every tile, 0 for one that sees grids of a fixed size.
        defect: Whether it grows faster than its work, beyond the noise.
    """

    axis: Axis
    stage: str
    exponent: float
    allowed: float
    defect: bool


class Goal(Record, frozen=True, kw_only=True):
    """A figure that must be reached.

    Attributes:
        goal: In words.
        limit: What it must not exceed, or must at least be; see `at_least`.
        at_least: Whether `limit` is a lower bound.
        value: What was measured.
        met: Whether it is reached.
        note: What a reader must know of it.
    """

    goal: str
    limit: float
    at_least: bool
    value: float
    met: bool
    note: str = ""


class Endurance(Record, frozen=True, kw_only=True):
    """Many frames through one Inspector.

    Attributes:
        frames: How many.
        rss_slope_kb: Growth of resident memory a frame, least squares over the second half.
        rss_slope_noise_kb: What the slope varies by itself: 95 %, from blocks of frames.
        p99_over_p50: Of the totals.
        totals_ms: Of every frame.
        rss_mb: After every frame.
    """

    frames: int
    rss_slope_kb: float
    rss_slope_noise_kb: float
    p99_over_p50: float
    totals_ms: tuple[float, ...]
    rss_mb: tuple[float, ...]


class LoadTime(Record, frozen=True, kw_only=True):
    """Load to first result against a plain session load of the same files.

    Attributes:
        first_result_ms: Load, verification of every digest and the first inspection.
        load_ms: The load alone.
        digests_ms: Of that, reading and digesting every file.
        plain_ms: Loading the three graphs in sessions with the backend's defaults.
        plain_first_ms: The same, with one run of each engine.
        ratio: `load_ms` over `plain_ms`, inside each round.
        ratio_first: `first_result_ms` over `plain_first_ms`, inside each round.
    """

    first_result_ms: Spread
    load_ms: Spread
    digests_ms: Spread
    plain_ms: Spread
    plain_first_ms: Spread
    ratio: Spread
    ratio_first: Spread


class BenchReport(Record, frozen=True, kw_only=True):
    """One run of `zeroflaw bench`; a section that was not asked for is None or empty.

    `gpus` and `pinned` are of runs whose backend is on a GPU: what each GPU did meanwhile, and how
    fast memory is copied to it and back.
    """

    schema_version: Annotated[int, msgspec.Meta(ge=1)]
    created: str
    zeroflaw_version: str
    command: str
    subject: Subject
    machine: MachineRecord
    before: MachineState
    after: MachineState
    latency: Latency
    host: HostTime
    host_beside_gpu: tuple[HostTime, ...] = ()
    ceilings: tuple[Ceiling, ...] = ()
    roofline: tuple[EngineRoofline, ...] = ()
    gpus: tuple[GpuUse, ...] = ()
    pinned: tuple[PinnedCopy, ...] = ()
    stream: StreamGain | None = None
    clones: tuple[CloneThroughput, ...] = ()
    batches: tuple[BatchThroughput, ...] = ()
    scale: tuple[ScalePoint, ...] = ()
    growth: tuple[Growth, ...] = ()
    peers: tuple[Peer, ...] = ()
    endurance: Endurance | None = None
    load: LoadTime | None = None
    goals: tuple[Goal, ...] = ()
    notes: tuple[str, ...] = ()


def report_json(report: BenchReport) -> bytes:
    """Write the report as `bench.json` holds it."""
    return msgspec.json.format(msgspec.json.encode(report)) + b"\n"


def read_report(path: Path) -> BenchReport:
    """Read a `bench.json`.

    Raises:
        BenchmarkError: It cannot be read, or is not a report of this schema version.
    """
    remedy = "give a bench.json that `zeroflaw bench` of this version wrote"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BenchmarkError(f"{path} cannot be read: {error.strerror}", remedy) from error
    try:
        return msgspec.json.decode(data, type=BenchReport)
    except msgspec.MsgspecError as error:
        raise BenchmarkError(f"{path} is not a bench report: {error}", remedy) from error


def bench_json_schema() -> dict[str, Any]:
    """Make the JSON schema of `bench.json`, as docs/bench.schema.json holds it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"zeroflaw bench, schema version {BENCH_SCHEMA_VERSION}",
        **msgspec.json.schema(BenchReport),
    }
