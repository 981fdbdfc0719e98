"""Metrics against scikit-learn, anomalib, and PRO's definition written out."""

import dataclasses
import math
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label
from sklearn.metrics import (
    auc,
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
)

from zeroflaw_benchmarks.evaluate.metrics import metrics as metrics_module
from zeroflaw_benchmarks.evaluate.metrics.metrics import (
    PixelScores,
    image_metrics,
    within_image_auroc,
)
from zeroflaw_benchmarks.evaluate.metrics.pro import exact_pro, pro_at_linear_thresholds
from zeroflaw_engines.errors import ScoreError


def pixel_metrics(scores, truths):
    pixels = PixelScores()
    for score, truth in zip(scores, truths, strict=True):
        pixels.add(score, truth)
    return pixels.metrics()


def blobs(rng, count, size, *, per_image=3):
    """Truths with rectangles of several sizes, some touching; every third image is good."""
    truths = np.zeros((count, size, size), bool)
    for i in range(count):
        for _ in range(per_image if i % 3 else 0):
            y, x = rng.integers(0, size - 1, 2)
            height, width = rng.integers(1, size // 3, 2)
            truths[i, y : y + height, x : x + width] = True
    return truths


def case(kind):
    """Scores and truths of a class; no kind is like another in how its scores tie."""
    rng = np.random.default_rng(sum(kind.encode()))
    truths = blobs(rng, 6, 24)
    noise = rng.random(truths.shape, dtype=np.float32)
    scores = {
        "random": noise,
        "informative": noise + 0.4 * truths,
        "inverted": noise - 0.4 * truths,
        "tied": np.round(8 * (noise + 0.3 * truths)) / 8,
        "whole numbers": np.round(200 * noise * (0.6 + 0.4 * truths)),
        "constant": np.full(truths.shape, 0.25),
        "binary": (noise + 0.3 * truths > 0.8).astype(float),
        "separated": noise + 2.0 * truths,
        "negative": -1e4 * noise + 4e3 * truths,
        "nearly all zero": np.where(noise > 0.9, noise, 0) * (0.5 + truths),
    }[kind]
    return scores.astype(np.float32), truths


KINDS = (
    "random",
    "informative",
    "inverted",
    "tied",
    "whole numbers",
    "constant",
    "binary",
    "separated",
    "negative",
    "nearly all zero",
)


def sklearn_f1_max(truth, score):
    precision, recall, thresholds = precision_recall_curve(truth, score)
    with np.errstate(invalid="ignore"):
        f1 = 2 * precision * recall / (precision + recall)
    best = np.nanargmax(f1)
    return f1[best], thresholds[best]


def assert_as_sklearn(metrics, score, truth):
    assert metrics.auroc == pytest.approx(roc_auc_score(truth, score), abs=1e-9)
    expected = average_precision_score(truth, score)
    assert metrics.average_precision == pytest.approx(expected, abs=1e-9)
    f1, threshold = sklearn_f1_max(truth, score)
    assert metrics.f1_max == pytest.approx(f1, abs=1e-9)
    return threshold


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_agree_with_sklearn(kind):
    scores, truths = case(kind)
    metrics = pixel_metrics(scores, truths)
    threshold = assert_as_sklearn(metrics, scores.ravel(), truths.ravel())
    assert metrics.f1_threshold == threshold
    predicted = scores >= metrics.f1_threshold
    f1 = 2 * (predicted & truths).sum() / (predicted.sum() + truths.sum())
    assert metrics.f1_max == pytest.approx(f1, abs=1e-12)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_images_agree_with_sklearn(data):
    values = st.one_of(st.integers(-2, 2), st.floats(-1e3, 1e3, width=32))
    scores = np.array(data.draw(st.lists(values, min_size=2, max_size=30)), np.float32)
    flags = st.lists(st.booleans(), min_size=len(scores), max_size=len(scores))
    anomalous = np.array(data.draw(flags.filter(lambda drawn: len(set(drawn)) == 2)))
    assert_as_sklearn(image_metrics(scores, anomalous), scores, anomalous)


def test_scores_that_float32_cannot_tell_apart_are_told_apart_in_images():
    scores = np.array([0.5, 0.5 + 1e-12])
    assert image_metrics(scores, np.array([False, True])).auroc == 1.0
    assert image_metrics(scores, np.array([True, False])).auroc == 0.0


@pytest.mark.parametrize("at", [0, 300, 575])
def test_single_defective_pixel(at):
    scores, truths = case("tied")
    single = np.zeros_like(truths[:1])
    single.ravel()[at] = True
    metrics = pixel_metrics(scores[:1], single)
    assert_as_sklearn(metrics, scores[0].ravel(), single.ravel())
    assert metrics.pro_exact == pytest.approx(anomalib_aupro(scores[:1], single), abs=1e-5)


def test_within_image_auroc():
    scores, truths = case("tied")
    expected = roc_auc_score(truths[1].ravel(), scores[1].ravel())
    assert within_image_auroc(scores[1], truths[1]) == pytest.approx(expected, abs=1e-9)
    assert math.isnan(within_image_auroc(scores[0], np.zeros_like(truths[0])))
    assert math.isnan(within_image_auroc(scores[0], np.ones_like(truths[0])))


# PRO ------------------------------------------------------------------------------------------


def brute_force_regions(truths):
    for index, truth in enumerate(truths):
        labels = label(truth, connectivity=2)
        for region in range(1, labels.max() + 1):
            yield index, labels == region


def brute_force_pro(scores, truths):
    """What APRIL-GAN's test.py computes, one threshold and one region at a time."""
    low, high = float(scores.min()), float(scores.max())
    regions = list(brute_force_regions(truths))
    rates, overlaps = [], []
    for step in range(200):
        predicted = scores > np.float32(low + step * ((high - low) / 200))
        rates.append((predicted & ~truths).sum() / (~truths).sum())
        overlaps.append(
            np.mean([(predicted[i] & region).sum() / region.sum() for i, region in regions])
        )
    rates, overlaps = np.array(rates), np.array(overlaps)
    kept = rates < 0.3
    if len(set(rates[kept])) < 2:
        return math.nan
    rescaled = (rates[kept] - rates[kept].min()) / (rates[kept].max() - rates[kept].min())
    return auc(rescaled, overlaps[kept])


def anomalib_aupro(scores, truths):
    """anomalib's AUPRO. Imported here: it takes seconds, and brings Lightning and pandas."""
    import torch
    from anomalib.metrics import AUPRO

    aupro = AUPRO(fields=["anomaly_map", "gt_mask"], fpr_limit=0.3)
    for score, truth in zip(scores, truths, strict=True):
        aupro.update(
            SimpleNamespace(
                anomaly_map=torch.from_numpy(score)[None], gt_mask=torch.from_numpy(truth)[None]
            )
        )
    return float(aupro.compute())


@pytest.mark.parametrize("kind", KINDS)
def test_pro_agrees_with_its_definition(kind):
    scores, truths = case(kind)
    expected = brute_force_pro(scores, truths)
    found = pixel_metrics(scores, truths).pro
    assert math.isnan(found) == math.isnan(expected)
    # All 200 thresholds cut a binary score in the same way, so there is but one FPR.
    assert math.isnan(expected) == (kind in {"constant", "binary"})
    assert found == pytest.approx(expected, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("kind", KINDS)
def test_exact_pro_agrees_with_anomalib(kind):
    scores, truths = case(kind)
    found = pixel_metrics(scores, truths).pro_exact
    # anomalib adds up in float32.
    assert found == pytest.approx(anomalib_aupro(scores, truths), abs=2e-5)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0.02, 0.9))
def test_pro_of_any_truth(seed, levels, density):
    """Ragged regions, from single pixels to diagonals that only 8-connectivity joins."""
    rng = np.random.default_rng(seed)
    truths = rng.random((3, 9, 11)) < density
    truths[0, 0, 0], truths[0, 0, 1] = True, False
    scores = rng.integers(0, levels, truths.shape).astype(np.float32)
    metrics = pixel_metrics(scores, truths)
    expected = brute_force_pro(scores, truths)
    assert metrics.pro == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert metrics.pro_exact == pytest.approx(anomalib_aupro(scores, truths), abs=1e-4)


def test_pro_leaves_out_the_point_on_the_limit():
    """With 10 good pixels, 3 of them above a threshold lie on 0.3: the source says `< 0.3`."""
    negatives = np.arange(10, dtype=np.float32) * 20
    region = np.array([1, 70, 121, 125, 130, 145, 165, 175, 200], np.float32)
    # Of the thresholds 0 … 199 those from 140 on have a rate below 0.3: 0.2, 0.1 and 0.
    steps = np.arange(140, 200)
    rates = np.array([(negatives > step).sum() for step in steps]) / 10
    overlaps = np.array([(region > step).sum() for step in steps]) / len(region)
    assert rates.max() == 0.2
    expected = auc(rates / 0.2, overlaps)
    assert pro_at_linear_thresholds(negatives, [region]) == pytest.approx(expected, abs=1e-12)


def test_exact_pro_by_hand():
    negatives = np.array([0, 1, 2, 3, 4], np.float32)
    # Above all good ones: the whole area. Below all: none of it. Tied with the highest: its rate
    # goes from 0 to 0.2, so it rises over that. With the second: from 0.2 to 0.4, cut at 0.3.
    assert exact_pro(negatives, [np.array([5], np.float32)]) == pytest.approx(1)
    assert exact_pro(negatives, [np.array([-1], np.float32)]) == 0
    assert exact_pro(negatives, [np.array([4], np.float32)]) == pytest.approx(0.2 / 0.3)
    assert exact_pro(negatives, [np.array([3], np.float32)]) == pytest.approx(0.025 / 0.3)
    # Each region counts the same, whatever its area.
    regions = [np.array([5], np.float32), np.array([-1, -1, -1], np.float32)]
    assert exact_pro(negatives, regions) == pytest.approx(0.5)


# Edges ----------------------------------------------------------------------------------------


def test_undefined_is_nan():
    scores, truths = case("random")
    good = pixel_metrics(scores, np.zeros_like(truths))
    assert all(math.isnan(value) for value in dataclasses.astuple(good))
    defective = pixel_metrics(scores, np.ones_like(truths))
    assert math.isnan(defective.auroc)
    assert math.isnan(defective.pro)
    assert math.isnan(defective.pro_exact)
    assert defective.average_precision == 1
    assert defective.f1_max == 1
    assert all(math.isnan(value) for value in dataclasses.astuple(PixelScores().metrics()))


def test_more_may_be_added_after_metrics():
    scores, truths = case("tied")
    pixels = PixelScores()
    for score, truth in zip(scores, truths, strict=True):
        pixels.add(score, truth)
        last = pixels.metrics()
    assert last == pixel_metrics(scores, truths) == pixels.metrics()


@pytest.mark.parametrize("block", [1, 7, 100])
def test_blocks_make_no_difference(monkeypatch, block):
    scores, truths = case("tied")
    whole = dataclasses.astuple(pixel_metrics(scores, truths))
    monkeypatch.setattr(metrics_module, "_BLOCK", block)
    assert dataclasses.astuple(pixel_metrics(scores, truths)) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("block", [1, 2])
def test_lowest_of_the_thresholds_with_the_same_f1(monkeypatch, block):
    """From 5 on F1 is 2 x 1 / (2 + 1); from 1 on it is 2 x 2 / (2 + 4)."""
    monkeypatch.setattr(metrics_module, "_BLOCK", block)
    score = np.array([[5, 1], [3, 3]], np.float32)
    metrics = pixel_metrics([score], [np.array([[True, True], [False, False]])])
    assert (metrics.f1_max, metrics.f1_threshold) == (2 / 3, 1)


def test_memory_is_bounded(monkeypatch, rng):
    """Twelve bytes a pixel: a sorting index alone, with its sums, would take more."""
    monkeypatch.setattr(metrics_module, "_BLOCK", 10_000)
    images, side = 12, 518
    truth = blobs(rng, 2, side)[1]
    score = rng.random((side, side), dtype=np.float32)
    tracemalloc.start()
    try:
        pixels = PixelScores()
        for _ in range(images):
            pixels.add(score, truth)
        pixels.metrics()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * images * score.size


def test_order_of_images_and_memory_layout_make_no_difference():
    scores, truths = case("tied")
    turned = pixel_metrics(scores[::-1].transpose(0, 2, 1), truths[::-1].transpose(0, 2, 1))
    expected = dataclasses.astuple(pixel_metrics(scores, truths))
    assert dataclasses.astuple(turned) == pytest.approx(expected, abs=1e-12)


def test_arrays_that_were_added_may_be_used_again():
    scores, truths = case("random")
    kept = scores.copy()
    pixels = PixelScores()
    buffer = np.empty_like(scores[0])
    for score, truth in zip(scores, truths, strict=True):
        buffer[:] = score
        pixels.add(buffer, truth)
    assert pixels.metrics() == pixel_metrics(kept, truths)
    np.testing.assert_array_equal(scores, kept)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    score = np.zeros((4, 4), np.float32)
    score[1, 2] = bad
    truth = np.eye(4, dtype=bool)
    with pytest.raises(ScoreError, match="1 of 16 scores are not finite"):
        PixelScores().add(score, truth)
    with pytest.raises(ScoreError, match="not finite"):
        within_image_auroc(score, truth)
    with pytest.raises(ScoreError, match="not finite"):
        image_metrics(score[1], truth[1])


def test_shapes_that_differ_are_refused():
    with pytest.raises(ScoreError, match=r"\[4, 4\].*\[5, 5\]"):
        PixelScores().add(np.zeros((4, 4), np.float32), np.eye(5, dtype=bool))
    with pytest.raises(ScoreError, match="uint8"):
        PixelScores().add(np.zeros((4, 4), np.float32), np.eye(4, dtype=np.uint8))


def test_only_judged_pixels_and_defects_count(rng):
    truths = blobs(rng, 4, 24)
    scores = rng.random(truths.shape, dtype=np.float32) + 0.3 * truths
    judged = rng.random(truths.shape) < 0.7
    pixels = PixelScores()
    for score, truth, area in zip(scores, truths, judged, strict=True):
        pixels.add(score, truth, area)
    got = pixels.metrics()
    truth, score = truths[judged], scores[judged]
    assert got.auroc == pytest.approx(roc_auc_score(truth, score), abs=1e-9)
    assert got.average_precision == pytest.approx(average_precision_score(truth, score), abs=1e-9)
    # What lies outside may be anything.
    other = PixelScores()
    for score, truth, area in zip(scores, truths, judged, strict=True):
        other.add(np.where(area, score, 7), np.where(area, truth, True), area)
    assert dataclasses.astuple(other.metrics()) == dataclasses.astuple(got)
