"""BMP, by Pillow, after its sizes were checked."""

from __future__ import annotations

import io
import struct
from typing import Final

import numpy as np

from zeroflaw_engines.image_files.picture import Picture
from zeroflaw_engines.image_files.refusals import damaged, require_size, unsupported
from zeroflaw_engines.image_files.zero_runs import (
    rest_warning,
    trailing_zeros,
    zero_tail_warning,
)

_CORE_HEADER: Final = 12
_RAW: Final = frozenset({0, 3, 6})
_RUN_LENGTHS: Final = frozenset({1, 2})


def read_bmp(data: bytes, name: str, max_pixels: int) -> Picture:
    """Read a BMP file; a fourth channel is dropped.

    Returns:
        uint8, grey [H, W] or RGB [H, W, 3]. Palettes become colours; 5 and 6 bits are spread
        over 0 to 255.

    Raises:
        ImageFileError: The file is damaged, too large, or of a kind that is not read.
    """
    from PIL import BmpImagePlugin

    if len(data) < 30:
        raise damaged(name, "its header is cut")
    start, header = struct.unpack("<II", data[10:18])
    if header == _CORE_HEADER:
        width, height, _, bits = struct.unpack("<HHHH", data[18:26])
        compression = 0
    elif len(data) >= 54 and header >= 40:
        width, height, _, bits, compression = struct.unpack("<iiHHI", data[18:34])
    else:
        raise damaged(name, "its header is cut")
    rows = abs(height)
    require_size(name, width, rows, max_pixels)
    if compression not in _RAW | _RUN_LENGTHS:
        raise unsupported(name, f"is a BMP file of compression {compression}", "save it as PNG")
    row_bytes = (width * bits + 31) // 32 * 4
    stored = data[start : start + row_bytes * rows]
    warnings: tuple[str, ...] = ()
    if compression in _RAW:
        if start < 14 + header or len(stored) < row_bytes * rows:
            raise damaged(name, f"it has {len(stored)} bytes of pixels, not {row_bytes * rows}")
        warnings = (
            *zero_tail_warning(trailing_zeros(stored), row_bytes, len(stored)),
            *rest_warning(data[start + len(stored) :]),
        )
    else:
        _check_run_lengths(data[start:], width, rows, compression == 2, name)
    try:
        with BmpImagePlugin.BmpImageFile(io.BytesIO(data)) as image:
            image.load()
            grey = image.mode == "L" or (image.mode == "P" and _is_grey(image.getpalette()))
            pixels = np.asarray(image.convert("L" if grey else "RGB"))
    except Exception as error:
        raise damaged(name, f"its BMP decoder says {str(error)!r}") from error
    return Picture(pixels, warnings=warnings)


def _is_grey(palette: list[int] | None) -> bool:
    return palette is not None and palette[::3] == palette[1::3] == palette[2::3]


def _check_run_lengths(coded: bytes, width: int, rows: int, nibbles: bool, name: str) -> None:
    """Follow the runs: each row must be there, and the end of the picture must be marked."""
    at, x, y = 0, 0, 0
    while at + 2 <= len(coded):
        count, value = coded[at], coded[at + 1]
        at += 2
        if count:
            x += count
        elif value == 0:
            x, y = 0, y + 1
        elif value == 1:
            if y + (x > 0) < rows:
                break
            return
        elif value == 2:
            raise unsupported(name, "is a BMP file that leaves pixels out", "save it as PNG")
        else:
            x += value
            at += ((value + 1) // 2 + 1) // 2 * 2 if nibbles else (value + 1) // 2 * 2
        if x > width:
            raise damaged(name, "a run of its pixels is longer than a row")
    raise damaged(name, "it ends before its last row")
