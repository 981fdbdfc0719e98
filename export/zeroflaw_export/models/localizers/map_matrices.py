"""What makes a map of a grid of patches: matrices for one axis, constants of a graph.

Upsampling and smoothing are linear along each axis, so that both together are one matrix from the
left and its transpose from the right.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

# Where the Gaussian of scipy.ndimage ends by default, in sigmas.
TRUNCATE: Final = 4.0


def smoothed_upsampling(
    source: int, target: int, sigma: float, *, align_corners: bool = False
) -> torch.Tensor:
    """Return bilinear upsampling and then Gaussian smoothing along one axis, as one matrix.

    Args:
        source: Side of the grid, cells.
        target: Side of the map, px.
        sigma: Of the Gaussian, px of the map; 0: no smoothing.
        align_corners: As `torch.nn.functional.interpolate` has it.

    Returns:
        float32 [target, source]; every row sums to 1.
    """
    unit = torch.eye(source, dtype=torch.float64)[None]
    columns = functional.interpolate(unit, size=target, mode="linear", align_corners=align_corners)
    matrix = gaussian_matrix(target, sigma) @ columns[0].T.numpy()
    return torch.from_numpy(np.ascontiguousarray(matrix)).float()


def gaussian_matrix(size: int, sigma: float) -> NDArray[np.float64]:
    """Return `scipy.ndimage.gaussian_filter` with its defaults along one axis, as a matrix.

    The border is reflected, its pixels repeated, and the Gaussian ends at four sigma.

    Args:
        size: Side of the map, px.
        sigma: In px; 0: no smoothing.

    Returns:
        float64 [size, size]; every row sums to 1.
    """
    offsets, weights = gaussian_kernel(sigma)
    beyond = len(offsets) // 2
    read = np.pad(np.arange(size), beyond, mode="symmetric")
    matrix = np.zeros((size, size))
    for offset, weight in zip(offsets + beyond, weights, strict=True):
        np.add.at(matrix, (np.arange(size), read[offset : offset + size]), weight)
    return matrix


def gaussian_kernel(sigma: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the offsets of a Gaussian, px, and its weights, which sum to 1."""
    radius = int(TRUNCATE * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2) if sigma > 0 else np.ones(1)
    return offsets, weights / weights.sum()
