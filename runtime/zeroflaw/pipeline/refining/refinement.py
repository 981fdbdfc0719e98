"""What a refiner takes, and what it makes of a frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from zeroflaw.pipeline.encoding.frame import Encoding
from zeroflaw.pipeline.geometry import BoolArray, FloatArray
from zeroflaw.pipeline.masks.from_logits import Box, Workspace
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


class Refinement(Protocol):
    """What a refiner made of an encoding."""

    def findings(
        self, encoding: Encoding, parameters: MethodParameters, workspace: Workspace | None = None
    ) -> Findings:
        """Say what was found on the frame that the encoders saw."""

    def trace(self, encoding: Encoding) -> Trace:
        """Say how the mask came about from an encoding."""


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
