"""Ours against peers, without running any: who is compared with whom, and what a row says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zeroflaw_benchmarks.bench.measure.cpu_peers import CPU_PEERS
from zeroflaw_benchmarks.bench.measure.gpu_peers import GPU_PEERS, gpu_peer_rows
from zeroflaw_benchmarks.bench.measure.peers import measure_peers
from zeroflaw_benchmarks.bench.measure.race import Contender, PeerTask, Race, measured_row
from zeroflaw_benchmarks.bench.process import pipeline_run
from zeroflaw_benchmarks.bench.process.child_process import RunTimes
from zeroflaw_benchmarks.bench.process.pipeline_run import PipelineTask
from zeroflaw_benchmarks.bench.process.run_on import RunOn
from zeroflaw_benchmarks.bench.report.peer import Peer
from zeroflaw_engines.errors import BenchmarkError

ON_CPU = PeerTask("mini", RunOn("onnxruntime"), "object", "none.jpg")
ON_GPU = PeerTask("mini", RunOn("onnxruntime-cuda", device=1), "object", "none.jpg")
ROW = Peer(name="a peer", part="sam_encoder", weights="random")


def times(*milliseconds: float, device: str = "a GPU", **more) -> RunTimes:
    return RunTimes([ms / 1e3 for ms in milliseconds], 10**9, device=device, **more)


@pytest.mark.parametrize(("task", "others"), [(ON_CPU, GPU_PEERS), (ON_GPU, CPU_PEERS)])
def test_peers_of_another_device_are_rows_that_say_why(
    task: PeerTask, others: tuple[str, ...], tmp_path: Path
) -> None:
    rows = measure_peers(task, others, 1, tmp_path)
    assert [row.name for row in rows] == list(others)
    for row in rows:
        assert "are not compared" in row.why_not
        assert row.seconds is row.ours is row.times_faster is None


def test_all_are_those_of_the_device_that_runs_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for module in ("cpu", "gpu"):
        monkeypatch.setattr(
            f"zeroflaw_benchmarks.bench.measure.peers.{module}_peer_rows",
            lambda race: seen.append(race.names) or (),
        )
    for task in (ON_CPU, ON_GPU):
        measure_peers(task, ["all"], 1, tmp_path)
    assert seen == [CPU_PEERS, GPU_PEERS]
    assert "torch-eager-fp16" in GPU_PEERS
    with pytest.raises(BenchmarkError, match="no peer 'tensorflow'"):
        measure_peers(ON_GPU, ["tensorflow"], 1, tmp_path)


def test_without_pytorch_gpu_peers_say_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    rows = list(gpu_peer_rows(Race(ON_GPU, ("torch-eager-fp16",), 1, tmp_path, lambda _: None)))
    assert {row.part for row in rows} == {
        "inspection",
        "clip_encoder",
        "sam_encoder",
        "sam_decoder",
    }
    for row in rows:
        assert row.device == "cuda:1"
        assert row.why_not.endswith("is not installed: pip install 'zeroflaw[export]'")


def raced(ours: RunTimes, theirs: RunTimes | BenchmarkError, directory: Path) -> Peer:
    def once() -> RunTimes:
        if isinstance(theirs, BenchmarkError):
            raise theirs
        return theirs

    race = Race(ON_GPU, ("p",), 1, directory, lambda _: None)
    for name in ("p", "ours"):
        np.save(race.file(f"part_{name}"), np.zeros(1))
    (row,) = race.rows("part", lambda: ours, {"p": Contender(ROW, once)}, lambda *_: "")
    return row


@pytest.mark.parametrize(("theirs", "ours"), [("cpu", "gpu"), ("a GPU", "cpu")])
def test_what_ran_on_two_devices_is_not_compared(theirs: str, ours: str, tmp_path: Path) -> None:
    row = raced(times(1.0, device=ours), times(9.0, device=theirs), tmp_path)
    assert row.why_not == f"it ran on {theirs}, ours on {ours}"
    assert row.times_faster is None


def test_a_peer_that_fails_has_a_row_with_the_reason(tmp_path: Path) -> None:
    failed = BenchmarkError("it cannot be captured as a CUDA graph: why", "another")
    row = raced(times(1.0), failed, tmp_path)
    assert row.why_not == "it cannot be captured as a CUDA graph: why"


def test_a_row_has_both_clocks_and_ratios_inside_rounds() -> None:
    def resident(*ms: float) -> list[float]:
        return [one / 1e3 for one in ms]

    theirs = [
        times(8, 9, 10, resident_seconds=resident(6), event_seconds=resident(5), note="skipped"),
        times(
            18, resident_seconds=resident(12), event_seconds=resident(10), device_bytes=3 * 10**9
        ),
    ]
    ours = [times(3, resident_seconds=resident(2)), times(6, resident_seconds=resident(3))]
    row = measured_row(ROW, theirs, ours)
    assert row.seconds is not None
    assert row.seconds.middle == pytest.approx(0.0135), "medians of the medians"
    for got, want in (
        (row.times_faster, (3.0, 3.0, 3.0)),
        (row.times_faster_resident, (3.5, 3.0, 4.0)),
        (row.events, (0.0075, 0.005, 0.01)),
    ):
        assert got is not None
        assert (got.middle, got.least, got.most) == pytest.approx(want)
    assert (row.device, row.agreement) == ("a GPU", "skipped")
    assert (row.device_memory_gb, row.ours_device_memory_gb) == (3.0, None), "what is not told"


def test_figures_that_were_not_measured_are_absent() -> None:
    row = measured_row(ROW, [times(2)], [times(1, resident_seconds=[0.001])])
    assert row.resident is row.ours_resident is row.times_faster_resident is row.events is None
    assert row.device_memory_gb is row.ours_device_memory_gb is None


def test_the_cascade_in_pytorch_is_not_raced_against_another_refiner(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "frame.png")
    frame, mask = str(tmp_path / "frame.png"), str(tmp_path / "mask.npy")
    task = PipelineTask("mini_clipsam", RunOn("torch"), "object", frame, mask)
    with pytest.raises(BenchmarkError, match="run the cascade"):
        pipeline_run.run_pipeline(task)
