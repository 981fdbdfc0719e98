"""Score maps and image scores: what is thresholded, and what the metrics are computed on."""

from __future__ import annotations

import numpy as np

from zeroflaw.pipeline.geometry import FloatArray, FrameGeometry
from zeroflaw.pipeline.masks.from_logits import Workspace, logits_at, logits_at_sam, mask_at_map
from zeroflaw.pipeline.reference import fused_score
from zeroflaw.pipeline.refining.cascade import Cascade
from zeroflaw_engines.parameters import MethodParameters


def score_map(
    anomaly_map: FloatArray,
    cascade: Cascade | None,
    parameters: MethodParameters,
    workspace: Workspace | None = None,
) -> FloatArray:
    """Return the score map on the grid of the anomaly map; see `score_of_logits`.

    Args:
        anomaly_map: float32 [S, S] in [0, 1].
        cascade: What the cascade gave; None if it did not run.
        parameters: `scoring` and `fusion_weight`.
        workspace: Memory to use again.

    Returns:
        float32 [S, S] in [0, 1].
    """
    if cascade is None or cascade.low_res_logits is None:
        return score_without_mask(anomaly_map, parameters)
    logits, iou = cascade.low_res_logits, cascade.predicted_iou
    return score_of_logits(
        anomaly_map, logits, cascade.geometry, iou, parameters, workspace=workspace
    )


def score_without_mask(anomaly_map: FloatArray, parameters: MethodParameters) -> FloatArray:
    """Return the score map where SAM gave no mask.

    Args:
        anomaly_map: float32 [S, S] in [0, 1].
        parameters: `scoring` and `fusion_weight`.

    Returns:
        float32 [S, S] in [0, 1].
    """
    if parameters.scoring == "map":
        return anomaly_map
    if parameters.scoring == "fused":
        return (1 - np.float32(parameters.fusion_weight)) * anomaly_map
    return np.zeros_like(anomaly_map)


def score_of_logits(
    anomaly_map: FloatArray,
    low_res_logits: FloatArray,
    geometry: FrameGeometry,
    predicted_iou: float,
    parameters: MethodParameters,
    *,
    workspace: Workspace | None = None,
) -> FloatArray:
    """Return the score map on the grid of the anomaly map.

    SAM's mask is read at the centres of the map's pixels, which is `postprocess_masks` for a
    frame of the map's size. Values are never stretched to the image's own range: that would
    lift the noise of a good part to 1.

    Args:
        anomaly_map: float32 [S, S] in [0, 1].
        low_res_logits: float32 [L, L], of the mask.
        geometry: The frame's grids.
        predicted_iou: Of the mask, as the decoder gave it.
        parameters: `scoring` and `fusion_weight`.
        workspace: Memory to use again.

    Returns:
        float32 [S, S] in [0, 1].
    """
    scoring = parameters.scoring
    if scoring == "map":
        return anomaly_map
    if scoring == "sam_probability":
        logits = logits_at(logits_at_sam(low_res_logits, geometry), anomaly_map.shape)
        return probability_of(logits)
    mask = mask_at_map(low_res_logits, geometry, anomaly_map.shape, workspace)
    if scoring == "mask":
        return mask.whole().astype(np.float32)
    weight = np.float32(parameters.fusion_weight)
    confidence = np.float32(min(max(predicted_iou, 0.0), 1.0))
    fused = (1 - weight) * anomaly_map
    fused[mask.rows, mask.columns] += weight * confidence * mask.pixels
    return fused


def probability_of(logits: FloatArray) -> FloatArray:
    """Return the probabilities, float32 in [0, 1], that SAM's logits stand for."""
    return (1 / (1 + np.exp(-np.clip(logits, -80, 80)))).astype(np.float32)


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
