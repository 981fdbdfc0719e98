"""What a refiner takes, and what it makes of a frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from zeroflaw.pipeline.encoding.frame import Encoding
from zeroflaw.pipeline.geometry import BoolArray, FloatArray
from zeroflaw.pipeline.masks.from_logits import Box, MaskPart, Workspace
from zeroflaw.pipeline.stopwatch import Stopwatch
from zeroflaw.pipeline.trace import Status, Trace
from zeroflaw_engines.contract import EngineSizes
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.session import Session


@dataclass(frozen=True, eq=False)
class Findings:
    """Where a frame is defective, in the pixels of what the encoders saw.

    Attributes:
        mask: bool [H, W].
        mask_box: `inclusive_box` of the mask; None if nobody has looked.
        score_map: float32 [h, w] in [0, 1], covering the frame.
        status: As that of an `Inspection`.
    """

    mask: BoolArray
    mask_box: Box | None
    score_map: FloatArray
    status: Status


@dataclass(frozen=True, eq=False)
class FoundMask:
    """The mask of a frame or a tile that SAM was run on; fields as those of `Findings`."""

    mask: BoolArray
    mask_box: Box | None
    status: Status


@dataclass(frozen=True, eq=False)
class LogitsReader:
    """Reads SAM's low-res logits, float32 [L, L], on a grid that scores are computed on.

    Attributes:
        logits: Gives them at the centres of the grid's pixels, float32 [h, w].
        mask: Gives where those are positive.
    """

    logits: Callable[[FloatArray], FloatArray]
    mask: Callable[[FloatArray], MaskPart]


class Refinement(Protocol):
    """What a refiner made of an encoding."""

    def findings(
        self, encoding: Encoding, parameters: MethodParameters, workspace: Workspace | None = None
    ) -> Findings:
        """Say what was found on the frame that the encoders saw."""

    def trace(self, encoding: Encoding) -> Trace:
        """Say how the mask came about from an encoding."""


class TileRefinement(Refinement, Protocol):
    """What a refiner made of an encoding, in the parts that the tiles of a frame are joined by."""

    @property
    def found(self) -> FoundMask | None:
        """The mask; None if no pixel is extreme."""

    def scores_of_masks(
        self, reader: LogitsReader, parameters: MethodParameters
    ) -> FloatArray | None:
        """Return what the masks add to the score map, float32 of the reader's grid; None: nothing.

        Of tiles that overlap, the largest value counts.
        """


@dataclass(frozen=True, eq=False)
class RefinerEngines:
    """What a refiner runs on.

    Attributes:
        sam_decoder: None where the refiner takes none.
        workspace: Memory to use again.
        watch: Times the parts.
    """

    sam_decoder: Session | None
    sizes: EngineSizes
    workspace: Workspace | None = None
    watch: Stopwatch = field(default_factory=Stopwatch)
