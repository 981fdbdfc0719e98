"""Parts of the extreme region that SAM's mask leaves out."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.geometry import BoolArray


def with_extreme_parts(
    mask: BoolArray, extreme: BoolArray, judged: BoolArray | None = None
) -> BoolArray:
    """Add the components of the extreme region that a mask has no pixel of.

    There are more of them than point prompts, or the mask lies where it is cut off: what decides by
    regions alone would not see them.

    Args:
        mask: bool [H, W], at the frame's size; it stays as it is.
        extreme: bool [h, w], which pixels of the anomaly map are extreme.
        judged: bool [H, W], what is added lies in it; None: anywhere.

    Returns:
        bool [H, W], a new array; the mask itself where nothing is added.
    """
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(extreme.view(np.uint8), connectivity=8)
    found = mask
    for label, (left, top, width, height, _) in enumerate(boxes[1:].tolist(), start=1):
        rows, at_rows = _pixels(top, height, extreme.shape[0], mask.shape[0])
        columns, at_columns = _pixels(left, width, extreme.shape[1], mask.shape[1])
        part = labels[np.ix_(at_rows, at_columns)] == label
        if judged is not None:
            part &= judged[rows, columns]
        if (part & mask[rows, columns]).any():
            continue
        if found is mask:
            found = mask.copy()
        found[rows, columns] |= part
    return found


def _pixels(start: int, extent: int, map_side: int, side: int) -> tuple[slice, NDArray[np.int64]]:
    """Return the pixels of the frame along an axis whose centres lie in a stretch of the map.

    Returns:
        Them, and for each its pixel of the map.
    """
    first, end = start * side // map_side, -(-(start + extent) * side // map_side)
    at = ((2 * np.arange(first, end) + 1) * map_side) // (2 * side)
    inside = np.flatnonzero((at >= start) & (at < start + extent))
    if not len(inside):
        return slice(first, first), at[:0]
    first += int(inside[0])
    return slice(first, first + len(inside)), at[inside]
