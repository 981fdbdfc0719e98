"""The windows of WinCLIP: where they lie on the grid of patches, and what a patch makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch


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
    def shares(self) -> torch.Tensor:
        """`covers` with rows that sum to 1: means over the windows that cover a patch."""
        return self.covers / self.covers.sum(dim=1, keepdim=True)


def mean_inverse(scores: torch.Tensor, shares: torch.Tensor, one: torch.Tensor) -> torch.Tensor:
    """Return the mean of 1 / score over the windows that cover each patch.

    Its inverse is the harmonic mean (anomalib, winclip/utils.py:harmonic_aggregation). The windows
    that cover a patch are those that cover it along both axes, so that the mean is two matrix
    products.

    Args:
        scores: float32 [B, places, places], above 0.
        shares: float32 [grid, places], from `Windows`.
        one: float32 [1], 1: a division by a number would be an operator of its own in the graph.

    Returns:
        float32 [B, grid, grid].
    """
    return shares @ torch.div(one, scores) @ shares.T
