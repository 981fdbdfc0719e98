"""The strips and tiles of a TIFF page, each decoded completely or refused."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines.image_files.formats.jpeg import decode_jpeg
from zeroflaw_engines.image_files.formats.jpeg2000 import read_jpeg2000
from zeroflaw_engines.image_files.formats.jpeg_markers import jpeg_structure
from zeroflaw_engines.image_files.formats.webp import read_webp
from zeroflaw_engines.image_files.refusals import damaged, require_size, unsupported
from zeroflaw_engines.image_files.zero_runs import (
    has_zero_run,
    rest_warning,
    zero_tail_warning,
)

if TYPE_CHECKING:
    from tifffile import TiffPage

_NONE: Final = 1
_CCITT: Final = frozenset({2, 3, 4})
_LZW: Final = 5
_JPEG: Final = 7
_DEFLATE: Final = frozenset({8, 32946})
_PACKBITS: Final = 32773
_JPEG2000: Final = frozenset({33003, 33004, 33005, 34712})
_LZMA: Final = 34925
_ZSTD: Final = 50000
_WEBP: Final = 50001
# These have no checksum, and their encoders never write long runs of zero bytes.
_ZEROS_ARE_DAMAGE: Final = frozenset({_LZW, _PACKBITS, _ZSTD, *_CCITT})
_PIXELS_CODED: Final = frozenset({_JPEG, _WEBP, *_JPEG2000})
_READ: Final = frozenset({_NONE, _LZMA, *_DEFLATE, *_ZEROS_ARE_DAMAGE, *_PIXELS_CODED})

_RGB: Final = 2
_YCBCR: Final = 6
_SEPARATED: Final = 5


def decoded_segments(
    page: TiffPage, data: bytes, name: str
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Decode every strip or tile of a page.

    Returns:
        Samples [planes, H, W, samples of a plane], and warnings. YCbCr that is JPEG-coded comes
        as RGB.

    Raises:
        ImageFileError: A segment is missing, reaches beyond the file or does not fill its place,
            or the compression has no decoder that tells damage.
    """
    if page.compression not in _READ:
        kind = getattr(page.compression, "name", page.compression)
        raise unsupported(
            name, f"has the compression {kind}, which is not read", "save it with LZW or Deflate"
        )
    if page.dtype is None or not isinstance(page.bitspersample, int):
        raise unsupported(
            name, f"has samples of {page.bitspersample} bits", "save it as 8- or 16-bit"
        )
    ranges = _ranges(page, data, name)
    _widen_containers(page, ranges)
    planes, _, height, width, channels = page.shaped
    picture: NDArray[Any] | None = None
    for index, (start, stop) in enumerate(ranges):
        segment, plane, row, column = _decoded(page, index, data[start:stop], name)
        if picture is None:
            picture = np.empty((planes, height, width, channels), segment.dtype)
        room = picture[plane, row : row + segment.shape[0], column : column + segment.shape[1]]
        part = segment[: room.shape[0], : room.shape[1]]
        if part.shape != room.shape or part.dtype != room.dtype:
            raise damaged(name, f"its strip or tile {index} does not fill its place")
        room[...] = part
    if picture is None:
        raise damaged(name, "it holds no picture")
    warnings = _zero_tail(page, picture) if page.compression == _NONE else ()
    return picture, (*warnings, *_rest(page, data, ranges))


def _ranges(page: TiffPage, data: bytes, name: str) -> list[tuple[int, int]]:
    """Start and stop of each segment in the file."""
    planes, _, height, width, _ = page.shaped
    if page.is_tiled:
        count = math.ceil(height / page.tilelength) * math.ceil(width / page.tilewidth)
    else:
        count = math.ceil(height / page.rowsperstrip)
    count *= planes
    offsets, sizes = page.dataoffsets, page.databytecounts
    if len(offsets) != count or len(sizes) != count:
        raise damaged(
            name, f"it has {len(offsets)} strips or tiles of {len(sizes)} sizes, not {count}"
        )
    ranges = []
    for index, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        needed = _stored_rows(page, index) * _row_bytes(page)
        if offset <= 0 or size <= 0:
            raise damaged(name, f"its strip or tile {index} was never written")
        if offset + size > len(data):
            raise damaged(name, f"its strip or tile {index} reaches beyond the end of the file")
        if page.compression == _NONE and size < needed:
            raise damaged(name, f"its strip or tile {index} has {size} bytes, not {needed}")
        if page.compression in _ZEROS_ARE_DAMAGE and has_zero_run(data, offset, offset + size):
            raise damaged(name, "a block of its data was lost: there are only zeros")
        ranges.append((offset, offset + size))
    return ranges


def _stored_rows(page: TiffPage, index: int) -> int:
    if page.is_tiled:
        return int(page.tilelength)
    height = int(page.shaped[2])
    strips = math.ceil(height / page.rowsperstrip)
    return min(int(page.rowsperstrip), height - index % strips * int(page.rowsperstrip))


def _row_bytes(page: TiffPage) -> int:
    """Return the bytes of one stored row, without compression."""
    width = page.tilewidth if page.is_tiled else page.shaped[3]
    return math.ceil(width * page.shaped[4] * page.bitspersample / 8)


def _widen_containers(page: TiffPage, ranges: list[tuple[int, int]]) -> None:
    """Take samples of 9 to 15 bits as 16-bit ones where that is what the data have room for.

    By the standard they are packed; several cameras store them in 16 bits all the same.
    """
    if page.compression != _NONE or not 8 < page.bitspersample < 16:
        return
    samples = (page.tilewidth if page.is_tiled else page.shaped[3]) * page.shaped[4]
    if all(
        stop - start == _stored_rows(page, index) * samples * 2
        for index, (start, stop) in enumerate(ranges)
    ):
        page.bitspersample = 16


def _decoded(
    page: TiffPage, index: int, coded: bytes, name: str
) -> tuple[NDArray[Any], int, int, int]:
    """Decode one segment [rows, columns, samples]; return it with its plane, row and column."""
    if page.compression not in _PIXELS_CODED:
        if page.compression == _NONE:
            coded = coded[: _stored_rows(page, index) * _row_bytes(page)]
        segment, (plane, _, row, column, _), _ = page.decode(coded, index)
        if segment is None:
            raise damaged(name, f"its strip or tile {index} is empty")
        return segment[0], plane, row, column
    _, (plane, _, row, column, _), shape = page.decode(None, index)
    largest = shape[1] * max(shape[2], 1)
    if page.compression == _JPEG:
        segment = _jpeg_segment(page, coded, name, largest)
    elif page.compression == _WEBP:
        segment = read_webp(coded, name, largest).pixels
    else:
        segment = read_jpeg2000(coded, name, largest).pixels
    segment = segment if segment.ndim == 3 else segment[:, :, None]
    if segment.shape[2] == 3 and page.shaped[4] == 4:
        # WebP leaves out an alpha channel that is opaque everywhere.
        segment = np.dstack([segment, np.full(segment.shape[:2], 255, segment.dtype)])
    return segment, plane, row, column


def _jpeg_segment(page: TiffPage, coded: bytes, name: str, max_pixels: int) -> NDArray[Any]:
    tables = page.jpegtables or b""
    samples = page.shaped[4]
    if samples not in (1, 3) or page.photometric == _SEPARATED:
        raise unsupported(name, f"has JPEG data of {samples} channels in TIFF", "save it with LZW")
    if samples == 1 and page.photometric == _YCBCR:
        raise unsupported(name, "has YCbCr planes in JPEG data", "save it with LZW")
    adobe = b""
    if samples == 3:
        # TIFF names the colours in its own tag; without this, libjpeg guesses them.
        transform = 0 if page.photometric == _RGB else 1
        adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])
    stream = b"\xff\xd8" + adobe + tables[2:-2] + coded[2:]
    structure = jpeg_structure(stream, name)
    require_size(name, structure.width, structure.height, max_pixels)
    if len(structure.components) != samples:
        raise damaged(name, f"its JPEG data have {len(structure.components)} channels")
    return decode_jpeg(stream[: structure.end], structure, name)


def _zero_tail(page: TiffPage, picture: NDArray[Any]) -> tuple[str, ...]:
    """Return a warning if the last rows, or those of the last tile, are zero."""
    last = picture[-1]
    if page.is_tiled:
        rows, columns = (
            (size - 1) // side * side
            for size, side in zip(last.shape, (page.tilelength, page.tilewidth), strict=False)
        )
        last = last[rows:, columns:]
    empty = ~last.reshape(last.shape[0], -1).any(axis=1)
    zeros = len(empty) if empty.all() else int(np.argmin(empty[::-1]))
    return zero_tail_warning(zeros, 1, len(empty) + 1) if picture.any() else ()


def _rest(page: TiffPage, data: bytes, ranges: list[tuple[int, int]]) -> tuple[str, ...]:
    """Return a warning of what lies behind all that the only page of a file needs."""
    if page.parent.pages.is_multipage or page.subifds:
        return ()
    tags = [tag.valueoffset + tag.valuebytecount for tag in page.tags]
    # A directory ends with the offset of the next one, of at most 8 bytes.
    directory = page.offset + 16 + 20 * len(page.tags)
    return rest_warning(data[max(directory, *tags, *(stop for _, stop in ranges)) :])
