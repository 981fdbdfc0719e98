"""Archives in pieces: cut, collected in any order, and joined to the same bytes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from zeroflaw_benchmarks.verify.gpu_kit.pieces import (
    Contents,
    collect,
    cut,
    digest,
    join,
    read_contents,
    write_contents,
)
from zeroflaw_engines.errors import BenchmarkError

SIZES = {"tree": 700, "site": 1000, "ort": 2301}


@pytest.fixture
def archives(tmp_path: Path) -> list[tuple[str, Path]]:
    rng = random.Random(0)  # noqa: S311 - data, no secret
    made = []
    for name, size in SIZES.items():
        path = tmp_path / f"{name}.tar.xz"
        path.write_bytes(rng.randbytes(size))
        made.append((name, path))
    return made


def kit(archives: list[tuple[str, Path]], folder: Path, size: int, reserved: int = 0) -> Contents:
    parts = cut(archives, folder, size, reserved=reserved)
    pieces = max(chunk.piece for part in parts for chunk in part.chunks)
    contents = Contents("2026-11-29", "abc", "3.12", pieces, parts)
    for number in range(1, pieces + 1):
        write_contents(contents, folder / f"piece_{number}")
    return contents


@pytest.mark.parametrize("size", [1, 700, 701, 1000, 1001, 4000, 4001, 4002, 9999])
def test_pieces_join_to_the_same_bytes(archives, tmp_path: Path, size: int) -> None:
    if size == 1:
        archives = [("tree", archives[0][1])]
    folder, store = tmp_path / "kit", tmp_path / "store"
    contents = kit(archives, folder, size)
    total = sum(path.stat().st_size for _, path in archives)
    assert contents.pieces == -(-total // size)
    for number in range(1, contents.pieces + 1):
        files = [p for p in (folder / f"piece_{number}").iterdir() if p.name != "contents.json"]
        assert 0 < sum(p.stat().st_size for p in files) <= size
    assert read_contents(folder / "piece_1") == contents
    assert collect(contents, folder, store) == []
    for part, (_, path) in zip(contents.parts, archives, strict=True):
        joined = tmp_path / "joined"
        assert join(part, store, joined)
        assert joined.read_bytes() == path.read_bytes()


def test_a_part_of_each_piece_stays_free(archives, tmp_path: Path) -> None:
    contents = kit(archives, tmp_path / "kit", 1000, reserved=200)
    assert max(chunk.size for part in contents.parts for chunk in part.chunks) <= 800
    with pytest.raises(BenchmarkError, match="hold nothing beside 200 bytes"):
        cut(archives, tmp_path / "none", 200, reserved=200)


def test_pieces_may_come_one_by_one(archives, tmp_path: Path) -> None:
    folder, store, arrived = tmp_path / "kit", tmp_path / "store", tmp_path / "arrived"
    contents = kit(archives, folder, 1500)
    arrived.mkdir()
    for number in reversed(range(1, contents.pieces + 1)):
        piece = arrived / f"piece_{number}"
        (folder / f"piece_{number}").rename(piece)
        missing = [f"piece_{n} is not here yet" for n in range(1, number)]
        assert collect(contents, arrived, store) == missing
        (arrived / f"piece_{number}").rename(folder / f"piece_{number}")
    assert all(join(part, store, tmp_path / "joined") for part in contents.parts)


def test_a_damaged_piece_is_named_and_may_come_again(archives, tmp_path: Path) -> None:
    folder, store = tmp_path / "kit", tmp_path / "store"
    contents = kit(archives, folder, 1500)
    chunk = contents.parts[0].chunks[0]
    file = folder / "piece_1" / chunk.name
    whole = file.read_bytes()
    file.write_bytes(b"?" + whole[1:])
    assert collect(contents, folder, store) == [f"piece_1 is damaged: {chunk.name}"]
    assert not join(contents.parts[0], store, tmp_path / "joined")
    file.write_bytes(whole)
    assert collect(contents, folder, store) == []
    assert join(contents.parts[0], store, tmp_path / "joined")


def test_what_was_damaged_in_the_store_is_taken_again(archives, tmp_path: Path) -> None:
    folder, store = tmp_path / "kit", tmp_path / "store"
    contents = kit(archives, folder, 1500)
    collect(contents, folder, store)
    chunk = contents.parts[0].chunks[0]
    (store / chunk.name).write_bytes(bytes(chunk.size))
    assert not join(contents.parts[0], store, tmp_path / "joined")
    assert collect(contents, folder, store) == []
    assert digest(store / chunk.name) == chunk.sha256


@pytest.mark.parametrize("text", [None, "", "{}", "[1]", '{"made": 1, "parts": [{}]}'])
def test_contents_that_cannot_be_read(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "contents.json").write_text(text)
    with pytest.raises(BenchmarkError, match=r"contents\.json cannot be read"):
        read_contents(tmp_path)
