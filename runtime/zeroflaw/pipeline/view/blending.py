"""Blending: the maps of tiles joined to one of the frame, and parts of that read again.

All maps keep the centres of their pixels where they lie in the frame. Where tiles overlap, one
fades out as the next fades in, by a raised cosine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.geometry import FloatArray
from zeroflaw.pipeline.view.tiles import TileGrid, Window

# Top, left, bottom and right of a part of the frame, px from its top left corner.
Edges = tuple[float, float, float, float]

_Value = TypeVar("_Value", bound=np.generic)


@dataclass(frozen=True, eq=False)
class BlendedTile:
    """The part of the frame's map that a tile has a share in.

    Attributes:
        rows: Rows of the frame's map in which the part lies.
        columns: Columns of the frame's map in which the part lies.
        weights: Share of the tile in each of its pixels, as its parts along both axes: float32
            [h] and [w], in [0, 1]. Those of all tiles sum to 1 in every pixel.
        edges: Where the part lies in the frame.
        window: Where the tile lies in the frame.
    """

    rows: slice
    columns: slice
    weights: tuple[FloatArray, FloatArray]
    edges: Edges
    window: Edges

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the part, px of the map."""
        return len(self.weights[0]), len(self.weights[1])


@dataclass(frozen=True, eq=False)
class Blending:
    """How the maps of a grid of tiles are joined.

    Attributes:
        size: Height and width of the frame's map, px.
        frame: Edges of the whole frame, px.
        tiles: Row by row.
    """

    size: tuple[int, int]
    frame: Edges
    tiles: tuple[BlendedTile, ...]

    def add(
        self, number: int, values: FloatArray, into: FloatArray, *, whole: bool = False
    ) -> None:
        """Add the share of a tile to the map of the frame.

        Args:
            number: Of the tile, from 0.
            values: float32 [S, S], the map of the tile.
            into: float32 of `size`, the map of the frame.
            whole: Whether the map is one of the whole frame, of which the tile's part is taken.
        """
        tile = self.tiles[number]
        share = resampled(values, self.frame if whole else tile.window, tile.edges, tile.size)
        share *= tile.weights[0][:, None]
        share *= tile.weights[1]
        into[tile.rows, tile.columns] += share

    def at_tile(
        self, number: int, values: FloatArray, side: int, *, keep_zeros: bool = False
    ) -> FloatArray:
        """Read the map of the frame where a tile's own map has its pixels.

        Args:
            number: Of the tile, from 0.
            values: float32 of `size`.
            side: Of the tile's map, px.
            keep_zeros: Whether the result is 0 wherever the nearest pixel is: what is not judged
                does not become a little of what is beside it.

        Returns:
            float32 [side, side].
        """
        window = self.tiles[number].window
        read = resampled(values, self.frame, window, (side, side))
        if keep_zeros:
            read[resampled(values, self.frame, window, (side, side), nearest=True) == 0] = 0
        return read

    def part(self, number: int, values: NDArray[_Value]) -> NDArray[_Value]:
        """Return the pixels of a map of the frame that a tile has a share in, a view."""
        tile = self.tiles[number]
        return values[tile.rows, tile.columns]

    def share(self, number: int, row: int, column: int) -> float:
        """Return the share of a tile in a pixel of the frame's map, in [0, 1]."""
        tile = self.tiles[number]
        share = 1.0
        for span, weights, at in (
            (tile.rows, tile.weights[0], row),
            (tile.columns, tile.weights[1], column),
        ):
            share *= float(weights[at - span.start]) if span.start <= at < span.stop else 0.0
        return share


def resampled(
    values: FloatArray,
    source: Edges,
    target: Edges,
    size: tuple[int, int],
    *,
    nearest: bool = False,
) -> FloatArray:
    """Read a map linearly at the centres of the pixels of another one.

    Beyond the outermost centres, the outermost values hold.

    Args:
        values: float32 [h, w].
        source: The part of the frame that it covers.
        target: The part of the frame that is wanted.
        size: Height and width wanted, px.
        nearest: Whether the nearest pixel is read, in place of the four around.

    Returns:
        float32 of that size.
    """
    (scale_y, first_y), (scale_x, first_x) = (
        _way(values.shape[axis], source[axis::2], target[axis::2], size[axis]) for axis in (0, 1)
    )
    way = np.array([[scale_x, 0, first_x], [0, scale_y, first_y]])
    return cv2.warpAffine(  # type: ignore[return-value]
        values,
        way,
        size[::-1],
        flags=(cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR) | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _way(
    extent: int, source: tuple[float, ...], target: tuple[float, ...], wanted: int
) -> tuple[float, float]:
    """Return how far apart the wanted pixels lie along an axis of a map, and where the first does.

    Args:
        extent: Pixels of the map along it.
        source: Begin and end of what it covers, px of the frame.
        target: Begin and end of what is wanted.
        wanted: Pixels wanted along it.

    Returns:
        Both in pixels of the map, whose centres are whole numbers.
    """
    scale = extent / (source[1] - source[0])
    step = (target[1] - target[0]) / wanted
    return step * scale, (target[0] + step / 2 - source[0]) * scale - 0.5


def edges_of(window: Window) -> Edges:
    """Return where a window of whole pixels begins and ends."""
    rows, columns = window
    return rows.start, columns.start, rows.stop, columns.stop


@lru_cache(maxsize=16)
def blending_of(grid: TileGrid) -> Blending:
    """Return how the maps of a grid are joined."""
    size = grid.combined_size
    rows, columns = (
        _shares([(w.start, w.stop) for w in windows], extent, pixels)
        for windows, extent, pixels in zip(
            (
                [one[0] for one in grid.windows[:: grid.tiles.columns]],
                [one[1] for one in grid.windows[: grid.tiles.columns]],
            ),
            grid.frame,
            size,
            strict=True,
        )
    )
    per_row, per_column = grid.frame[0] / size[0], grid.frame[1] / size[1]
    return Blending(
        size,
        (0, 0, *grid.frame),
        tuple(
            BlendedTile(
                row,
                column,
                (row_weights, column_weights),
                (
                    row.start * per_row,
                    column.start * per_column,
                    row.stop * per_row,
                    column.stop * per_column,
                ),
                edges_of(window),
            )
            for ((row, row_weights), (column, column_weights)), window in zip(
                [(row, column) for row in rows for column in columns], grid.windows, strict=True
            )
        ),
    )


def _shares(
    tiles: list[tuple[int, int]], extent: int, pixels: int
) -> list[tuple[slice, FloatArray]]:
    """Return which pixels of an axis of the map each tile has a share in, and how large.

    Args:
        tiles: Begin and end of each along the axis, px of the frame.
        extent: Of the frame.
        pixels: Of the map.
    """
    centres: NDArray[np.float64] = (np.arange(pixels, dtype=np.float64) + 0.5) * (extent / pixels)
    shares = np.zeros((len(tiles), pixels))
    for number, (begin, end) in enumerate(tiles):
        share = ((centres >= begin) & (centres < end)).astype(np.float64)
        if number > 0:
            share *= _rise(centres, begin, tiles[number - 1][1])
        if number + 1 < len(tiles):
            share *= _rise(-centres, -end, -tiles[number + 1][0])
        shares[number] = share
    shares /= shares.sum(axis=0)
    found = []
    for share in shares:
        seen = np.flatnonzero(share)
        span = slice(int(seen[0]), int(seen[-1]) + 1)
        found.append((span, share[span].astype(np.float32)))
    return found


def _rise(at: NDArray[np.float64], begin: float, end: float) -> NDArray[np.float64]:
    """Rise from 0 at the begin of an overlap to 1 at its end; 1 where there is none."""
    if end <= begin:
        return np.ones_like(at)
    return 0.5 - 0.5 * np.cos(np.pi * np.clip((at - begin) / (end - begin), 0, 1))
