"""A bench of a product with settings: its frames' size, and what is refused."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import msgspec
import pytest

from support.bench_reports import bench_report
from zeroflaw_benchmarks.bench.machine.spread import Spread
from zeroflaw_benchmarks.bench.measure.scale import growth_of
from zeroflaw_benchmarks.bench.process.run_on import RunOn
from zeroflaw_benchmarks.bench.process.scale_run import HOST_STAGE, ScaleTask, run_scale
from zeroflaw_benchmarks.bench.report.goals import goals_of
from zeroflaw_benchmarks.bench.report.report import ScalePoint
from zeroflaw_benchmarks.bench.run import BenchOptions, run_bench
from zeroflaw_benchmarks.bench.settings import settings_of_product, size_of_frames
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.products.settings import ProductSettings, Tiles
from zeroflaw_engines.bundle.products.writer import set_settings
from zeroflaw_engines.errors import BenchmarkError

SETTINGS = ProductSettings(
    frame_width=320, frame_height=200, tiles=Tiles(rows=1, columns=2, overlap=0.2)
)


@pytest.fixture(scope="module")
def tiled(tmp_path_factory):
    """mini, whose product is seen in two tiles."""
    path = tmp_path_factory.mktemp("bundles") / "tiled"
    shutil.copytree(open_bundle("mini", verify_digests=False).path, path)
    return set_settings(open_bundle(path), "object", SETTINGS)


def test_frames_are_of_the_size_of_the_settings(tiled):
    settings = settings_of_product(tiled.path, "object")
    assert settings == SETTINGS
    assert settings_of_product(tiled.path, "nobody") is None
    first, *_ = sorted(tiled.manifest.products)
    assert (settings_of_product(tiled.path, None) == SETTINGS) == (first == "object")
    assert size_of_frames(None, settings) == (200, 320)
    assert size_of_frames((200, 320), settings) == (200, 320)
    assert size_of_frames(None, None) == (1024, 1024)
    assert size_of_frames((48, 64), None) == (48, 64)
    with pytest.raises(BenchmarkError, match="made for 320x200"):
        size_of_frames((1024, 1024), settings)


@pytest.mark.parametrize(
    "asked", [{"peers": ("torch",)}, {"load": True}, {"scale": ("threads", "megapixels")}]
)
def test_what_takes_whole_frames_is_refused(tiled, asked):
    with pytest.raises(BenchmarkError, match="product with settings"):
        run_bench(BenchOptions(tiled.path, "object", roofline=False, **asked))


def test_the_report_says_what_was_run_and_states_no_goals_of_whole_frames(tiled, monkeypatch):
    from zeroflaw_benchmarks.bench import run

    seen = []
    host = bench_report([1.0]).host
    monkeypatch.setattr(run, "measure_host", lambda size, **_: seen.append(size) or host)
    monkeypatch.setattr(run, "measure_roofline", lambda *_: ())
    options = BenchOptions(tiled.path, "object", run_on=RunOn(threads=1), runs=1, roofline=False)
    report = run_bench(options)
    assert set(seen) == {(200, 320)}
    subject = report.subject
    assert (subject.frame_height, subject.frame_width) == (200, 320)
    assert subject.settings == SETTINGS.digest
    assert any("1 x 2 tiles, of which CLIP was run on 2" in note for note in report.notes)
    stages = {stage.stage for stage in report.latency.stages}
    assert {"view", "blend", "clip_encoder", "sam_encoder", "sam_decoder_3"} <= stages
    assert not goals_of(report)


def test_a_product_without_settings_keeps_its_goals():
    assert goals_of(bench_report([1.0, 2.0]))


def test_one_setting_of_the_axis_of_tiles():
    task = ScaleTask("mini", RunOn(threads=1), "object", (192, 256), tiles_a_side=2, seconds=0.0)
    times = run_scale(task)
    assert len(times.latencies_ms) == 3
    engines = sum(
        value
        for stage, value in times.stages_ms.items()
        if stage.startswith(("clip_encoder", "sam_"))
    )
    assert 0 < times.stages_ms[HOST_STAGE] < times.stages_ms["total"] - 0.5 * engines
    assert times.stages_ms["blend"] > 0


@pytest.mark.parametrize(("exponent", "defect"), [(1.0, False), (0.3, False), (1.6, True)])
def test_host_time_may_grow_as_the_tiles(exponent, defect):
    points = [
        ScalePoint(
            axis="tiles",
            value=tiles,
            latency_ms=Spread(1.0, 1.0, 1.0),
            per_second=1.0,
            stages_ms={HOST_STAGE: 50.0 * tiles**exponent, "clip_encoder": 100.0 * tiles**2},
            peak_rss_gb=1.0,
        )
        for tiles in (1, 4, 9, 16, 36)
    ]
    (growth,) = growth_of(points)
    assert (growth.stage, growth.defect) == (HOST_STAGE, defect)
    assert growth.exponent == pytest.approx(exponent)


@pytest.mark.parametrize(("memory", "met"), [(1.2, True), (1.6, False)])
def test_memory_of_a_large_frame_has_a_goal(memory, met):
    point = SimpleNamespace(axis="tiles", value=9, peak_rss_gb=memory)
    report = msgspec.structs.replace(bench_report([1.0]), scale=(point,))
    (goal,) = (goal for goal in goals_of(report) if "25 MP" in goal.goal)
    assert goal.met == met
