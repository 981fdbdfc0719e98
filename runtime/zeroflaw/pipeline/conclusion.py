"""The end of an inspection: scores, regions and decision, and the result that holds it all."""

from __future__ import annotations

import numpy as np

from zeroflaw.inspection import Inspection
from zeroflaw.pipeline.decoding import Decoding
from zeroflaw.pipeline.encoding import EncodedFrame
from zeroflaw.pipeline.regions import regions_of
from zeroflaw.pipeline.scoring import image_score, score_map
from zeroflaw.pipeline.trace import Status
from zeroflaw.records.decision import verdict_of
from zeroflaw.records.provenance import Provenance
from zeroflaw_engines.parameters import MethodParameters


def conclude(
    encoded: EncodedFrame,
    decoding: Decoding,
    parameters: MethodParameters,
    *,
    threshold: float,
    warnings: tuple[str, ...],
    provenance: Provenance,
    trace: bool = False,
) -> Inspection:
    """Score, decide, and gather the result; the frame's stopwatch times the parts.

    Args:
        threshold: Image score at and above which the frame is rejected, in [0, 1].
        warnings: What a reader of every result of this product must know.
        trace: Whether the result says how its mask came about.

    Raises:
        EngineError: The score is not finite.
    """
    encoding, watch = encoded.encoding, encoded.watch
    cascade, anomaly_map = decoding.cascade, encoding.anomaly_map
    with watch.stage("score"):
        score = score_map(anomaly_map, cascade, parameters)
    size = encoding.geometry.frame
    mask = np.zeros(size, np.bool_) if cascade is None else cascade.mask
    with watch.stage("regions"):
        regions = regions_of(mask, score)
    whole = image_score(encoding.cls_score, anomaly_map, parameters)
    with watch.stage("verdict"):
        verdict = verdict_of(
            whole,
            threshold,
            information=encoding.information,
            mask=mask,
            anomaly_map=anomaly_map,
            parameters=parameters,
        )
    status: Status = "no_region" if cascade is None else cascade.status
    return Inspection(
        **vars(encoded.stamp),
        **vars(provenance),
        status=status,
        product=encoded.product,
        decision=verdict.decision,
        reason=verdict.reason,
        image_score=whole,
        threshold=threshold,
        frame_size=size,
        frame=encoded.frame,
        mask=mask,
        anomaly_map=anomaly_map,
        score_map=score,
        regions=regions,
        timings_ms=watch.milliseconds,
        warnings=warnings + verdict.warnings + encoded.warnings,
        trace=decoding.trace() if trace else None,
    )
