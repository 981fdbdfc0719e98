"""What a run finds in its folder: results that stay, results that go, and files of the user's."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from zeroflaw.station.picture_search import PictureSearch
from zeroflaw.station.run_log import RECORD_SUFFIX, SHEET_NAME, SUMMARY_NAME, Entry
from zeroflaw_engines.errors import RunFolderError

Existing = Literal["append", "replace", "refuse"]

_MAX_SET_ASIDE: Final = 10_000


@dataclass(frozen=True)
class EarlierResults:
    """The entries of earlier runs, divided by what becomes of them.

    Attributes:
        stay: Those that the new run leaves as they are.
        go: Those whose results are removed: the new run replaces them, or a run that was killed
            left them unfinished, or they are incomplete by now.
        replaced: Those of `go` that had results.
    """

    stay: tuple[Entry, ...]
    go: tuple[Entry, ...]
    replaced: tuple[Entry, ...]


def divide_earlier(
    folder: Path, entries: Iterable[Entry], search: PictureSearch, existing: Existing
) -> EarlierResults:
    """Decide what becomes of the results of earlier runs.

    Args:
        search: The pictures of the new run. It replaces the results of the same pictures, and of
            pictures of the same name below the folders searched, for their results have one name.
        existing: `append`, `replace` or `refuse`.

    Raises:
        RunFolderError: There are results, and they are refused.
    """
    sources = {source_of(picture.path) for picture in search.pictures}
    sources |= {source_of(left_out.path) for left_out in search.left_out}
    names = {picture.name.as_posix() for picture in search.pictures}
    stay, go, replaced = [], [], []
    for entry in entries:
        touched = entry.source in sources or (bool(entry.stem) and entry.name in names)
        if not _is_there(folder, entry):
            go.append(entry)
        elif existing == "append" and not touched:
            stay.append(entry)
        else:
            go.append(entry)
            if entry.outcome != "left_out":
                replaced.append(entry)
    if existing == "refuse" and replaced:
        raise RunFolderError(
            f"{folder} holds the results of {len(replaced)} files already",
            "choose another --out, or give --existing append or --existing replace",
        )
    return EarlierResults(tuple(stay), tuple(go), tuple(replaced))


def remove_results(folder: Path, entry: Entry) -> None:
    """Remove the results of an entry, the record first, and the folders that are empty then.

    Nothing is removed through a link below the folder.
    """
    parents = [folder / parent for parent in Path(entry.stem).parents if parent.parts]
    if any(parent.is_symlink() for parent in parents):
        return
    for name in reversed(entry.files()):
        with suppress(FileNotFoundError, NotADirectoryError):
            (folder / name).unlink()
    for parent in parents:
        try:
            parent.rmdir()
        except OSError:
            break


def set_aside(folder: Path) -> list[Path]:
    """Rename what bears the names of our page and summary though no run wrote it.

    Returns:
        The new paths.

    Raises:
        OSError: It cannot be renamed.
    """
    renamed = []
    for name in (SHEET_NAME, SUMMARY_NAME):
        path = folder / name
        if path.is_file() or path.is_symlink():
            numbers = range(1, _MAX_SET_ASIDE)
            free = (path.with_name(f"{path.stem}.before-{n}{path.suffix}") for n in numbers)
            renamed.append(path.rename(next(one for one in free if not os.path.lexists(one))))
    return renamed


def source_of(path: Path) -> str:
    """Say where a file lies, absolute, without links in its folders; a link keeps its own name."""
    return os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118 - `..` stays text


def _is_there(folder: Path, entry: Entry) -> bool:
    """Return whether an entry is still true: its record is there, or what was left out."""
    if not entry.outcome:
        return False
    if entry.outcome == "left_out":
        return bool(entry.row) and os.path.lexists(entry.source)
    return not entry.stem or (folder / (entry.stem + RECORD_SUFFIX)).is_file()
