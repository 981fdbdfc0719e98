"""Upsampling and smoothing as matrices, against torch and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from zeroflaw_export.models.localizers.map_matrices import gaussian_matrix, smoothed_upsampling


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0, 8.0, 13.7])
@pytest.mark.parametrize("size", [1, 10, 37, 224])
def test_the_gaussian_is_scipys_at_every_border(size: int, sigma: float) -> None:
    """Of 10 px and sigma 13.7, the border is mirrored several times over."""
    image = np.random.default_rng(0).uniform(size=(size, size)).astype(np.float32)
    matrix = gaussian_matrix(size, sigma)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
    got = matrix @ image @ matrix.T
    np.testing.assert_allclose(got, gaussian_filter(image, sigma=sigma), atol=1e-5)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("grid", "size", "sigma"), [(37, 518, 4.0), (7, 98, 8.0), (8, 112, 0.0)])
def test_one_matrix_is_both_steps(
    grid: int, size: int, sigma: float, *, align_corners: bool
) -> None:
    cells = torch.rand(1, 1, grid, grid, generator=torch.Generator().manual_seed(1))
    large = functional.interpolate(
        cells, size=(size, size), mode="bilinear", align_corners=align_corners
    )
    want = gaussian_filter(large[0, 0].numpy(), sigma=sigma) if sigma else large[0, 0].numpy()
    matrix = smoothed_upsampling(grid, size, sigma, align_corners=align_corners)
    assert matrix.dtype == torch.float32
    got = (matrix @ cells[0, 0] @ matrix.T).numpy()
    np.testing.assert_allclose(got, want, atol=1e-5)
