"""Tiles: a grid of overlapping parts of a frame, each of which the encoders see by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from zeroflaw_engines.bundle.products.settings import MAX_TILES, Tiles
from zeroflaw_engines.contract import EngineSizes
from zeroflaw_engines.errors import SettingsError
from zeroflaw_engines.parameters import Refiner

# Least side of a tile where a bundle does not tell its patch grid, px: no CLIP has a coarser one.
_LEAST_SIDE: Final = 16
# A map pixel is never finer than this many pixels of the frame.
_FINEST: Final = 2

_OF_WHOLE_FRAMES: Final[tuple[Refiner, ...]] = ("box_proposals",)

# Rows and columns of a part of the frame, px.
Window = tuple[slice, slice]


@dataclass(frozen=True)
class TileGrid:
    """The tiles of frames of one size.

    Attributes:
        frame: Height and width, px.
        map_size: Side of the anomaly map of one tile, px.
        patches: Patches of CLIP along a side of it; None if the bundle does not tell.
    """

    tiles: Tiles
    frame: tuple[int, int]
    map_size: int
    patches: int | None = None

    @property
    def tile(self) -> tuple[int, int]:
        """Height and width of every tile, px."""
        rows, columns = self.tiles.rows, self.tiles.columns
        overlap = self.tiles.overlap
        return tile_side(self.frame[0], rows, overlap), tile_side(self.frame[1], columns, overlap)

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """Where the tiles lie in the frame, row by row from the top left; they cover all of it."""
        (height, width), (tall, wide) = self.frame, self.tile
        return tuple(
            (slice(top, top + tall), slice(left, left + wide))
            for top in _starts(height, tall, self.tiles.rows)
            for left in _starts(width, wide, self.tiles.columns)
        )

    @property
    def combined_size(self) -> tuple[int, int]:
        """Height and width of the map of the frame that those of the tiles are joined to, px."""
        rows, columns = (
            max(
                1,
                min(
                    round(extent * min(self.map_size, -(-side // _FINEST)) / side),
                    extent // _FINEST,
                ),
            )
            for extent, side in zip(self.frame, self.tile, strict=True)
        )
        return rows, columns


@dataclass(frozen=True)
class TilesSeen:
    """In which tiles the encoders saw a frame.

    Attributes:
        rows: Tiles from top to bottom.
        columns: Tiles from left to right.
        run: Of them, those that CLIP was run on: the rest hold nothing that is judged, or are
            clearly good on the map of the whole frame.
    """

    rows: int
    columns: int
    run: int


def tile_grid(tiles: Tiles | None, frame: tuple[int, int], sizes: EngineSizes) -> TileGrid | None:
    """Lay the tiles of a frame out; None if it is seen as a whole.

    Args:
        frame: Height and width, px.

    Raises:
        SettingsError: A tile has fewer pixels along a side than CLIP has patches.
    """
    if tiles is None or tiles.rows * tiles.columns == 1:
        return None
    grid = TileGrid(tiles, frame, sizes.clip_image_size, patches_of(sizes))
    least = grid.patches or _LEAST_SIDE
    for side, count, name in zip(
        grid.tile, (tiles.rows, tiles.columns), ("rows", "columns"), strict=True
    ):
        # An axis of one tile is as long as the frame, which the encoders take of any size.
        if count > 1 and side < least:
            raise SettingsError(
                f"{count} {name} of tiles were given for frames of {frame[1]} x {frame[0]} px: a"
                f" tile has {side} px along them, fewer than the {least} patches that CLIP sees"
                " in it",
                f"give fewer {name}, so that a tile has {least} px or more a side",
            )
    return grid


def grid_for_defect(
    smallest_defect: float, frame: tuple[int, int], sizes: EngineSizes, overlap: float
) -> tuple[int, int]:
    """Choose the coarsest grid in which a defect covers at least one patch of the map.

    Args:
        smallest_defect: Its extent along either axis, px.
        frame: Height and width, px.
        overlap: As that of `Tiles`.

    Returns:
        Rows and columns.

    Raises:
        SettingsError: There is none, or the bundle does not tell its patch grid.
    """
    if not smallest_defect > 0:
        raise SettingsError(
            f"a smallest defect of {smallest_defect:g} px was given",
            "give its extent in pixels of the frame, more than 0",
        )
    patches = patches_of(sizes)
    if patches is None:
        raise SettingsError(
            "the bundle does not tell its patch grid, so that no grid of tiles can be chosen by"
            " the smallest defect",
            "give the rows and columns of the tiles, or export the bundle again with this version"
            " of zeroflaw",
        )
    rows, columns = (
        _tiles_for(smallest_defect, extent, patches, overlap, frame) for extent in frame
    )
    return rows, columns


def tile_side(extent: int, count: int, overlap: float) -> int:
    """Return the side of tiles that cover an axis, px.

    Args:
        extent: Of the frame along the axis, px.
        count: Tiles along it.
        overlap: As that of `Tiles`.
    """
    # Without what rounding adds to a whole number.
    return math.ceil(extent / (count - (count - 1) * overlap) - 1e-9)


def _tiles_for(
    smallest_defect: float, extent: int, patches: int, overlap: float, frame: tuple[int, int]
) -> int:
    for count in range(1, MAX_TILES + 1):
        side = tile_side(extent, count, overlap)
        if count > 1 and side < patches:
            break
        if side <= smallest_defect * patches:
            return count
    finest = tile_side(extent, MAX_TILES, overlap) / patches
    raise SettingsError(
        f"no grid of at most {MAX_TILES} x {MAX_TILES} tiles shows a defect of"
        f" {smallest_defect:g} px of a frame of {frame[1]} x {frame[0]} px to a whole patch",
        f"give {max(1, math.ceil(finest))} px or more, or a camera that shows the part larger",
    )


def patches_of(sizes: EngineSizes) -> int | None:
    """Return the patches of CLIP along a side of its map; None if the bundle does not tell."""
    return None if sizes.reference is None else math.isqrt(sizes.reference.tokens)


def _starts(extent: int, side: int, count: int) -> list[int]:
    """Spread tiles evenly over an axis, px; neighbours touch or overlap."""
    room, steps = extent - side, max(1, count - 1)
    return [(2 * number * room + steps) // (2 * steps) for number in range(count)]


def require_takes_tiles(refiner: Refiner, product: str, grid: TileGrid | None) -> None:
    """Refuse a product whose frames are looked at in tiles, if the refiner takes whole frames.

    Boxes are proposed in the frame, and the best masks are those of the frame.

    Args:
        grid: Its tiles; None: it has none.

    Raises:
        SettingsError: It does.
    """
    if grid is not None and refiner in _OF_WHOLE_FRAMES:
        raise SettingsError(
            f"the frames of product {product!r} are looked at in tiles, and the refiner {refiner}"
            " takes whole frames",
            "inspect with another one, as --set refiner=cascade, or take the tiles out of its"
            " settings (`zeroflaw products edit`)",
        )
