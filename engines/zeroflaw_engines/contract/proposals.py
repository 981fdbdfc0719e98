"""What a box proposer returns, checked: boxes and scores, wherever they enter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines.contract import BOX_PROPOSER
from zeroflaw_engines.errors import EngineError

# Rounding may carry a share past 0 or 1, or a side of a box past the opposite one, by this much.
_ROUNDING: Final = 1e-3
# Of a row without a box, whose score is 0.
_NO_BOX: Final = (0, 0, 1, 1)
_REMEDY: Final = (
    "let the graph give (x0, y0, x1, y1) as shares of the frame, and probabilities: docs/bundle.md"
    " shows how to wrap a detector; `zeroflaw bundle verify` checks the bundle"
)


@dataclass(frozen=True, eq=False)
class BoxProposals:
    """The boxes of one frame.

    Attributes:
        boxes: float32 [N, 4], (x0, y0, x1, y1) as shares of the frame's width and height, in
            [0, 1], with x0 <= x1 and y0 <= y1.
        scores: float32 [N] in [0, 1].
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]


def box_proposals(outputs: Mapping[str, NDArray[np.float32]]) -> BoxProposals:
    """Take the boxes and scores of a box proposer; what rounding carried too far is set right.

    Args:
        outputs: `boxes` float32 [1, N, 4] and `scores` float32 [1, N].

    Raises:
        EngineError: A value is not finite or outside [0, 1], a box has its corners the wrong way
            round, all boxes are one value everywhere, or all scores are 0 beside boxes that are
            not those of rows without a box: memory that no kernel wrote.
    """
    boxes, scores = outputs["boxes"][0], outputs["scores"][0]
    for name, values in (("boxes", boxes), ("scores", scores)):
        bad = int(np.count_nonzero(~np.isfinite(values)))
        if bad:
            raise _error(f"{bad} of {values.size} values of {name} that are not finite")
        low, high = float(values.min()), float(values.max())
        if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
            raise _error(f"{name} from {low:g} to {high:g}, outside [0, 1]")
    if (boxes == boxes.flat[0]).all():
        raise _error(f"boxes that are {boxes.flat[0]:g} everywhere")
    if not scores.any() and not (boxes == _NO_BOX).all():
        raise _error("scores that are 0 everywhere, beside boxes")
    turned = (boxes[:, 2:] < boxes[:, :2] - _ROUNDING).any(axis=1)
    if turned.any():
        example = ", ".join(f"{side:g}" for side in boxes[turned][0])
        raise _error(
            f"{int(turned.sum())} of {len(boxes)} boxes with x1 < x0 or y1 < y0, as ({example})"
        )
    ordered = boxes.clip(0, 1)
    ordered[:, 2:] = np.maximum(ordered[:, :2], ordered[:, 2:])
    return BoxProposals(ordered, scores.clip(0, 1))


def _error(fault: str) -> EngineError:
    return EngineError(f"{BOX_PROPOSER} returned {fault}", _REMEDY)
