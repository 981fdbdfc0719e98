"""Evaluations of products with settings, against the Inspector and scikit-learn."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score
from threadpoolctl import threadpool_limits

from support.datasets import save
from support.evaluations import MAP_SIZE, evaluated, evaluated_job
from zeroflaw import Inspector
from zeroflaw_benchmarks.evaluate.passes.inspecting_pass import read_scores
from zeroflaw_benchmarks.evaluate.report.contact_sheet import write_contact_sheets
from zeroflaw_benchmarks.evaluate.report.tables import markdown
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.products.settings import ProductSettings, Rule, Tiles, Zone
from zeroflaw_engines.bundle.products.writer import set_settings
from zeroflaw_engines.errors import EvaluationError

FRAME = (96, 128)
# The left half is judged.
LEFT = Zone(name="left", polygon=((0, 0), (64, 0), (64, 96), (0, 96)))


def settings(**given) -> ProductSettings:
    return ProductSettings(frame_height=FRAME[0], frame_width=FRAME[1], **given)


def bundle_with(tiny_bundle: Bundle, folder: Path, product_settings: ProductSettings) -> Bundle:
    shutil.copytree(tiny_bundle.path, folder)
    return set_settings(open_bundle(folder), "object", product_settings)


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    """Blocks of colour: two good ones, and defects on the left, on the right, and on both sides."""
    root = tmp_path_factory.mktemp("datasets") / "sides"
    rng = np.random.default_rng(2)
    boxes = {
        "good": [],
        "left": [(20, 10, 30, 30)],
        "right": [(40, 90, 20, 30)],
        "across": [(30, 50, 30, 40)],
    }
    for kind, places in boxes.items():
        for number in range(2):
            image = rng.integers(0, 255, (12, 16, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
            mask = np.zeros(FRAME, np.uint8)
            for y, x, height, width in places:
                mask[y : y + height, x : x + width] = 255
            image[mask > 0] = rng.integers(0, 255, 3)
            if kind != "good":
                save(root / "object" / "ground_truth" / kind / f"{number}_mask.png", mask)
            save(root / "object" / "test" / kind / f"{number}.png", image)
    return root


def inspected(bundle: Bundle, root: Path, **changed):
    """Each frame with its mask and what the Inspector says of it."""
    with Inspector.load(bundle.path, threads=1) as loaded, threadpool_limits(1):
        inspector = Inspector(
            bundle, loaded._sessions, parameters=loaded.parameters.replace(**changed)
        )
        for path in sorted((root / "object" / "test").glob("*/*.png")):
            kind, stem = path.parent.name, path.stem
            mask = root / "object" / "ground_truth" / kind / f"{stem}_mask.png"
            truth = np.asarray(Image.open(mask)) > 0 if mask.exists() else np.zeros(FRAME, bool)
            yield path, truth, inspector.inspect(np.asarray(Image.open(path)), product="object")


def test_whole_frames_under_settings_are_evaluated_as_without_them(tiny_bundle, frames, tmp_path):
    """Two ways through the evaluation: the cached passes, and the Inspector's own."""
    without = evaluated(tiny_bundle, frames, tmp_path / "cache")
    bundle = bundle_with(tiny_bundle, tmp_path / "bundle", settings())
    got = evaluated(bundle, frames, tmp_path / "cache")
    assert repr(got.rows) == repr(without.rows)  # NaN, which PRO of masks is, equals nothing
    assert got.image_rows == without.image_rows
    assert got.statuses == without.statuses
    assert got.classes == without.classes
    assert not without.decisions
    assert got.settings == {"object": settings().digest}


@pytest.fixture(scope="module")
def zoned(tiny_bundle, frames, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoned")
    product_settings = settings(
        tiles=Tiles(rows=1, columns=2, overlap=0.2),
        zones=(LEFT,),
        rules=(Rule(name="any", by="image_score"), Rule(name="spot", min_area_px=40)),
    )
    bundle = bundle_with(tiny_bundle, folder / "bundle", product_settings)
    job, got = evaluated_job(bundle, frames, folder / "cache")
    return bundle, job, got


def test_only_what_is_judged_counts(zoned, frames):
    bundle, _, got = zoned
    # The zone ends between two pixels of the grid that is measured on.
    judged = np.zeros((MAP_SIZE, MAP_SIZE), bool)
    judged[:, : MAP_SIZE // 2] = True
    for row in got.table("scoring"):
        scores, truths = [], []
        for _, truth, inspection in inspected(bundle, frames, scoring=row.name):
            assert inspection.tiles.columns == 2
            height, width = inspection.score_map.shape
            how = cv2.INTER_AREA if min(height, width) > MAP_SIZE else cv2.INTER_LINEAR
            scores.append(cv2.resize(inspection.score_map, judged.shape, interpolation=how)[judged])
            small = Image.fromarray(np.uint8(truth) * 255).resize(judged.shape, Image.BILINEAR)
            truths.append((np.asarray(small) > 127)[judged])
        score, truth = np.concatenate(scores), np.concatenate(truths)
        metrics = row.classes["object"]
        assert metrics.auroc == pytest.approx(roc_auc_score(truth, score), abs=1e-9)
        want = average_precision_score(truth, score)
        assert metrics.average_precision == pytest.approx(want, abs=1e-9)


def test_a_defect_wholly_outside_is_none_and_one_that_reaches_inside_is(zoned, frames):
    bundle, _, got = zoned
    (count,) = got.classes
    assert (count.good, count.defective) == (4, 4)
    assert any("2 images have defects outside" in note for note in got.notes)
    scores, defective = {"cls": [], "map_max": []}, []
    for path, *_ in inspected(bundle, frames):
        defective.append(path.parent.name in ("left", "across"))
    for name, found in scores.items():
        found += [i.image_score for *_, i in inspected(bundle, frames, image_scoring=name)]
        (row,) = (row for row in got.image_rows if row.name == name)
        assert row.classes["object"].auroc == pytest.approx(roc_auc_score(defective, found))


def test_decisions_are_the_inspectors(zoned, frames):
    bundle, _, got = zoned
    figures = got.decisions["object"]
    want = {"good": [], "defective": []}
    scores, defective, rules = [], [], []
    for path, _, inspection in inspected(bundle, frames):
        bad = path.parent.name in ("left", "across")
        want["defective" if bad else "good"].append(inspection.decision)
        scores.append(inspection.decision_score)
        defective.append(bad)
        rules.append((inspection.rule, bad))
    for kind, decisions in want.items():
        counted = {name: decisions.count(name) for name in ("accept", "reject", "hold")}
        assert getattr(figures, kind) == counted
    assert figures.auroc == pytest.approx(roc_auc_score(defective, np.float32(scores)))
    for name in ("any", "spot"):
        assert figures.rules[name] == (rules.count((name, False)), rules.count((name, True)))


def test_the_report_says_how_frames_were_seen(zoned, tmp_path):
    _, job, got = zoned
    text = markdown(got)
    (note,) = (note for note in got.notes if "has settings" in note)
    assert note in text
    assert "1 x 2 tiles with an overlap of 0.2; zones to include: left; rules: any, spot" in note
    assert got.settings["object"][:16] in note
    assert "## Decisions of products with settings" in text
    assert any("only pixels that are judged count" in text for text in got.conventions)
    write_contact_sheets(job, 4, tmp_path)
    assert list((tmp_path / "contact_sheets").glob("*.png"))


def test_nothing_is_inspected_twice_and_other_settings_are_inspected_anew(zoned, frames, tmp_path):
    bundle, job, got = zoned
    files = {sample.inspection for sample in job.samples}
    before = {file: file.stat().st_mtime_ns for file in files}
    again = evaluated(bundle, frames, job.cache.root)
    assert repr(again.rows) == repr(got.rows)
    assert {file: file.stat().st_mtime_ns for file in files} == before
    shutil.copytree(bundle.path, tmp_path / "bundle")
    right = Zone(name="right", polygon=((64, 0), (128, 0), (128, 96), (64, 96)))
    other = set_settings(open_bundle(tmp_path / "bundle"), "object", settings(zones=(right,)))
    other_job, _ = evaluated_job(other, frames, job.cache.root)
    assert not files & {sample.inspection for sample in other_job.samples}
    judged = read_scores(other_job.samples[0].inspection, "map")[1]
    assert judged[:, MAP_SIZE // 2 :].all()
    assert not judged[:, : MAP_SIZE // 2].any()


def test_frames_that_a_station_holds_are_left_out_and_named(tiny_bundle, frames, tmp_path):
    root = tmp_path / "frames"
    shutil.copytree(frames, root)
    odd = save(root / "object" / "test" / "good" / "odd.png", np.zeros((50, 60, 3), np.uint8))
    bundle = bundle_with(tiny_bundle, tmp_path / "bundle", settings())
    got = evaluated(bundle, root, tmp_path / "cache")
    (skipped,) = got.skipped
    assert skipped.path == odd
    assert "wrong_frame_size" in skipped.reason
    assert got.classes[0].good == 2


@pytest.mark.parametrize("asked", [{"ablations": ("kernel",)}, {"shots": (1,)}])
def test_what_is_measured_on_whole_frames_is_refused(tiny_bundle, frames, tmp_path, asked):
    bundle = bundle_with(tiny_bundle, tmp_path / "bundle", settings())
    with pytest.raises(EvaluationError, match=r"'object'.*as a whole"):
        evaluated(bundle, frames, tmp_path / "cache", **asked)
