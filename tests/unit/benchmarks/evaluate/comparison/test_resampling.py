"""Figures of resampled images: against scikit-learn and the exact metrics, on repeated images."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from zeroflaw_benchmarks.evaluate.comparison.resampling import (
    counted,
    counted_images,
    figures_of_draws,
    mean_of_draws,
    mean_over_classes,
    resampling_weights,
)
from zeroflaw_benchmarks.evaluate.metrics.metrics import PixelScores

SIZE = 48


@pytest.fixture(scope="module")
def images() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Eight images, five of them with one or two defects that score higher on average."""
    rng = np.random.default_rng(3)
    scores, truths = [], []
    for number in range(8):
        truth = np.zeros((SIZE, SIZE), np.bool_)
        for _ in range((number % 3) * (number < 6)):
            y, x = rng.integers(2, SIZE - 14, 2)
            truth[y : y + 4 + number, x : x + 9] = True
        score = rng.normal(0.35, 0.12, truth.shape) + truth * rng.normal(0.25, 0.05)
        scores.append(np.clip(score, 0, 1).astype(np.float32))
        truths.append(truth)
    return scores, truths


def repeated(values: list[np.ndarray], weights: np.ndarray) -> list[np.ndarray]:
    return [value for value, times in zip(values, weights, strict=True) for _ in range(int(times))]


@pytest.mark.parametrize("weights", [[1] * 8, [2, 0, 1, 3, 1, 0, 0, 1], [0, 1, 4, 1, 0, 1, 1, 0]])
def test_a_draw_is_what_the_metrics_make_of_the_drawn_images(images, weights):
    scores, truths = images
    counts = counted(scores, truths, [None] * len(scores))
    got = figures_of_draws(counts, np.array([weights], np.float32))
    drawn, truth = repeated(scores, weights), repeated(truths, weights)
    flat, bad = np.concatenate(drawn).ravel(), np.concatenate(truth).ravel()
    precision, recall, _ = precision_recall_curve(bad, flat)
    f1 = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
    assert got["auroc"][0] == pytest.approx(roc_auc_score(bad, flat), abs=1e-3)
    assert got["ap"][0] == pytest.approx(average_precision_score(bad, flat), abs=2e-3)
    assert got["f1-max"][0] == pytest.approx(f1, abs=2e-3)


def test_pro_of_the_images_themselves_is_exact(images):
    scores, truths = images
    exact = PixelScores()
    for score, truth in zip(scores, truths, strict=True):
        exact.add(score, truth)
    counts = counted(scores, truths, [None] * len(scores))
    got = figures_of_draws(counts, np.ones((1, len(scores)), np.float32))
    assert got["pro"][0] == pytest.approx(exact.metrics().pro, abs=1e-5)
    assert 0.05 < got["pro"][0] < 0.95


def test_only_what_is_judged_counts(images):
    scores, truths = images
    judged = np.zeros((SIZE, SIZE), np.bool_)
    judged[: SIZE // 2] = True
    got, want = (
        figures_of_draws(counts, np.ones((1, len(scores)), np.float32))
        for counts in (
            counted(scores, truths, [judged] * len(scores)),
            counted([s[: SIZE // 2] for s in scores], [t[: SIZE // 2] for t in truths], [None] * 8),
        )
    )
    for name, value in want.items():
        assert got[name] == pytest.approx(value, abs=2e-3), name


def test_image_scores_are_ranked_exactly_with_ties(rng):
    scores = np.round(rng.random(30), 1).astype(np.float32)
    bad = rng.random(30) > 0.4
    weights = resampling_weights("screw", bad, 3)
    got = figures_of_draws(counted_images(scores, bad), weights)
    assert "pro" not in got
    for draw, times in enumerate(weights):
        flat, truth = np.repeat(scores, times.astype(int)), np.repeat(bad, times.astype(int))
        assert got["auroc"][draw] == pytest.approx(roc_auc_score(truth, flat), abs=1e-6)
        assert got["ap"][draw] == pytest.approx(average_precision_score(truth, flat), abs=1e-6)


def test_draws_are_of_each_kind_apart_and_the_same_for_every_method():
    bad = np.array([True] * 5 + [False] * 7)
    weights = resampling_weights("tile", bad, 200)
    assert set(weights[:, bad].sum(axis=1)) == {5}
    assert set(weights[:, ~bad].sum(axis=1)) == {7}
    assert len(np.unique(weights, axis=0)) > 150
    np.testing.assert_array_equal(weights, resampling_weights("tile", bad, 200))
    assert (weights != resampling_weights("wood", bad, 200)).any()


def test_what_is_undefined_is_nan_and_stays_out_of_means(images):
    scores, truths = images
    good = [np.zeros_like(truth) for truth in truths]
    weights = np.ones((4, len(scores)), np.float32)
    got = figures_of_draws(counted(scores, good, [None] * len(scores)), weights)
    assert all(np.isnan(values).all() for values in got.values())
    values = np.array([np.nan, 0.5, 1.0])
    found = mean_of_draws(np.array([[1, 1, 3], [2, 0, 0]], np.float32), values)
    assert found[0] == pytest.approx(0.875)
    assert np.isnan(found[1])
    mean = mean_over_classes([{"ap": got["ap"]}, {"ap": np.array([0.1, 0.2, 0.3, np.nan])}])
    assert mean["ap"][:3] == pytest.approx([0.1, 0.2, 0.3])
    assert np.isnan(mean["ap"][3])
