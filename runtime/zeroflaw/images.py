"""Reading and writing image files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from zeroflaw.frame import MAX_FRAME_PIXELS
from zeroflaw_engines.errors import ImageFileError

IMAGE_SUFFIXES: Final = frozenset(
    {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
_AS_THEY_ARE: Final = frozenset({"L", "RGB", "RGBA", "I;16"})
_VIA_RGB: Final = frozenset({"1", "P", "LA", "PA", "CMYK", "YCbCr", "RGBX"})


def read_image(path: Path, *, max_pixels: int = MAX_FRAME_PIXELS) -> NDArray[Any]:
    """Reads an image file completely, pixels as they are stored (EXIF rotation is not applied).

    Args:
        path: The file.
        max_pixels: Largest image that is accepted.

    Returns:
        uint8 or uint16, [H, W] mono, [H, W, 3] RGB or [H, W, 4] RGBA.

    Raises:
        ImageFileError: The file is missing, empty, truncated, too large, has several pages, or
            is not an image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return _pixels(image, path, max_pixels)
    except UnidentifiedImageError as error:
        empty = path.stat().st_size == 0
        raise ImageFileError(
            f"{path} is {'empty' if empty else 'not an image, whatever its name says'}",
            "check how the file was written",
        ) from error
    except Image.DecompressionBombError as error:
        raise ImageFileError(f"{path} is too large: {error}", "inspect tiles of it") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageFileError(
            f"{path} cannot be read: {error}", "check that the file is there and complete"
        ) from error


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Writes uint8 [H, W] or RGB [H, W, 3] pixels; the suffix names the format.

    Raises:
        ImageFileError: The file cannot be written.
    """
    try:
        Image.fromarray(image).save(path, compress_level=1)
    except OSError as error:
        raise ImageFileError(
            f"{path} cannot be written: {error}", "check the directory and the space on its disk"
        ) from error


def _pixels(image: Image.Image, path: Path, max_pixels: int) -> NDArray[Any]:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageFileError(
            f"{path} has {width}x{height} px, over the limit of {max_pixels / 1e6:.0f} MP",
            "inspect tiles of it, or raise the limit",
        )
    pages = getattr(image, "n_frames", 1)
    if pages > 1:
        raise ImageFileError(f"{path} has {pages} pages", "save each page as a file of its own")
    if image.mode in _AS_THEY_ARE:
        return np.asarray(image)
    if image.mode in _VIA_RGB:
        return np.asarray(image.convert("RGB"))
    raise ImageFileError(
        f"{path} has pixels of the kind {image.mode!r}", "save it as 8- or 16-bit grey or as RGB"
    )
