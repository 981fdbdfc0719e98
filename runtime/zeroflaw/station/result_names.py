"""Where the results of each picture go: names that stay in their folder and never collide."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Final

from zeroflaw.station.run_log import RESULT_SUFFIXES, RUN_DIRECTORY, SHEET_NAME, SUMMARY_NAME

_DIGEST_DIGITS: Final = 12
_USUAL_NAME_BYTES: Final = 255


def result_stems(names: Sequence[PurePath], folder: Path, kept: Iterable[str]) -> list[str]:
    """Return a stem for the results of each picture, below the folder of the results.

    It is the picture's path without its suffix, unless a result of that name would be one of
    another picture, the run's own page or summary, or a file that is there already; also on
    disks that do not tell `A` from `a` or `ü` in one character from `ü` in two. Then the suffix
    is kept (`part_jpg`), and then numbers are added. Names too long for the disk are cut, with a
    digest. A folder below the results that is a link is passed over, for it may lead elsewhere.

    Args:
        names: Paths of the pictures below the folders that were searched, with their suffixes.
        folder: The folder of the results; it exists.
        kept: Stems of results that stay there.

    Returns:
        Stems in the order of the names, with `/` between folders, none of them twice.
    """
    names_taken = _TakenNames(folder)
    for stem in kept:
        names_taken.claim(stem)
    return [names_taken.stem_for(name) for name in names]


class _TakenNames:
    """The names in a folder of results that a further result may not have."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = {_key(name) for name in (SHEET_NAME, SUMMARY_NAME, RUN_DIRECTORY)}
        self._parents: set[str] = set()
        self._parent_of: dict[PurePath, str] = {}
        longest = max(len(suffix) for suffix in RESULT_SUFFIXES)
        self._name_bytes = _name_bytes(folder) - longest

    def claim(self, stem: str) -> None:
        """Take the names of the results of a stem, and of the folders they lie in."""
        self._files.update(_key(stem + suffix) for suffix in RESULT_SUFFIXES)
        # By hand, since a path drops a last part that is a single dot.
        while stem := stem.rpartition("/")[0]:
            self._parents.add(_key(stem))

    def stem_for(self, name: PurePath) -> str:
        """Find a stem that is free, and take it."""
        parent = self._parent(name.parent)
        for base in _bases(name.name):
            short = _shortened(base, self._name_bytes, of=name.as_posix())
            stem = f"{parent}/{short}" if parent else short
            if self._is_free(stem):
                self.claim(stem)
                return stem
        raise AssertionError("numbers never end")

    def _is_free(self, stem: str) -> bool:
        return all(
            _key(file) not in self._files
            and _key(file) not in self._parents
            and not os.path.lexists(self._folder / file)
            for file in (stem + suffix for suffix in RESULT_SUFFIXES)
        )

    def _parent(self, parent: PurePath) -> str:
        """Return the folder for the results of the pictures of a folder; empty for the top."""
        if parent not in self._parent_of:
            path = ""
            for part in parent.parts:
                above = f"{path}/" if path else ""
                path = next(
                    above + name for name in _numbered(part) if self._may_hold(above + name)
                )
            self._parent_of[parent] = path
        return self._parent_of[parent]

    def _may_hold(self, path: str) -> bool:
        """Return whether results may lie in a folder: it is or can become one, and is no link."""
        there = self._folder / path
        # These functions of os.path take a path that is too long for one that is not there.
        is_folder = os.path.isdir(there) and not os.path.islink(there)  # noqa: PTH112, PTH114
        return _key(path) not in self._files and (is_folder or not os.path.lexists(there))


def _bases(name: str) -> Iterator[str]:
    """Return names for the results of a picture, without suffix, the best one first."""
    stem = PurePosixPath(name).stem
    yield stem
    yield name.replace(".", "_")
    numbered = _numbered(stem)
    next(numbered)
    yield from numbered


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}_{number}"
        number += 1


def _shortened(base: str, limit: int, *, of: str) -> str:
    """Return the name itself if the disk can take it; else its beginning and a digest of `of`."""
    if len(os.fsencode(base)) <= limit:
        return base
    digest = hashlib.sha256(os.fsencode(of) + b"\0" + os.fsencode(base)).hexdigest()
    kept = base
    while len(os.fsencode(kept)) > limit - _DIGEST_DIGITS - 1:
        kept = kept[:-1]
    return f"{kept}~{digest[:_DIGEST_DIGITS]}"


def _name_bytes(folder: Path) -> int:
    """Return how long the disk lets a name be."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        return _USUAL_NAME_BYTES


def _key(path: str) -> str:
    """Return what is equal for names that some disk takes for the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
