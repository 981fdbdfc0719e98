"""The boxes that a proposer gives for one frame, and which of them stand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.engine_outputs import run_engine
from zeroflaw.pipeline.geometry import squash
from zeroflaw.pipeline.masks.from_logits import Box
from zeroflaw.pipeline.resizing.strips import Picture, Strips
from zeroflaw.pipeline.view.zones import ZoneLayout
from zeroflaw_engines.contract.proposals import BoxProposals, box_proposals
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, Tensor
from zeroflaw_engines.sessions.session import Session


@dataclass(frozen=True, eq=False)
class Proposals:
    """What the box proposer says of one frame, and what its masks are weighed by.

    Attributes:
        found: All that it gave.
        frame: Height and width of the frame, px.
        patch_tokens: float32 [blocks, tokens, width] of the CLIP encoder, L2-normalised, where it
            left them; None if it gives none.
        zones: What is judged of the frame; None: all of it.
    """

    found: BoxProposals
    frame: tuple[int, int]
    patch_tokens: Tensor | DeviceTensor | None = None
    zones: ZoneLayout | None = None

    def standing(self, parameters: MethodParameters) -> NDArray[np.int64]:
        """Return the boxes that may hold a defect, by descending score; equal ones in their order.

        As SAA's filters (SAA/model.py, bbox_suppression) they have a score above `proposal_score`,
        and an area above 0 and below `proposal_area`. A box without a judged pixel does not stand.
        """
        boxes, scores = self.found.boxes, self.found.scores
        sides = boxes[:, 2:] - boxes[:, :2]
        areas = sides[:, 0] * sides[:, 1]
        stands = (
            (scores > parameters.proposal_score) & (areas > 0) & (areas < parameters.proposal_area)
        )
        order = np.argsort(-scores, kind="stable")
        chosen: NDArray[np.int64] = order[stands[order]]
        if self.zones is None:
            return chosen
        judged = self.zones.judged
        holds = []
        for number in chosen:
            x0, y0, x1, y1 = self.in_pixels(int(number))
            holds.append(bool(judged[y0 : y1 + 1, x0 : x1 + 1].any()))
        return chosen[np.array(holds, np.bool_)]

    def in_pixels(self, number: int) -> Box:
        """Return the inclusive (x0, y0, x1, y1) of the pixels that a box reaches into."""
        height, width = self.frame
        x0, y0, x1, y1 = self.found.boxes[number].astype(np.float64).tolist()
        left, top = min(int(x0 * width), width - 1), min(int(y0 * height), height - 1)
        right, bottom = int(np.ceil(x1 * width)) - 1, int(np.ceil(y1 * height)) - 1
        return left, top, max(left, right), max(top, bottom)


def some_stand(proposals: Proposals | None, parameters: MethodParameters | None) -> bool:
    """Return whether SAM may be needed: boxes stand, or the refiner runs on none."""
    if proposals is None:
        return True
    return len(proposals.standing(parameters or MethodParameters())) > 0


def propose(
    picture: Picture, frame: tuple[int, int], proposer: Session, strips: Strips | None = None
) -> Proposals:
    """Run the box proposer on a frame, squashed on the host as for the CLIP encoder.

    Args:
        picture: The frame, uint8 [H, W, 3] or as `to_resize_twice` gives it.
        frame: Its height and width, px.
        strips: Threads that share the resizing.

    Raises:
        EngineError: The engine failed, or returned what are no boxes and scores.
    """
    side = int(proposer.contract.inputs[0].shape[1])
    image = squash(picture, side, strips)[None]
    return Proposals(box_proposals(run_engine(proposer, {"image": image})), frame)
