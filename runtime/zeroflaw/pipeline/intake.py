"""What an Inspector is given, a camera's array or an image file, as a frame of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroflaw.pictures.images import file_frame, read_image_file
from zeroflaw_engines.errors import FrameError
from zeroflaw_engines.image_files.frame import ChannelOrder, Frame, rgb_frame

ImageOrPath = NDArray[Any] | str | Path


def take_frame(
    image: ImageOrPath,
    *,
    channel_order: ChannelOrder = "rgb",
    white_level: float | None = None,
    max_pixels: int,
) -> tuple[Frame, tuple[str, ...]]:
    """Make a frame of an array or an image file, in memory that nobody else writes to.

    Args:
        image: An array as `rgb_frame` takes it, or the path of an image file.
        channel_order: Order of an array's colour channels; a file says its own.
        white_level: Value that counts as white; default: an array's dtype's largest, and what a
            file says.
        max_pixels: Largest frame that is accepted, H * W.

    Returns:
        uint8 [H, W, 3], RGB, and what a reader of the result must know of the file.

    Raises:
        FrameError: The array is not a frame, or a file was given with `bgr`.
        ImageFileError: The file cannot be read completely.
    """
    if isinstance(image, str | Path):
        return _file_frame(image, channel_order, white_level, max_pixels)
    frame = rgb_frame(
        image, channel_order=channel_order, white_level=white_level, max_pixels=max_pixels
    )
    if np.may_share_memory(frame, image):
        # The caller may write into it again before the record's digest is asked for.
        frame = frame.copy()
    return frame, ()


def _file_frame(
    path: str | Path, channel_order: ChannelOrder, white_level: float | None, max_pixels: int
) -> tuple[Frame, tuple[str, ...]]:
    if channel_order != "rgb":
        raise FrameError(
            f"the channel order {channel_order!r} was given for the file {path}",
            "leave it out: an image file says its own",
        )
    file = read_image_file(path, white_level=white_level, max_pixels=max_pixels)
    return file_frame(file, max_pixels=max_pixels), file.warnings
