"""The arithmetic of `zeroflaw bench`: noise, slopes, growth, floors, bytes."""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from support.bench_reports import bench_report
from support.exported_bundle import add_proposer
from support.small_graphs import write_proposal_graph
from zeroflaw.pipeline.stopwatch import Span
from zeroflaw_benchmarks.bench.frames import bench_frame, frame_size
from zeroflaw_benchmarks.bench.machine.graph_macs import GraphCost, graph_cost
from zeroflaw_benchmarks.bench.machine.machine_state import machine_record, machine_state
from zeroflaw_benchmarks.bench.machine.memory_rate import memory_rate
from zeroflaw_benchmarks.bench.machine.spread import Spread
from zeroflaw_benchmarks.bench.measure import latency
from zeroflaw_benchmarks.bench.measure.endurance import growth_per_frame
from zeroflaw_benchmarks.bench.measure.roofline import engine_roofline, measure_roofline
from zeroflaw_benchmarks.bench.measure.scale import growth_of
from zeroflaw_benchmarks.bench.report.compare import compare, own_noise
from zeroflaw_benchmarks.bench.report.goals import goals_of
from zeroflaw_benchmarks.bench.report.peer import Peer
from zeroflaw_benchmarks.bench.report.report import (
    Endurance,
    ScalePoint,
    read_report,
    report_json,
)
from zeroflaw_benchmarks.bench.report.rooflines import Ceiling
from zeroflaw_benchmarks.bench.report.tables import latency_table
from zeroflaw_engines.backends import choose_backend
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.contract import BOX_PROPOSER, SAM_DECODER
from zeroflaw_engines.errors import BenchmarkError
from zeroflaw_engines.parameters import MethodParameters

STEADY = (100.0, 101.0, 99.0, 102.0, 98.0, 100.0, 100.5, 99.5)


def slower(factor: float) -> tuple[float, ...]:
    return tuple(factor * value for value in STEADY)


def test_what_is_within_the_noise_has_not_moved() -> None:
    found = compare(bench_report(STEADY), bench_report(slower(1.01)))
    assert not any(change.moved for change in found.changes)
    assert not found.worse


def test_a_slower_stage_is_named_and_a_faster_one_is_no_complaint() -> None:
    found = compare(bench_report(STEADY), bench_report(slower(1.2)))
    worse = {change.name for change in found.worse}
    assert "sam_encoder, ms" in worse
    assert "total, ms" in worse
    assert "host share" not in worse, "nothing but the stages has changed"
    better = compare(bench_report(slower(1.2)), bench_report(STEADY))
    assert {change.name for change in better.changes if change.moved} == worse
    assert not better.worse


def test_a_wild_run_has_wide_noise() -> None:
    """The same slowdown of 20 %, on a machine that varies by 40 % by itself."""
    wild = tuple(100.0 + 20.0 * math.sin(i) for i in range(50))
    found = compare(bench_report(wild), bench_report([1.2 * value for value in wild]))
    assert not any(change.moved for change in found.changes if change.name == "total, ms")
    assert own_noise([5.0, 1.0, 9.0]) == (1.0, 9.0)


def test_counts_are_exact_and_times_of_another_machine_are_left_out() -> None:
    old = bench_report(STEADY)
    new = bench_report(slower(3.0), gflop=10.001, processor="another processor")
    found = compare(old, new)
    names = {change.name for change in found.changes}
    assert "total, ms" not in names
    assert "total, ms" in found.left_out
    (count,) = [change for change in found.changes if change.name == "sam_encoder, GFLOP a call"]
    assert count.worse
    assert count.name in {change.name for change in compare(old, new, worse_by=9.0).worse}
    assert any("another processor" in difference.text for difference in found.differences)
    same_machine = compare(old, bench_report(slower(3.0)), ratios_only=True)
    assert not same_machine.worse


def test_a_ratio_to_a_peer_is_better_when_it_is_larger() -> None:
    def report(ratio: float):
        times = Spread(ratio, ratio - 0.05, ratio + 0.05)
        peer = Peer(
            name="P", part="cascade", weights="w", seconds=times, ours=times, times_faster=times
        )
        return bench_report(STEADY, peers=(peer,))

    assert [c.name for c in compare(report(2.0), report(1.5)).worse] == ["cascade: P over zeroflaw"]
    assert not compare(report(1.5), report(2.0)).worse
    (change,) = [
        change
        for change in compare(report(2.0), report(1.5), worse_by=1.4).changes
        if "cascade" in change.name
    ]
    assert (change.moved, change.to_the_worse, change.worse) == (True, True, False)
    assert compare(report(2.0), report(1.4), worse_by=1.4).worse


def test_a_report_is_read_as_it_was_written_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    report = bench_report(STEADY)
    path.write_bytes(report_json(report))
    assert read_report(path) == report
    path.write_text('{"schema_version": 1}')
    with pytest.raises(BenchmarkError, match="is not a bench report"):
        read_report(path)
    with pytest.raises(BenchmarkError, match="cannot be read"):
        read_report(tmp_path / "missing.json")


def test_a_leak_is_seen_and_noise_is_not(rng: np.random.Generator) -> None:
    frames = np.arange(1000)
    noise = rng.normal(0, 2e6, 1000)
    slope, width = growth_per_frame(3e8 + 10_000 * frames + noise)
    assert slope == pytest.approx(10_000, rel=0.2)
    assert slope > width
    slope, width = growth_per_frame(3e8 + noise)
    assert abs(slope) <= 2 * width
    warming_up = 3e8 - 1e8 * np.exp(-frames / 30.0)
    assert growth_per_frame(warming_up + noise)[0] < 1_000, "the first half does not count"
    assert growth_per_frame(np.full(1000, 3e8)) == (0.0, 0.0)


def point(value: float, **stages: float) -> ScalePoint:
    return ScalePoint(
        axis="megapixels",
        value=value,
        latency_ms=Spread(1.0, 1.0, 1.0),
        per_second=1.0,
        stages_ms=stages,
        peak_rss_gb=1.0,
    )


def test_a_stage_that_grows_faster_than_its_work_is_flagged() -> None:
    sizes = (0.25, 1.0, 4.0, 12.5, 25.0, 50.0)
    found = growth_of(
        point(size, squash=5 * size, regions=2 * size**1.6, prompt_points=3 * size**0.5, score=0.1)
        for size in sizes
    )
    rows = {row.stage: row for row in found}
    assert rows["squash"].exponent == pytest.approx(1.0)
    assert not rows["squash"].defect
    assert rows["regions"].exponent == pytest.approx(1.6)
    assert rows["regions"].defect
    assert rows["prompt_points"].defect, "it sees grids of a fixed size"
    assert "score" not in rows, "too short to say"


CEILING = Ceiling(
    precision="fp32", gflops=200.0, library="numpy", gigabytes_per_second=10.0, threads=2
)


def test_the_floor_is_the_greater_of_arithmetic_and_traffic() -> None:
    heavy = GraphCost({"MatMul": 100_000_000_000}, 1_000_000, 0, 0)
    row = engine_roofline("sam_encoder", 1, heavy, CEILING, Spread(2000.0, 1900.0, 2100.0))
    assert (row.bound, row.floor_ms, row.fraction) == ("arithmetic", 1000.0, 0.5)
    wide = GraphCost({"MatMul": 1_000_000}, 4_000_000_000, 1_000_000_000, 0)
    row = engine_roofline("sam_encoder", 1, wide, CEILING, Spread(1000.0, 900.0, 1100.0))
    assert (row.bound, row.floor_ms, row.fraction) == ("memory", 500.0, 0.5)
    assert row.megabytes == 5000.0


def test_bytes_of_a_graph(tmp_path: Path) -> None:
    """y = reshape(x @ w) + b, with a dynamic axis of 6; the reshape moves nothing."""
    weights = [
        numpy_helper.from_array(np.zeros((4, 5), np.float32), "w"),
        numpy_helper.from_array(np.zeros(5, np.float16), "b"),
        numpy_helper.from_array(np.array([-1, 5], np.int64), "shape"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"]),
            helper.make_node("Reshape", ["product", "shape"], ["flat"]),
            helper.make_node("Add", ["flat", "b"], ["y"]),
        ],
        "g",
        [value("x", TensorProto.FLOAT, ["batch", 3, 4])],
        [value("y", TensorProto.FLOAT, [18, 5])],
        weights,
        value_info=[
            value("product", TensorProto.FLOAT, ["batch", 3, 5]),
            value("flat", TensorProto.FLOAT, [18, 5]),
        ],
    )
    path = tmp_path / "g.onnx"
    onnx.save(helper.make_model(graph), path)
    cost = graph_cost(path, {"batch": 6})
    x, w, y, b = 6 * 3 * 4 * 4, 4 * 5 * 4, 6 * 3 * 5 * 4, 5 * 2
    assert cost.flops == 2 * 6 * 3 * 4 * 5
    assert cost.weight_bytes == w + b + 2 * 8
    assert cost.tensor_bytes == x + y
    assert cost.min_bytes == w + b + 16 + x + y
    assert cost.unfused_bytes == (x + w + y) + (y + b + y)
    with pytest.raises(ValueError, match="no fixed shape"):
        graph_cost(path)


def test_host_time_is_what_no_engine_covers() -> None:
    def span(stage: str, start: float, end: float) -> Span:
        return Span(stage, "t", start, end)

    spans = (
        span("clip_encoder", 0.10, 0.30),
        span("sam_encoder", 0.20, 0.60),
        span("squash", 0.00, 0.10),
        span("sam_decoder_1", 0.70, 0.75),
        span("total", 0.00, 0.40),  # both halves of an inspection are a total
        span("total", 0.40, 1.00),
    )
    encoders_and_decoder = {"clip_encoder", "sam_encoder", "sam_decoder_1"}
    assert latency._outside_engines(spans, encoders_and_decoder) == pytest.approx(450.0)
    resized_there = {"squash", *encoders_and_decoder}
    assert latency._outside_engines(spans, resized_there) == pytest.approx(350.0)


def test_percentiles_are_numpys() -> None:
    samples = [float(i) for i in range(1, 102)]
    row = latency.stage_latency("total", "total", None, samples)
    assert (row.minimum, row.p50, row.p90, row.p99, row.maximum) == (1, 51, 91, 100, 101)


def test_the_fraction_of_the_limit_stands_beside_its_stage() -> None:
    rows = {row[0]: row[-1] for row in latency_table(bench_report(STEADY)).rows}
    assert rows["sam_encoder"] == "50 %"
    assert rows["clip_encoder"] == rows["mask"] == ""


def test_goals_say_what_is_missed() -> None:
    endurance = Endurance(
        frames=1000,
        rss_slope_kb=5.0,
        rss_slope_noise_kb=1.0,
        p99_over_p50=1.2,
        totals_ms=(),
        rss_mb=(),
    )
    peer = Peer(
        name="SamOnnxModel, official export",
        part="cascade",
        weights="w",
        seconds=Spread(3.0, 3.0, 3.0),
        ours=Spread(2.0, 2.0, 2.0),
        times_faster=Spread(1.5, 1.4, 1.6),
    )
    goals = {
        goal.goal.split(",")[0]: goal
        for goal in goals_of(bench_report(STEADY, endurance=endurance, peers=(peer,)))
    }
    assert not goals["growth of memory over 1000 frames"].met
    assert goals["p99 over p50 of 1000 frames"].met
    assert goals["cascade against SamOnnxModel"].met
    assert goals["host time of a 1024x1024 frame"].value == 1.0


@pytest.mark.parametrize(
    ("frame", "mask", "parts", "met"),
    [
        ((1024, 1024), "defect", {"total": 3.8, "polygons": 0.1}, True),
        ((1024, 1024), "defect", {"total": 3.8, "polygons": 0.3}, False),
        ((3000, 4096), "defect", {"total": 11.0, "polygons": 0.9}, True),
        ((3000, 4096), "specks", {"regions": 10.1}, False),
        ((1024, 1024), "specks", {"regions": 9.9}, True),
        ((480, 640), "defect", {"total": 99.0, "polygons": 0.0}, None),
    ],
)
def test_host_code_beside_a_gpu_is_held_against_its_goals(frame, mask, parts, met) -> None:
    report = bench_report(STEADY)
    host = replace(
        report.host,
        frame_height=frame[0],
        frame_width=frame[1],
        path="gpu",
        mask=mask,
        parts_ms={name: Spread(ms, ms, ms) for name, ms in parts.items()},
    )
    before = goals_of(report)
    goals = [
        goal for goal in goals_of(replace(report, host_beside_gpu=(host,))) if goal not in before
    ]
    assert [goal.met for goal in goals] == ([] if met is None else [met])


def test_frames_have_the_size_that_was_asked_for(tmp_path: Path) -> None:
    assert frame_size("640x480") == (480, 640)
    frame = bench_frame((48, 64), tmp_path)
    assert frame.pixels.shape == (48, 64, 3)
    for text in ("640", "640x", "x480", "0x5", "axb", "-3x4"):
        with pytest.raises(BenchmarkError, match="frame size"):
            frame_size(text)


def test_the_machine_and_its_state(tmp_path: Path) -> None:
    zone = tmp_path / "thermal_zone0"
    zone.mkdir()
    (zone / "temp").write_text("45500\n")
    (zone / "type").write_text("x86_pkg_temp\n")
    broken = tmp_path / "thermal_zone1"
    broken.mkdir()
    assert machine_state(tmp_path).temperatures_c == {"thermal_zone0 x86_pkg_temp": 45.5}
    record = machine_record()
    assert record.cores >= 1
    assert record.versions["numpy"] == np.__version__


def test_memory_is_read_at_a_rate_that_can_be() -> None:
    assert 0.5 < memory_rate(megabytes=64, repeats=2) < 5000


def test_the_roofline_is_of_the_calls_of_the_refiner(tmp_path) -> None:
    """And a box proposer that multiplies no matrices has none."""
    shutil.copytree(open_bundle("mini").path, tmp_path / "boxes")
    add_proposer(tmp_path / "boxes", write_proposal_graph(tmp_path / "boxes.onnx"))
    bundle = open_bundle(tmp_path / "boxes")
    engines = (BOX_PROPOSER, SAM_DECODER)
    ceiling = Ceiling(
        precision="fp32", gflops=50.0, library="torch", gigabytes_per_second=20.0, threads=2
    )
    for refiner, calls in (("cascade", 3), ("mmr", 1), ("box_proposals", 1)):
        inspector = SimpleNamespace(
            choice=choose_backend("onnxruntime", bundle=bundle),
            sessions=[
                SimpleNamespace(contract=bundle.contract(one), execute=lambda _: time.sleep(1e-3))
                for one in engines
            ],
            bundle=bundle,
            parameters=MethodParameters(refiner=refiner),
        )
        (row,) = measure_roofline(inspector, [ceiling], seconds=0)
        assert (row.engine, row.calls) == (SAM_DECODER, calls)
