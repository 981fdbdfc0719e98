"""Colours of ink as colours of light."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def rgb_of_cmyk(ink: NDArray[Any]) -> NDArray[Any]:
    """Convert CMYK to RGB without colour management: R = (1 - C)(1 - K), rounded.

    Args:
        ink: uint8 or uint16 [H, W, 4]; the largest value of the type is full ink.

    Returns:
        The same type, [H, W, 3].
    """
    top = int(np.iinfo(ink.dtype).max)
    light = top - ink.astype(np.uint64)
    rgb = (2 * light[:, :, :3] * light[:, :, 3:] + top) // (2 * top)
    return rgb.astype(ink.dtype)
