"""WebP, by libwebp, with a proof that the picture needs all of its data.

libwebp decodes whatever bits it finds: zeros instead of the last tenth of a file give a picture
without a word. But a decoder that went astray does not stop where the data do. So the data must
be needed to their end: without their last bytes, decoding must fail.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np

from zeroflaw_engines.image_files.orientation import exif_orientation
from zeroflaw_engines.image_files.picture import Picture
from zeroflaw_engines.image_files.refusals import damaged, require_size, several_pictures
from zeroflaw_engines.image_files.zero_runs import has_zero_run, rest_warning

# Encoders end with up to 3 bytes that a decoder does without.
_BYTES_NEEDED: Final = 8
_LOSSLESS: Final = b"VP8L"
_KEY_FRAME: Final = b"\x9d\x01\x2a"


def read_webp(data: bytes, name: str, max_pixels: int) -> Picture:
    """Read a WebP file with one picture.

    Returns:
        uint8 RGB [H, W, 3], or RGBA [H, W, 4].

    Raises:
        ImageFileError: The file is damaged, animated or too large.
    """
    import imagecodecs

    chunks, end = _chunks(data, name)
    frames = sum(kind == b"ANMF" for kind, _ in chunks)
    if frames:
        raise several_pictures(name, frames)
    coded = [(kind, body) for kind, body in chunks if kind in (b"VP8 ", _LOSSLESS)]
    if len(coded) != 1:
        raise damaged(name, "it holds no picture")
    kind, body = coded[0]
    width, height = _size(kind, body, name)
    require_size(name, width, height, max_pixels)
    if kind == _LOSSLESS and has_zero_run(body, 0, len(body)):
        raise damaged(name, "a block of its data was lost: there are only zeros")
    try:
        pixels = np.asarray(imagecodecs.webp_decode(data[:end]))
    except Exception as error:
        raise damaged(name, f"its WebP decoder says {str(error)!r}") from error
    try:
        imagecodecs.webp_decode(_simple_file(kind, body[:-_BYTES_NEEDED]))
    except Exception:
        exif = next((content for kind, content in chunks if kind == b"EXIF"), None)
        return Picture(
            pixels, orientation=exif_orientation(exif), warnings=rest_warning(data[end:])
        )
    raise damaged(name, "its picture does not need the end of its data, so it went astray before")


def _chunks(data: bytes, name: str) -> tuple[list[tuple[bytes, bytes]], int]:
    """Return the kind and content of each chunk, and the offset after the last."""
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise damaged(name, "it is shorter than it says")
    chunks, at = [], 12
    while at + 8 <= end:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + size > end:
            raise damaged(name, "a chunk reaches beyond its end")
        chunks.append((data[at : at + 4], data[at + 8 : at + 8 + size]))
        at += 8 + size + size % 2
    return chunks, end


def _size(kind: bytes, body: bytes, name: str) -> tuple[int, int]:
    if kind == _LOSSLESS and len(body) > 5:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind != _LOSSLESS and len(body) > 10 and body[3:6] == _KEY_FRAME:
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    raise damaged(name, "it holds no picture")


def _simple_file(kind: bytes, body: bytes) -> bytes:
    """Return a file of nothing but one picture."""
    padded = body + bytes(len(body) % 2)
    size = struct.pack("<I", 12 + len(padded))
    return b"RIFF" + size + b"WEBP" + kind + struct.pack("<I", len(body)) + padded
