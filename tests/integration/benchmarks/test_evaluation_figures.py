"""Figures of evaluations, against the Inspector and scikit-learn."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from threadpoolctl import threadpool_limits

from support.evaluations import MAP_SIZE, evaluated, evaluated_job
from zeroflaw import Inspector, MethodParameters
from zeroflaw_benchmarks.evaluate.passes.measuring_pass import CachedSample, cached_score


def truth_of(image: Path, root: Path) -> np.ndarray | None:
    """The mask's file pixels, found by the layout's rule and not by our reader."""
    kind = image.parent.name
    if kind == "good":
        return None
    name = image.parent.parent.parent.name
    path = root / name / "ground_truth" / kind / f"{image.stem}_mask.png"
    return np.asarray(Image.open(path))


def april_gan_truth(image: Path, root: Path, size: int) -> np.ndarray:
    mask = truth_of(image, root)
    if mask is None:
        return np.zeros((size, size), bool)
    resized = Image.fromarray(np.uint8(mask > 0) * 255).resize((size, size), Image.BILINEAR)
    return np.asarray(resized) / 255 > 0.5


def images_of(root: Path, name: str) -> list[Path]:
    return sorted((root / name / "test").glob("*/*.png"))


def sklearn_figures(scores: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    precision, recall, _ = precision_recall_curve(truth, scores)
    with np.errstate(invalid="ignore"):
        f1 = np.nanmax(2 * precision * recall / (precision + recall))
    return roc_auc_score(truth, scores), average_precision_score(truth, scores), f1


@pytest.mark.parametrize(
    "parameters",
    [
        MethodParameters(),
        MethodParameters(extreme_threshold=0.8, fusion_weight=0.3),
        MethodParameters(
            extreme_threshold=0.85,
            no_region="always_run",
            sam_input="squashed",
            box="per_component",
            stage1_mask="single",
        ),
    ],
    ids=["default", "some_without_region", "squashed"],
)
def test_every_row_is_what_an_inspector_with_its_parameters_gives(
    tiny_bundle, dataset_dir, shared_cache, parameters
) -> None:
    got = evaluated(
        tiny_bundle, dataset_dir, shared_cache, parameters=parameters, ablations=("cascade",)
    )
    assert [row.name for row in got.table("scoring")] == ["fused", "map", "mask", "sam_probability"]
    assert len(got.table("cascade")) == 3
    statuses = Counter()
    with Inspector.load(tiny_bundle.path, threads=1) as loaded, threadpool_limits(1):
        for row in got.rows:
            inspector = Inspector(tiny_bundle, loaded._sessions, parameters=row.parameters)
            means = []
            for name, metrics in row.classes.items():
                inspections = [
                    inspector.inspect(np.asarray(Image.open(path)), product=name)
                    for path in images_of(dataset_dir, name)
                ]
                if row.name == "fused":
                    statuses.update(inspection.status for inspection in inspections)
                scores = np.concatenate([i.score_map.ravel() for i in inspections])
                truth = np.concatenate(
                    [
                        april_gan_truth(path, dataset_dir, MAP_SIZE).ravel()
                        for path in images_of(dataset_dir, name)
                    ]
                )
                want = sklearn_figures(scores, truth)
                figures = (metrics.auroc, metrics.average_precision, metrics.f1_max)
                assert figures == pytest.approx(want, abs=1e-9), (row.name, name)
                means.append(want)
            mean = (row.mean.auroc, row.mean.average_precision, row.mean.f1_max)
            assert mean == pytest.approx(np.mean(means, axis=0), abs=1e-9)
    assert got.statuses == dict(statuses)
    if parameters.extreme_threshold == 0.8:
        assert 0 < got.statuses["no_region"] < statuses.total()


def test_cached_scores_are_the_inspectors_bit_by_bit(
    tiny_bundle, dataset_dir, shared_cache
) -> None:
    job, _ = evaluated_job(tiny_bundle, dataset_dir, shared_cache)
    sizes = tiny_bundle.manifest.sizes
    with Inspector.load(tiny_bundle.path, threads=1) as loaded, threadpool_limits(1):
        for scoring in ("fused", "map", "mask", "sam_probability"):
            parameters = job.parameters.replace(scoring=scoring)
            inspector = Inspector(tiny_bundle, loaded._sessions, parameters=parameters)
            for s in job.samples[::3]:
                frame = np.asarray(Image.open(s.sample.image))
                want = inspector.inspect(frame, product=s.product).score_map
                cached = CachedSample(s.truth, s.encoding, job.decoding_file(s, parameters))
                np.testing.assert_array_equal(cached_score(cached, parameters, sizes), want)


def test_at_518_the_logits_are_resized_and_no_mask_is(
    tiny_bundle, dataset_dir, shared_cache
) -> None:
    job, _ = evaluated_job(tiny_bundle, dataset_dir, shared_cache, size=518)
    sizes = tiny_bundle.manifest.sizes
    with Inspector.load(tiny_bundle.path, threads=1) as inspector:
        for s in job.samples[::4]:
            inspection = inspector.inspect(
                np.asarray(Image.open(s.sample.image)), product=s.product, trace=True
            )
            kept = inspection.trace.stages[inspection.trace.kept_stage - 1]
            height, width = inspection.frame_size
            content = (round(256 * height / max(height, width)), 256)
            full = torch.nn.functional.interpolate(
                torch.from_numpy(kept.low_res_logits)[None, None], (256, 256), mode="bilinear"
            )[..., : content[0], : content[1]]
            logits = torch.nn.functional.interpolate(full, (518, 518), mode="bilinear")[0, 0]
            parameters = job.parameters.replace(scoring="mask")
            cached = CachedSample(s.truth, s.encoding, job.decoding_file(s, parameters))
            mask = cached_score(cached, parameters, sizes)
            sure = abs(logits.numpy()) > 1e-3
            assert mask.shape == (518, 518)
            np.testing.assert_array_equal(mask[sure] > 0, logits.numpy()[sure] > 0)
            assert set(np.unique(mask)) <= {0, 1}
            resized = cv2.resize(inspection.anomaly_map, (518, 518))
            parameters = job.parameters.replace(scoring="map")
            np.testing.assert_allclose(cached_score(cached, parameters, sizes), resized, atol=1e-6)


def test_image_level_figures(tiny_bundle, dataset_dir, shared_cache) -> None:
    got = evaluated(tiny_bundle, dataset_dir, shared_cache)
    with Inspector.load(tiny_bundle.path, threads=1) as loaded:
        for row in got.image_rows:
            parameters = MethodParameters(image_scoring=row.name)
            inspector = Inspector(tiny_bundle, loaded._sessions, parameters=parameters)
            for name, metrics in row.classes.items():
                paths = images_of(dataset_dir, name)
                scores = [
                    inspector.inspect(np.asarray(Image.open(p)), product=name).image_score
                    for p in paths
                ]
                want = sklearn_figures(
                    np.array(scores, np.float32), np.array([p.parent.name != "good" for p in paths])
                )
                figures = (metrics.auroc, metrics.average_precision, metrics.f1_max)
                assert figures == pytest.approx(want, abs=1e-9)


def test_a_class_without_defects_has_no_figures(tiny_bundle, dataset_dir, tmp_path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(dataset_dir, folder)
    shutil.rmtree(folder / "object" / "test" / "hole")
    shutil.rmtree(folder / "object" / "test" / "scratch")
    got = evaluated(tiny_bundle, folder, tmp_path / "cache")
    fused = got.table("scoring")[0]
    assert math.isnan(fused.classes["object"].auroc)
    assert fused.mean.auroc == fused.classes["metal_nut"].auroc
    assert "The class object has no defective image." in got.notes
