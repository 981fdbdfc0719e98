"""Upsampling and smoothing as matrices, against PyTorch and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from zeroflaw_export.models.clip_encoder import bilinear_matrix
from zeroflaw_export.models.localizers.map_matrices import (
    gaussian_matrix,
    smoothed_upsampling,
)


# At 5 px the window of 33 is reflected more than once.
@pytest.mark.parametrize(("size", "sigma"), [(518, 4.0), (224, 4.0), (40, 1.5), (5, 4.0), (9, 0.0)])
def test_it_is_scipys_filter(size: int, sigma: float) -> None:
    image = np.random.default_rng(size).normal(size=(size, size))
    matrix = gaussian_matrix(size, sigma)
    np.testing.assert_allclose(matrix @ image @ matrix.T, gaussian_filter(image, sigma), atol=1e-12)


def test_upsampling_without_aligned_corners_is_pytorchs() -> None:
    # In float64: in float32 PyTorch rounds the places that it reads.
    grid = torch.randn(1, 1, 37, 37, generator=torch.Generator().manual_seed(0)).double()
    want = functional.interpolate(grid, (518, 518), mode="bilinear", align_corners=False)[0, 0]
    matrix = bilinear_matrix(37, 518, align_corners=False).double()
    torch.testing.assert_close(matrix @ grid[0, 0] @ matrix.T, want, atol=1e-6, rtol=0)
    both = smoothed_upsampling(37, 518, 4.0).double()
    smooth = torch.from_numpy(gaussian_filter(want.numpy(), 4.0))
    torch.testing.assert_close(both @ grid[0, 0] @ both.T, smooth, atol=1e-6, rtol=0)
