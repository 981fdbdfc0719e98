"""Pillow's resizing of 8-bit pictures as matrices of whole numbers, for `frame_resizer`.

Pillow (src/libImaging/Resample.c) filters with weights that are whole numbers of 2^-22, adds half
of the last bit, and shifts. A product of matrices does the same to the last bit if no sum is
rounded on its way, whatever its order. So each weight is taken in two parts of at most 11 bits and
a sign, and sums of FP32 stay whole below 2^24.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import PIL
from numpy.typing import NDArray

from zeroflaw_engines.contract import WEIGHT_BITS, WEIGHT_UNIT

Filter = Literal["bilinear", "bicubic"]

# Pixels on either side that a filter takes when nothing shrinks.
_SUPPORT: Final[dict[Filter, float]] = {"bilinear": 1.0, "bicubic": 2.0}
_WHITE: Final = 255
# Whole numbers up to these are exact: of an operand in FP16 or TF32, and of a sum in FP32.
_MAX_PART: Final = 1 << 11
_MAX_SUM: Final = 1 << 24
# From this version on, Pillow filters columns first where that is less work.
_CHOOSES_ORDER_FROM: Final = 13


@dataclass(frozen=True)
class AxisResizing:
    """How one axis of a picture is resized.

    Attributes:
        source: Pixels before.
        content: Pixels after.
        extent: Pixels of the result: beyond the content they are black.
        filter: Pillow's filter.
    """

    source: int
    content: int
    extent: int
    filter: Filter


def axis_weights(axis: AxisResizing) -> NDArray[np.float16] | None:
    """Return the weights of one axis as `frame_resizer` takes them.

    Returns:
        float16 [2, extent, source]: coarse and fine parts, whole numbers in [-2048, 2048]. None
        where a sum of products might be rounded: so many pixels become one.
    """
    weights = fixed_point_weights(axis.source, axis.content, axis.filter)
    coarse = np.floor_divide(weights + WEIGHT_UNIT // 2, WEIGHT_UNIT)
    fine = weights - coarse * WEIGHT_UNIT
    if not (_is_exact(coarse, 0) and _is_exact(fine, 1 << (WEIGHT_BITS - 1))):
        return None
    parts = np.zeros((2, axis.extent, axis.source), np.float16)
    parts[0, : axis.content], parts[1, : axis.content] = coarse, fine
    return parts


def fixed_point_weights(source: int, content: int, resample: Filter) -> NDArray[np.int32]:
    """Return Pillow's weights in its own fixed point (precompute_coeffs, normalize_coeffs_8bpc).

    Args:
        source: Pixels before.
        content: Pixels after.

    Returns:
        int32 [content, source], in units of 2^-22.
    """
    scale = source / content
    # The filter widens when a picture shrinks: that is Pillow's antialiasing.
    widening = max(scale, 1.0)
    support = _SUPPORT[resample] * widening
    centres = (np.arange(content) + 0.5) * scale
    first = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + support + 0.5).astype(np.int64), source)
    taps = np.arange(int((last - first).max()))
    places = first[:, None] + taps
    values = _curve((places - centres[:, None] + 0.5) * (1.0 / widening), resample)
    values[places >= last[:, None]] = 0.0
    # One after the other, as Pillow adds them: NumPy's own sum takes another order.
    total = np.add.accumulate(values, axis=1)[:, -1:]
    values = np.divide(values, total, out=values, where=total != 0)
    fixed = np.trunc(values * (1 << WEIGHT_BITS) + np.where(values < 0, -0.5, 0.5))
    matrix = np.zeros((content, source), np.int32)
    rows, columns = np.nonzero(fixed)
    matrix[rows, first[rows] + columns] = fixed[rows, columns]
    return matrix


def columns_come_first(source: tuple[int, int], content: tuple[int, int]) -> bool:
    """Return whether the installed Pillow filters columns before rows (ImagingResampleInner).

    Args:
        source: Height and width of the picture, px.
        content: Height and width after resizing, px.
    """
    if int(PIL.__version__.split(".")[0]) < _CHOOSES_ORDER_FROM:
        return False
    fewer_rows, fewer_columns = (a - b for a, b in zip(source, content, strict=True))
    return fewer_rows > 0 and fewer_rows > 2 * fewer_columns


def _curve(x: NDArray[np.float64], resample: Filter) -> NDArray[np.float64]:
    x = np.abs(x)
    if resample == "bilinear":
        return np.where(x < 1.0, 1.0 - x, 0.0)
    a = -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _is_exact(part: NDArray[np.int32], added: int) -> bool:
    """Return whether products with 8-bit pixels, summed in any order, are exact in FP32."""
    above = int(np.maximum(part, 0).sum(axis=1, dtype=np.int64).max())
    below = int(np.minimum(part, 0).sum(axis=1, dtype=np.int64).min())
    largest = _WHITE * max(above, -below) + added
    return int(np.abs(part).max()) <= _MAX_PART and largest <= _MAX_SUM
