"""The refiners by name, each a row: what it needs, and what runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from zeroflaw.pipeline.encoding.frame import Encoding
from zeroflaw.pipeline.geometry import FloatArray
from zeroflaw.pipeline.refining.box_proposals import refine_by_box_proposals
from zeroflaw.pipeline.refining.decoding import refine_by_cascade
from zeroflaw.pipeline.refining.refinement import Refinement, RefinerEngines
from zeroflaw_engines.contract import BOX_PROPOSER, SAM_DECODER, SAM_ENCODER, EngineName
from zeroflaw_engines.parameters import MethodParameters, Refiner


@dataclass(frozen=True)
class RefinerRow:
    """One refiner.

    Attributes:
        engines: What it runs beside the CLIP encoder.
        needs_sam: Whether an anomaly map, float32 [S, S] in [0, 1], needs SAM's features at all.
        refine: Makes mask and scores of an encoding.
    """

    engines: tuple[EngineName, ...]
    needs_sam: Callable[[FloatArray, MethodParameters], bool]
    refine: Callable[[Encoding, MethodParameters, RefinerEngines], Refinement]


def _cascade_needs_sam(anomaly_map: FloatArray, parameters: MethodParameters) -> bool:
    extreme = bool(anomaly_map.max() > parameters.extreme_threshold)
    return extreme or parameters.no_region == "always_run"


def _by_boxes_alone(anomaly_map: FloatArray, parameters: MethodParameters) -> bool:  # noqa: ARG001
    """Leave it to the boxes, which may stand whatever the map says."""
    return True


REFINERS: Final[dict[Refiner, RefinerRow]] = {
    "cascade": RefinerRow((SAM_ENCODER, SAM_DECODER), _cascade_needs_sam, refine_by_cascade),
    "box_proposals": RefinerRow(
        (BOX_PROPOSER, SAM_ENCODER, SAM_DECODER),
        _by_boxes_alone,
        refine_by_box_proposals,
    ),
}


def refine(encoding: Encoding, parameters: MethodParameters, engines: RefinerEngines) -> Refinement:
    """Make mask and scores of an encoding, by the refiner of the parameters.

    Raises:
        EngineError: An engine failed, or returned values that are not finite.
    """
    return REFINERS[parameters.refiner].refine(encoding, parameters, engines)
