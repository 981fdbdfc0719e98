"""The end of an inspection: scores, regions and decision, and the result that holds it all."""

from __future__ import annotations

from zeroflaw.inspection import Inspection
from zeroflaw.pipeline.encoding.frame import EncodedFrame, Encoding
from zeroflaw.pipeline.masks.from_logits import Workspace
from zeroflaw.pipeline.masks.regions import regions_of
from zeroflaw.pipeline.refining.refinement import Refinement
from zeroflaw.pipeline.refining.refiners import REFINERS
from zeroflaw.pipeline.scoring import image_score
from zeroflaw.pipeline.view.alignment import AlignedFrame
from zeroflaw.pipeline.view.in_frame import (
    findings_in_frame,
    map_in_frame,
    trace_in_frame,
    zones_in_frame,
)
from zeroflaw.records.decision import verdict_of
from zeroflaw.records.record import AlignmentRecord, TilesRecord
from zeroflaw.records.rules import decision_score, firing_rule
from zeroflaw_engines.parameters import MethodParameters


def conclude(
    encoded: EncodedFrame,
    refinement: Refinement,
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
    view = encoded.view
    aligned = None if view is None else view.aligned
    settings = product.settings
    scale = None if settings is None else settings.mm_per_pixel
    rules = () if settings is None else settings.rules
    # Rules by regions see nothing else.
    by_regions = any(rule.by == "regions" for rule in rules)
    with watch.stage("score"):
        found = findings_in_frame(
            refinement.findings(encoding, parameters, workspace),
            view,
            encoding.anomaly_map > REFINERS[parameters.refiner].threshold(parameters)
            if by_regions
            else None,
        )
        anomaly_map = map_in_frame(encoding.anomaly_map, view)
    mask, score = found.mask, found.score_map
    zones = zones_in_frame(view)
    with watch.stage("regions"):
        regions = regions_of(mask, score, found.mask_box, zones=zones, mm_per_pixel=scale)
    whole = image_score(
        encoding.cls_score, encoding.zero_shot_map, parameters, encoding.reference_map
    )
    with watch.stage("verdict"):
        decisive = decision_score(rules, whole, regions, scale)
        firing = firing_rule(rules, whole, regions, product.threshold, scale)
        verdict = verdict_of(
            decisive,
            product.threshold,
            information=encoding.information,
            mask=mask,
            anomaly_map=anomaly_map,
            parameters=parameters,
            held=None if view is None else view.held,
            zones=None if view is None else view.zones,
            rules=rules,
            firing=firing,
        )
    return Inspection(
        **vars(encoded.stamp),
        **vars(product.provenance),
        status=found.status,
        product=product.name,
        decision=verdict.decision,
        reason=verdict.reason,
        image_score=whole,
        decision_score=decisive,
        rule=firing.rule if firing is not None and verdict.decision == "reject" else None,
        threshold=product.threshold,
        frame_size=encoding.geometry.frame,
        frame=encoded.frame,
        mask=mask,
        anomaly_map=anomaly_map,
        score_map=score,
        regions=regions,
        timings_ms=watch.milliseconds,
        warnings=product.warnings + verdict.warnings + encoded.warnings,
        trace=trace_in_frame(refinement.trace(encoding), view) if trace else None,
        zones=zones,
        tiles=_tiles_record(encoding),
        alignment=None if aligned is None else _alignment_record(aligned),
    )


def _alignment_record(aligned: AlignedFrame) -> AlignmentRecord:
    x, y = aligned.shift
    return AlignmentRecord(x=x, y=y, rotation=aligned.rotation, correlation=aligned.correlation)


def _tiles_record(encoding: Encoding) -> TilesRecord | None:
    seen = encoding.tiles
    if seen is None:
        return None
    return TilesRecord(rows=seen.rows, columns=seen.columns, run=seen.run)
