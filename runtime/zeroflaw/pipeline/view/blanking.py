"""Blanking: what is not judged of a frame is filled from what is.

Beyond the part, colours are smooth. Push and pull (Gortler et al., The Lumigraph, section 3.4):
means of judged pixels are reduced level by level until they reach everywhere, and brought back
where a level has none of its own. Within the part, a smooth fill looks like a defect to the
encoders, and so does its border: there the part is mirrored at the border.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.geometry import BoolArray, FloatArray
from zeroflaw_engines.image_files.frame import Frame

# Side of a cell of the first level, px, and how many of its judged pixels it is the mean of.
_CELL: Final = 16
_SAMPLES: Final = 16
# Longest side of a frame that OpenCV takes pixels by their places of, px; longer ones are smooth.
_LONGEST: Final = 32766
# Rows whose places are looked up at once.
_STRIP: Final = 256


class Blanking:
    """Fills frames of one size.

    Args:
        judged: bool [H, W], True somewhere.
        mirrored: bool [H, W], which of the other pixels show a mirror image of judged ones, where
            that has any; the rest is smooth. None: all of it.
    """

    def __init__(self, judged: BoolArray, mirrored: BoolArray | None = None) -> None:
        self._mask = judged.view(np.uint8)
        self._all = bool(judged.all())
        self._source: NDArray[np.int16] | None = None
        if mirrored is not None and mirrored.any() and max(judged.shape) <= _LONGEST:
            self._source = _mirrored(judged, mirrored)
        height, width = judged.shape
        self._weights = np.zeros((-(-height // _CELL), -(-width // _CELL)), np.float32)
        strips = [_samples(judged[row : row + _CELL]) for row in range(0, height, _CELL)]
        for strip, (cells, _) in enumerate(strips):
            self._weights[strip, cells] = 1
        self._filled = np.flatnonzero(self._weights)
        self._samples = np.concatenate(
            [chosen + strip * _CELL * width for strip, (_, chosen) in enumerate(strips)], axis=1
        )

    def blanked(self, frame: Frame) -> Frame:
        """Fill what is not judged.

        Args:
            frame: uint8 [H, W, 3]; it stays as it is.

        Returns:
            uint8 [H, W, 3], a new array.
        """
        if self._all:
            return frame.copy()
        height, width = frame.shape[:2]
        colours = np.ascontiguousarray(frame).reshape(-1, 3)
        sums = np.zeros((len(self._filled), 3), np.uint16)
        for of_each_cell in self._samples:
            sums += colours.take(of_each_cell, axis=0)
        level = np.zeros((*self._weights.shape, 3), np.float32)
        level.reshape(-1, 3)[self._filled] = sums / np.float32(_SAMPLES)
        smooth = np.rint(_pulled(level, self._weights)).astype(np.uint8)
        # The last cells may reach beyond the frame.
        whole = (self._weights.shape[1] * _CELL, self._weights.shape[0] * _CELL)
        picture = cv2.resize(smooth, whole, interpolation=cv2.INTER_LINEAR)
        picture = np.ascontiguousarray(picture[:height, :width])
        if self._source is None:
            cv2.copyTo(frame, self._mask, picture)
        else:
            cv2.remap(  # type: ignore[call-overload]  # the second map may be None
                np.ascontiguousarray(frame),
                self._source,
                None,
                cv2.INTER_NEAREST,
                dst=picture,
                borderMode=cv2.BORDER_TRANSPARENT,
            )
        return picture  # type: ignore[return-value]


def _mirrored(judged: BoolArray, mirrored: BoolArray) -> NDArray[np.int16]:
    """Say which judged pixel each pixel shows: itself, or its mirror image.

    Args:
        judged: bool [H, W], True somewhere.
        mirrored: bool [H, W], pixels that are not judged.

    Returns:
        int16 [H, W, 2], (x, y): of a mirrored pixel, of the one as far beyond the nearest judged
        one. (-1, -1) where that is not judged, and where nothing is mirrored.
    """
    height, width = judged.shape
    # The nearest lies along the border, which has few labels.
    beside = cv2.dilate((~judged).view(np.uint8), np.ones((3, 3), np.uint8)).view(np.bool_)
    edge = judged & beside
    _, labels = cv2.distanceTransformWithLabels(
        (~edge).view(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    at = np.flatnonzero(edge)
    nearest = np.zeros(len(at) + 1, np.int64)
    nearest[labels.ravel()[at]] = at
    source = np.empty((height, width, 2), np.int16)
    source[..., 0] = np.arange(width)
    source[..., 1] = np.arange(height)[:, None]
    source[~judged] = -1
    for top in range(0, height, _STRIP):
        rows, columns = np.nonzero(mirrored[top : top + _STRIP])
        rows += top
        near_y, near_x = np.divmod(nearest[labels[rows, columns]], width)
        x, y = 2 * near_x - columns, 2 * near_y - rows
        seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        seen[seen] = judged[y[seen], x[seen]]
        source[rows[seen], columns[seen]] = np.stack([x[seen], y[seen]], axis=1)
    return source


def _samples(strip: BoolArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose pixels of each cell of a strip, spread evenly over its judged ones.

    Args:
        strip: bool [h, W], judged; a row of cells.

    Returns:
        Columns of the cells that have any, int64 [n], and places in the strip, int64 [samples, n].
    """
    columns, rows = np.nonzero(strip.T)
    counts = np.bincount(columns // _CELL)
    cells = np.flatnonzero(counts)
    starts = np.cumsum(counts)[cells] - counts[cells]
    spread = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    chosen = starts + (spread[:, None] * counts[cells]).astype(np.int64)
    return cells, rows[chosen] * strip.shape[1] + columns[chosen]


def _pulled(level: FloatArray, weights: FloatArray) -> FloatArray:
    """Fill a level where it has no weight.

    Args:
        level: float32 [h, w, 3], colours times weights.
        weights: float32 [h, w] in [0, 1], above 0 somewhere.

    Returns:
        float32 [h, w, 3], colours.
    """
    height, width = weights.shape
    if weights.all() and weights.min() == 1:
        return level
    if max(height, width) == 1:
        return level / weights[..., None]
    even = ((0, height % 2), (0, width % 2))
    padded, padded_weights = np.pad(level, (*even, (0, 0))), np.pad(weights, even)
    halves = (padded_weights.shape[1] // 2, padded_weights.shape[0] // 2)
    sums = _halved(padded, halves) * 4
    total = _halved(padded_weights, halves) * 4
    # No more than full weight, at which a level hides what lies above it.
    reduced: FloatArray = np.minimum(total, np.float32(1))
    scale = reduced / np.maximum(total, np.float32(1e-6))
    above = _pulled(np.asarray(sums * scale[..., None], np.float32), reduced)
    size = (padded_weights.shape[1], padded_weights.shape[0])
    behind = cv2.resize(above, size, interpolation=cv2.INTER_LINEAR)[:height, :width]
    return np.asarray(level + (1 - weights)[..., None] * behind, np.float32)


def _halved(values: FloatArray, size: tuple[int, int]) -> FloatArray:
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.float32)
