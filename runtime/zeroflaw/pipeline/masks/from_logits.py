"""Masks of SAM's low-res logits: resized twice, as SAM does, and cut at zero."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import cv2
import numpy as np

from zeroflaw.pipeline.geometry import BoolArray, FloatArray, FrameGeometry

Box = tuple[int, int, int, int]  # x0, y0, x1, y1, inclusive

# Columns that OpenCV's kernels take at once divide it: a cut at its multiples moves no column
# from their vector part to the rest of a row, which may round otherwise.
_COLUMNS_AT_ONCE: Final = 64


class Workspace(threading.local):
    """Float buffers by purpose, a set of its own for each thread.

    Fresh memory costs a page fault for every 4 KiB: for logits at the size of a 12 MP frame
    that is more than their computation.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, FloatArray] = {}

    def float32(
        self, purpose: str, shape: tuple[int, int], *, kept_at: float | None = None
    ) -> FloatArray:
        """Return a float32 buffer of a shape; what it held for the same purpose before is lost.

        Args:
            kept_at: What the buffer holds everywhere, since whoever writes to it restores that:
                filling all of it each time would take longer. None: it may hold anything.
        """
        size = shape[0] * shape[1]
        buffer = self._buffers.get(purpose)
        if buffer is None or buffer.size < size:
            buffer = np.empty(size, np.float32)
            if kept_at is not None:
                buffer.fill(kept_at)
            self._buffers[purpose] = buffer
        return buffer[:size].reshape(shape)


def logits_at_sam(
    low_res: FloatArray, geometry: FrameGeometry, out: FloatArray | None = None
) -> FloatArray:
    """Resize low-res logits over SAM's content: the first resize of `postprocess_masks`.

    Args:
        low_res: float32 [L, L].
        out: float32 [sam_size, sam_size] to compute in.

    Returns:
        float32 [h, w], a view.
    """
    size = geometry.sam_size
    full = cv2.resize(low_res, (size, size), dst=out, interpolation=cv2.INTER_LINEAR)
    height, width = geometry.sam_content
    return full[:height, :width]  # type: ignore[return-value]


def has_content(low_res: FloatArray, geometry: FrameGeometry) -> bool:
    """Return whether any logit over the content of SAM's image is positive.

    Args:
        low_res: float32 [L, L].
    """
    scale = geometry.sam_size / len(low_res)
    rows, columns = (int(extent // scale) for extent in geometry.sam_content)
    inside = low_res[:rows, :columns] > 0
    # Between four positive logits every interpolated one is positive: no need to upsample.
    block = inside[:-1, :-1] & inside[1:, :-1] & inside[:-1, 1:] & inside[1:, 1:]
    return bool(block.any()) or bool((logits_at_sam(low_res, geometry) > 0).any())


def logits_at(
    content: FloatArray, size: tuple[int, int], out: FloatArray | None = None
) -> FloatArray:
    """Resize logits over SAM's content again: the second resize of `postprocess_masks`.

    Args:
        content: float32 [h, w] from `logits_at_sam`.
        size: Height and width wanted, px.
        out: float32 of that size to compute in.

    Returns:
        float32 of that size: `content` itself if it has that size already.
    """
    if content.shape == size:
        return content
    return cv2.resize(content, size[::-1], dst=out, interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class MaskPart:
    """The part of a mask that holds all of its pixels.

    Attributes:
        pixels: bool [h, w].
        rows: Rows of the mask in which the part lies.
        columns: Columns of the mask in which the part lies.
        size: Height and width of the mask.
    """

    pixels: BoolArray
    rows: slice
    columns: slice
    size: tuple[int, int]

    @cached_property
    def box(self) -> Box | None:
        """`inclusive_box` of the mask."""
        return _moved(inclusive_box(self.pixels), self.rows, self.columns)

    def whole(self) -> BoolArray:
        """Return the mask, bool of its size."""
        if self.pixels.shape == self.size:
            return self.pixels
        mask = np.zeros(self.size, np.bool_)
        mask[self.rows, self.columns] = self.pixels
        return mask


def mask_at_frame(
    low_res: FloatArray, geometry: FrameGeometry, workspace: Workspace | None = None
) -> MaskPart:
    """Return the mask of SAM's logits at the frame's size: two-step resize, then logit > 0.

    Args:
        low_res: float32 [L, L].
        workspace: Memory to use again.
    """
    return _mask_at(low_res, geometry, geometry.frame, workspace or Workspace(), by_source=True)


def mask_at_map(
    low_res: FloatArray,
    geometry: FrameGeometry,
    size: tuple[int, int],
    workspace: Workspace | None = None,
) -> MaskPart:
    """Return the mask on a grid that covers the frame: logits over SAM's content, read there.

    Args:
        low_res: float32 [L, L].
        size: Height and width of the grid.
        workspace: Memory to use again.
    """
    return _mask_at(low_res, geometry, size, workspace or Workspace(), by_source=False)


def _mask_at(
    low_res: FloatArray,
    geometry: FrameGeometry,
    size: tuple[int, int],
    workspace: Workspace,
    *,
    by_source: bool,
) -> MaskPart:
    """Return a mask without computing logits that cannot be positive.

    An interpolated logit is positive only if one of those that it is made of is.

    Args:
        by_source: Whether a squashed frame's logits go by way of what SAM was given.
    """
    if by_source and geometry.sam_source != geometry.frame:
        values = logits_at(logits_at_sam(low_res, geometry), geometry.sam_source)
        return _mask_of(values, inclusive_box(values > 0), size, workspace)
    with _positive_content(low_res, geometry, workspace) as (content, box):
        return _mask_of(content, box, size, workspace)


def _mask_of(
    values: FloatArray, box: Box | None, size: tuple[int, int], workspace: Workspace
) -> MaskPart:
    """Resize logits to a size and return where they are positive.

    Args:
        box: Of those that are positive.
    """
    if box is None:
        nothing = slice(0, 1)
        return MaskPart(np.zeros((1, 1), np.bool_), nothing, nothing, size)
    rows, columns = _interpolated_from(box, values.shape, size)
    logits = _logits_within(values, size, rows, columns, workspace)
    return MaskPart(logits > 0, rows, columns, size)


@contextmanager
def _positive_content(
    low_res: FloatArray, geometry: FrameGeometry, workspace: Workspace
) -> Iterator[tuple[FloatArray, Box | None]]:
    """Give `logits_at_sam` where one is positive or beside such, and the box of those.

    Elsewhere stands a negative value, as negative as any for what follows.
    """
    size = (geometry.sam_size, geometry.sam_size)
    height, width = geometry.sam_content
    at_sam = workspace.float32("sam", size, kept_at=-1)
    content = at_sam[:height, :width]
    scale = len(low_res) / geometry.sam_size
    seen = low_res[: int(height * scale) + 2, : int(width * scale) + 2] > 0
    box = inclusive_box(seen)
    if box is None:
        yield content, None
        return
    rows, columns = _interpolated_from(box, low_res.shape, size)
    try:
        at_sam[rows, columns] = _logits_within(low_res, size, rows, columns, workspace)
        positive = content[rows, columns] > 0
        yield content, _moved(inclusive_box(positive), rows, columns) if positive.size else None
    finally:
        at_sam[rows, columns] = -1


def _interpolated_from(
    box: Box, source: tuple[int, ...], target: tuple[int, int]
) -> tuple[slice, slice]:
    """Return rows and columns of a target that hold all that linear interpolation makes of a box.

    Where the target is larger, they hold the pixels beside it, too.

    Args:
        box: In pixels of the source.
        source: Height and width.
        target: Height and width.
    """
    spans = []
    # OpenCV labels components by blocks of 2 x 2 pixels: cut between two of them.
    for axis, step in ((0, 2), (1, _COLUMNS_AT_ONCE)):
        first, last = box[1 - axis], box[3 - axis]
        ratio = target[axis] / source[axis]
        # Between the centres of the pixels beside the box, and more for rounding.
        start = max(0, int((first - 0.5) * ratio - 0.5) - 2) // step * step
        stop = -(-(int((last + 1.5) * ratio - 0.5) + 3) // step) * step
        spans.append(slice(start, min(stop, target[axis])))
    return spans[0], spans[1]


def _logits_within(
    values: FloatArray, size: tuple[int, int], rows: slice, columns: slice, workspace: Workspace
) -> FloatArray:
    """Return these rows and columns of `logits_at`, to the last bit.

    OpenCV finds the weights of a pixel from its place in the whole, so a part of both axes
    cannot be cut out beforehand. But it interpolates along rows and then along columns, and an
    axis that keeps its size keeps its values: in two calls, the first needs the rows alone, and
    the second the columns alone.
    """
    (height, width), source_height = size, len(values)
    if values.shape == size:
        return values[rows, columns]
    # OpenCV averages areas where it halves both axes.
    halves = (2 * height, 2 * width) == values.shape
    if halves or 2 * (columns.stop - columns.start) > width:
        return logits_at(values, size, workspace.float32("resized", size))[rows, columns]
    ratio = source_height / height
    top = max(0, int((rows.start + 0.5) * ratio - 0.5) - 1)
    bottom = min(source_height, int((rows.stop + 0.5) * ratio - 0.5) + 3)
    wide_size = (bottom - top, width)
    wide = logits_at(values[top:bottom], wide_size, workspace.float32("wide", wide_size))
    narrow = workspace.float32("narrow", (source_height, columns.stop - columns.start))
    narrow[top:bottom] = wide[:, columns]
    tall_size = (height, narrow.shape[1])
    # What stands in the other rows of `narrow` has no part in these.
    return logits_at(narrow, tall_size, workspace.float32("resized", tall_size))[rows]


def _moved(box: Box | None, rows: slice, columns: slice) -> Box | None:
    if box is None:
        return None
    x, y = columns.start, rows.start
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y


def inclusive_box(mask: BoolArray) -> tuple[int, int, int, int] | None:
    """Return the inclusive (x0, y0, x1, y1) of a mask, or None if it is empty (amg.py:303-346)."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    if width == 0:
        return None
    return x, y, x + width - 1, y + height - 1
