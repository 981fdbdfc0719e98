"""Pillow's antialiased resizing, by several threads, to the last bit."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, Future
from typing import Final

import numpy as np
from PIL import Image

from zeroflaw_engines.image_files.frame import Frame

Picture = Frame | Image.Image

# Pixels. Below, a picture is resized sooner than threads have been woken; above, it would take
# seconds to find out how Pillow resizes such pictures.
_MIN_PIXELS: Final = 200_000
_MAX_PIXELS: Final = 60_000_000
# Of a strip of rows: as much as stays in the cache between its copy into Pillow's memory and its
# filtering, and what the allocator gives again without asking the system for fresh pages.
_STRIP_PIXELS: Final = 500_000
_MAX_SIZES: Final = 64

_Resizing = tuple[tuple[int, int], tuple[int, int], Image.Resampling]


class Strips:
    """Threads that resize strips of a picture at the same time.

    Which pass Pillow does first has to be found out for each size, and costs three resizes. It
    is done beside the second picture of a size, and strips are used from then on: a folder of
    photos of all sizes pays nothing, a camera next to nothing.

    Args:
        pool: Runs the strips, and nothing that waits for strips itself.
        count: Strips of a picture; 1 leaves all to the calling thread.
    """

    def __init__(self, pool: Executor, count: int) -> None:
        self.pool = pool
        self.count = count
        self._found: dict[_Resizing, Future[bool] | None] = {}
        self._lock = threading.Lock()

    def may_split(
        self, source: tuple[int, int], wanted: tuple[int, int], resample: Image.Resampling
    ) -> bool:
        """Return whether strips are known to give what `Image.resize` gives.

        Args:
            source: Height and width of the picture, px.
            wanted: Height and width after resizing, px.
            resample: Pillow's filter.
        """
        worth = _MIN_PIXELS <= source[0] * source[1] <= _MAX_PIXELS and source[1] != wanted[1]
        if self.count < 2 or not worth:
            return False
        key = (source, wanted, resample)
        with self._lock:
            if key not in self._found:
                if len(self._found) >= _MAX_SIZES:
                    self._found.clear()
                self._found[key] = None
                return False
            found = self._found[key]
            if found is None:
                found = self._found[key] = self.pool.submit(_rows_come_first, *key)
        return found.done() and found.result()


def resize(
    picture: Picture,
    size: tuple[int, int],
    resample: Image.Resampling,
    strips: Strips | None = None,
) -> Frame:
    """Resize a picture as `Image.resize` does.

    Pillow mostly filters every row, rounds to 8 bits, and then filters every column. No row
    depends on another, and then no column: strips of each give what the whole gives. Where it
    filters columns first, which is its own choice by version and sizes, nothing is split.

    Args:
        picture: uint8 [H, W, 3], or the same as an RGB image, which is never split.
        size: Height and width wanted, px.
        resample: Pillow's filter.
        strips: Threads that share the work; None resizes in the calling thread.

    Returns:
        uint8 of that size: `picture` itself if it is an array of that size already.
    """
    height, width = _size_of(picture)
    if isinstance(picture, np.ndarray) and (height, width) == size:
        return picture
    if isinstance(picture, Image.Image):
        return np.asarray(picture.resize(size[::-1], resample))
    if strips is None or not strips.may_split((height, width), size, resample):
        return np.asarray(Image.fromarray(picture).resize(size[::-1], resample))

    def filter_rows(top: int, bottom: int) -> Image.Image:
        strip = Image.fromarray(picture[top:bottom])
        return strip.resize((size[1], bottom - top), resample)

    narrow = Image.new("RGB", (size[1], height))
    tops, bottoms = _edges(height, max(strips.count, height * width // _STRIP_PIXELS))
    for top, strip in zip(tops, strips.pool.map(filter_rows, tops, bottoms), strict=True):
        narrow.paste(strip, (0, top))
    resized = np.empty((*size, 3), np.uint8)

    def filter_columns(left: int, right: int) -> None:
        columns = narrow.crop((left, 0, right, height))
        resized[:, left:right] = np.asarray(columns.resize((right - left, size[0]), resample))

    list(strips.pool.map(filter_columns, *_edges(size[1], strips.count)))
    return resized


def _rows_come_first(
    source: tuple[int, int], wanted: tuple[int, int], resample: Image.Resampling
) -> bool:
    """Return whether this Pillow filters rows before columns at these sizes: noise tells."""
    rng = np.random.default_rng(0)
    noise = Image.frombytes("RGB", source[::-1], rng.bytes(3 * source[0] * source[1]))
    whole = noise.resize(wanted[::-1], resample)
    in_two = noise.resize((wanted[1], source[0]), resample).resize(wanted[::-1], resample)
    return whole.tobytes() == in_two.tobytes()


def _size_of(picture: Picture) -> tuple[int, int]:
    if isinstance(picture, np.ndarray):
        return picture.shape[0], picture.shape[1]
    return picture.height, picture.width


def _edges(extent: int, count: int) -> tuple[list[int], list[int]]:
    """Return begins and ends of the strips."""
    edges = [extent * i // min(count, extent) for i in range(min(count, extent) + 1)]
    return edges[:-1], edges[1:]
