"""The windows of WinCLIP: where they lie on the grid of patches, and what a patch makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True)
class Windows:
    """The square windows of one scale, one at every place of the grid where one fits.

    They are numbered row by row of the places of their first patch.

    Attributes:
        grid: Side of the square grid of patches.
        side: Of a window, patches; at most `grid`.
    """

    grid: int
    side: int

    @property
    def places(self) -> int:
        """Places along one axis; there are as many windows as its square."""
        return self.grid - self.side + 1

    @property
    def middle(self) -> int:
        """Places from a window's first patch to its middle one, along either axis."""
        return (self.side - 1) // 2

    @property
    def patches(self) -> torch.Tensor:
        """The numbers of the patches in each window, int64 [places * places, side * side]."""
        at = torch.arange(self.places)[:, None] + torch.arange(self.side)
        numbers = self.grid * at[:, None, :, None] + at[None, :, None, :]
        return numbers.reshape(self.places**2, self.side**2)

    @property
    def around(self) -> torch.Tensor:
        """The number of the window around each patch, int64 [grid * grid].

        It is the one that has the patch in its middle or, at the border, the nearest to that: each
        window is around a patch, and those of the border are around several.
        """
        at = (torch.arange(self.grid) - self.middle).clamp(0, self.places - 1)
        return (self.places * at[:, None] + at).flatten()

    @property
    def covers(self) -> torch.Tensor:
        """Which windows cover a patch along one axis, float32 [grid, places] of 0 and 1."""
        ahead = torch.arange(self.grid)[:, None] - torch.arange(self.places)
        return ((ahead >= 0) & (ahead < self.side)).float()

    @property
    def inverse_counts(self) -> torch.Tensor:
        """1 / number of windows that cover each patch, float32 [grid, grid]."""
        along = self.covers.sum(dim=1)
        return 1 / (along[:, None] * along)


def mean_inverse(
    scores: torch.Tensor, windows: Windows, inverse_counts: torch.Tensor
) -> torch.Tensor:
    """Return the mean of 1 / score over the windows that cover each patch.

    Its inverse is the harmonic mean (anomalib, winclip/utils.py:harmonic_aggregation). The windows
    that cover a patch are a square of places: a pooling, with none beyond the border.

    Args:
        scores: float32 [B, places, places], above 0.
        inverse_counts: From `windows`, as a constant of the graph.

    Returns:
        float32 [B, grid, grid].
    """
    side = windows.side
    # Not `1 / scores`: that would be an operator of its own in the graph.
    inverse = torch.div(torch.ones_like(scores), scores)[:, None]
    padded = functional.pad(inverse, (side - 1,) * 4)
    return functional.avg_pool2d(padded, side, stride=1)[:, 0] * (side**2 * inverse_counts)
