"""The end of an inspection: scores, regions and decision, and the result that holds it all."""

from __future__ import annotations

import numpy as np

from zeroflaw.inspection import Inspection
from zeroflaw.pipeline.decoding import Decoding
from zeroflaw.pipeline.encoding import EncodedFrame
from zeroflaw.pipeline.masks.from_logits import Workspace
from zeroflaw.pipeline.masks.regions import regions_of
from zeroflaw.pipeline.scoring import image_score, score_map
from zeroflaw.pipeline.trace import Status
from zeroflaw.records.decision import verdict_of
from zeroflaw_engines.parameters import MethodParameters


def conclude(
    encoded: EncodedFrame,
    decoding: Decoding,
    parameters: MethodParameters,
    workspace: Workspace | None = None,
    *,
    trace: bool = False,
) -> Inspection:
    """Score, decide, and gather the result; the frame's stopwatch times the parts.

    Args:
        workspace: Memory to use again.
        trace: Whether the result says how its mask came about.

    Raises:
        EngineError: The score is not finite.
    """
    encoding, watch, product = encoded.encoding, encoded.watch, encoded.product
    cascade, anomaly_map = decoding.cascade, encoding.anomaly_map
    with watch.stage("score"):
        score = score_map(anomaly_map, cascade, parameters, workspace)
    size = encoding.geometry.frame
    mask = np.zeros(size, np.bool_) if cascade is None else cascade.mask
    with watch.stage("regions"):
        regions = regions_of(mask, score, None if cascade is None else cascade.mask_box)
    whole = image_score(
        encoding.cls_score, encoding.zero_shot_map, parameters, encoding.reference_map
    )
    with watch.stage("verdict"):
        verdict = verdict_of(
            whole,
            product.threshold,
            information=encoding.information,
            mask=mask,
            anomaly_map=anomaly_map,
            parameters=parameters,
        )
    status: Status = "no_region" if cascade is None else cascade.status
    return Inspection(
        **vars(encoded.stamp),
        **vars(product.provenance),
        status=status,
        product=product.name,
        decision=verdict.decision,
        reason=verdict.reason,
        image_score=whole,
        threshold=product.threshold,
        frame_size=size,
        frame=encoded.frame,
        mask=mask,
        anomaly_map=anomaly_map,
        score_map=score,
        regions=regions,
        timings_ms=watch.milliseconds,
        warnings=product.warnings + verdict.warnings + encoded.warnings,
        trace=decoding.trace(encoding) if trace else None,
    )
