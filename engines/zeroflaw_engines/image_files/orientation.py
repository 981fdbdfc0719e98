"""Orientation tags: read from EXIF, and applied to pixels."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

ORIENTATION_TAG: Final = 0x0112


def exif_orientation(exif: bytes | None) -> int:
    """Return the orientation in a block of EXIF data; 1 where there is none that is valid."""
    if not exif:
        return 1
    from PIL import Image

    tags = Image.Exif()
    # What is wrong with its metadata says nothing about a picture.
    try:
        tags.load(exif)
        value = tags.get(ORIENTATION_TAG, 1)
    except Exception:
        return 1
    return valid_orientation(value)


def valid_orientation(value: object) -> int:
    """Return the value if it is 1 to 8, else 1, as EXIF 2.32 reserves the others."""
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def oriented(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn and mirror [H, W, ...] pixels as an EXIF orientation says.

    Returns:
        C-contiguous pixels as a viewer shows them; [W, H, ...] for orientations 5 to 8.
    """
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def orientation_warning(orientation: int, *, applied: bool) -> tuple[str, ...]:
    """Describe what was done about a tag that asks for turning."""
    if orientation == 1:
        return ()
    done = "the pixels were turned" if applied else "the pixels are taken as they are stored"
    return (f"its orientation tag is {orientation}: {done}",)
