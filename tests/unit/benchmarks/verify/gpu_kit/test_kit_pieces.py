"""Archives cut and joined again, whatever their sizes and whatever has come of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from zeroflaw_benchmarks.verify.gpu_kit.pieces import (
    CONTENTS,
    Contents,
    collect,
    cut,
    join,
    read_contents,
    write_contents,
)
from zeroflaw_engines.errors import BenchmarkError

RESERVED = 3


def data_of(number: int, size: int) -> bytes:
    """Bytes that differ in every place, so that an order that is wrong shows."""
    return bytes((number * 101 + 7 * place) % 251 for place in range(size))


def made(folder: Path, archives: list[bytes], piece_size: int) -> Contents:
    folder.mkdir(parents=True)
    files = []
    for number, data in enumerate(archives):
        file = folder.parent / f"part_{number}"
        file.write_bytes(data)
        files.append((file.name, file))
    parts = cut(files, folder, piece_size, reserved=RESERVED)
    pieces = max((chunk.piece for part in parts for chunk in part.chunks), default=1)
    return Contents("2026-11-29T00:00:00+00:00", "abc", "3.12", pieces, parts)


def joined(contents: Contents, store: Path, target: Path) -> list[bytes | None]:
    return [target.read_bytes() if join(part, store, target) else None for part in contents.parts]


@pytest.mark.parametrize("piece_size", [4, 5, 8, 9, 10, 11, 40])
def test_what_is_joined_is_what_was_cut(tmp_path: Path, piece_size: int) -> None:
    """Two archives of every size about the room of a piece: brute force."""
    room = piece_size - RESERVED
    for first in {0, 1, room - 1, room, room + 1, 2 * room, 2 * room + 1}:
        for second in {0, 1, room, 3 * room - 1}:
            folder = tmp_path / f"{first}_{second}"
            archives = [data_of(1, first), data_of(2, second)]
            contents = made(folder / "kit", archives, piece_size)
            assert collect(contents, folder / "kit", folder / "store") == []
            assert joined(contents, folder / "store", folder / "joined") == archives
            sizes = [
                sum(file.stat().st_size for file in piece.iterdir())
                for piece in (folder / "kit").glob("piece_*")
            ]
            assert all(0 < size <= room for size in sizes)
            assert len(sizes) == -(-(first + second) // room)
            for part, data in zip(contents.parts, archives, strict=True):
                assert part.sha256 == hashlib.sha256(data).hexdigest()


def test_pieces_that_hold_nothing_beside_the_kit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"12")
    with pytest.raises(BenchmarkError, match="hold nothing"):
        cut([("part", tmp_path / "part")], tmp_path / "kit", RESERVED, reserved=RESERVED)


def test_pieces_come_one_by_one(tmp_path: Path) -> None:
    """A piece may be gone when the next one comes."""
    archives = [data_of(1, 25), data_of(2, 17)]
    contents = made(tmp_path / "kit", archives, 10 + RESERVED)
    store, here = tmp_path / "store", tmp_path / "here"
    here.mkdir()
    whole = []
    for number in range(1, contents.pieces + 1):
        piece = tmp_path / "kit" / f"piece_{number}"
        piece.rename(here / piece.name)
        missing = collect(contents, here, store)
        assert missing == [
            f"piece_{later} is not here yet" for later in range(number + 1, contents.pieces + 1)
        ]
        whole.append([data is not None for data in joined(contents, store, tmp_path / "joined")])
        (here / piece.name).rename(tmp_path / f"taken_away_{number}")
    assert whole == [[False, False], [False, False], [True, False], [True, False], [True, True]]
    assert joined(contents, store, tmp_path / "joined") == archives


@pytest.mark.parametrize("damage", ["changed", "short", "long"])
def test_a_damaged_chunk_is_named_and_not_taken(tmp_path: Path, damage: str) -> None:
    contents = made(tmp_path / "kit", [data_of(1, 25)], 10 + RESERVED)
    chunk = tmp_path / "kit" / "piece_2" / contents.parts[0].chunks[1].name
    good = chunk.read_bytes()
    chunk.write_bytes(
        {"changed": good[:-1] + bytes([good[-1] ^ 1]), "short": good[:-1], "long": good + b"x"}[
            damage
        ]
    )
    store = tmp_path / "store"
    assert collect(contents, tmp_path / "kit", store) == [f"piece_2 is damaged: {chunk.name}"]
    assert joined(contents, store, tmp_path / "joined") == [None]
    chunk.write_bytes(good)
    assert collect(contents, tmp_path / "kit", store) == []
    assert joined(contents, store, tmp_path / "joined") == [data_of(1, 25)]


def test_a_chunk_of_another_kit_is_replaced(tmp_path: Path) -> None:
    contents = made(tmp_path / "kit", [data_of(1, 25)], 10 + RESERVED)
    store = tmp_path / "store"
    collect(contents, tmp_path / "kit", store)
    kept = store / contents.parts[0].chunks[0].name
    kept.write_bytes(bytes(kept.stat().st_size))
    assert joined(contents, store, tmp_path / "joined") == [None]
    assert not (tmp_path / "joined").exists()
    assert collect(contents, tmp_path / "kit", store) == []
    assert joined(contents, store, tmp_path / "joined") == [data_of(1, 25)]


def test_the_list_of_contents_is_read_as_it_was_written(tmp_path: Path) -> None:
    contents = made(tmp_path / "kit", [data_of(1, 25), b""], 10 + RESERVED)
    write_contents(contents, tmp_path)
    assert read_contents(tmp_path) == contents
    text = (tmp_path / CONTENTS).read_text()
    for damaged in (text[: len(text) // 2], "[]", "{}", text.replace('"sha256"', '"md5"')):
        (tmp_path / CONTENTS).write_text(damaged)
        with pytest.raises(BenchmarkError, match="cannot be read"):
            read_contents(tmp_path)
