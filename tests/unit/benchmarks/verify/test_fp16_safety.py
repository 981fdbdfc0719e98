"""FP16 safety of whole bundles: the recipe holds where a graph without it overflows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image
from scipy.spatial.distance import cosine
from typer import Typer
from typer.testing import CliRunner

from zeroflaw_benchmarks.verify.fp16 import safety
from zeroflaw_benchmarks.verify.fp16.logits import LogitsReport, agreement_of, compare_logits
from zeroflaw_benchmarks.verify.fp16.provocation import scale_what_islands_read
from zeroflaw_benchmarks.verify.fp16.safety import (
    MIN_MASKS,
    PROVOCATION,
    UNPROTECTED,
    EngineScan,
    MaskAgreement,
    Miss,
    frames_of,
    provoke,
)
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.errors import DatasetError, EvaluationError
from zeroflaw_export.graphs.precision_recipe import FP16_RECIPE

pytestmark = pytest.mark.long

PITTED = Path(__file__).parents[4] / "examples" / "ball_screws" / "defective"


def test_the_recipe_holds_under_weights_that_provoke_overflow(tiny_bundle: Bundle) -> None:
    for scan in provoke(tiny_bundle, FP16_RECIPE, PROVOCATION):
        assert scan.accepted, scan
        assert scan.relative_error is not None
        assert scan.relative_error < 0.5, scan  # NaN, or all of it, where FP16 overflows


def test_a_bundle_for_batches_is_scanned_like_one_for_single_frames(
    tiny_bundle: Bundle, batch_bundle: Bundle
) -> None:
    scans = (provoke(bundle, FP16_RECIPE, PROVOCATION) for bundle in (tiny_bundle, batch_bundle))
    for want, got in zip(*scans, strict=True):
        assert got.accepted, got
        assert got.engine == want.engine
        assert got.largest == pytest.approx(want.largest, rel=0.05)


def test_the_same_graphs_without_islands_overflow(tiny_bundle: Bundle) -> None:
    for scan in provoke(tiny_bundle, UNPROTECTED, PROVOCATION):
        assert scan.overflowing > 0, scan
        assert not scan.accepted


@pytest.mark.parametrize("engine", ["clip_encoder", "sam_encoder", "sam_decoder"])
def test_the_provocation_scales_what_the_islands_read(tiny_bundle: Bundle, engine: str) -> None:
    model = ir.load(tiny_bundle.onnx_path(engine))
    assert scale_what_islands_read(model, 10) >= 4
    before = ir.load(tiny_bundle.onnx_path(engine)).graph.initializers
    scaled = [
        value for value in model.graph.initializers.values() if str(value.name).endswith("_scaled")
    ]
    assert scaled
    for value in scaled:
        original = before[str(value.name).removesuffix("_scaled")].const_value
        np.testing.assert_array_equal(value.const_value.numpy(), original.numpy() * 10)


def agreement(**changes) -> MaskAgreement:
    fields = {
        "frames": 60, "masks": MIN_MASKS, "mean_iou": 0.999, "least_iou": 0.995,
        "largest_score_difference": 0.0, "flipped_decisions": 0, "misses": (),
    }  # fmt: skip
    return MaskAgreement(**{**fields, **changes})


def test_what_is_accepted() -> None:
    assert agreement().accepted
    assert not agreement(masks=MIN_MASKS - 1).accepted
    assert not agreement(mean_iou=0.9979).accepted
    assert not agreement(mean_iou=float("nan")).accepted
    assert not agreement(misses=(Miss(3, 0.97, 40, 1),)).accepted
    assert not agreement(misses=(Miss(3, 0.95, 40, 2),)).accepted


@pytest.mark.parametrize(
    ("overflowing", "large", "fine"), [(0, 0, True), (1, 1, False), (0, 1, False)]
)
def test_a_scan_that_is_accepted(overflowing: int, large: int, fine: bool) -> None:
    scan = EngineScan("e", "r", 1.0, 9, overflowing, large, 1.0, "x")
    assert scan.accepted is fine


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "mask").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png", "mask/a.png"):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(folder / name)
    return folder


def test_frames_are_photos_then_quarters_then_drawn_ones(photos: Path) -> None:
    frames = list(frames_of([photos], 12))
    assert [frame.shape[:2] for frame in frames] == [(40, 60)] * 2 + [(20, 30)] * 8 + [
        (512, 512)
    ] * 2
    np.testing.assert_array_equal(frames[2], frames[0][:20, :30])
    np.testing.assert_array_equal(frames[5], frames[0][20:, 30:])
    assert len(list(frames_of([photos], 1))) == 1
    with pytest.raises(DatasetError, match="no photo"):
        list(frames_of([photos / "empty"], 1))


def test_the_command(tmp_path: Path, monkeypatch) -> None:
    """On random weights, with bounds that a few frames can keep."""
    monkeypatch.setattr(safety, "MIN_MASKS", 0)
    monkeypatch.setattr(safety, "MIN_MEAN_IOU", 0.0)
    import typer

    app = typer.Typer()
    app.command()(safety.main)
    report = tmp_path / "report.json"
    result = CliRunner().invoke(app, ["mini", str(PITTED), "--frames", "3", "--json", str(report)])
    assert result.exit_code in {0, 1}, result.output
    raw = json.loads(report.read_text())
    assert raw["agreement"]["frames"] == 3
    assert [scan["engine"] for scan in raw["natural"]] == [
        "clip_encoder",
        "sam_encoder",
        "sam_decoder",
    ]
    assert all(scan["overflowing"] == 0 for scan in raw["natural"])
    assert len(raw["provoked"]) == 3
    assert all(scan["overflowing"] > 0 for scan in raw["unprotected"])
    assert ("NOT safe" in result.output) is not raw["accepted"]
    assert (result.exit_code == 0) is raw["accepted"]


def test_frames_that_never_reach_an_engine_tell_nothing_of_it(tmp_path: Path) -> None:
    grey = np.full((64, 64, 3), 90, np.uint8)
    grey[:, 32:] = 140
    Image.fromarray(grey).save(tmp_path / "edge.png")
    app = Typer()
    app.command()(safety.main)
    result = CliRunner().invoke(app, ["mini", str(tmp_path), "--frames", "1"])
    assert isinstance(result.exception, EvaluationError)
    assert "no frame made sam_decoder run" in str(result.exception)


@pytest.mark.parametrize("name", ["tiny_bundle", "batch_bundle"])
def test_low_res_logits_agree_on_a_tiny_bundle_but_not_to_the_bit(
    request: pytest.FixtureRequest, name: str
) -> None:
    report = compare_logits(request.getfixturevalue(name), ["real", "noise"])
    assert [it.image for it in report.agreements] == ["real", "noise"]
    assert all(0.9995 <= it.min_cosine < 1 for it in report.agreements), report.agreements
    assert all(1e-6 < it.largest_difference < 0.05 for it in report.agreements)
    assert report.accepted


def test_the_agreement_of_logits_is_that_of_the_worst_mask() -> None:
    rng = np.random.default_rng(0)
    want = rng.normal(size=(1, 4, 8, 8)).astype(np.float32)
    got = want.copy()
    got[0, 2] += rng.normal(size=(8, 8)).astype(np.float32)
    it = agreement_of("real", [(want, want), (want, got)])
    a, b = want[0, 2].ravel(), got[0, 2].ravel()
    assert it.min_cosine == pytest.approx(1 - cosine(a, b), abs=1e-6)
    assert it.flipped == pytest.approx(((want > 0) != (got > 0)).mean() / 2)
    assert it.prompts == 2


def test_logits_that_are_not_numbers_are_refused() -> None:
    want = np.ones((1, 4, 8, 8), np.float32)
    got = want.copy()
    got[0, 0, 0, 0] = np.nan
    assert not LogitsReport((agreement_of("real", [(want, got)]),), {}).accepted


def test_openvino_in_fp32_gives_the_masks_of_onnxruntime() -> None:
    command = ["mini", str(PITTED), "--backend", "openvino", "--frames", "3"]
    app = Typer()
    app.command()(safety.main)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "3 frames, 3 with a mask" in result.output
    assert "0 below 0.99; 0 decisions change" in result.output
