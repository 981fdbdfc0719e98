"""Windows on a grid of patches, place by place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zeroflaw_export.models.localizers.windows import Windows, mean_inverse

SHAPES = [(5, 2), (5, 3), (4, 4), (6, 1), (9, 3)]


def by_hand(grid: int, side: int) -> list[set[tuple[int, int]]]:
    """The patches of each window, (row, column)."""
    places = range(grid - side + 1)
    return [
        {(top + i, left + j) for i in range(side) for j in range(side)}
        for top in places
        for left in places
    ]


@pytest.mark.parametrize(("grid", "side"), SHAPES)
def test_a_window_has_the_patches_under_it(grid: int, side: int) -> None:
    found = Windows(grid, side).patches.tolist()
    assert [{divmod(number, grid) for number in window} for window in found] == by_hand(grid, side)
    assert all(window == sorted(window) for window in found)


@pytest.mark.parametrize(("grid", "side"), SHAPES)
def test_the_window_around_a_patch_covers_it_and_each_is_around_one(grid: int, side: int) -> None:
    windows = by_hand(grid, side)
    around = Windows(grid, side).around.tolist()
    assert set(around) == set(range(len(windows)))
    for patch, number in enumerate(around):
        at = divmod(patch, grid)
        assert at in windows[number]
        middle = np.mean(sorted(windows[number]), axis=0)
        apart = np.abs(middle - at).max()
        # No other window has the patch nearer to its middle.
        others = [np.abs(np.mean(sorted(w), axis=0) - at).max() for w in windows]
        assert apart == min(others)


@pytest.mark.parametrize(("grid", "side"), SHAPES)
def test_the_harmonic_mean_of_the_windows_over_a_patch(grid: int, side: int) -> None:
    windows = Windows(grid, side)
    scores = torch.rand(
        2, windows.places, windows.places, generator=torch.Generator().manual_seed(1)
    )
    scores = scores + 1e-3
    got = 1 / mean_inverse(scores, windows, windows.inverse_counts)
    for image in range(2):
        values = scores[image].flatten().double().numpy()
        for patch in np.ndindex(grid, grid):
            over = [v for v, w in zip(values, by_hand(grid, side), strict=True) if patch in w]
            want = len(over) / sum(1 / value for value in over)
            assert float(got[image][patch]) == pytest.approx(want, rel=1e-5)
