"""What a bench report says of a GPU: rooflines, goals, transfers and tables."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import msgspec
import pytest

from support.bench_reports import bench_report
from zeroflaw import Inspector
from zeroflaw_benchmarks.bench.machine.gpu_state import read_samples, uses_of
from zeroflaw_benchmarks.bench.machine.graph_macs import graph_cost
from zeroflaw_benchmarks.bench.machine.spread import Spread
from zeroflaw_benchmarks.bench.measure.roofline import ONE_PROMPT, measure_roofline
from zeroflaw_benchmarks.bench.measure.transfers import transfers_of
from zeroflaw_benchmarks.bench.report.goals import goals_of
from zeroflaw_benchmarks.bench.report.gpu import PinnedCopy
from zeroflaw_benchmarks.bench.report.gpu_tables import transfer_table
from zeroflaw_benchmarks.bench.report.peer import Peer
from zeroflaw_benchmarks.bench.report.report import BenchReport
from zeroflaw_benchmarks.bench.report.rooflines import Ceiling
from zeroflaw_benchmarks.bench.report.tables import tables_of
from zeroflaw_engines.backends import BackendChoice, load_session
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle

GPU_CEILING = Ceiling(
    precision="fp32", gflops=500.0, library="torch", gigabytes_per_second=300.0, threads=None,
    device="NVIDIA L4", size=(8192, 8192, 8192),
)  # fmt: skip
CPU_CEILING = msgspec.structs.replace(GPU_CEILING, device="", size=None, threads=2)


@pytest.fixture(scope="module")
def inspector():
    """One that says it runs on a GPU, with engines of the CPU behind and a frame_resizer."""
    with Inspector.load("mini") as loaded:
        resizer = load_session(open_bundle("mini"), "frame_resizer")
        yield SimpleNamespace(
            choice=BackendChoice("onnxruntime-cuda", "fp16", "it was named"),
            sessions=replace(loaded.sessions, frame_resizer=resizer),
            bundle=loaded.bundle,
            parameters=loaded.parameters,
        )
        resizer.close()


def test_engines_on_a_gpu_are_held_against_the_gpu_alone(inspector) -> None:
    rows = measure_roofline(inspector, [CPU_CEILING, GPU_CEILING], seconds=0.01)
    assert [row.engine for row in rows][:3] == ["clip_encoder", "sam_encoder", "sam_decoder"]
    assert "frame_resizer" not in {row.engine for row in rows}, "it has no size of its own"
    for row in rows:
        assert row.matrix_share == pytest.approx(row.gflop / 500.0 / (row.call_ms.middle / 1e3))
        assert row.with_transfers_ms is not None
    assert measure_roofline(inspector, [CPU_CEILING], seconds=0.01) == ()


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx", "onnxruntime-cuda"])
@pytest.mark.parametrize("name", ["tiny_bundle", "fp16_bundle"])
def test_engines_in_fp32_are_held_against_their_own_graph(
    request: pytest.FixtureRequest, name: str, backend: str
) -> None:
    """What is built in FP32 is built of the FP32 graph, whether there are FP16 graphs or not."""
    bundle = request.getfixturevalue(name)
    with Inspector.load(bundle.path) as loaded:
        there = SimpleNamespace(
            choice=BackendChoice(backend, "fp32", "it was named"),
            sessions=loaded.sessions,
            bundle=loaded.bundle,
            parameters=loaded.parameters,
        )
        rows = measure_roofline(there, [GPU_CEILING], seconds=0.0)
    assert {"clip_encoder", "sam_encoder", "sam_decoder"} <= {row.engine for row in rows}
    for row in rows:
        cost = graph_cost(bundle.onnx_path(row.engine), ONE_PROMPT)
        assert row.megabytes == cost.min_bytes / 1e6
        assert row.gflop == cost.flops / 1e9


@pytest.mark.parametrize("backend", ["tensorrt", "onnxruntime-cuda"])
def test_engines_in_fp16_are_held_against_their_fp16_graph(
    fp16_bundle: Bundle, backend: str
) -> None:
    encoder = load_session(fp16_bundle, "sam_encoder")
    encoder._precision = "fp16"  # which it names after its backend
    there = SimpleNamespace(
        choice=BackendChoice(backend, "fp16", "it was named"),
        sessions=[encoder],
        bundle=fp16_bundle,
        parameters=None,
    )
    ceiling = msgspec.structs.replace(GPU_CEILING, precision="fp16")
    (row,) = measure_roofline(there, [ceiling], seconds=0.0)
    encoder.close()
    half, full = (
        graph_cost(fp16_bundle.graph("sam_encoder", target).path, ONE_PROMPT).min_bytes / 1e6
        for target in ("tensorrt", "onnxruntime")
    )
    assert row.megabytes == half < full


def test_engines_on_a_cpu_have_no_share_of_a_gpu(inspector) -> None:
    inspector = SimpleNamespace(**vars(inspector))
    inspector.choice = BackendChoice("onnxruntime", "fp32", "it was named")
    (first, *_) = measure_roofline(inspector, [GPU_CEILING, CPU_CEILING], seconds=0.01)
    assert first.matrix_share is first.with_transfers_ms is None
    assert measure_roofline(inspector, [GPU_CEILING], seconds=0.01) == ()


def test_where_the_gpu_resizes_the_frame_alone_goes_up(inspector) -> None:
    found = {(one.engine, one.tensor): one for one in transfers_of(inspector, None, (600, 800))}
    assert found["frame_resizer", "frame"].megabytes == pytest.approx(3 * 600 * 800 / 1e6)
    assert found["frame_resizer", "frame"].crosses
    assert ("clip_encoder", "image") not in found
    assert ("sam_encoder", "image") not in found


def gpu_report(share: float, clip_ms: float = 40.0, sam_ms: float = 60.0) -> BenchReport:
    report = bench_report([120.0] * 8)
    (row,) = report.roofline

    def encoder(name: str, ms: float):
        call = Spread(ms, ms, ms)
        return msgspec.structs.replace(row, engine=name, call_ms=call, matrix_share=share)

    rows = (encoder("clip_encoder", clip_ms), encoder("sam_encoder", sam_ms))
    return msgspec.structs.replace(report, roofline=rows, ceilings=(GPU_CEILING,))


def test_the_goals_of_a_gpu_are_stated_where_a_gpu_ran() -> None:
    met = {goal.goal: goal for goal in goals_of(gpu_report(0.6))}
    share = met["sam_encoder over the measured rate of products of matrices"]
    assert (share.limit, share.at_least, share.value, share.met) == (0.6, True, 0.6, True)
    whole = met["whole inspection over the sum of its encoders"]
    assert (whole.limit, whole.met) == (1.15, False)
    assert whole.value == pytest.approx(1.2)
    missed = {goal.goal: goal for goal in goals_of(gpu_report(0.59, 50.0, 60.0))}
    assert not missed[share.goal].met
    assert missed[whole.goal].met
    of_a_cpu = {goal.goal for goal in goals_of(bench_report([120.0] * 8))}
    assert of_a_cpu.isdisjoint({share.goal, whole.goal})


def test_transfers_take_at_least_what_pinned_memory_takes(inspector) -> None:
    transfers = transfers_of(inspector, None, (600, 800))
    pinned = [
        PinnedCopy(direction="in", gigabytes_per_second=20.0),
        PinnedCopy(direction="out", gigabytes_per_second=10.0),
    ]
    rows = {row[0]: row for row in transfer_table(transfers, pinned).rows}
    assert rows["frame_resizer: frame"][1:] == ("in", "1.440", "0.072")
    assert rows["sam_encoder: features"][1] == "out"


def test_tables_of_a_gpu_and_no_figure_where_none_was_measured() -> None:
    line = "GPU-1, NVIDIA L4, 2040, 6250, [N/A], [N/A], 55, 1024, 0x0000000000000004"
    ran = Peer(
        name="torch-eager-fp16", part="sam_encoder", weights="random", device="NVIDIA L4",
        seconds=Spread(0.02, 0.02, 0.02), ours=Spread(0.01, 0.01, 0.01),
        times_faster=Spread(2.0, 2.0, 2.0),
    )  # fmt: skip
    failed = Peer(
        name="torch-cuda-graph-fp16", part="sam_encoder", weights="random", device="cuda:0",
        why_not="it cannot be captured",
    )  # fmt: skip
    elsewhere = Peer(name="winclip", part="inspection", weights="", why_not="not compared")
    report = msgspec.structs.replace(
        gpu_report(0.5), peers=(ran, failed, elsewhere), gpus=uses_of(read_samples([line]))
    )
    tables = {table.title.split(",")[0]: table for table in tables_of(report)}
    (gpu,) = tables["GPUs during the run"].rows
    assert gpu == ("NVIDIA L4", "2040 (2040-2040)", "6250 (6250-6250)", "", "55 (55-55)", "1.07",
                   "power cap 100 %")  # fmt: skip
    on_gpu = {row[0]: row for row in tables["Peers on the GPU"].rows}
    assert on_gpu["torch-eager-fp16"][2:6] == (
        "NVIDIA L4", "20.00 (20.00-20.00)", "10.00 (10.00-10.00)", "2.00 (2.00-2.00)",
    )  # fmt: skip
    assert on_gpu["torch-eager-fp16"][6:11] == ("", "", "", "", "- / -")
    assert on_gpu["torch-cuda-graph-fp16"][-1] == "did not run: it cannot be captured"
    assert [row[0] for row in tables["Peers"].rows] == ["winclip"]
    roofline = tables["Roofline"]
    assert "on NVIDIA L4: fp32: 500 GFLOP/s (torch, 8192 x 8192 x 8192)" in roofline.note
    for table in tables.values():
        assert {len(row) for row in table.rows} == {len(table.heads)}, table.title
