"""The end of an inspection: scores, regions and decision, and the result that holds it all."""

from __future__ import annotations

from zeroflaw.inspection import Inspection
from zeroflaw.pipeline.decoding import Decoding
from zeroflaw.pipeline.encoding.frame import EncodedFrame
from zeroflaw.pipeline.masks.from_logits import Workspace
from zeroflaw.pipeline.masks.regions import regions_of
from zeroflaw.pipeline.scoring import image_score
from zeroflaw.pipeline.view.tiled_decoding import TiledDecoding
from zeroflaw.records.decision import verdict_of
from zeroflaw_engines.parameters import MethodParameters


def conclude(
    encoded: EncodedFrame,
    decoding: Decoding | TiledDecoding,
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
    with watch.stage("score"):
        found = decoding.findings(encoding, parameters, workspace)
    anomaly_map, mask, score = encoding.anomaly_map, found.mask, found.score_map
    with watch.stage("regions"):
        regions = regions_of(mask, score, found.mask_box)
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
    return Inspection(
        **vars(encoded.stamp),
        **vars(product.provenance),
        status=found.status,
        product=product.name,
        decision=verdict.decision,
        reason=verdict.reason,
        image_score=whole,
        threshold=product.threshold,
        frame_size=encoding.geometry.frame,
        frame=encoded.frame,
        mask=mask,
        anomaly_map=anomaly_map,
        score_map=score,
        regions=regions,
        timings_ms=watch.milliseconds,
        warnings=product.warnings + verdict.warnings + encoded.warnings,
        trace=decoding.trace(encoding) if trace else None,
    )
