"""Frames: whatever a camera gives, as RGB uint8."""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines import arguments
from zeroflaw_engines.errors import FrameError

Frame = NDArray[np.uint8]
ChannelOrder = Literal["rgb", "bgr"]

MAX_FRAME_PIXELS: Final = 100_000_000

_LEAST_WHITE: Final = 1e-300
_CHANNELS: Final = (1, 3, 4)


def rgb_frame(
    image: NDArray[Any],
    *,
    channel_order: ChannelOrder = "rgb",
    white_level: float | None = None,
    max_pixels: int = MAX_FRAME_PIXELS,
) -> Frame:
    """Convert an array to an RGB frame.

    Args:
        image: [H, W] or [H, W, 1] mono, [H, W, 3] colour, or [H, W, 4] colour with alpha, which
            is dropped. uint8, uint16, or floating point in [0, 1]. Any strides.
        channel_order: Order of the colour channels; never guessed.
        white_level: Value that becomes 255. Default: the dtype's largest (1.0 for floats). A
            12-bit camera in a uint16 array wants 4095; values above it saturate.
        max_pixels: Largest frame that is accepted, H * W.

    Returns:
        uint8 [H, W, 3], RGB, C-contiguous. A contiguous RGB uint8 array comes back as it is,
        without a copy.

    Raises:
        FrameError: The array is not one of the above, or too large.
    """
    if isinstance(image, np.ma.MaskedArray):
        raise FrameError(
            "a frame must be a plain array: what a masked one hides would be inspected",
            "fill it, for instance with image.filled(0)",
        )
    if not isinstance(image, np.ndarray):
        raise FrameError(
            f"a frame must be a NumPy array, not {type(image).__name__}",
            "convert it, for instance with numpy.asarray",
        )
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in _CHANNELS):
        raise FrameError(
            f"a frame of shape {list(image.shape)} is not an image",
            "give [H, W], or [H, W, channels] with 1, 3 or 4 channels",
        )
    arguments.choice("the channel order", channel_order, get_args(ChannelOrder), error=FrameError)
    height, width = image.shape[:2]
    if height == 0 or width == 0:
        raise FrameError(f"a frame of {width}x{height} px is empty", "check the camera")
    if height * width > max_pixels:
        raise FrameError(
            f"a frame of {width}x{height} px exceeds the limit of {max_pixels / 1e6:.0f} MP",
            "inspect tiles of it (the networks see at most 1024 px a side anyway), "
            "or raise max_frame_pixels",
        )
    eight_bit = _to_uint8(image, white_level)
    if eight_bit.ndim == 3 and eight_bit.shape[2] == 1:
        eight_bit = eight_bit[:, :, 0]
    eight_bit = np.ascontiguousarray(eight_bit)
    if eight_bit.ndim == 2:
        return cv2.cvtColor(eight_bit, cv2.COLOR_GRAY2RGB)  # type: ignore[return-value]
    if eight_bit.shape[2] == 4:
        code = cv2.COLOR_RGBA2RGB if channel_order == "rgb" else cv2.COLOR_BGRA2RGB
        return cv2.cvtColor(eight_bit, code)  # type: ignore[return-value]
    if channel_order == "bgr":
        return cv2.cvtColor(eight_bit, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]
    return eight_bit


def _to_uint8(image: NDArray[Any], white_level: float | None) -> Frame:
    if white_level is not None:
        # From there on 255 / white_level is finite.
        white_level = arguments.number(
            "the white level", white_level, above=_LEAST_WHITE, error=FrameError
        )
    if image.dtype == np.uint8 and white_level in (None, 255):
        return image
    if image.dtype.newbyteorder("=") in (np.uint8, np.uint16):
        white = white_level or float(np.iinfo(image.dtype).max)
        table = np.arange(int(np.iinfo(image.dtype).max) + 1, dtype=np.float64) * (255.0 / white)
        levels = np.minimum(np.floor(table + 0.5), 255).astype(np.uint8)
        return np.asarray(levels[image])
    if np.issubdtype(image.dtype, np.floating):
        white = white_level or 1.0
        low, high = float(image.min()), float(image.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise FrameError("the frame has values that are not finite", "check the camera driver")
        if low < 0 or high > white:
            raise FrameError(
                f"the frame has floats from {low:g} to {high:g}, outside [0, {white:g}]",
                "scale it to [0, 1], or give the white level of the data",
            )
        return np.floor(image * (255.0 / white) + 0.5).astype(np.uint8)
    raise FrameError(
        f"a frame of dtype {image.dtype} cannot be inspected",
        "give uint8, uint16, or floats in [0, 1]",
    )
