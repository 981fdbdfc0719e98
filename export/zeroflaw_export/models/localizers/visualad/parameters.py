"""The open points of VisualAD, and its fixed mapping of cosines into [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import torch

from zeroflaw_engines.errors import ExportError

# Of four blocks v is -8 or more: 1 / (1 + exp(80)) is still above 0 in float32, and an image score
# of 0 is what a dead engine gives.
_LogisticScale = Annotated[float, msgspec.Meta(gt=0, le=10)]


@dataclass(frozen=True, kw_only=True)
class VisualAdParameters:
    """What the public source leaves open, or does in a way that no station can.

    Attributes:
        sigma: Of the Gaussian on the summed map, px of the CLIP input; 0: none.
        top_share: Share of the highest values of the map whose mean is the image score.
        mapping: How cosine differences v come into [0, 1]: `logistic` is
            1 / (1 + exp(-logistic_scale * v)), `affine` is (v / (2 * blocks) + 1) / 2. Both are
            monotone, and 0.5 where a patch is as near to the anomaly token as to the normal one.
        logistic_scale: Of `logistic`; 1 is what the source trains with.
        ln_post: Whose normalisation stands before the map: `clip`'s, as the source's test.py has
            it, or that which its train.py trained and stored in the checkpoint.
    """

    sigma: Annotated[float, msgspec.Meta(ge=0, le=100)] = 4.0
    top_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.01
    mapping: Literal["logistic", "affine"] = "logistic"
    logistic_scale: _LogisticScale = 1.0
    ln_post: Literal["clip", "checkpoint"] = "clip"

    def check(self) -> None:
        """Refuse a scale that nothing reads.

        Raises:
            ExportError: The mapping is not the logistic one, and its scale was set.
        """
        if self.mapping != "logistic" and self.logistic_scale != 1.0:
            raise ExportError(
                f"logistic_scale was set, which the mapping {self.mapping} does not read",
                "leave it out, or set mapping=logistic",
            )

    def mapped(self, differences: torch.Tensor, blocks: int) -> torch.Tensor:
        """Map sums over the blocks of cosine differences, in [-2 blocks, 2 blocks], into [0, 1]."""
        if self.mapping == "affine":
            return differences / (4.0 * blocks) + 0.5
        return torch.sigmoid(self.logistic_scale * differences)
