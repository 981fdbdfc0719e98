"""A CUDA library with the device code of one GPU architecture alone: the rest is set to zero.

Sizes and offsets stay as they are. CUDA takes the entry of a fat binary whose header names the
device's architecture and never reads the others, and zeros compress to nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zeroflaw_engines.errors import BenchmarkError

_ELF: Final = b"\x7fELF"
_SECTIONS: Final = (".nv_fatbin", "__nv_relfatbin")
_MAGIC: Final = struct.pack("<I", 0xBA55ED50)
_PTX, _CUBIN = 1, 2
_LEAST_HEADER: Final = 32


@dataclass(frozen=True)
class _Entry:
    """One program of a fat binary: where its bytes are, and which architecture it is for."""

    begin: int
    end: int
    kind: int
    architecture: int


def keep_architecture(library: Path, target: Path, architecture: int) -> int:
    """Write a library without the device code of other architectures.

    A fat binary that has none of this architecture stays as it is.

    Args:
        architecture: Compute capability without its point, as 90.

    Returns:
        How many bytes were set to zero.

    Raises:
        BenchmarkError: It is no library of 64 bits, or has no device code of the architecture.
    """
    data = bytearray(library.read_bytes())
    zeroed = kept = 0
    for begin, end in _fat_sections(data, library):
        for entries in _fat_binaries(data, begin, end):
            wanted = [e for e in entries if e.kind == _CUBIN and e.architecture == architecture]
            kept += len(wanted)
            for entry in entries if wanted else ():
                if entry not in wanted:
                    data[entry.begin : entry.end] = bytes(entry.end - entry.begin)
                    zeroed += entry.end - entry.begin
    if not kept:
        raise BenchmarkError(
            f"{library.name} has no device code of sm_{architecture}",
            "name an architecture that it is built for",
        )
    target.write_bytes(data)
    return zeroed


def _fat_sections(data: bytearray, library: Path) -> Iterator[tuple[int, int]]:
    if data[:4] != _ELF or data[4] != 2:
        raise BenchmarkError(f"{library.name} is no ELF library of 64 bits", "name a .so of Linux")
    (offset,) = struct.unpack_from("<Q", data, 40)
    size, count, names_at = struct.unpack_from("<HHH", data, 58)
    headers = [struct.unpack_from("<IIQQQQ", data, offset + n * size) for n in range(count)]
    names = headers[names_at][4]
    for name, _, _, _, begin, length in headers:
        text = data[names + name : data.index(0, names + name)].decode("ascii", "replace")
        if text in _SECTIONS:
            yield begin, begin + length


def _fat_binaries(data: bytearray, begin: int, end: int) -> Iterator[list[_Entry]]:
    at = begin
    while (at := data.find(_MAGIC, at, end)) >= 0:
        header, length = struct.unpack_from("<HQ", data, at + 6)
        stop = at + header + length
        yield list(_entries(data, at + header, min(stop, end)))
        at = stop if at + 16 < stop <= end else at + 4


def _entries(data: bytearray, at: int, stop: int) -> Iterator[_Entry]:
    while at + _LEAST_HEADER <= stop:
        kind, _, header, size = struct.unpack_from("<HHIQ", data, at)
        (architecture,) = struct.unpack_from("<I", data, at + 28)
        end = at + header + size
        if kind not in {_PTX, _CUBIN} or header < _LEAST_HEADER or end > stop:
            return
        yield _Entry(at + header, end, kind, architecture)
        at = end
