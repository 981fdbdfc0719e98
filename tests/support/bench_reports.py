"""Bench reports with figures that a test chooses."""

from __future__ import annotations

from collections.abc import Sequence

from zeroflaw_benchmarks.bench.machine.machine_state import MachineRecord, MachineState
from zeroflaw_benchmarks.bench.machine.spread import Spread
from zeroflaw_benchmarks.bench.measure.latency import STAGES, stage_latency
from zeroflaw_benchmarks.bench.report.report import (
    BENCH_SCHEMA_VERSION,
    BenchReport,
    HostTime,
    Latency,
    Subject,
)
from zeroflaw_benchmarks.bench.report.rooflines import Ceiling, EngineRoofline


def bench_report(
    samples: Sequence[float], *, gflop: float = 10.0, processor: str = "a processor", **sections
) -> BenchReport:
    """A report of which every stage took `samples` milliseconds."""
    state = MachineState(
        clocks_mhz=(2600.0,), temperatures_c={}, load_average=0.0, free_memory_gb=8.0
    )
    one = Spread(1.0, 1.0, 1.0)
    call = Spread(100.0, 98.0, 103.0)
    return BenchReport(
        schema_version=BENCH_SCHEMA_VERSION,
        created="2026-11-25T22:00:00+00:00",
        zeroflaw_version="0",
        command="zeroflaw bench mini",
        subject=Subject(
            bundle="mini",
            identity="0" * 64,
            models="CLIP and SAM",
            random_weights=None,
            backend="onnxruntime",
            threads=0,
            encoder_schedule="side_by_side",
            frame="a frame",
            frame_height=1024,
            frame_width=1024,
            parameters={},
        ),
        machine=MachineRecord(
            processor=processor,
            features=(),
            cores=2,
            memory_gb=24.0,
            system="Linux",
            python="3.11",
            gpus=(),
            versions={"numpy": "2"},
            governor=None,
            thread_variables={},
        ),
        before=state,
        after=state,
        latency=Latency(
            load_ms=1.0,
            stages=tuple(stage_latency(name, kind, None, samples) for name, kind in STAGES.items()),
            host_ms=one,
            host_work_ms=one,
            host_share=Spread(0.01, 0.009, 0.011),
            status="ok",
            transfers=(),
            timeline=(),
            peak_rss_gb=1.0,
        ),
        host=HostTime(
            frame_height=1024, frame_width=1024, runs=3, cores=2, parts_ms={"total": one}
        ),
        ceilings=(
            Ceiling(
                precision="fp32", gflops=200.0, library="x", gigabytes_per_second=20.0, threads=2
            ),
        ),
        roofline=(
            EngineRoofline(
                engine="sam_encoder",
                calls=1,
                gflop=gflop,
                megabytes=100.0,
                megabytes_unfused=1000.0,
                floor_ms=50.0,
                bound="arithmetic",
                call_ms=call,
                fraction=0.5,
            ),
        ),
        **sections,
    )
