"""The way back: what was found on an aligned frame, in the pixels of the frame as it was given."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from zeroflaw.pipeline.geometry import BoolArray, FloatArray
from zeroflaw.pipeline.masks.extreme_parts import with_extreme_parts
from zeroflaw.pipeline.masks.from_logits import Box
from zeroflaw.pipeline.refining.cascade import Stage
from zeroflaw.pipeline.refining.refinement import Findings
from zeroflaw.pipeline.trace import Trace
from zeroflaw.pipeline.view.alignment import AlignedFrame
from zeroflaw.pipeline.view.product_view import FrameView
from zeroflaw.pipeline.view.registration import mapped
from zeroflaw_engines.bundle.products.settings import Zone


def findings_in_frame(
    found: Findings, view: FrameView | None, extreme: BoolArray | None = None
) -> Findings:
    """Cut findings to what is judged, and bring them back.

    Args:
        extreme: bool [h, w], the extreme region: components that no mask touches are added to it.
            None: they are left out.
    """
    if view is None or view.held is not None:
        return found
    mask, box, score = found.mask, found.mask_box, found.score_map
    if view.zones is not None:
        # Not in place: the mask is the cascade's own.
        mask, box = mask & view.zones.judged, None
        score = score * view.zones.at_map(score.shape)
    if extreme is not None:
        judged = None if view.zones is None else view.zones.judged
        mask, box = with_extreme_parts(mask, extreme, judged), None
    if view.aligned is not None:
        mask = view.aligned.mask_in_frame(mask)
        box, score = None, map_in_frame(score, view)
    return replace(found, mask=mask, mask_box=box, score_map=score)


def map_in_frame(values: FloatArray, view: FrameView | None) -> FloatArray:
    """Bring a map back that covers the frame, float32 [h, w]; the same array if it was not moved.

    It is 0 already where nothing is judged.
    """
    aligned = _moved(view)
    if view is None or aligned is None:
        return values
    judged = None if view.zones is None else view.zones.at_map(values.shape)
    return aligned.map_in_frame(values, judged)


def zones_in_frame(view: FrameView | None) -> tuple[Zone, ...]:
    """Return the zones that the frame was judged by, with their corners in its pixels."""
    if view is None or view.zones is None:
        return ()
    aligned = _moved(view)
    return view.zones.in_pixels if aligned is None else view.zones.moved(aligned.matrix)


def trace_in_frame(trace: Trace, view: FrameView | None) -> Trace:
    """Bring points, boxes and maps back; of a box that is turned, the upright one around it."""
    aligned = _moved(view)
    if aligned is None or view is None:
        return trace
    points = trace.points
    if points is not None:
        coords = mapped(points.coords, aligned.matrix).astype(np.float32)
        points = replace(points, coords=coords)
    height, width = view.seen.shape[:2]
    reference = trace.reference_map
    return replace(
        trace,
        points=points,
        stages=tuple(_stage(stage, aligned, (height, width)) for stage in trace.stages),
        proposals=tuple(
            replace(one, box=_box(one.box, aligned, (height, width))) for one in trace.proposals
        ),
        zero_shot_map=map_in_frame(trace.zero_shot_map, view),
        reference_map=None if reference is None else map_in_frame(reference, view),
    )


def _moved(view: FrameView | None) -> AlignedFrame | None:
    """Return how a frame was brought onto the reference photo; None if it was seen as it is."""
    return None if view is None or view.held is not None else view.aligned


def _stage(stage: Stage, aligned: AlignedFrame, frame: tuple[int, int]) -> Stage:
    return replace(stage, boxes=tuple(_box(box, aligned, frame) for box in stage.boxes))


def _box(box: Box, aligned: AlignedFrame, frame: tuple[int, int]) -> Box:
    x0, y0, x1, y1 = box
    corners = np.array(list(itertools.product((x0, x1), (y0, y1))), np.float64)
    there = np.rint(mapped(corners, aligned.matrix)).astype(int)
    there = there.clip(0, (frame[1] - 1, frame[0] - 1))
    left, top = there.min(axis=0).tolist()
    right, bottom = there.max(axis=0).tolist()
    return left, top, right, bottom
