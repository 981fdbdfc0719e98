"""One run of `zeroflaw bench`: loads a bundle and measures what was asked for."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import msgspec

from zeroflaw.inspector import EncoderSchedule, Inspector
from zeroflaw_benchmarks.bench.frames import BenchFrame, bench_frame
from zeroflaw_benchmarks.bench.machine.device_ceilings import DeviceCeilings
from zeroflaw_benchmarks.bench.machine.gpu_state import watched_gpus
from zeroflaw_benchmarks.bench.machine.machine_state import machine_record, machine_state
from zeroflaw_benchmarks.bench.measure.endurance import measure_endurance
from zeroflaw_benchmarks.bench.measure.host import measure_host
from zeroflaw_benchmarks.bench.measure.latency import measure_latency
from zeroflaw_benchmarks.bench.measure.load_time import LoadTask, measure_load
from zeroflaw_benchmarks.bench.measure.peers import measure_peers
from zeroflaw_benchmarks.bench.measure.race import PeerTask
from zeroflaw_benchmarks.bench.measure.roofline import (
    measure_ceilings,
    measure_gpu_ceilings,
    measure_roofline,
)
from zeroflaw_benchmarks.bench.measure.scale import growth_of, measure_scale
from zeroflaw_benchmarks.bench.measure.stream_gain import measure_stream
from zeroflaw_benchmarks.bench.measure.throughput import measure_batches, measure_clones
from zeroflaw_benchmarks.bench.process.run_on import RunOn
from zeroflaw_benchmarks.bench.process.scale_run import ScaleTask
from zeroflaw_benchmarks.bench.report.goals import goals_of
from zeroflaw_benchmarks.bench.report.report import (
    BENCH_SCHEMA_VERSION,
    BenchReport,
    HostMask,
    Subject,
)
from zeroflaw_benchmarks.bench.report.throughput import BatchThroughput, CloneThroughput
from zeroflaw_benchmarks.bench.settings import (
    refuse_what_takes_whole_frames,
    settings_notes,
    settings_of_product,
    size_of_frames,
)
from zeroflaw_engines.bundle.manifest import Manifest, sam_text
from zeroflaw_engines.bundle.products.settings import ProductSettings
from zeroflaw_engines.version import __version__


@dataclass(frozen=True)
class BenchOptions:
    """What is to be measured: the options of the command line, by their names.

    Attributes:
        size: Height and width of the frame, px; None takes that of the product's settings, or
            1024 x 1024.
        picture: What the frame shows; None takes the one that is always at hand.
        stream: Frames that flow through a stream in each round; 0 leaves it out.
        command: As it was typed, for the report.
    """

    bundle: str
    product: str | None = None
    run_on: RunOn = field(default_factory=RunOn)
    schedule: EncoderSchedule = "side_by_side"
    size: tuple[int, int] | None = None
    picture: Path | None = None
    runs: int = 0
    rounds: int = 3
    roofline: bool = True
    stream: int = 0
    scale: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    load: bool = False
    frames: int = 0
    command: str = ""


def run_bench(options: BenchOptions, report: Callable[[str], None] = lambda _: None) -> BenchReport:
    """Measure what the options ask for, one thing after the other.

    Raises:
        ZeroflawError: The bundle, the frame or an engine is not as it should be.
    """
    before = machine_state()
    settings, size = _looked_at(options)
    with (
        watched_gpus() as watch,
        tempfile.TemporaryDirectory(prefix="zeroflaw_bench_") as directory,
    ):
        frame = bench_frame(size, Path(directory), options.picture)
        report("loading")
        start = time.perf_counter()
        inspector = options.run_on.inspector(options.bundle, encoder_schedule=options.schedule)
        load_ms = 1e3 * (time.perf_counter() - start)
        with inspector:
            product = options.product or inspector.products[0]
            report("latency")
            latency = measure_latency(inspector, frame, product, load_ms=load_ms, runs=options.runs)
            report("host code alone")
            host = measure_host(size)
            beside_gpu = tuple(
                measure_host(size, path="gpu", mask=mask) for mask in get_args(HostMask)
            )
            run_on = _resolved(options.run_on, inspector)
            limits = DeviceCeilings()
            if options.roofline:
                report("the machine's ceilings")
                limits = (
                    measure_gpu_ceilings(run_on)
                    if run_on.on_gpu
                    else DeviceCeilings(measure_ceilings())
                )
            report("engines alone")
            roofline = measure_roofline(inspector, limits.ceilings)
            stream = endurance = None
            clones: tuple[CloneThroughput, ...] = ()
            batches: tuple[BatchThroughput, ...] = ()
            if options.stream:
                report("streams")
                stream = measure_stream(
                    inspector, frame, product, frames=options.stream, rounds=options.rounds
                )
                report("clones")
                clones = measure_clones(
                    inspector, frame, product,
                    frames=options.stream, rounds=options.rounds, on_gpu=run_on.on_gpu,
                )  # fmt: skip
                if settings is None:  # of a product with settings a batch are tiles
                    report("batches")
                    batches = measure_batches(
                        inspector, frame, product, frames=options.stream, rounds=options.rounds
                    )
            if options.frames:
                report(f"{options.frames} frames")
                endurance = measure_endurance(inspector, frame, product, options.frames)
            subject = _subject(options, inspector, frame, settings)
            notes = _notes(options, before.load_average, inspector, limits.why_not)
            notes += settings_notes(inspector, frame, product, settings)
        # From here on every run has a process of its own, and the machine for itself.
        load = None
        if options.load and not run_on.on_gpu:
            report("loading against plain sessions")
            load_task = LoadTask(options.bundle, run_on, product, str(frame.path))
            load = measure_load(load_task, options.rounds)
        scale_task = ScaleTask(options.bundle, run_on, product, size)
        scale = measure_scale(scale_task, options.scale, options.rounds, report)
        peer_task = PeerTask(options.bundle, run_on, product, str(frame.path))
        peers = measure_peers(peer_task, options.peers, options.rounds, Path(directory), report)
    found = BenchReport(
        schema_version=BENCH_SCHEMA_VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        zeroflaw_version=__version__,
        command=options.command,
        subject=subject,
        machine=machine_record(),
        before=before,
        after=machine_state(),
        latency=latency,
        host=host,
        host_beside_gpu=beside_gpu,
        ceilings=limits.ceilings,
        roofline=roofline,
        gpus=watch.use if run_on.on_gpu else (),
        pinned=limits.pinned,
        stream=stream,
        clones=clones,
        batches=batches,
        scale=scale,
        growth=growth_of(scale),
        peers=peers,
        endurance=endurance,
        load=load,
        notes=notes,
    )
    return msgspec.structs.replace(found, goals=goals_of(found))


def _looked_at(options: BenchOptions) -> tuple[ProductSettings | None, tuple[int, int]]:
    """Return the product's settings, and height and width of its frames, px."""
    settings = settings_of_product(options.bundle, options.product)
    refuse_what_takes_whole_frames(
        settings, peers=options.peers, scale=options.scale, load=options.load
    )
    return settings, size_of_frames(options.size, settings)


def _resolved(run_on: RunOn, inspector: Inspector) -> RunOn:
    """Name the backend that `auto` chose, so that what runs later is held against its like."""
    choice = inspector.choice
    return run_on if choice is None else replace(run_on, backend=choice.backend)


def _subject(
    options: BenchOptions, inspector: Inspector, frame: BenchFrame, settings: ProductSettings | None
) -> Subject:
    manifest, named = inspector.bundle.manifest, inspector.parameters.refiner
    refiner = {} if named == "cascade" else {"refiner": named}
    return Subject(
        bundle=options.bundle,
        identity=inspector.bundle.identity,
        models=_models(manifest),
        random_weights=manifest.random_weights,
        backend=inspector.backend,
        threads=options.run_on.threads,
        encoder_schedule=options.schedule,
        frame=frame.name,
        frame_height=frame.pixels.shape[0],
        frame_width=frame.pixels.shape[1],
        parameters={"no_region": "always_run", **refiner},
        settings=None if settings is None else settings.digest,
    )


def _models(manifest: Manifest) -> str:
    sam = "no SAM" if manifest.sam is None else f"SAM {sam_text(manifest)}"
    localizer = "" if manifest.localizer is None else f", localizer {manifest.localizer.name}"
    return f"{manifest.clip.architecture} at {manifest.clip.image_size} px and {sam}{localizer}"


def _notes(
    options: BenchOptions, load_average: float, inspector: Inspector, no_ceilings: str
) -> tuple[str, ...]:
    notes = []
    if no_ceilings:
        notes.append(f"no roofline: the GPU's ceilings were not measured: {no_ceilings}")
    if options.load and _resolved(options.run_on, inspector).on_gpu:
        notes.append(
            "--load was left out: the plain sessions that it holds ours against are of the CPU"
        )
    if load_average > 0.5:
        notes.append(
            f"the machine was not idle: its load average was {load_average} before the run;"
            " times are of a busy machine"
        )
    if inspector.bundle.manifest.random_weights is not None:
        notes.append("random weights: times and memory do not depend on them, masks mean nothing")
    return tuple(notes)
