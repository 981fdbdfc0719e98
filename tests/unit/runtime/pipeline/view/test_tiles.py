"""The layout of tiles, and the choice of a grid by the smallest defect."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from scripted_engines import PATCHES, sizes_of

from zeroflaw.pipeline.view.tiles import TileGrid, grid_for_defect, tile_grid
from zeroflaw_engines.bundle.products.settings import MAX_TILES, Tiles
from zeroflaw_engines.errors import SettingsError


@pytest.mark.parametrize("seed", range(40))
def test_tiles_of_one_size_cover_the_frame_and_overlap_as_asked(seed) -> None:
    rng = np.random.default_rng(seed)
    frame = (int(rng.integers(600, 5000)), int(rng.integers(600, 5000)))
    rows, columns = (int(n) for n in rng.integers(1, 12, 2))
    overlap = float(rng.choice([0, 0.1, 0.2, 1 / 3, 0.5]))
    tiles = Tiles(rows=rows, columns=columns, overlap=overlap)
    grid = TileGrid(tiles, frame, 518)
    covered = np.zeros(frame, np.bool_)
    for window in grid.windows:
        assert covered[window].shape == grid.tile  # a window beyond the frame would be cut
        covered[window] = True
    assert covered.all()
    assert len(grid.windows) == rows * columns
    first_row = [window[1].start for window in grid.windows[:columns]]
    first_column = [window[0].start for window in grid.windows[::columns]]
    for starts, extent, side in zip((first_column, first_row), frame, grid.tile, strict=True):
        assert (starts[0], starts[-1]) == (0, extent - side)
        for begin, following in itertools.pairwise(starts):
            # A pixel or two for the rounding of the side and of both places.
            assert abs((begin + side - following) - overlap * side) <= 2


def test_tiles_are_numbered_row_by_row() -> None:
    grid = TileGrid(Tiles(rows=2, columns=3, overlap=0), (100, 300), 518)
    assert grid.tile == (50, 100)
    assert grid.windows[1] == (slice(0, 50), slice(100, 200))
    assert grid.windows[3] == (slice(50, 100), slice(0, 100))


@pytest.mark.parametrize("seed", range(30))
def test_a_pixel_of_the_map_is_never_finer_than_two_of_the_frame(seed) -> None:
    rng = np.random.default_rng(seed)
    frame = (int(rng.integers(100, 5000)), int(rng.integers(100, 5000)))
    rows, columns = (int(n) for n in rng.integers(1, 6, 2))
    grid = TileGrid(Tiles(rows=rows, columns=columns), frame, int(rng.choice([64, 448, 518])))
    for extent, side, pixels in zip(frame, grid.tile, grid.combined_size, strict=True):
        assert extent / pixels >= 2
        # Nor coarser than the map of a tile, or than two pixels: by half a pixel of all.
        assert pixels >= extent / max(2, side / grid.map_size) - 1


def test_without_several_tiles_there_is_no_grid() -> None:
    assert tile_grid(None, (100, 100), sizes_of()) is None
    assert tile_grid(Tiles(rows=1, columns=1), (1, 1), sizes_of()) is None


def test_tiles_smaller_than_the_patch_grid_are_refused() -> None:
    frame = (16 * PATCHES, 900)
    assert tile_grid(Tiles(rows=16, columns=1, overlap=0), frame, sizes_of()).tile[0] == PATCHES
    with pytest.raises(SettingsError, match=r"17 rows .* 15 px along them, fewer than") as caught:
        tile_grid(Tiles(rows=17, columns=1, overlap=0), (17 * PATCHES - 17, 900), sizes_of())
    assert "give fewer rows" in str(caught.value)
    with pytest.raises(SettingsError, match="64 columns"):
        tile_grid(Tiles(rows=1, columns=64), (256, 700), sizes_of())


@pytest.mark.parametrize("seed", range(40))
def test_the_grid_for_a_defect_is_the_coarsest_that_shows_it(seed) -> None:
    rng = np.random.default_rng(seed)
    frame = (int(rng.integers(900, 6000)), int(rng.integers(900, 6000)))
    defect, overlap = float(rng.uniform(4, 60)), float(rng.choice([0, 0.2, 0.5]))
    chosen = grid_for_defect(defect, frame, sizes_of(), overlap)
    for axis, count in enumerate(chosen):
        patch = {}
        for n in (count - 1, count):
            tiles = Tiles(rows=n or 1, columns=n or 1, overlap=overlap)
            patch[n] = TileGrid(tiles, frame, 64).tile[axis] / PATCHES
        assert patch[count] <= defect
        assert count == 1 or patch[count - 1] > defect
    assert tile_grid(Tiles(rows=chosen[0], columns=chosen[1]), frame, sizes_of()) or chosen == (
        1,
        1,
    )


def test_a_defect_of_four_megapixels_is_shown_by_known_numbers() -> None:
    # 16 patches of 12 px make tiles of 192 px: 2048 / 192 = 10.7 without an overlap.
    assert grid_for_defect(12, (2048, 2048), sizes_of(), 0) == (11, 11)
    assert grid_for_defect(128, (2048, 2047), sizes_of(), 0) == (1, 1)
    assert grid_for_defect(127.9, (2048, 2046), sizes_of(), 0) == (2, 1)


@pytest.mark.parametrize("defect", [0, -3, math.nan])
def test_a_defect_of_no_extent_is_refused(defect) -> None:
    with pytest.raises(SettingsError, match="smallest defect of"):
        grid_for_defect(defect, (2000, 2000), sizes_of(), 0.2)


def test_a_defect_that_no_grid_shows_is_refused_with_one_that_a_grid_does() -> None:
    frame = (20000, 20000)
    with pytest.raises(SettingsError, match=f"at most {MAX_TILES} x {MAX_TILES}") as caught:
        grid_for_defect(3, frame, sizes_of(), 0.2)
    least = int(str(caught.value).split("give ")[1].split(" px")[0])
    assert max(grid_for_defect(least, frame, sizes_of(), 0.2)) <= MAX_TILES
    # Tiles would get smaller than the patch grid.
    with pytest.raises(SettingsError, match="give 1 px or more"):
        grid_for_defect(0.5, (100, 100), sizes_of(), 0.2)


def test_without_a_patch_grid_none_is_chosen() -> None:
    sizes = dataclasses.replace(sizes_of(), reference=None)
    with pytest.raises(SettingsError, match="does not tell its patch grid"):
        grid_for_defect(12, (2000, 2000), sizes, 0.2)
    assert tile_grid(Tiles(rows=2, columns=2), (2000, 2000), sizes).patches is None
