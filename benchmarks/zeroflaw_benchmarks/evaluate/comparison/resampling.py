"""What a data set can tell: figures of resampled images, the same images for every method.

The images of a class are drawn anew with replacement, good and defective ones apart, and its
figures are computed of what was drawn (Efron's bootstrap, stratified). Since every method is given
the same draws, the share of them in which one is better than another says how sure that is. It
speaks of images like these; of other products a data set says nothing.

Scores are counted in bins first, so that a draw is a weighted sum of histograms: edges are
quantiles of the scores, and the 200 thresholds of PRO.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.geometry import BoolArray, FloatArray
from zeroflaw_benchmarks.evaluate.comparison.columns import Column
from zeroflaw_benchmarks.evaluate.metrics.pro import FPR_LIMIT, PRO_STEPS

RESAMPLINGS: Final = 1000
_SEED: Final = 18
_QUANTILES: Final = 1024
# Of each image for the quantiles; all pixels are counted.
_STRIDE: Final = 37

Figures = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Counts:
    """The scores of a class's images in bins, ascending.

    Attributes:
        good: float32 [n, K], good pixels (or images) of each image in each bin.
        defective: float32 [n, K]; the same of defective ones.
        regions: float32 [n, K]: shares of the regions of the truth, summed over an image's.
        region_counts: float32 [n].
        thresholds: int [200], ascending: the bins that PRO's thresholds let in from.
    """

    good: FloatArray
    defective: FloatArray
    regions: FloatArray
    region_counts: FloatArray
    thresholds: NDArray[np.int64]


def resampling_weights(name: str, anomalous: BoolArray, draws: int = RESAMPLINGS) -> FloatArray:
    """Draw the images of a class, good and defective ones apart.

    Args:
        name: Of the class: every method gets the same draws of it.
        anomalous: bool [n].

    Returns:
        float32 [draws, n]: how often each image was drawn.
    """
    generator = np.random.default_rng((_SEED, zlib.crc32(name.encode())))
    weights = np.zeros((draws, len(anomalous)), np.float32)
    for kind in (False, True):
        places = np.flatnonzero(anomalous == kind)
        if len(places):
            even = np.full(len(places), 1 / len(places))
            weights[:, places] = generator.multinomial(len(places), even, size=draws)
    return weights


def counted(scores: Sequence[FloatArray], truths: Sequence[BoolArray],
            judged: Sequence[BoolArray | None]) -> Counts:  # fmt: skip
    """Count the pixels of a class's images.

    Args:
        scores: float32 [S, S] each.
        truths: bool [S, S] each, True where defective.
        judged: bool [S, S] each, which pixels count; None: all.
    """
    kept = [
        np.ones(t.shape, np.bool_) if j is None else j for t, j in zip(truths, judged, strict=True)
    ]
    defects = [truth & inside for truth, inside in zip(truths, kept, strict=True)]
    some = [score[inside][::_STRIDE] for score, inside in zip(scores, kept, strict=True)]
    found = [score[defect] for score, defect in zip(scores, defects, strict=True)]
    lows = [score[inside].min() for score, inside in zip(scores, kept, strict=True) if inside.any()]
    highs = [
        score[inside].max() for score, inside in zip(scores, kept, strict=True) if inside.any()
    ]
    low, high = float(min(lows, default=0)), float(max(highs, default=0))
    # PRO predicts above a threshold and not at it, and bins begin at their edge.
    steps = (low + np.arange(PRO_STEPS) * ((high - low) / PRO_STEPS)).astype(np.float32)
    steps = np.nextafter(steps, np.float32(np.inf))
    shares = np.linspace(0, 1, _QUANTILES)
    quantiles = [
        np.quantile(np.concatenate(part), shares, method="lower")
        for part in (some, found)
        if sum(map(len, part))
    ]
    edges = np.unique(np.concatenate([*quantiles, steps]).astype(np.float32))
    bins = len(edges) + 1
    good, defective, regions = (np.zeros((len(scores), bins), np.float32) for _ in range(3))
    region_counts = np.zeros(len(scores), np.float32)
    for place, (score, defect, inside) in enumerate(zip(scores, defects, kept, strict=True)):
        index = np.searchsorted(edges, score.ravel(), side="right").reshape(score.shape)
        good[place] = np.bincount(index[inside & ~defect], minlength=bins)
        if not defect.any():
            continue
        defective[place] = np.bincount(index[defect], minlength=bins)
        count, labels = cv2.connectedComponents(defect.view(np.uint8), connectivity=8)
        areas = np.bincount(labels.ravel(), minlength=count)
        weights = 1 / areas[labels[defect]]
        regions[place] = np.bincount(index[defect], weights=weights, minlength=bins)
        region_counts[place] = count - 1
    thresholds = np.searchsorted(edges, steps, side="right")
    return Counts(good, defective, regions, region_counts, thresholds)


def counted_images(scores: FloatArray, anomalous: BoolArray) -> Counts:
    """Count images by their scores, float32 [n]: each distinct score is a bin."""
    values, index = np.unique(scores, return_inverse=True)
    chosen = np.zeros((len(scores), len(values)), np.float32)
    chosen[np.arange(len(scores)), index] = 1
    bad = anomalous[:, None]
    nothing = np.zeros((len(scores), 0), np.float32)
    none = np.zeros(len(scores), np.float32)
    return Counts(chosen * ~bad, chosen * bad, nothing, none, np.zeros(0, np.int64))


def figures_of_draws(counts: Counts, weights: FloatArray) -> dict[str, Figures]:
    """Compute the figures of every draw, as `metrics` does but for the width of the bins.

    Args:
        weights: float32 [draws, n].

    Returns:
        `auroc`, `f1-max`, `ap` and `pro` (as `pro_at_linear_thresholds`): float64 [draws], NaN
        where undefined.
    """
    good = (weights @ counts.good).astype(np.float64)
    defective = (weights @ counts.defective).astype(np.float64)
    hits, alarms = _from_above(defective), _from_above(good)
    all_hits, all_alarms = hits[:, :1], alarms[:, :1]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(hits + alarms > 0, hits / (hits + alarms), 0)
        ap = (defective * precision).sum(axis=1) / all_hits[:, 0]
        f1 = (2 * hits / (all_hits + hits + alarms)).max(axis=1)
        wins = (good * (hits - defective / 2)).sum(axis=1)
        auroc = wins / (all_hits * all_alarms)[:, 0]
    undefined = all_hits[:, 0] == 0
    found = {"auroc": auroc, "f1-max": f1, "ap": ap}
    found = {name: np.where(undefined, np.nan, values) for name, values in found.items()}
    if len(counts.thresholds):
        found["pro"] = _pro(counts, weights, alarms / np.maximum(all_alarms, 1))
    return found


def _pro(counts: Counts, weights: FloatArray, fpr: Figures) -> Figures:
    overlap = _from_above((weights @ counts.regions).astype(np.float64))
    total = (weights @ counts.region_counts).astype(np.float64)
    # Descending thresholds: the rate of false positives rises.
    places = counts.thresholds[::-1]
    fpr, overlap = fpr[:, places], overlap[:, places]
    kept = fpr < FPR_LIMIT
    width = np.diff(fpr, axis=1) * kept[:, 1:]
    area = (width * (overlap[:, 1:] + overlap[:, :-1])).sum(axis=1) / 2
    span = width.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((span > 0) & (total > 0), area / (span * total), np.nan)


def _from_above(counts: Figures) -> Figures:
    """Sum each bin and all above it, along the last axis."""
    return np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]


def mean_of_draws(weights: FloatArray, values: Figures) -> Figures:
    """Average values of images over every draw, without NaN.

    Args:
        weights: float32 [draws, n].
        values: float64 [n].
    """
    defined = ~np.isnan(values)
    total = weights[:, defined].sum(axis=1, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > 0, weights[:, defined] @ values[defined] / total, np.nan)


def mean_over_classes(classes: Sequence[dict[Column, Figures]]) -> dict[Column, Figures]:
    """Average the draws of classes, unweighted, without NaN; NaN where all are."""
    means: dict[Column, Figures] = {}
    for column in classes[0]:
        values = np.stack([one[column] for one in classes])
        defined = ~np.isnan(values)
        number = defined.sum(axis=0)
        total = np.where(defined, values, 0).sum(axis=0)
        means[column] = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    return means
