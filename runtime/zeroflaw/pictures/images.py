"""Reading and writing image files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zeroflaw_engines.errors import ImageFileError
from zeroflaw_engines.image_files import (
    IMAGE_SUFFIXES,
    ImageFile,
    Orientation,
    file_frame,
    read_image_file,
)
from zeroflaw_engines.image_files.frame import MAX_FRAME_PIXELS

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageFile",
    "Orientation",
    "file_frame",
    "read_image",
    "read_image_file",
    "write_image",
]


def read_image(
    path: str | Path,
    *,
    white_level: float | None = None,
    orientation: Orientation = "as_stored",
    max_pixels: int = MAX_FRAME_PIXELS,
) -> NDArray[Any]:
    """Read the pixels of an image file, so that `Inspector.inspect` takes them as they are.

    White is the largest value of their type: 10-, 12- and 14-bit pictures are scaled to 16 bits.
    `read_image_file` gives the values of the file instead, and warnings.

    Args:
        white_level: The value that is white, against what the file says.
        orientation: Whether the pixels are turned as an orientation tag says.
        max_pixels: Largest image that is accepted.

    Returns:
        uint8, uint16, or float32 in [0, 1]; [H, W] mono, [H, W, 3] RGB or [H, W, 4] RGBA.

    Raises:
        ImageFileError: The file is missing, empty, damaged, too large, has several pages, or is
            not an image that can be read faithfully.
    """
    file = read_image_file(
        path, white_level=white_level, orientation=orientation, max_pixels=max_pixels
    )
    return file.full_range_pixels()


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write uint8 [H, W] or RGB [H, W, 3] pixels; the suffix names the format.

    Raises:
        ImageFileError: The file cannot be written.
    """
    try:
        Image.fromarray(image).save(path, compress_level=1)
    except OSError as error:
        raise ImageFileError(
            f"{path} cannot be written: {error}", "check the directory and the space on its disk"
        ) from error
    except ValueError as error:
        raise ImageFileError(
            f"{path} cannot be written: {error}", "name a file that ends in .png"
        ) from error
