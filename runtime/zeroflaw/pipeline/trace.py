"""How a mask came about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zeroflaw.pipeline.geometry import FloatArray
from zeroflaw.pipeline.masks.from_logits import Box
from zeroflaw.pipeline.refining.cascade import Stage
from zeroflaw.pipeline.refining.prompt_points import PointPrompts

Status = Literal["ok", "no_region", "stage_1_empty", "stage_2_empty", "stage_3_empty"]


@dataclass(frozen=True)
class KeptProposal:
    """A box whose mask is in the result of the refiner `box_proposals`.

    Attributes:
        box: Inclusive (x0, y0, x1, y1) in frame pixels.
        box_score: Of the proposer, in [0, 1].
        saliency: Mean over the mask, in [0, 1]; None if masks are not weighed.
        score: Of both, in [0, 1].
    """

    box: Box
    box_score: float
    saliency: float | None
    score: float


@dataclass(frozen=True)
class Trace:
    """How a mask came about, for those who want to look.

    Attributes:
        points: The point prompts, in frame pixels; None if no pixel is extreme, or without such.
        stages: Of cascade or MMR: low-res logits, predicted IoUs, chosen mask, boxes. Of a frame in
            tiles, those of every tile that had some, one tile after the other.
        kept_stage: 1 to 3, the stage whose mask is the result; 0 if none. Of tiles the highest.
        zero_shot_map: float32, of the shape of the anomaly map, in [0, 1]: CLIP's map by the
            product's texts alone.
        reference_map: float32 of the same shape, in [0, 1], how far each patch is from the
            product's good photos; None without a reference bank.
        proposals: The boxes behind the mask, by descending score; none with other refiners.
    """

    points: PointPrompts | None
    stages: tuple[Stage, ...]
    kept_stage: int
    zero_shot_map: FloatArray
    reference_map: FloatArray | None
    proposals: tuple[KeptProposal, ...] = ()
