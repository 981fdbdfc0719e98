"""How much there is to see in a frame: whether a camera looks at a part at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.geometry import BoolArray
from zeroflaw_engines.image_files.frame import Frame

_GRID: Final = 128
_HALVINGS: Final = 3
_BLACK: Final = 1
_WHITE: Final = 254
_DARK: Final = 32
# Fewest judged pixels of the grid that stand for a frame: a sixteenth of it.
_LEAST: Final = 1024


@dataclass(frozen=True)
class FrameInformation:
    """What there is to see in a frame, on a regular grid of up to 128 x 128 of its pixels.

    Attributes:
        contrast: Difference between the brightest and the darkest part of the grid in the
            channel where it is largest, in [0, 1] of white. Parts are means over 8 x 8 pixels of
            the grid, so that the noise of a sensor does not count.
        clipped: Share of pixels, in [0, 1], that are black or white in every channel, to one
            level of 255.
        peak: Highest value of any channel, in [0, 1] of white. Where it is at most 1/8, every
            pixel of the frame was looked at.
    """

    contrast: float
    clipped: float
    peak: float


def frame_information(frame: Frame, judged: BoolArray | None = None) -> FrameInformation:
    """Measure how much there is to see in a frame.

    Args:
        frame: uint8 [H, W, 3], RGB.
        judged: bool [H, W], True somewhere, what counts of it; None: all. The grid lies over the
            box around it then, and only its judged pixels count; a grid that nearly misses them
            is replaced by judged pixels one after the other, evenly spread.
    """
    if judged is not None:
        return _of_judged(frame, judged)
    size = (min(frame.shape[1], _GRID), min(frame.shape[0], _GRID))
    grid: Frame = cv2.resize(frame, size, interpolation=cv2.INTER_NEAREST_EXACT)  # type: ignore[assignment]
    black = cv2.countNonZero(cv2.inRange(grid, (0, 0, 0), (_BLACK,) * 3))
    white = cv2.countNonZero(cv2.inRange(grid, (_WHITE,) * 3, (255, 255, 255)))
    parts = _means(grid).reshape(-1, 3).astype(np.int16)
    peak = int(grid.max())
    return FrameInformation(
        contrast=int((parts.max(axis=0) - parts.min(axis=0)).max()) / 255,
        clipped=(black + white) / (size[0] * size[1]),
        peak=(int(frame.max()) if peak <= _DARK else peak) / 255,
    )


def _of_judged(frame: Frame, judged: BoolArray) -> FrameInformation:
    """Measure what is judged of a frame; no other pixel is read."""
    x, y, width, height = cv2.boundingRect(judged.view(np.uint8))
    frame, judged = frame[y : y + height, x : x + width], judged[y : y + height, x : x + width]
    columns, rows = _centres(width, _GRID), _centres(height, _GRID)
    on_grid = np.argwhere(judged[np.ix_(rows, columns)])
    if len(on_grid) >= _LEAST:
        at_y, at_x = rows[on_grid[:, 0]], columns[on_grid[:, 1]]
    else:
        found = np.flatnonzero(judged)
        at_y, at_x = np.divmod(found[_centres(len(found), _GRID**2)], width)
    # Neighbours come after one another, part by part.
    side = 2**_HALVINGS
    part = max(side, -(-height // (_GRID // side))), max(side, -(-width // (_GRID // side)))
    order = np.lexsort((at_x // part[1], at_y // part[0]))
    values = frame[at_y[order], at_x[order]]
    black = np.count_nonzero((values <= _BLACK).all(axis=1))
    white = np.count_nonzero((values >= _WHITE).all(axis=1))
    count = len(values)
    # At least four parts, also of a small zone.
    of_part = min(4**_HALVINGS, max(1, count // 4))
    whole = values[: count // of_part * of_part].reshape(-1, of_part, 3)
    parts = whole.mean(axis=1)
    peak = int(values.max())
    return FrameInformation(
        contrast=float((parts.max(axis=0) - parts.min(axis=0)).max()) / 255,
        clipped=(black + white) / count,
        peak=(int(frame[judged].max()) if peak <= _DARK else peak) / 255,
    )


def _centres(length: int, most: int) -> NDArray[np.int64]:
    """Return up to so many places of a length, evenly spread."""
    count = min(length, most)
    return (2 * np.arange(count) + 1) * length // (2 * count)


def _means(image: Frame) -> Frame:
    """Return means over 8 x 8 pixels, or over as many as a smaller image has.

    Halving is the one scale at which OpenCV averages areas at full speed; an odd last row or
    column is left out for it.
    """
    for _ in range(_HALVINGS):
        height, width = image.shape[0] // 2, image.shape[1] // 2
        if not (height and width):
            break
        even = image[: 2 * height, : 2 * width]
        image = np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA))
    return image
