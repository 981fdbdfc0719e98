"""The Gaussian that public code smooths anomaly maps with, as a constant matrix of a graph."""

from __future__ import annotations

import numpy as np
import torch


def gaussian_matrix(size: int, sigma: float) -> torch.Tensor:
    """Return the Gaussian filter along one axis as a matrix.

    It is that of `scipy.ndimage.gaussian_filter` as AnomalyCLIP (test.py:107) and VisualAD
    (test.py:149) call it: `mode="reflect"`, which repeats the edge (d c b a | a b c d | d c b a),
    and `truncate=4.0`. A map [size, size] is smoothed by `matrix @ map @ matrix.T`; upsampling
    before it is a matrix as well, and the two are one product.

    Args:
        size: Of the axis, px.
        sigma: Standard deviation, px; 0: the identity.

    Returns:
        float32 [size, size]; every row sums to 1.
    """
    if sigma == 0:
        return torch.eye(size)
    radius = int(4.0 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * np.square(offsets / sigma))
    weights /= weights.sum()
    rows = np.arange(size)[:, None]
    columns = (rows + offsets) % (2 * size)  # a reflection that repeats the edge has this period
    columns = np.where(columns < size, columns, 2 * size - 1 - columns)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (rows, columns), weights)
    return torch.from_numpy(matrix.astype(np.float32))
