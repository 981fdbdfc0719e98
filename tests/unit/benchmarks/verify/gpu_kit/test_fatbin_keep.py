"""Device code of one architecture is kept, on fat binaries that are written here by hand.

The layout is that of CUDA's own libraries: a header of 16 bytes (magic, version, its size, the
bytes that follow), then entries (kind, version, size of the header, size of the code; the
architecture at byte 28 of the header).
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from zeroflaw_benchmarks.verify.gpu_kit.fatbin_keep import keep_architecture
from zeroflaw_engines.errors import BenchmarkError

PTX, CUBIN = 1, 2
Program = tuple[int, int, bytes]


def entry(kind: int, architecture: int, code: bytes, header: int = 64) -> bytes:
    fields = struct.pack("<HHIQ", kind, 0x101, header, len(code)).ljust(28, b"\x01")
    return (fields + struct.pack("<I", architecture)).ljust(header, b"\x02") + code


def fat_binary(*programs: Program) -> bytes:
    entries = b"".join(entry(*program) for program in programs)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entries)) + entries


def library(path: Path, **sections: bytes) -> dict[str, int]:
    """Writes an ELF file of 64 bits; returns where its sections begin."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in sections) + b".shstrtab\0"
    body, begins, headers = bytearray(64), {}, [bytes(64)]
    for name, data in (*sections.items(), (".shstrtab", names)):
        begins[name] = len(body)
        at = names.index(b"\0" + name.encode() + b"\0") + 1
        headers.append(struct.pack("<IIQQQQIIQQ", at, 1, 2, 0, len(body), len(data), 0, 0, 8, 0))
        body += data
    struct.pack_into("<4sBB", body, 0, b"\x7fELF", 2, 1)
    struct.pack_into("<Q", body, 40, len(body))
    struct.pack_into("<HHH", body, 58, 64, len(headers), len(headers) - 1)
    path.write_bytes(bytes(body) + b"".join(headers))
    return begins


CODES = {80: b"code of sm_80 " * 9, 90: b"code of sm_90 " * 7, 120: b"code of sm_120" * 5}


def everything() -> bytes:
    return fat_binary(
        *((CUBIN, number, code) for number, code in CODES.items()), (PTX, 90, b"text of sm_90")
    )


def test_only_the_code_of_others_becomes_zeros(tmp_path: Path) -> None:
    lone = fat_binary((CUBIN, 80, b"for sm_80 alone"))
    data = {
        ".text": everything(),  # no device code, though it looks so
        ".nv_fatbin": everything() + bytes(24) + lone + everything(),
        "__nv_relfatbin": everything(),
    }
    begins = library(tmp_path / "all.so", **data)
    zeroed = keep_architecture(tmp_path / "all.so", tmp_path / "kept.so", 90)
    expected = bytearray((tmp_path / "all.so").read_bytes())
    gone = [CODES[80], CODES[120], b"text of sm_90"]
    for section in (".nv_fatbin", "__nv_relfatbin"):
        end = begins[section] + len(data[section])
        for code in gone:
            at = begins[section]
            while (at := expected.find(code, at, end)) >= 0:
                expected[at : at + len(code)] = bytes(len(code))
    assert (tmp_path / "kept.so").read_bytes() == expected
    assert zeroed == 3 * sum(map(len, gone))
    assert b"for sm_80 alone" in expected


def test_a_library_may_be_written_over_itself(tmp_path: Path) -> None:
    library(tmp_path / "all.so", **{".nv_fatbin": everything()})
    size = (tmp_path / "all.so").stat().st_size
    assert keep_architecture(tmp_path / "all.so", tmp_path / "all.so", 120) > 0
    kept = (tmp_path / "all.so").read_bytes()
    assert len(kept) == size
    assert CODES[120] in kept
    assert CODES[90] not in kept


def test_what_has_no_such_code_is_refused(tmp_path: Path) -> None:
    """PTX alone does not count: the driver would compile it at every start."""
    library(tmp_path / "all.so", **{".nv_fatbin": everything() + fat_binary((PTX, 75, b"text"))})
    for architecture in (70, 75):
        with pytest.raises(BenchmarkError, match=f"no device code of sm_{architecture}"):
            keep_architecture(tmp_path / "all.so", tmp_path / "kept.so", architecture)
    assert not (tmp_path / "kept.so").exists()
    (tmp_path / "text").write_bytes(b"no library, though it is long enough for one" * 9)
    with pytest.raises(BenchmarkError, match="no ELF"):
        keep_architecture(tmp_path / "text", tmp_path / "kept.so", 90)
