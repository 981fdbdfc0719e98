"""The program that travels: made of a checkout, it runs on Python alone."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from zeroflaw_benchmarks.verify.gpu_kit.fatbin_keep import keep_architecture
from zeroflaw_benchmarks.verify.gpu_kit.pack import PackOptions, compress, pack
from zeroflaw_benchmarks.verify.gpu_kit.pieces import read_contents
from zeroflaw_engines.errors import BenchmarkError

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kit") / "kit"
    pack(folder, PackOptions(parts=("tree",), python=HERE, preset=0, piece_size=8 * 2**20))
    return folder


def run(kit: Path, *words: str, where: Path) -> subprocess.CompletedProcess[str]:
    # -I: nothing but Python's own library and the program itself.
    program = kit / "piece_1" / "gpu_kit.pyz"
    return subprocess.run(
        [sys.executable, "-I", program, "--pieces", kit, *words],
        capture_output=True, text=True, cwd=where, check=False, env={"PATH": ""},
    )  # fmt: skip


def test_every_piece_is_within_its_size(kit: Path) -> None:
    contents = read_contents(kit / "piece_1")
    assert contents.pieces == len(list(kit.iterdir())) > 1
    for piece in kit.iterdir():
        assert sum(file.stat().st_size for file in piece.iterdir()) <= 8 * 2**20
        assert read_contents(piece) == contents


def test_without_a_gpu_or_the_packages_it_says_so(kit: Path, tmp_path: Path) -> None:
    no_gpu = run(kit, where=tmp_path)
    assert (no_gpu.returncode, "no NVIDIA GPU answers" in no_gpu.stderr) == (1, True)
    no_site = run(kit, "--dry-run", where=tmp_path)
    assert (no_site.returncode, "packages are not here yet" in no_site.stderr) == (1, True)
    assert (tmp_path / "zeroflaw_gpu_kit/parts/tree/engines/zeroflaw_engines/errors.py").is_file()


def test_pieces_of_another_python_are_refused(kit: Path, tmp_path: Path) -> None:
    other = tmp_path / "kit"
    (other / "piece_1").mkdir(parents=True)
    text = (kit / "piece_1" / "contents.json").read_text()
    (other / "piece_1" / "contents.json").write_text(text.replace(f'"{HERE}"', '"3.99"'))
    done = run(kit, "--pieces", str(other), where=tmp_path)
    assert (done.returncode, "the kit is for Python 3.99" in done.stderr) == (1, True)


def test_a_folder_that_is_not_empty_is_refused(kit: Path) -> None:
    with pytest.raises(BenchmarkError, match="is not empty"):
        pack(kit, PackOptions(parts=("tree",)))


def test_the_same_files_give_the_same_archive(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    (source / "folder" / "a").write_bytes(b"a" * 999)
    compress(source, tmp_path / "first", 1)
    (source / "folder" / "a").touch()
    compress(source, tmp_path / "second", 1)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def fat_library(*programs: tuple[int, int, bytes]) -> bytes:
    """A library whose only section is a fat binary of (kind, architecture, code)."""
    entries = b"".join(
        struct.pack("<HHIQ", kind, 0x101, 64, len(code))
        + struct.pack("<IIII", 0, 0, 0, architecture) + bytes(32) + code
        for kind, architecture, code in programs
    )  # fmt: skip
    fat = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(entries)) + entries
    names = b"\0.nv_fatbin\0.shstrtab\0"
    headers_at = 64 + len(fat) + len(names)
    elf = bytearray(b"\x7fELF\x02" + bytes(59))
    struct.pack_into("<Q", elf, 40, headers_at)
    struct.pack_into("<HHH", elf, 58, 64, 3, 2)

    def header(name: int, begin: int, size: int) -> bytes:
        return struct.pack("<IIQQQQ", name, 1, 0, 0, begin, size).ljust(64, b"\0")

    sections = header(0, 0, 0) + header(1, 64, len(fat)) + header(12, 64 + len(fat), len(names))
    return bytes(elf) + fat + names + sections


def test_device_code_of_other_architectures_is_set_to_zero(tmp_path: Path) -> None:
    library, target = tmp_path / "lib.so", tmp_path / "slim.so"
    library.write_bytes(fat_library((2, 80, b"A" * 40), (2, 90, b"B" * 56), (1, 90, b"P" * 24)))
    assert keep_architecture(library, target, 90) == 40 + 24
    slim = target.read_bytes()
    assert len(slim) == library.stat().st_size
    assert (b"A" * 4 in slim, b"P" * 4 in slim, b"B" * 56 in slim) == (False, False, True)
    with pytest.raises(BenchmarkError, match="no device code of sm_75"):
        keep_architecture(library, target, 75)
    library.write_bytes(b"no library")
    with pytest.raises(BenchmarkError, match="is no ELF library"):
        keep_architecture(library, target, 90)
