"""From a file of an archive to a photo to train on, or to none."""

from __future__ import annotations

import io
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

MIN_SIDE: Final = 256
MAX_SHORT_SIDE: Final = 1024
_MAX_ASPECT: Final = 4.0
_MAX_PIXELS: Final = 100_000_000
_MIN_DEVIATION: Final = 4.0

_OPAQUE: Final = 200
_MAX_TRANSPARENT: Final = 0.02
_GROUND: Final = 208
# Lights that a game adds to a scene, and the parts of a model, lie on black.
_BLACK: Final = 10
_MAX_BLACK: Final = 0.4

_FINGERPRINT_SIDE: Final = 16


def photo_of(data: bytes, *, cut_out: bool = False) -> NDArray[np.uint8] | None:
    """Decode a picture, and scale it down where its short side is over `MAX_SHORT_SIDE`.

    Args:
        cut_out: Whether a transparent surrounding becomes plain grey; otherwise a picture with
            transparent parts is no photo.

    Returns:
        uint8 RGB [H, W, 3], or None: no picture that can be read, too small or too narrow, nearly
        without contrast, or to a great part black.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
            sides = sorted((width, height))
            if sides[0] < MIN_SIDE or sides[1] > _MAX_ASPECT * sides[0]:
                return None
            if width * height > _MAX_PIXELS:
                return None
            rgba = np.asarray(picture.convert("RGBA"))
    # Pillow names no base of what its readers raise for a damaged file.
    except Exception:
        return None
    rgb = _without_transparency(rgba, cut_out=cut_out)
    if rgb is None:
        return None
    scale = MAX_SHORT_SIDE / sides[0]
    if scale < 1.0:
        size = (round(width * scale), round(height * scale))
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    if float(grey.std()) < _MIN_DEVIATION or float((grey < _BLACK).mean()) > _MAX_BLACK:
        return None
    return rgb


def fingerprint(photo: NDArray[np.uint8]) -> bytes:
    """Give the levels of a small reduction, in steps of 16, which copies of a photo share.

    Copies that were compressed differently share them mostly, not always: a level may fall to
    either side of a step.
    """
    side = (_FINGERPRINT_SIDE, _FINGERPRINT_SIDE)
    small = np.asarray(cv2.resize(photo, side, interpolation=cv2.INTER_AREA), np.uint8)
    return bytes((small // 16).tobytes())


def _without_transparency(rgba: NDArray[np.uint8], *, cut_out: bool) -> NDArray[np.uint8] | None:
    rgb = np.ascontiguousarray(rgba[:, :, :3])
    alpha = rgba[:, :, 3:]
    if cut_out:
        share = alpha.astype(np.float32) / 255.0
        laid: NDArray[np.uint8] = np.rint(rgb * share + _GROUND * (1.0 - share)).astype(np.uint8)
        return laid
    if float((alpha < _OPAQUE).mean()) > _MAX_TRANSPARENT:
        return None
    return rgb
