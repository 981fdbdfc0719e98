"""Tiles: a grid of overlapping parts of a frame, each of which the encoders see by itself."""

from __future__ import annotations

from dataclasses import dataclass

from zeroflaw_engines.bundle.products.settings import Tiles
from zeroflaw_engines.contract import EngineSizes


@dataclass(frozen=True)
class TileGrid:
    """The tiles of frames of one size."""

    tiles: Tiles
    frame: tuple[int, int]


def tile_grid(tiles: Tiles | None, frame: tuple[int, int], sizes: EngineSizes) -> TileGrid | None:
    """Lay the tiles of a frame out; None if it is seen as a whole."""
    if tiles is None or tiles.rows * tiles.columns == 1:
        return None
    raise NotImplementedError
