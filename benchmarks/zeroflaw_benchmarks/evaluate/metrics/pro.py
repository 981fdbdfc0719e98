"""Per-region overlap (PRO) in the two conventions that published figures use.

Both average, over the 8-connected regions of the truth, the share of a region that the prediction
covers, against the false-positive rate (FPR) over all good pixels of the class. They differ in
everything else, and their values by several points, so figures of one must not be compared with
figures of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.geometry import BoolArray, FloatArray

FPR_LIMIT: Final = 0.3
PRO_STEPS: Final = 200


def region_scores(score: FloatArray, truth: BoolArray) -> list[FloatArray]:
    """Return the scores of each 8-connected region of the truth, ascending.

    Args:
        score: float32 [H, W].
        truth: bool [H, W].

    Returns:
        float32 [area] for each region; copies.
    """
    count, labels = cv2.connectedComponents(truth.view(np.uint8), connectivity=8)
    if count == 1:
        return []
    inside, scores = labels[truth], score[truth]
    order = np.lexsort((scores, inside))
    ends = np.cumsum(np.bincount(inside, minlength=count)[1:])
    return np.split(scores[order], ends[:-1])


def pro_at_linear_thresholds(negatives: FloatArray, regions: Sequence[FloatArray]) -> float:
    """Compute PRO as APRIL-GAN and AnomalyCLIP report it (`cal_pro_score`).

    200 thresholds t_k = min + k (max - min) / 200 over the pooled scores of the class; a pixel is
    predicted where its score is above t_k (`>`). Of the points (FPR, mean overlap) those with
    FPR < 0.3, strictly as in the source, are kept; their FPR is rescaled from its own minimum and
    maximum to [0, 1]; the area under them is the trapezoid sum.

    The value depends on where the thresholds fall: few of them may lie below the limit, and a
    threshold at the top with a high FPR shifts the scale. `exact_pro` has neither weakness.

    Args:
        negatives: float32 [N], scores of the good pixels, ascending.
        regions: float32 [area] for each region, ascending.

    Returns:
        In [0, 1], or NaN where the source divides zero by zero: no region, no good pixel, or
        fewer than two different FPR below the limit. A binary prediction has but one FPR, so
        this convention cannot measure it.
    """
    if not len(negatives) or not regions:
        return float("nan")
    low = min(float(negatives[0]), *(float(region[0]) for region in regions))
    high = max(float(negatives[-1]), *(float(region[-1]) for region in regions))
    # Keys of another dtype would make searchsorted copy all scores to it.
    steps = low + np.arange(PRO_STEPS) * ((high - low) / PRO_STEPS)
    thresholds = steps.astype(negatives.dtype)
    fpr = _share_above(negatives, thresholds)
    overlap = np.mean([_share_above(region, thresholds) for region in regions], axis=0)
    kept = fpr < FPR_LIMIT
    fpr, overlap = fpr[kept][::-1], overlap[kept][::-1]
    if not len(fpr) or fpr[0] == fpr[-1]:
        return float("nan")
    rescaled = (fpr - fpr[0]) / (fpr[-1] - fpr[0])
    return float((np.diff(rescaled) * (overlap[1:] + overlap[:-1])).sum() / 2)


def exact_pro(negatives: FloatArray, regions: Sequence[FloatArray]) -> float:
    """Compute PRO as anomalib's AUPRO: over every threshold, up to FPR 0.3, divided by 0.3.

    The curve has a point for each distinct score t, predicting score >= t, joined by straight
    lines and cut at FPR 0.3 by interpolation. Instead of building it, each defect pixel's own
    part is summed: lowering the threshold past its score t raises the curve by 1 / (area of its
    region x regions) while the FPR goes from a = #(good > t) / N to b = #(good >= t) / N, which
    adds, per unit of height,

        limit - (a + b) / 2                  where b <= limit,
        (limit - a)^2 / (2 (b - a))          where a < limit < b,
        0                                    otherwise.

    Args:
        negatives: float32 [N], scores of the good pixels, ascending.
        regions: float32 [area] for each region, ascending.

    Returns:
        In [0, 1], or NaN if there is no region or no good pixel.
    """
    if not len(negatives) or not regions:
        return float("nan")
    parts = [float(_area_per_height(negatives, region).mean()) for region in regions]
    return float(np.mean(parts)) / FPR_LIMIT


def _area_per_height(negatives: FloatArray, scores: FloatArray) -> NDArray[np.float64]:
    """The case distinction of `exact_pro` for each score."""
    above = _share_above(negatives, scores)
    from_here = (len(negatives) - np.searchsorted(negatives, scores, side="left")) / len(negatives)
    crossing = from_here > FPR_LIMIT
    width = np.where(crossing & (above < FPR_LIMIT), from_here - above, np.inf)
    cut = (FPR_LIMIT - above) ** 2 / (2 * width)
    return np.where(crossing, cut, FPR_LIMIT - (above + from_here) / 2)


def _share_above(ascending: FloatArray, thresholds: FloatArray) -> NDArray[np.float64]:
    above = len(ascending) - np.searchsorted(ascending, thresholds, side="right")
    return above / len(ascending)
