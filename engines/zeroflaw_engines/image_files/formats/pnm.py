"""The PNM family: PBM, PGM, PPM and PFM. Other readers scale their values; this one does not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines.image_files.picture import Picture
from zeroflaw_engines.image_files.refusals import damaged, require_size, several_pictures
from zeroflaw_engines.image_files.zero_runs import (
    rest_warning,
    trailing_zeros,
    zero_tail_warning,
)

# Between two words of a header there is white space, in which comments may stand.
_GAP: Final = rb"(?:[ \t\r\n\v\f]|#[^\r\n]*[\r\n])+"
_WORD: Final = rb"([^ \t\r\n\v\f#]+)"
_BITMAP: Final = re.compile(rb"P([14])" + (_GAP + _WORD) * 2 + rb"[ \t\r\n\v\f]")
_PIXMAP: Final = re.compile(rb"P([2356fF])" + (_GAP + _WORD) * 3 + rb"(?:\r\n|[ \t\r\n\v\f])")
_PLAIN: Final = frozenset({b"1", b"2", b"3"})
_NEXT_PICTURE: Final = re.compile(rb"\s*P[1-6fF]\s")


@dataclass(frozen=True)
class _Header:
    kind: bytes
    width: int
    height: int
    scale: float
    end: int

    @property
    def channels(self) -> int:
        return 3 if self.kind in (b"3", b"6", b"F") else 1


def read_pnm(data: bytes, name: str, max_pixels: int) -> Picture:
    """Read a PBM, PGM, PPM or PFM file, in binary or plain form.

    Returns:
        uint8, uint16 or float32, grey [H, W] or RGB [H, W, 3], values as stored; PBM as 0 and
        255. The white level is the file's largest value.

    Raises:
        ImageFileError: The file is damaged, too short, too large, or has several pictures.
    """
    header = _header(data, name)
    require_size(name, header.width, header.height, max_pixels)
    body = data[header.end :]
    if header.kind in _PLAIN:
        return _plain(body, header, name)
    if header.kind == b"4":
        return _bitmap(body, header, name)
    if header.kind in (b"f", b"F"):
        kind: np.dtype[Any] = np.dtype("<f4" if header.scale < 0 else ">f4")
    else:
        kind = np.dtype(">u2" if header.scale > 255 else "u1")
    row_bytes = header.width * header.channels * kind.itemsize
    stored, warnings = _stored(body, row_bytes, header, name)
    values = np.frombuffer(stored, kind).astype(kind.newbyteorder("="))
    if header.kind in (b"f", b"F"):
        # PFM counts its rows from below.
        return Picture(np.ascontiguousarray(_shaped(values, header)[::-1]), warnings=warnings)
    return _with_white(_shaped(values, header), header, warnings, name)


def _header(data: bytes, name: str) -> _Header:
    found = (_BITMAP if data[1:2] in (b"1", b"4") else _PIXMAP).match(data)
    if found is None:
        raise damaged(name, "its header is cut or no header")
    kind, *words = found.groups()
    try:
        width, height = int(words[0]), int(words[1])
        scale = float(words[2]) if kind in (b"f", b"F") else int((*words, b"1")[2])
    except ValueError as error:
        raise damaged(name, "its header has words that are no numbers") from error
    if kind not in (b"f", b"F") and not 0 < scale < 65536:
        raise damaged(name, f"its largest value is {scale}")
    # After PFM's scale and after a binary header comes exactly one white space.
    end = found.end()
    if found[0].endswith(b"\r\n") and kind not in _PLAIN and kind not in (b"f", b"F"):
        end -= 1
    return _Header(kind, width, height, scale, end)


def _stored(
    body: bytes, row_bytes: int, header: _Header, name: str
) -> tuple[bytes, tuple[str, ...]]:
    """Return the bytes of the pixels, and warnings."""
    needed = row_bytes * header.height
    stored, rest = body[:needed], body[needed:]
    if len(stored) < needed:
        raise damaged(name, f"it has {len(stored)} bytes of pixels, not {needed}")
    if _NEXT_PICTURE.match(rest):
        raise several_pictures(name, 2)
    tail = zero_tail_warning(trailing_zeros(stored), row_bytes, needed)
    return stored, (*tail, *rest_warning(rest.strip()))


def _bitmap(body: bytes, header: _Header, name: str) -> Picture:
    row_bytes = (header.width + 7) // 8
    stored, warnings = _stored(body, row_bytes, header, name)
    rows = np.frombuffer(stored, np.uint8).reshape(header.height, row_bytes)
    ink = np.unpackbits(rows, axis=1, count=header.width)
    return Picture((1 - ink) * np.uint8(255), warnings=warnings)


def _plain(body: bytes, header: _Header, name: str) -> Picture:
    text = re.sub(rb"#[^\r\n]*", b"", body)
    needed = header.width * header.height * header.channels
    if header.kind == b"1":
        words: list[Any] = re.findall(rb"\S", text)
    else:
        words = text.split()
    if len(words) < needed:
        raise damaged(name, f"it has {len(words)} values, not {needed}")
    if any(word.startswith(b"P") for word in words[needed : needed + 1]):
        raise several_pictures(name, 2)
    if len(words) > needed:
        raise damaged(name, f"it has {len(words)} values, not {needed}")
    try:
        values = np.array(words, dtype=np.int64)
    except ValueError as error:
        raise damaged(name, "it has words among its pixels that are no numbers") from error
    if values.min() < 0 or values.max() > header.scale:
        raise damaged(name, f"it has values outside 0 to its largest, {header.scale:g}")
    if header.kind == b"1":
        return Picture(_shaped((1 - values).astype(np.uint8) * np.uint8(255), header))
    kind = np.uint16 if header.scale > 255 else np.uint8
    return _with_white(_shaped(values.astype(kind), header), header, (), name)


def _shaped(values: NDArray[Any], header: _Header) -> NDArray[Any]:
    shape = (header.height, header.width, header.channels)
    return values.reshape(shape if header.channels == 3 else shape[:2])


def _with_white(
    pixels: NDArray[Any], header: _Header, warnings: tuple[str, ...], name: str
) -> Picture:
    if int(pixels.max()) > header.scale:
        raise damaged(name, f"it has values above its largest, {header.scale:g}")
    return Picture(pixels, white_level=float(header.scale), warnings=warnings)
