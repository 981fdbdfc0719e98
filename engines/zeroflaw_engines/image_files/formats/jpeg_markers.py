"""The structure of a JPEG file: what libjpeg does not complain about but that damage leaves.

libjpeg decodes without a warning where whole scans are missing, and where zero bytes replaced
coded data that happened to hold as many blocks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from zeroflaw_engines.image_files.refusals import damaged
from zeroflaw_engines.image_files.zero_runs import has_zero_run

SEQUENTIAL: Final = frozenset({0xC0, 0xC1})
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE: Final = 0xC2
_LOSSLESS: Final = 0xC3
# In coded data, 0xFF is followed by 0 (a value) or 0xD0 to 0xD7 (a restart); all else ends it.
_END_OF_CODED: Final = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")


@dataclass
class JpegStructure:
    """What the markers of a JPEG file say.

    Attributes:
        process: Marker of its frame, 0xC0 to 0xCF.
        precision: Bits of a sample.
        width: In px.
        height: In px; 0 where the file leaves it to a marker after the first scan.
        components: Their numbers, in order.
        adobe: Whether there is an Adobe marker, which says how CMYK is meant.
        exif: EXIF data, if any.
        end: Offset just after the end marker.
        first_codes: The symbol of the all-zero code of each Huffman table, by its class (0 for
            means, 1 for the other coefficients) and number.
        missing_bits: For each component and coefficient the low bits that no scan has brought.
    """

    process: int = 0
    precision: int = 0
    width: int = 0
    height: int = 0
    components: tuple[int, ...] = ()
    adobe: bool = False
    exif: bytes | None = None
    end: int = 0
    first_codes: dict[tuple[int, int], int] = field(default_factory=dict)
    missing_bits: dict[int, list[int]] = field(default_factory=dict)


def jpeg_structure(data: bytes, name: str) -> JpegStructure:
    """Walk through the markers of a JPEG file and check that every scan is there.

    Args:
        data: The file, from its start marker on.

    Raises:
        ImageFileError: The file is cut, has bytes between its segments, lacks scans, or has zero
            bytes in its coded data that no encoder writes.
    """
    found = JpegStructure()
    at = 2
    while True:
        marker, at = _next_marker(data, at, name)
        if marker == 0xD9:
            break
        length = int.from_bytes(data[at : at + 2], "big")
        body = data[at + 2 : at + length]
        if length < 2 or at + length > len(data):
            raise damaged(name, "a segment reaches beyond the end of the file")
        at += length
        try:
            _take_segment(found, marker, body)
        except (IndexError, KeyError) as error:
            raise damaged(name, f"its segment {marker:#x} is not whole") from error
        if marker == 0xDA:
            end = _END_OF_CODED.search(data, at)
            if end is None:
                raise damaged(name, "it ends before its end marker")
            if _zeros_are_damage(found, body) and has_zero_run(data, at, end.start()):
                raise damaged(name, "a block of its data was lost: there are only zeros")
            at = end.start()
    found.end = at
    if not found.components:
        raise damaged(name, "it holds no picture")
    if any(any(bits) for bits in found.missing_bits.values()):
        raise damaged(name, "some of its scans are missing")
    return found


def _next_marker(data: bytes, at: int, name: str) -> tuple[int, int]:
    """Find the next marker, which any number of 0xFF may fill up, and the offset after it."""
    if at < len(data) and data[at] != 0xFF:
        raise damaged(name, f"there are bytes between its segments, at offset {at}")
    while at + 1 < len(data) and data[at + 1] == 0xFF:
        at += 1
    if at + 2 > len(data):
        raise damaged(name, "it ends before its end marker")
    return data[at + 1], at + 2


def _take_segment(found: JpegStructure, marker: int, body: bytes) -> None:
    if marker in _FRAMES:
        found.process = marker
        found.precision = body[0]
        found.height = int.from_bytes(body[1:3], "big")
        found.width = int.from_bytes(body[3:5], "big")
        found.components = tuple(body[6 + 3 * n] for n in range(body[5]))
        # One bit is missing where a coefficient was never sent: see _take_scan.
        coefficients = 1 if marker == _LOSSLESS else 64
        found.missing_bits = {number: [1] * coefficients for number in found.components}
    elif marker == 0xC4:
        _take_huffman_tables(found, body)
    elif marker == 0xDA:
        _take_scan(found, body)
    elif marker == 0xEE and body.startswith(b"Adobe"):
        found.adobe = True
    elif marker == 0xE1 and body.startswith(b"Exif\0\0") and found.exif is None:
        found.exif = body


def _take_huffman_tables(found: JpegStructure, body: bytes) -> None:
    at = 0
    while at < len(body):
        symbols = sum(body[at + 1 : at + 17])
        # The first symbol has the shortest code, and that one is all zeros.
        found.first_codes[body[at] >> 4, body[at] & 15] = body[at + 17] if symbols else -1
        at += 17 + symbols


def _take_scan(found: JpegStructure, body: bytes) -> None:
    count = body[0]
    first, last, low_bit = body[1 + 2 * count], body[2 + 2 * count], body[3 + 2 * count] & 15
    for n in range(count):
        bits = found.missing_bits[body[1 + 2 * n]]
        if len(bits) == 1:
            bits[0] = 0
        elif found.process in SEQUENTIAL:
            bits[:] = [0] * 64
        else:
            bits[first : last + 1] = [low_bit] * (last + 1 - first)


def _zeros_are_damage(found: JpegStructure, scan: bytes) -> bool:
    """Return whether no encoder writes long runs of zero bytes in a scan.

    With tables made for a picture, zero bits may mean flat blocks: no change of the mean, and the
    end of the block. With any other meaning of zero bits, a run of them is no picture.
    """
    if found.process not in SEQUENTIAL | {_PROGRESSIVE}:
        return False
    has_means, has_rest = scan[1 + 2 * scan[0]] == 0, scan[2 + 2 * scan[0]] > 0
    refines = scan[3 + 2 * scan[0]] >> 4 > 0
    for selectors in (scan[2 + 2 * n] for n in range(scan[0])):
        mean = found.first_codes.get((0, selectors >> 4))
        rest = found.first_codes.get((1, selectors & 15), -1)
        if has_means and not refines and mean != 0:
            return True
        # Progressive files have an end for several blocks, too: 0x10, 0x20, to 0xE0.
        ends = rest == 0 if found.process in SEQUENTIAL else rest & 15 == 0 and rest < 0xF0
        if has_rest and not ends:
            return True
    return False
