"""Score maps and image scores: what is thresholded, and what the metrics are computed on."""

from __future__ import annotations

import numpy as np

from zeroflaw.pipeline.cascade import Cascade
from zeroflaw.pipeline.geometry import FloatArray
from zeroflaw.pipeline.masks import logits_at
from zeroflaw.pipeline.reference import fused_score
from zeroflaw_engines.parameters import MethodParameters


def score_map(
    anomaly_map: FloatArray, cascade: Cascade | None, parameters: MethodParameters
) -> FloatArray:
    """Return the score map on the grid of the anomaly map; see `score_of_logits`.

    Args:
        anomaly_map: float32 [S, S] in [0, 1].
        cascade: What the cascade gave; None if it did not run.
        parameters: `scoring` and `fusion_weight`.

    Returns:
        float32 [S, S] in [0, 1].
    """
    if cascade is None:
        return score_of_logits(anomaly_map, None, 0.0, parameters)
    return score_of_logits(anomaly_map, cascade.content_logits, cascade.predicted_iou, parameters)


def score_of_logits(
    anomaly_map: FloatArray,
    content_logits: FloatArray | None,
    predicted_iou: float,
    parameters: MethodParameters,
) -> FloatArray:
    """Return the score map on the grid of the anomaly map.

    SAM's mask is read at the centres of the map's pixels, which is `postprocess_masks` for a
    frame of the map's size. Values are never stretched to the image's own range: that would
    lift the noise of a good part to 1.

    Args:
        anomaly_map: float32 [S, S] in [0, 1].
        content_logits: float32 [h, w], logits of the mask over SAM's content; None if there is
            no mask of SAM.
        predicted_iou: Of the mask, as the decoder gave it.
        parameters: `scoring` and `fusion_weight`.

    Returns:
        float32 [S, S] in [0, 1].
    """
    scoring = parameters.scoring
    if scoring == "map":
        return anomaly_map
    weight = np.float32(parameters.fusion_weight)
    if content_logits is None:
        empty = np.zeros_like(anomaly_map)
        return (1 - weight) * anomaly_map if scoring == "fused" else empty
    logits = logits_at(content_logits, anomaly_map.shape)
    if scoring == "sam_probability":
        return (1 / (1 + np.exp(-np.clip(logits, -80, 80)))).astype(np.float32)
    mask = logits > 0
    if scoring == "mask":
        return mask.astype(np.float32)
    confidence = np.float32(min(max(predicted_iou, 0.0), 1.0))
    fused = (1 - weight) * anomaly_map
    np.add(fused, weight * confidence, out=fused, where=mask)
    return fused


def image_score(
    cls_score: float,
    zero_shot_map: FloatArray,
    parameters: MethodParameters,
    reference_map: FloatArray | None = None,
) -> float:
    """Return the image score in [0, 1]: CLIP's CLS softmax, or the peak of the zero-shot map.

    With a reference map it is what `fused_score` makes of that and the map's peak.

    Args:
        cls_score: From the CLIP encoder.
        zero_shot_map: float32 [S, S] in [0, 1].
        parameters: `image_scoring` and `reference_image_scoring`.
        reference_map: float32 [S, S] in [0, 1], from `reference_distances`, if the product has a
            bank.
    """
    score = cls_score if parameters.image_scoring == "cls" else float(zero_shot_map.max())
    return score if reference_map is None else fused_score(score, reference_map, parameters)
