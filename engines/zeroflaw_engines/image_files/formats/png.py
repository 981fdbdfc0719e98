"""PNG, by libpng, with every checksum checked before."""

from __future__ import annotations

import struct
import zlib
from collections import defaultdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines.image_files.orientation import exif_orientation
from zeroflaw_engines.image_files.picture import Picture
from zeroflaw_engines.image_files.refusals import damaged, require_size, several_pictures
from zeroflaw_engines.image_files.white_level import white_of_significant_bits
from zeroflaw_engines.image_files.zero_runs import rest_warning

_SIGNATURE_BYTES: Final = 8
_PALETTE: Final = 3


def read_png(data: bytes, name: str, max_pixels: int) -> Picture:
    """Read a PNG file. Colour profile and gamma are not applied: pixels come as stored.

    Returns:
        uint8 or uint16; grey [H, W] (its alpha is dropped), RGB [H, W, 3], or RGBA [H, W, 4].
        Palettes become colours; grey of 1, 2 and 4 bits is spread over 0 to 255.

    Raises:
        ImageFileError: A checksum is wrong, something is missing, there are several pictures
            (APNG), or it is too large.
    """
    import imagecodecs

    chunks, needed, end = _checked_chunks(data, name)
    width, height, depth, colour = struct.unpack(">IIBB", chunks[b"IHDR"][0][:10])
    require_size(name, width, height, max_pixels)
    if b"acTL" in chunks:
        frames = int.from_bytes(chunks[b"acTL"][0][:4], "big")
        if frames > 1:
            raise several_pictures(name, frames)
    try:
        pixels = np.asarray(imagecodecs.png_decode(needed))
    except Exception as error:
        raise damaged(name, f"its PNG decoder says {str(error)!r}") from error
    if pixels.ndim == 3 and pixels.shape[2] == 2:
        pixels = pixels[:, :, 0]
    return Picture(
        pixels,
        white_level=_white_level(chunks, pixels, depth, colour),
        orientation=exif_orientation(chunks[b"eXIf"][0] if b"eXIf" in chunks else None),
        warnings=rest_warning(data[end:]),
    )


def _checked_chunks(data: bytes, name: str) -> tuple[dict[bytes, list[bytes]], bytes, int]:
    """Check every chunk.

    Returns:
        The chunks by their type, without picture data; a file of those that a decoder needs, since
        libpng prints what it thinks of colour profiles; and the offset after the last chunk.
    """
    chunks: dict[bytes, list[bytes]] = defaultdict(list)
    view = memoryview(data)
    needed = [view[:_SIGNATURE_BYTES]]
    at = _SIGNATURE_BYTES
    while b"IEND" not in chunks:
        if at + 12 > len(data):
            raise damaged(name, "it ends before its end chunk")
        length = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if at + 12 + length > len(data):
            raise damaged(name, "it ends within a chunk")
        body = view[at + 4 : at + 8 + length]
        stored = int.from_bytes(data[at + 8 + length : at + 12 + length], "big")
        if zlib.crc32(body) != stored:
            raise damaged(name, f"the checksum of its chunk {kind!r} is wrong")
        chunks[kind].append(b"" if kind == b"IDAT" else bytes(body[4:]))
        # A capital letter says that a decoder must know the chunk.
        if kind[:1].isupper() or kind == b"tRNS":
            needed.append(view[at : at + 12 + length])
        at += 12 + length
    if len(chunks.get(b"IHDR", [b""])[0]) != 13 or b"IDAT" not in chunks:
        raise damaged(name, "it holds no picture")
    return dict(chunks), b"".join(needed), at


def _white_level(
    chunks: dict[bytes, list[bytes]], pixels: NDArray[Any], depth: int, colour: int
) -> float | None:
    if b"sBIT" not in chunks or colour == _PALETTE or depth < 8:
        return None
    colours = 3 if pixels.ndim == 3 else 1
    significant = set(chunks[b"sBIT"][0][:colours])
    if len(significant) != 1:
        return None
    return white_of_significant_bits(pixels[..., :colours], significant.pop(), depth)
