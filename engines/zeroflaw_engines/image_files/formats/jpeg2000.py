"""JPEG 2000, by OpenJPEG, with the structure checked that it does not insist on."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np

from zeroflaw_engines.image_files.picture import Picture
from zeroflaw_engines.image_files.refusals import damaged, require_size, unsupported
from zeroflaw_engines.image_files.zero_runs import has_zero_run, rest_warning

_SIZE: Final = 0xFF51
_TILE_PART: Final = 0xFF90
_DATA: Final = 0xFF93
_END: Final = 0xFFD9
# Empty packets are a zero byte each, and flat pictures have a few in a row: one for each
# resolution and component of a tile.
_ZERO_RUN: Final = 64
_READ_COLOURS: Final = frozenset({16, 17})


@dataclass(frozen=True)
class _Size:
    width: int
    height: int
    depths: tuple[int, ...]
    signed: bool
    subsampled: bool


def read_jpeg2000(data: bytes, name: str, max_pixels: int) -> Picture:
    """Read a JP2 file or a JPEG 2000 codestream.

    Returns:
        uint8 or uint16, grey [H, W], RGB [H, W, 3] or RGBA [H, W, 4]; values as stored.

    Raises:
        ImageFileError: The file is damaged, too large, or not grey or RGB of equal depths up to
            16 bits.
    """
    import imagecodecs

    start, stop = (0, len(data)) if data.startswith(b"\xff\x4f") else _codestream(data, name)
    size, end = _checked_codestream(data, start, stop, name)
    require_size(name, size.width, size.height, max_pixels)
    depth = size.depths[0]
    if size.signed or size.subsampled or set(size.depths) != {depth} or depth > 16:
        raise unsupported(
            name,
            "is a JPEG 2000 file of signed, subsampled, unequal or more than 16-bit channels",
            "save it as PNG or TIFF",
        )
    try:
        pixels = np.asarray(imagecodecs.jpeg2k_decode(data))
    except Exception as error:
        raise damaged(name, f"its JPEG 2000 decoder says {str(error)!r}") from error
    channels = len(size.depths)
    if pixels.shape[:2] != (size.height, size.width) or channels > 4:
        raise unsupported(name, f"has {channels} channels", "save it as grey or as RGB")
    if pixels.ndim == 3 and channels < 3:
        pixels = pixels[:, :, 0]
    white = None if depth in (8, 16) else float((1 << depth) - 1)
    # What may follow in the boxes of a JP2 file is metadata.
    rest = data[end:] if start == 0 else b""
    return Picture(np.ascontiguousarray(pixels), white_level=white, warnings=rest_warning(rest))


def _codestream(data: bytes, name: str) -> tuple[int, int]:
    """Find the codestream in a JP2 file."""
    at, found = 0, None
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        header = 8
        if length == 1:
            length, header = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        elif length == 0:
            length = len(data) - at
        if length < header or at + length > len(data):
            raise damaged(name, f"its box {kind!r} reaches beyond the end of the file")
        if kind == b"jp2h":
            _check_colours(data[at + header : at + length], name)
        if kind == b"jp2c" and found is None:
            found = (at + header, at + length)
        at += length
    if found is None:
        raise damaged(name, "it holds no picture")
    return found


def _check_colours(boxes: bytes, name: str) -> None:
    at = 0
    while at + 8 <= len(boxes):
        length, kind = struct.unpack(">I4s", boxes[at : at + 8])
        if kind == b"pclr":
            raise unsupported(name, "is a JPEG 2000 file with a palette", "save it as PNG")
        if kind == b"colr" and boxes[at + 8 : at + 9] == b"\1":
            space = int.from_bytes(boxes[at + 11 : at + 15], "big")
            if space not in _READ_COLOURS:
                raise unsupported(
                    name, f"has colours of JPEG 2000's kind {space}", "save it as grey or RGB"
                )
        at += max(length, 8)


def _checked_codestream(data: bytes, start: int, stop: int, name: str) -> tuple[_Size, int]:
    """Check that every tile-part is whole; return the size and the offset after the end marker."""
    size, at = None, start + 2
    while at + 2 <= stop:
        marker = int.from_bytes(data[at : at + 2], "big")
        if marker == _END:
            if size is None:
                break
            return size, at + 2
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker < 0xFF00 or length < 2 or at + 2 + length > stop:
            raise damaged(name, f"its codestream is broken at offset {at}")
        if marker == _SIZE:
            size = _size(data[at + 4 : at + 2 + length], name)
        if marker == _TILE_PART:
            part = int.from_bytes(data[at + 6 : at + 10], "big") or stop - 2 - at
            if part < 14 or at + part > stop - 2:
                raise damaged(name, "a tile reaches beyond the end of its codestream")
            if has_zero_run(data, at, at + part, _ZERO_RUN):
                raise damaged(name, "a block of its data was lost: there are only zeros")
            at += part
        else:
            at += 2 + length
    raise damaged(name, "its codestream ends before its end marker")


def _size(body: bytes, name: str) -> _Size:
    if len(body) < 39:
        raise damaged(name, "its header is cut")
    x1, y1, x0, y0 = struct.unpack(">IIII", body[2:18])
    count = int.from_bytes(body[34:36], "big")
    parts = [body[36 + 3 * n : 39 + 3 * n] for n in range(count)]
    if not parts or len(parts[-1]) != 3:
        raise damaged(name, "its header is cut")
    return _Size(
        width=x1 - x0,
        height=y1 - y0,
        depths=tuple((part[0] & 0x7F) + 1 for part in parts),
        signed=any(part[0] & 0x80 for part in parts),
        subsampled=any(part[1] != 1 or part[2] != 1 for part in parts),
    )
