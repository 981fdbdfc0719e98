"""Maps of tiles joined to one of the frame, against sums written out pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from zeroflaw.pipeline.view.blending import blending_of
from zeroflaw.pipeline.view.tiles import TileGrid
from zeroflaw_engines.bundle.products.settings import Tiles

SIDE = 40
GRIDS = [
    TileGrid(Tiles(rows=rows, columns=columns, overlap=overlap), frame, SIDE)
    for rows, columns, overlap, frame in [
        (1, 4, 0.2, (90, 400)),
        (3, 4, 0.2, (301, 399)),
        (3, 1, 0.5, (333, 41)),
        (4, 5, 0.5, (401, 503)),
        (2, 3, 0.0, (200, 301)),
        (7, 6, 0.37, (500, 410)),
    ]
]


def centres(extent: int, pixels: int) -> np.ndarray:
    return (np.arange(pixels) + 0.5) * extent / pixels


def share_along(at: float, windows: list[slice], number: int) -> float:
    """The raised cosine, written out at one place."""

    def raw(n: int) -> float:
        begin, end = windows[n].start, windows[n].stop
        if not begin <= at < end:
            return 0.0
        value = 1.0
        if n and at < windows[n - 1].stop:
            value *= (1 - np.cos(np.pi * (at - begin) / (windows[n - 1].stop - begin))) / 2
        if n + 1 < len(windows) and at > windows[n + 1].start:
            value *= (1 - np.cos(np.pi * (end - at) / (end - windows[n + 1].start))) / 2
        return value

    return raw(number) / sum(raw(n) for n in range(len(windows)))


def read_at(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    grid = np.meshgrid(rows, columns, indexing="ij")
    return ndimage.map_coordinates(values.astype(np.float64), grid, order=1, mode="nearest")


@pytest.mark.parametrize("grid", GRIDS)
def test_shares_sum_to_one_and_lie_within_their_tiles(grid: TileGrid) -> None:
    blending = blending_of(grid)
    total = np.zeros(blending.size)
    for tile, window in zip(blending.tiles, grid.windows, strict=True):
        for span, weights, of_frame, extent, pixels in zip(
            (tile.rows, tile.columns), tile.weights, window, grid.frame, blending.size, strict=True
        ):
            at = centres(extent, pixels)[span]
            assert of_frame.start <= at[0]
            assert at[-1] < of_frame.stop
            assert len(weights) == len(at)
        total[tile.rows, tile.columns] += np.outer(*tile.weights)
    np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize("grid", GRIDS)
def test_blending_is_the_sum_written_out(grid: TileGrid) -> None:
    rng = np.random.default_rng(3)
    maps = rng.uniform(0, 1, (len(grid.windows), SIDE, SIDE)).astype(np.float32)
    blending = blending_of(grid)
    got = np.zeros(blending.size, np.float32)
    want = np.zeros(blending.size)
    for number, values in enumerate(maps):
        blending.add(number, values, got)
    ys, xs = (centres(extent, n) for extent, n in zip(grid.frame, blending.size, strict=True))
    rows = [window[0] for window in grid.windows[:: grid.tiles.columns]]
    columns = [window[1] for window in grid.windows[: grid.tiles.columns]]
    for number, (window, values) in enumerate(zip(grid.windows, maps, strict=True)):
        row, column = divmod(number, grid.tiles.columns)
        weights = np.outer(
            [share_along(y, rows, row) for y in ys], [share_along(x, columns, column) for x in xs]
        )
        at_y, at_x = (
            (at - span.start) * SIDE / (span.stop - span.start) - 0.5
            for at, span in zip((ys, xs), window, strict=True)
        )
        want += weights * read_at(values, at_y, at_x)
    np.testing.assert_allclose(got, want, atol=2e-4)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_linear_ramp_over_the_frame_comes_out_as_it_is(grid: TileGrid) -> None:
    (height, width), blending = grid.frame, blending_of(grid)
    got = np.zeros(blending.size, np.float32)

    def ramp(ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
        return 0.3 * ys[:, None] / height + 0.6 * xs[None] / width + 0.05

    for number, window in enumerate(grid.windows):
        at = [span.start + centres(span.stop - span.start, SIDE) for span in window]
        blending.add(number, ramp(*at).astype(np.float32), got)
    ys, xs = (centres(extent, n) for extent, n in zip(grid.frame, blending.size, strict=True))
    want = ramp(ys, xs)
    # Beyond the centre of the outermost pixel of a tile's map its value holds: not on the border.
    inside = tuple(slice(1, -1) for _ in range(2))
    tile = [side / SIDE / 2 for side in grid.tile]
    step = max(0.3 * tile[0] / height, 0.6 * tile[1] / width)
    np.testing.assert_allclose(got[inside], want[inside], atol=2e-4 + step)
    deep = tuple(slice(3, -3) for _ in range(2))
    overlapping = grid.tiles.overlap > 0
    if overlapping:
        np.testing.assert_allclose(got[deep], want[deep], atol=2e-4 + step / 8)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_tile_reads_the_map_of_the_frame_at_its_own_pixels(grid: TileGrid) -> None:
    blending = blending_of(grid)
    values = np.random.default_rng(5).uniform(0.1, 1, blending.size).astype(np.float32)
    values[:, : blending.size[1] // 3] = 0
    for number, window in enumerate(grid.windows):
        at_y, at_x = (
            (span.start + centres(span.stop - span.start, SIDE)) * n / extent - 0.5
            for span, n, extent in zip(window, blending.size, grid.frame, strict=True)
        )
        want = read_at(values, at_y, at_x)
        got = blending.at_tile(number, values, SIDE)
        np.testing.assert_allclose(got, want, atol=2e-4)
        kept = blending.at_tile(number, values, SIDE, keep_zeros=True)
        nearest = (at_x + 0.5).astype(int).clip(0, blending.size[1] - 1) < blending.size[1] // 3
        sure = np.abs(at_x % 1 - 0.5) > 1e-3  # else either neighbour is the nearest
        assert not kept[:, nearest & sure].any()
        np.testing.assert_array_equal(kept[:, ~nearest & sure], got[:, ~nearest & sure])


def test_a_map_of_the_whole_frame_is_taken_by_parts() -> None:
    grid = GRIDS[1]
    blending = blending_of(grid)
    whole = np.random.default_rng(6).uniform(0, 1, (SIDE, SIDE)).astype(np.float32)
    got = np.zeros(blending.size, np.float32)
    for number in range(len(grid.windows)):
        blending.add(number, whole, got, whole=True)
    at = [centres(SIDE, n) - 0.5 for n in blending.size]
    np.testing.assert_allclose(got, read_at(whole, *at), atol=2e-4)
