"""The refiners by name, each a row: where it looks, what runs it, and how it goes about tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from zeroflaw.pipeline.encoding.frame import Encoding
from zeroflaw.pipeline.encoding.proposals import some_stand
from zeroflaw.pipeline.geometry import FloatArray
from zeroflaw.pipeline.refining.box_proposals import refine_by_box_proposals
from zeroflaw.pipeline.refining.decoding import join_cascade_scores, refine_by_cascade
from zeroflaw.pipeline.refining.map_alone import take_map_alone
from zeroflaw.pipeline.refining.mmr import join_mmr_scores, refine_by_mmr
from zeroflaw.pipeline.refining.refinement import Refinement, RefinerEngines, TileRefinement
from zeroflaw_engines.errors import EngineError
from zeroflaw_engines.parameters import MethodParameters, Refiner


@dataclass(frozen=True)
class TileRefiner:
    """How a refiner goes about a frame in tiles, each with SAM's features of its own.

    Attributes:
        refine: Makes a mask, and what it adds to the score map, of a tile.
        join_scores: Makes the score map of the frame: of its anomaly map, float32 [h, w] in
            [0, 1], and of what the masks add (`TileRefinement.scores_of_masks`; of tiles that
            overlap the largest), float32 [h, w] or None.
    """

    refine: Callable[[Encoding, MethodParameters, RefinerEngines], TileRefinement]
    join_scores: Callable[[FloatArray, FloatArray | None, MethodParameters], FloatArray]


@dataclass(frozen=True)
class RefinerRow:
    """One refiner; `contract.ENGINES_OF_REFINER` says which engines it runs.

    Attributes:
        threshold: Gives the anomaly above which a pixel of the map is extreme to it, in [0, 1].
        needs_sam: Whether an anomaly map, float32 in [0, 1], needs SAM's features at all.
        refine: Makes mask and scores of an encoding.
        of_tile: The same for tiles; None for a refiner that runs without SAM, and takes the map
            that the tiles' maps were joined to as that of any other frame.
    """

    threshold: Callable[[MethodParameters], float]
    needs_sam: Callable[[FloatArray, MethodParameters], bool]
    refine: Callable[[Encoding, MethodParameters, RefinerEngines], Refinement]
    of_tile: TileRefiner | None


_extreme_threshold = attrgetter("extreme_threshold")
_mmr_threshold = attrgetter("mmr_threshold")


def _needs_sam(anomaly_map: FloatArray, parameters: MethodParameters) -> bool:
    threshold = REFINERS[parameters.refiner].threshold(parameters)
    return parameters.no_region == "always_run" or bool(anomaly_map.max() > threshold)


def _by_boxes_alone(anomaly_map: FloatArray, parameters: MethodParameters) -> bool:  # noqa: ARG001
    """Leave it to the boxes, which may stand whatever the map says."""
    return True


REFINERS: Final[dict[Refiner, RefinerRow]] = {
    "cascade": RefinerRow(
        _extreme_threshold,
        _needs_sam,
        refine_by_cascade,
        TileRefiner(refine_by_cascade, join_cascade_scores),
    ),
    "mmr": RefinerRow(
        _mmr_threshold, _needs_sam, refine_by_mmr, TileRefiner(refine_by_mmr, join_mmr_scores)
    ),
    "none": RefinerRow(_extreme_threshold, lambda *_: False, take_map_alone, None),
    "box_proposals": RefinerRow(_extreme_threshold, _by_boxes_alone, refine_by_box_proposals, None),
}


def refine(encoding: Encoding, parameters: MethodParameters, engines: RefinerEngines) -> Refinement:
    """Make mask and scores of an encoding, by the refiner of the parameters.

    Raises:
        EngineError: The frame was encoded without SAM's features, and needs them; or an engine
            failed, or returned values that are not finite.
        ParametersError: The parameters ask for more than the engines take.
    """
    row = REFINERS[parameters.refiner]
    # Without them it would look as if nothing were extreme.
    if (
        encoding.features is None
        and row.needs_sam(encoding.anomaly_map, parameters)
        and some_stand(encoding.proposals, parameters)
    ):
        raise EngineError(
            f"the frame was encoded without SAM's features, which the refiner {parameters.refiner}"
            " needs for it",
            "decode a frame by the Inspector that encoded it",
        )
    return row.refine(encoding, parameters, engines)
