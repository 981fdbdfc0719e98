"""Archives cut into pieces, each small enough for one transfer, and joined again.

Of every chunk and every archive there is a SHA-256, so that what is missing or damaged is named.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from zeroflaw_engines.errors import BenchmarkError

CONTENTS: Final = "contents.json"
_BLOCK: Final = 2**20


@dataclass(frozen=True)
class Chunk:
    """A part of an archive in one piece.

    Attributes:
        piece: Number of the piece, from 1.
        name: Of its file.
        size: Bytes.
        sha256: Of its bytes.
    """

    piece: int
    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Part:
    """An archive, as it lies in the pieces.

    Attributes:
        name: Of the part, as `ort`.
        size: Bytes of the archive.
        sha256: Of the archive.
        chunks: In order.
    """

    name: str
    size: int
    sha256: str
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class Contents:
    """What a kit holds; every piece has a copy.

    Attributes:
        made: UTC time, ISO 8601.
        commit: Of the tree that was packed, and whether it had changes.
        python: Version that the packages are for, as `3.12`.
        pieces: How many there are.
        parts: In the order of their importance.
    """

    made: str
    commit: str
    python: str
    pieces: int
    parts: tuple[Part, ...]


def cut(
    archives: Sequence[tuple[str, Path]], folder: Path, piece_size: int, *, reserved: int = 0
) -> tuple[Part, ...]:
    """Cut archives into `folder/piece_1`, `folder/piece_2` and so on, one after the other.

    Args:
        archives: Names of the parts, and their files.
        folder: Is made; holds nothing else.
        piece_size: Most bytes of a piece.
        reserved: Bytes of each piece that are left free for other files.

    Raises:
        BenchmarkError: The pieces would be too small for anything.
    """
    room = piece_size - reserved
    if room < 1:
        raise BenchmarkError(
            f"pieces of {piece_size} bytes hold nothing beside {reserved} bytes of the kit itself",
            "allow larger pieces",
        )
    piece, left, parts = 1, room, []
    for name, archive in archives:
        chunks = []
        with archive.open("rb") as source:
            while data := source.read(left):
                file = f"{name}.{len(chunks):02d}"
                target = folder / f"piece_{piece}"
                target.mkdir(parents=True, exist_ok=True)
                (target / file).write_bytes(data)
                chunks.append(Chunk(piece, file, len(data), hashlib.sha256(data).hexdigest()))
                left -= len(data)
                if not left:
                    piece, left = piece + 1, room
        parts.append(Part(name, archive.stat().st_size, digest(archive), tuple(chunks)))
    return tuple(parts)


def write_contents(contents: Contents, folder: Path) -> None:
    """Write what a kit holds into a piece."""
    (folder / CONTENTS).write_text(json.dumps(asdict(contents), indent=1) + "\n", encoding="utf-8")


def read_contents(folder: Path) -> Contents:
    """Read what a kit holds from one of its pieces.

    Raises:
        BenchmarkError: There is no such file, or it is damaged.
    """
    path = folder / CONTENTS
    try:
        read = json.loads(path.read_text("utf-8"))
        parts = tuple(
            Part(**{**part, "chunks": tuple(Chunk(**chunk) for chunk in part["chunks"])})
            for part in read.pop("parts")
        )
        return Contents(**read, parts=parts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchmarkError(
            f"{path} cannot be read: {error}", "copy the piece again, all files of it"
        ) from error


def collect(contents: Contents, source: Path, store: Path) -> list[str]:
    """Copy the chunks that have arrived to where earlier ones are.

    Args:
        source: Folder of the pieces that are here now.
        store: Folder of the chunks; they stay for later calls.

    Returns:
        The names of the pieces that are missing or damaged, and why.
    """
    store.mkdir(parents=True, exist_ok=True)
    faults: dict[str, str] = {}
    for part in contents.parts:
        for chunk in part.chunks:
            kept, piece = store / chunk.name, f"piece_{chunk.piece}"
            if kept.is_file() and kept.stat().st_size == chunk.size:
                if digest(kept) == chunk.sha256:
                    continue
                kept.unlink()  # of another kit, or damaged
            arrived = source / piece / chunk.name
            if not arrived.is_file():
                faults.setdefault(piece, f"{piece} is not here yet")
            elif arrived.stat().st_size != chunk.size or digest(arrived) != chunk.sha256:
                faults[piece] = f"{piece} is damaged: {chunk.name}"
            else:
                shutil.copyfile(arrived, kept)
    return list(faults.values())


def join(part: Part, store: Path, target: Path) -> bool:
    """Join the chunks of an archive; say whether all were there and it is whole."""
    files = [store / chunk.name for chunk in part.chunks]
    if not all(file.is_file() for file in files):
        return False
    with target.open("wb") as joined:
        for file in files:
            with file.open("rb") as chunk:
                shutil.copyfileobj(chunk, joined, _BLOCK)
    if digest(target) == part.sha256:
        return True
    target.unlink()
    return False


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
