"""`zeroflaw bench` end to end, on the bundle that ships with zeroflaw and on a random one."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jsonschema
import pytest
import typer
from typer.testing import CliRunner

from support.products.learned_product import bank_of, store
from zeroflaw import Inspector
from zeroflaw.pictures.images import read_image
from zeroflaw_benchmarks.bench import run
from zeroflaw_benchmarks.bench.cli import bench
from zeroflaw_benchmarks.bench.frames import bench_frame
from zeroflaw_benchmarks.bench.measure.host import measure_host
from zeroflaw_benchmarks.bench.measure.latency import measure_latency
from zeroflaw_benchmarks.bench.measure.load_time import LoadTask, measure_load
from zeroflaw_benchmarks.bench.measure.peers import measure_peers
from zeroflaw_benchmarks.bench.measure.race import PeerTask
from zeroflaw_benchmarks.bench.measure.roofline import measure_ceilings, measure_roofline
from zeroflaw_benchmarks.bench.measure.scale import measure_scale
from zeroflaw_benchmarks.bench.measure.transfers import transfers_of
from zeroflaw_benchmarks.bench.process.run_on import RunOn
from zeroflaw_benchmarks.bench.process.scale_run import ScaleTask, run_scale
from zeroflaw_benchmarks.bench.report.report import bench_json_schema, read_report, report_json
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.errors import BenchmarkError

EXAMPLES = Path(__file__).parents[3] / "examples"
SCHEMA = Path(__file__).parents[3] / "docs" / "bench.schema.json"
ONE_THREAD = RunOn(threads=1)


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        run, "measure_ceilings", lambda: measure_ceilings(shapes=((64, 32, 48),), repeats=1)
    )
    monkeypatch.setattr(run, "measure_roofline", partial(measure_roofline, seconds=0.05))
    monkeypatch.setattr(run, "measure_host", partial(measure_host, runs=3))


def invoke(*arguments: object):
    app = typer.Typer()
    app.command()(bench)
    return CliRunner().invoke(app, [str(word) for word in arguments], catch_exceptions=False)


@pytest.mark.long
def test_the_command_end_to_end(tmp_path: Path) -> None:
    """Every stage, a report that follows the schema, a page that needs nothing but itself."""
    arguments = ("mini", "--size", "320x240", "--runs", "3", "--rounds", "1", "--stream",
                 "--stream-frames", "3", "--frames", "20", "--out", tmp_path / "old")  # fmt: skip
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    data = json.loads((tmp_path / "old" / "bench.json").read_text())
    schema = json.loads(SCHEMA.read_text())
    assert schema == json.loads(json.dumps(bench_json_schema())), "run `make schema`"
    jsonschema.validate(data, schema)
    report = read_report(tmp_path / "old" / "bench.json")
    stages = {stage.stage: stage for stage in report.latency.stages}
    for name in ("queue", "decode", "squash", "fit", "clip_encoder", "sam_encoder",
                 "prompt_points", "sam_decoder_1", "sam_decoder_2", "sam_decoder_3", "mask",
                 "score", "regions", "total"):  # fmt: skip
        assert stages[name].p50 > 0, name
        assert len(stages[name].samples_ms) == 3
        assert name in result.output
    total = stages["total"]
    encoders = max(stages["clip_encoder"].minimum, stages["sam_encoder"].minimum)
    assert total.minimum > encoders + stages["sam_decoder_1"].minimum
    assert report.latency.host_ms.middle < total.p50
    assert total.cold_ms is not None
    assert {row.engine for row in report.roofline} == {
        "clip_encoder",
        "sam_encoder",
        "sam_decoder",
        "reference_matcher",
    }
    matching = next(goal for goal in report.goals if "reference bank" in goal.goal)
    assert re.fullmatch(r"[\d.]+ ms, [\d.]+% of the CLIP encoder, each alone", matching.note)
    assert "reference_matcher" not in stages, "the product has no bank"
    assert report.stream is not None
    assert report.stream.frames == 3
    assert [row.clones for row in report.clones] == [1, 2, 4]
    assert report.batches == (), "mini takes single frames"
    assert "All of them share the same cores." in result.output
    assert report.endurance is not None
    assert len(report.endurance.totals_ms) == len(report.endurance.rss_mb) == 20
    assert min(report.endurance.rss_mb) > 50
    assert report.endurance.p99_over_p50 >= 1
    page = (tmp_path / "old" / "bench.html").read_text()
    assert page.count("<svg") == 5
    assert not re.search(r"<(script|link|img|iframe)|@import|url\(\s*['\"]?http", page)
    text = (tmp_path / "old" / "bench.md").read_text()
    assert text.count("\n## ") == page.count("<h2>") - page.count("<svg")
    assert "| sam_encoder | engine |" in text

    # The same run against itself and against one that was four times as fast.
    old, new = tmp_path / "old" / "bench.json", tmp_path / "new"
    same = invoke("mini", "--size", "320x240", "--runs", "3", "--no-roofline", "--ratios-only",
                  "--compare", old, "--out", new)  # fmt: skip
    assert "Against the older report" in same.output
    assert "Not compared: " in same.output
    faster = json.loads(report_json(report))
    for stage in faster["latency"]["stages"]:
        stage["p50"] /= 4
        stage["samples_ms"] = [value / 4 for value in stage["samples_ms"]]
    (tmp_path / "faster.json").write_text(json.dumps(faster))
    slower = invoke("mini", "--size", "320x240", "--runs", "5", "--no-roofline", "--out",
                    new, "--compare", tmp_path / "faster.json")  # fmt: skip
    assert slower.exit_code == 5, slower.output
    assert "worse by more than the noise" in slower.output


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    for option, value in (("--size", "big"), ("--peers", "tensorflow"), ("--scale", "height")):
        with pytest.raises(BenchmarkError):
            invoke("mini", option, value, "--out", tmp_path)
    with pytest.raises(BenchmarkError, match="cannot be read"):
        invoke("mini", "--compare", tmp_path / "none.json")


def test_transfers_are_the_tensors_of_the_contract() -> None:
    with Inspector.load("mini") as inspector:
        found = {(t.engine, t.direction, t.tensor): t for t in transfers_of(inspector)}
    sizes = inspector.bundle.manifest.sizes
    image = found["sam_encoder", "in", "image"].megabytes
    assert image == pytest.approx(3 * sizes.sam_image_size**2 / 1e6)
    logits = found["sam_decoder", "out", "low_res_logits"].megabytes
    assert logits == pytest.approx(3 * 4 * sizes.low_res_size**2 / 1e6), "the chosen mask alone"
    assert ("sam_decoder", "in", "features") not in found, "they stay where the encoder left them"
    assert not any(transfer.crosses for transfer in found.values()), "a CPU copies nothing"


def test_a_product_with_a_bank_has_the_matcher_among_its_stages(tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(open_bundle("mini").path, tmp_path / "bundle"))
    pitted = sorted((EXAMPLES / "ball_screws" / "defective").iterdir())[1]
    frame = bench_frame((325, 800), tmp_path, pitted)
    with Inspector.load(bundle) as inspector:
        store(bundle, "object", bank_of(inspector, [read_image(frame.path)], 700))
    parameters = open_bundle(bundle).manifest.method_parameters.replace(no_region="always_run")
    with Inspector.load(bundle, parameters=parameters) as inspector:
        latency = measure_latency(inspector, frame, "object", load_ms=1.0, runs=2)
    stages = {stage.stage: stage for stage in latency.stages}
    assert stages["reference_matcher"].kind == "engine"
    assert 0 < stages["reference_matcher"].p50 < stages["total"].p50
    found = {(one.engine, one.direction, one.tensor) for one in latency.transfers}
    assert ("reference_matcher", "out", "reference_map") in found
    assert ("reference_matcher", "in", "bank") not in found, "it is uploaded once"


@pytest.mark.long
def test_peers_on_random_weights_agree(tiny_bundle: Bundle, tmp_path: Path) -> None:
    frame = bench_frame((192, 256), tmp_path)
    task = PeerTask(str(tiny_bundle.path), ONE_THREAD, "object", str(frame.path), cascades=2)
    rows = {row.name: row for row in measure_peers(task, ["torch", "sam-onnx"], 1, tmp_path)}
    assert len(rows) == 3
    for row in rows.values():
        assert row.why_not == ""
        assert row.times_faster.middle == pytest.approx(row.seconds.middle / row.ours.middle)
    torch_row = next(row for row in rows.values() if row.part == "inspection")
    assert float(torch_row.agreement.split()[-1]) > 0.99
    for row in rows.values():
        if row.part == "cascade":
            assert float(re.search(r"by (\S+) at most", row.agreement)[1]) < 1e-3


@pytest.mark.long
def test_encoders_of_the_same_weights_agree(tiny_bundle: Bundle, tmp_path: Path) -> None:
    """PyTorch's encoder in both precisions and its plain export, each with time and memory."""
    frame = bench_frame((192, 256), tmp_path)
    task = PeerTask(str(tiny_bundle.path), ONE_THREAD, "object", str(frame.path))
    fp32, bf16, plain = measure_peers(task, ["sam-encoder"], 1, tmp_path)
    for row, limit in ((fp32, 0.99999), (bf16, 0.999), (plain, 0.99999)):
        assert row.why_not == ""
        assert row.part == "sam_encoder"
        assert float(row.agreement.split()[-1]) > limit
        assert row.seconds.middle > 0
        assert min(row.peak_rss_gb, row.ours_peak_rss_gb) > 0.02


def test_a_peer_that_is_not_installed_says_so(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    frame = bench_frame((64, 64), tmp_path)
    task = PeerTask("mini", ONE_THREAD, "object", str(frame.path))
    rows = measure_peers(task, ["winclip"], 1, tmp_path)
    assert [row.why_not for row in rows] == ["not installed: pip install anomalib"]


def test_processes_begin_together() -> None:
    task = ScaleTask("mini", ONE_THREAD, "object", (96, 128), seconds=0.05)
    points = measure_scale(task, ["processes"], 1)
    assert points[0].value == 1
    assert all(point.per_second > 0 and point.peak_rss_gb > 0.05 for point in points)
    assert all("mask" in point.stages_ms for point in points)


def test_frames_in_flight_points_and_products_are_set() -> None:
    base = ScaleTask("mini", ONE_THREAD, "object", (96, 128), seconds=0.05)
    found = run_scale(replace(base, in_flight=3, points=10, products=40))
    assert len(found.latencies_ms) >= 9
    assert found.per_second > 0
    assert run_scale(base).stages_ms.keys() == found.stages_ms.keys()


def test_loading_is_held_against_plain_sessions(tmp_path: Path) -> None:
    frame = bench_frame((96, 128), tmp_path)
    found = measure_load(LoadTask("mini", RunOn(), "object", str(frame.path)), 1)
    assert found.first_result_ms.middle > found.load_ms.middle > found.digests_ms.middle > 0
    assert found.ratio.middle == pytest.approx(found.load_ms.middle / found.plain_ms.middle)


def test_a_station_without_torch_can_run_it() -> None:
    code = (
        "import sys, zeroflaw_benchmarks.bench.run, zeroflaw_benchmarks.bench.report.page;"
        "print(sorted({'torch', 'zeroflaw_export', 'open_clip'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
