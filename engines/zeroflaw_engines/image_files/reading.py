"""The one reader of image files: content decides the format, and a file is whole or refused."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zeroflaw_engines.errors import ImageFileError
from zeroflaw_engines.image_files.formats.bmp import read_bmp
from zeroflaw_engines.image_files.formats.gif import read_gif
from zeroflaw_engines.image_files.formats.jpeg import read_jpeg
from zeroflaw_engines.image_files.formats.jpeg2000 import read_jpeg2000
from zeroflaw_engines.image_files.formats.png import read_png
from zeroflaw_engines.image_files.formats.pnm import read_pnm
from zeroflaw_engines.image_files.formats.tiff import read_tiff
from zeroflaw_engines.image_files.formats.webp import read_webp
from zeroflaw_engines.image_files.frame import MAX_FRAME_PIXELS, Frame, rgb_frame
from zeroflaw_engines.image_files.orientation import orientation_warning, oriented
from zeroflaw_engines.image_files.picture import ImageFile, Orientation, Picture
from zeroflaw_engines.image_files.refusals import unsupported
from zeroflaw_engines.image_files.white_level import inverted, settled

# No file of a picture within the limit is larger: four channels of 32 bits, and metadata.
_BYTES_OF_A_PIXEL: Final = 16
_BYTES_OF_METADATA: Final = 64 << 20


@dataclass(frozen=True)
class ImageFormat:
    """One format.

    Attributes:
        name: As messages call it.
        suffixes: Names of its files, by which folders are searched.
        signature: What its content starts with.
        read: Reads content, the name for errors, and the largest number of pixels.
    """

    name: str
    suffixes: tuple[str, ...]
    signature: re.Pattern[bytes]
    read: Callable[[bytes, str, int], Picture]


def _starts(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL)


FORMATS: Final = (
    ImageFormat("JPEG", (".jpeg", ".jpg", ".jpe", ".jfif", ".mpo"), _starts(rb"\xff\xd8\xff"),
                read_jpeg),
    ImageFormat("PNG", (".png", ".apng"), _starts(rb"\x89PNG\r\n\x1a\n"), read_png),
    ImageFormat("TIFF", (".tif", ".tiff", ".btf"), _starts(rb"II[*+]\0|MM\0[*+]"), read_tiff),
    ImageFormat("WebP", (".webp",), _starts(rb"RIFF....WEBP"), read_webp),
    ImageFormat("JPEG 2000", (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
                _starts(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"), read_jpeg2000),
    ImageFormat("BMP", (".bmp", ".dib"), _starts(rb"BM"), read_bmp),
    ImageFormat("GIF", (".gif",), _starts(rb"GIF8[79]a"), read_gif),
    ImageFormat("PNM", (".pbm", ".pgm", ".ppm", ".pnm", ".pfm"), _starts(rb"P[1-6fF][\s#]"),
                read_pnm),
)  # fmt: skip

IMAGE_SUFFIXES: Final = frozenset(suffix for row in FORMATS for suffix in row.suffixes)


def read_image_file(
    path: str | Path,
    *,
    white_level: float | None = None,
    orientation: Orientation = "as_stored",
    max_pixels: int = MAX_FRAME_PIXELS,
) -> ImageFile:
    """Read an image file completely, whatever its name is.

    Args:
        white_level: The value that is white, against what the file says.
        orientation: Whether the pixels are turned as an EXIF or TIFF orientation tag says.
        max_pixels: Largest picture that is accepted; checked before decoding.

    Returns:
        The pixels with the values of the file, and what the file says of them.

    Raises:
        ImageFileError: The file is missing, empty, no image, damaged, too large, has several full
            pictures, or cannot be read faithfully.
    """
    path = Path(path)
    number = isinstance(white_level, int | float) and not isinstance(white_level, bool)
    if white_level is not None and not (number and math.isfinite(white_level) and white_level > 0):
        raise ImageFileError(f"the white level is {white_level!r}", "give a positive number")
    if orientation not in ("as_stored", "apply"):
        raise ImageFileError(f"unknown orientation {orientation!r}", "say 'as_stored' or 'apply'")
    data = _content(path, max_pixels)
    name = str(path)
    row = _format_of(data, name)
    picture = row.read(data, name, max_pixels)
    pixels, white = settled(
        picture.pixels, picture.white_level if white_level is None else white_level, name
    )
    if picture.white_is_zero:
        pixels = inverted(pixels, white)
    applied = orientation == "apply"
    warnings = (*picture.warnings, *orientation_warning(picture.orientation, applied=applied))
    return ImageFile(
        path=path,
        format=row.name,
        pixels=oriented(pixels, picture.orientation) if applied else pixels,
        white_level=white,
        orientation_tag=picture.orientation,
        orientation=orientation,
        warnings=tuple(f"{path}: {text}" for text in warnings),
    )


def file_frame(file: ImageFile, *, max_pixels: int = MAX_FRAME_PIXELS) -> Frame:
    """Make the frame of an image file, at the white level that the file (or its reader) says.

    Args:
        file: As `read_image_file` gives it.
        max_pixels: Largest frame that is accepted, H * W.

    Returns:
        uint8 RGB [H, W, 3].
    """
    return rgb_frame(file.pixels, white_level=file.white_level, max_pixels=max_pixels)


def _content(path: Path, max_pixels: int) -> bytes:
    limit = max_pixels * _BYTES_OF_A_PIXEL + _BYTES_OF_METADATA
    try:
        if path.exists() and not path.is_file():
            raise ImageFileError(f"{path} cannot be read: it is no file", "name an image file")
        size = path.stat().st_size
        if size > limit:
            raise ImageFileError(
                f"{path} has {size} bytes, more than any picture of {max_pixels / 1e6:.0f} MP",
                "cut it into tiles with an image editor, and inspect those",
            )
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # of a zero byte in the name it is the latter
        raise ImageFileError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}",
            "check that the file is there and may be read",
        ) from error
    if not data:
        raise ImageFileError(f"{path} is empty", "check how the file was written")
    return data


def _format_of(data: bytes, name: str) -> ImageFormat:
    for row in FORMATS:
        if row.signature.match(data):
            return row
    names = ", ".join(row.name for row in FORMATS)
    if not data.strip(b"\0"):
        raise ImageFileError(f"{name} holds only zeros", "check how the file was written")
    if data[4:8] == b"ftyp":
        raise unsupported(
            name, "is a HEIF, AVIF or video file, which is not read", "save it as PNG or JPEG"
        )
    raise ImageFileError(
        f"{name} is not an image, whatever its name says: its content is none of {names}",
        "check how the file was written, or save it in one of these formats",
    )
