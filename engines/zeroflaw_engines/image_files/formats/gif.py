"""GIF with one picture, by Pillow, with a proof that the picture needs all of its data."""

from __future__ import annotations

import io
from typing import Final

import numpy as np

from zeroflaw_engines.image_files.picture import Picture
from zeroflaw_engines.image_files.refusals import damaged, require_size, several_pictures
from zeroflaw_engines.image_files.zero_runs import rest_warning

_END_CODE_BYTES: Final = 2


def read_gif(data: bytes, name: str, max_pixels: int) -> Picture:
    """Read a GIF file.

    Returns:
        uint8 RGB [H, W, 3].

    Raises:
        ImageFileError: The file is damaged, has several pictures or is too large.
    """
    from PIL import GifImagePlugin

    if len(data) < 13:
        raise damaged(name, "its header is cut")
    width, height = (int.from_bytes(data[at : at + 2], "little") for at in (6, 8))
    require_size(name, width, height, max_pixels)
    pictures, end, last = _checked_blocks(data, name)
    if pictures != 1:
        raise several_pictures(name, pictures) if pictures else damaged(name, "it has no picture")
    try:
        with GifImagePlugin.GifImageFile(io.BytesIO(data[:end])) as image:
            pixels = np.asarray(image.convert("RGB"))
    except Exception as error:
        raise damaged(name, f"its GIF decoder says {str(error)!r}") from error
    try:
        with GifImagePlugin.GifImageFile(io.BytesIO(data[:last] + b"\0;")) as image:
            image.load()
    except Exception:
        return Picture(pixels, warnings=rest_warning(data[end:]))
    raise damaged(name, "its picture does not need the end of its data, so it went astray before")


def _checked_blocks(data: bytes, name: str) -> tuple[int, int, int]:
    """Count the pictures, and return the offset after the trailer and that of the last data."""
    at, pictures, last = 13 + _table_bytes(data[10]), 0, 0
    try:
        while data[at] != 0x3B:
            if data[at] == 0x21:
                at, _ = _after_blocks(data, at + 2)
            elif data[at] == 0x2C:
                pictures += 1
                at, last = _after_blocks(data, at + 11 + _table_bytes(data[at + 9]))
            else:
                raise damaged(name, f"there is no block at offset {at}")
    except IndexError as error:
        raise damaged(name, "it ends before its trailer") from error
    return pictures, at + 1, last


def _table_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(data: bytes, at: int) -> tuple[int, int]:
    """Return the offset after a chain of blocks, and that of the last one of more than a byte."""
    last = at
    while data[at]:
        # Encoders may end with a block for the end code alone.
        last = at if data[at] > _END_CODE_BYTES else last
        at += data[at] + 1
    return at + 1, last
