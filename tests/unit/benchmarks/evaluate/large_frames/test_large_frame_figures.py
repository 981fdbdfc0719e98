"""Large frames as a whole and in tiles: resampling, goals, and a small run."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import typer
from PIL import Image
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from zeroflaw import Inspector
from zeroflaw_benchmarks.evaluate.large_frames import __main__ as command
from zeroflaw_benchmarks.evaluate.large_frames.figures import (
    ALL_FRAMES,
    MEAN,
    LargeFramesReport,
    goals,
    image_figures,
    saved_on_good,
)
from zeroflaw_benchmarks.evaluate.large_frames.inspecting import (
    SeenFrame,
    ViewFigures,
    grid_size,
    measured,
    truth_at_grid,
)
from zeroflaw_benchmarks.evaluate.metrics.metrics import PixelMetrics
from zeroflaw_benchmarks.evaluate.passes.inspecting_pass import at_grid
from zeroflaw_export.drawn_frames.large import LargeFrames, write_large_frames


def test_a_truth_keeps_every_defect(rng):
    mask = rng.random((30, 41)) < 0.02
    got = truth_at_grid(mask, 4)
    assert got.shape == grid_size(mask.shape, 4) == (8, 11)
    for y in range(8):
        for x in range(11):
            assert got[y, x] == mask[4 * y : 4 * y + 4, 4 * x : 4 * x + 4].any()


def test_finer_maps_are_averaged_and_coarser_ones_interpolated(rng):
    fine = rng.random((24, 36), dtype=np.float32)
    want = fine.reshape(8, 3, 12, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(at_grid(fine, (8, 12)), want, atol=1e-6)
    ramp = np.linspace(0, 1, 5, dtype=np.float32)[None].repeat(5, 0)
    wide = at_grid(ramp, (10, 20))
    assert wide.shape == (10, 20)
    assert (np.diff(wide[0]) >= 0).all()
    assert wide[0].mean() == pytest.approx(0.5)


def view(name, scores, *, tiles=1, run=1, f1=0.1):
    """A view of two classes of two frames, whose CLS scores are given, good ones first."""
    frames = tuple(
        SeenFrame(
            image=f"{n}.png",
            class_name="ab"[n // 2],
            defective=bool(n % 2),
            scores={"cls": score, "map_max": 0.0},
            tiles=tiles,
            tiles_run=run if n % 2 == 0 else tiles,
            sam_runs=1,
            total_ms=10.0,
            host_ms=1.0,
        )
        for n, score in enumerate(scores)
    )
    pixels = PixelMetrics(0.9, 0.2, f1, 0.5, 0.5, 0.5)
    by_map = {of_map: {"a": pixels, "b": pixels} for of_map in ("anomaly_map", "score_map")}
    return ViewFigures(name, frames, by_map, 10**9, "onnxruntime", "cls")


def test_goals_hold_tiles_against_the_whole_frame_and_count_tiles_of_good_frames():
    views = (
        view("whole", [0.5, 0.5, 0.5, 0.5], f1=0.1),
        view("tiles", [0.1, 0.2, 0.9, 0.8], tiles=10, run=10, f1=0.25),
        view("coarse", [0.1, 0.2, 0.3, 0.4], tiles=10, run=3),
    )
    report = LargeFramesReport(
        zeroflaw_version="0", command="", bundle="", bundle_identity="", product="object",
        dataset="", frame=(30, 40), smallest_defect=12, grid=(2, 5), overlap=0.2, shrink=4,
        load_average=0.0, views=views,
    )  # fmt: skip
    auroc, f1, saved = goals(report)
    assert (auroc.value, auroc.met) == (0.0, False)  # 0.5 and 0.5 against 1 and 0
    assert (f1.value, f1.met) == (2.5, True)
    assert (saved.value, saved.met) == (pytest.approx(0.7), True)
    assert saved_on_good(views[1]) == 0.0
    figures = image_figures(views[1], "cls")
    assert [figures[name].auroc for name in ("a", "b", MEAN)] == [1.0, 0.0, 0.5]
    want = roc_auc_score([0, 1, 0, 1], [0.1, 0.2, 0.9, 0.8])
    assert figures[ALL_FRAMES].auroc == pytest.approx(want)


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    root = tmp_path_factory.mktemp("datasets") / "large"
    write_large_frames(root, LargeFrames(good=1, defective=1, frame=(150, 200)))
    for name in ("casting", "gravel"):
        shutil.rmtree(root / name)
    return root


def invoke(*arguments):
    app = typer.Typer()
    app.command()(command.main)
    return CliRunner().invoke(app, [str(word) for word in arguments])


@pytest.mark.long
def test_the_same_frames_as_a_whole_and_in_tiles(frames, tmp_path, monkeypatch):
    # A process for each view would take most of the test's time.
    monkeypatch.setattr(command, "measured_apart", lambda task, _: measured(task))
    result = invoke(
        "mini", frames, "--rows", 1, "--columns", 2, "--coarse-limit", 1, "--threads", 1,
        "--out", tmp_path,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "large_frames.json").read_text())
    whole, tiles, coarse = found["views"]
    assert [v["view"] for v in found["views"]] == ["whole", "tiles", "coarse_to_fine 1"]
    assert {frame["tiles_run"] for frame in whole["frames"]} == {1}
    assert {frame["tiles_run"] for frame in tiles["frames"]} == {2}
    assert {frame["tiles_run"] for frame in coarse["frames"]} == {0}
    assert all(0 < f["host_ms"] < f["total_ms"] for v in found["views"] for f in v["frames"])
    text = (tmp_path / "large_frames.md").read_text()
    assert "150 px as a whole and in 1 x 2 tiles" in text
    # What the Inspector says of the bundle as it is, frame by frame.
    with Inspector.load("mini", threads=1) as inspector:
        for frame in whole["frames"]:
            (path,) = (
                path
                for path in frames.glob(f"{frame['class_name']}/test/*/{frame['image']}")
                if (path.parent.name != "good") == frame["defective"]
            )
            inspection = inspector.inspect(np.asarray(Image.open(path)), product="object")
            assert frame["scores"]["cls"] == pytest.approx(inspection.image_score, abs=1e-6)
            peak = float(inspection.anomaly_map.max())
            assert frame["scores"]["map_max"] == pytest.approx(peak, abs=1e-6)


@pytest.mark.parametrize("grid", [(), ("--rows", 2), ("--smallest-defect", 9, "--rows", 2)])
def test_a_grid_must_be_clear(frames, tmp_path, grid):
    result = invoke("mini", frames, *grid, "--out", tmp_path)
    assert "the grid of the tiles is not clear" in str(result.exception)
