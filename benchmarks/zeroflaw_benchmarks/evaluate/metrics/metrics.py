"""AUROC, average precision and F1-max, of pixels and of images, exact and in bounded memory.

Every figure is a sum, or a maximum, over the *defective* scores of a function of three counts:
how many good scores lie below and not above it, and how many defective ones. So the good scores
are kept apart from the defective ones, each sorted in place, and counted with a binary search: no
index array as long as the pixels is ever made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from zeroflaw.pipeline.geometry import BoolArray, FloatArray
from zeroflaw_benchmarks.evaluate.metrics.pro import (
    exact_pro,
    pro_at_linear_thresholds,
    region_scores,
)
from zeroflaw_engines.errors import ScoreError

# Defective scores looked at together: bounds what the counts take to some 50 MB.
_BLOCK: Final = 1_000_000


@dataclass(frozen=True)
class PixelMetrics:
    """Metrics over all pixels of a class, each in [0, 1]; NaN where undefined.

    Without a defective pixel all are NaN; without a good pixel `auroc`, `pro` and `pro_exact`.

    Attributes:
        auroc: Area under the ROC curve.
        average_precision: Step-wise area under precision and recall, as scikit-learn's
            `average_precision_score`; not the trapezoid of anomalib's AUPR.
        f1_max: Highest F1 over all thresholds.
        f1_threshold: The score from which on (`>=`) a pixel is predicted at that F1; the lowest
            of several with the same F1. In the units of the score.
        pro: As APRIL-GAN and AnomalyCLIP: `pro.pro_at_linear_thresholds`.
        pro_exact: As anomalib's AUPRO: `pro.exact_pro`.
    """

    auroc: float
    average_precision: float
    f1_max: float
    f1_threshold: float
    pro: float
    pro_exact: float


@dataclass(frozen=True)
class ImageMetrics:
    """Metrics over the images of a class, each in [0, 1]; NaN where undefined.

    Without a defective image all are NaN; without a good one `auroc`.

    Attributes:
        auroc: Area under the ROC curve.
        average_precision: Step-wise, as in `PixelMetrics`.
        f1_max: Highest F1 over all thresholds.
    """

    auroc: float
    average_precision: float
    f1_max: float


@dataclass(frozen=True)
class _Ranking:
    """AUROC, step-wise AP, F1-max and the threshold of the latter."""

    auroc: float
    average_precision: float
    f1_max: float
    f1_threshold: float


class PixelScores:
    """The scored pixels of one class, added image by image.

    Takes 4 bytes a pixel (8 for a defective one), and during `metrics` up to twice that.
    """

    def __init__(self) -> None:
        self._negatives: list[FloatArray] = []
        self._regions: list[FloatArray] = []

    def add(self, score: FloatArray, truth: BoolArray, judged: BoolArray | None = None) -> None:
        """Add an image; the arrays are not kept.

        Args:
            score: float32 [S, S], the higher the more defective; any finite range.
            truth: bool [S, S], True where defective.
            judged: bool [S, S], which pixels count, and which defects; None: all.

        Raises:
            ScoreError: The shapes differ, or a score is not finite.
        """
        _check(score, truth, dimensions=2)
        exact = np.ascontiguousarray(score, dtype=np.float32)
        good = ~truth
        if judged is not None:
            _check(score, judged, dimensions=2)
            truth, good = truth & judged, good & judged
        truth = np.ascontiguousarray(truth)
        self._negatives.append(exact[good])
        self._regions.extend(region_scores(exact, truth))

    def metrics(self) -> PixelMetrics:
        """Compute the metrics of what has been added so far; more may be added afterwards."""
        negatives = _sorted_union(self._negatives)
        # The sorted array takes the place of its parts, so that a second call costs little.
        self._negatives = [negatives]
        positives = _sorted_union(list(self._regions))
        ranking = _ranking(negatives, positives)
        return PixelMetrics(
            auroc=ranking.auroc,
            average_precision=ranking.average_precision,
            f1_max=ranking.f1_max,
            f1_threshold=ranking.f1_threshold,
            pro=pro_at_linear_thresholds(negatives, self._regions),
            pro_exact=exact_pro(negatives, self._regions),
        )


def image_metrics(scores: FloatArray, anomalous: BoolArray) -> ImageMetrics:
    """Compute the metrics of image scores.

    Args:
        scores: float [n], the higher the more defective.
        anomalous: bool [n].

    Returns:
        The metrics.

    Raises:
        ScoreError: The lengths differ, or a score is not finite.
    """
    _check(scores, anomalous, dimensions=1)
    ranking = _ranking(np.sort(scores[~anomalous]), np.sort(scores[anomalous]))
    return ImageMetrics(
        auroc=ranking.auroc,
        average_precision=ranking.average_precision,
        f1_max=ranking.f1_max,
    )


def within_image_auroc(score: FloatArray, truth: BoolArray) -> float:
    """Compute the AUROC of one image: how well the defect stands out of its surroundings.

    Args:
        score: float32 [H, W].
        truth: bool [H, W].

    Returns:
        In [0, 1], or NaN if all pixels are good or all defective.

    Raises:
        ScoreError: The shapes differ, or a score is not finite.
    """
    _check(score, truth, dimensions=2)
    return _ranking(np.sort(score[~truth]), np.sort(score[truth])).auroc


def _ranking(negatives: FloatArray, positives: FloatArray) -> _Ranking:
    """The metrics from ascending scores of one dtype.

    With N, P the numbers of good and defective scores, and for each defective score p the counts
    l = #(good < p), r = #(good <= p), TP = #(defective >= p), FP = N - l:

        AUROC = sum (l + r) / 2 / (P N)            Mann-Whitney, a tie counts one half
        AP    = sum TP / (TP + FP) / P             only steps at a defective score add recall
        F1    = max 2 TP / (P + TP + FP)           between two of them only FP grows
    """
    nan = float("nan")
    good, defective = len(negatives), len(positives)
    if not defective:
        return _Ranking(nan, nan, nan, nan)
    wins_twice = 0
    precision = 0.0
    f1_max, f1_threshold = -1.0, nan
    for start in range(0, defective, _BLOCK):
        block = positives[start : start + _BLOCK]
        below = np.searchsorted(negatives, block, side="left")
        wins_twice += int(below.sum()) + int(np.searchsorted(negatives, block, side="right").sum())
        hits = defective - np.searchsorted(positives, block, side="left")
        predicted = hits + (good - below)
        precision += float((hits / predicted).sum())
        f1 = 2.0 * hits / (defective + predicted)
        best = int(f1.argmax())
        if f1[best] > f1_max:
            f1_max, f1_threshold = float(f1[best]), float(block[best])
    auroc = wins_twice / (2 * good * defective) if good else nan
    return _Ranking(auroc, precision / defective, f1_max, f1_threshold)


def _sorted_union(parts: list[FloatArray]) -> FloatArray:
    """The parts as one ascending array; the list is emptied on the way, to give memory back."""
    if len(parts) == 1:
        single = parts.pop()
        if bool((single[1:] >= single[:-1]).all()):
            return single
        parts = [single]
    union = np.empty(sum(len(part) for part in parts), np.float32)
    end = len(union)
    while parts:
        part = parts.pop()
        union[end - len(part) : end] = part
        end -= len(part)
    union.sort()
    return union


def _check(score: FloatArray, truth: BoolArray, *, dimensions: int) -> None:
    if score.shape != truth.shape or score.ndim != dimensions or truth.dtype != np.bool_:
        raise ScoreError(
            f"scores of shape {list(score.shape)} cannot be measured against a truth of shape "
            f"{list(truth.shape)} and type {truth.dtype}",
            f"give both the same {dimensions} dimension(s), and the truth as bool",
        )
    if not np.isfinite(score).all():
        raise ScoreError(
            f"{int((~np.isfinite(score)).sum())} of {score.size} scores are not finite",
            "check the engine that made them: FP16 overflow shows in this way",
        )
