"""The record that `zeroflaw inspect` keeps in the folder of its results.

`.zeroflaw-run/log.jsonl` says which files there are results of a run, of which picture, and what
came out: first a line on the log itself, then one line for each picture when its results are
planned, and another when they are there. It is what makes a folder one of results.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from zeroflaw_engines.errors import RunFolderError

SUMMARY_NAME: Final = "summary.csv"
SHEET_NAME: Final = "index.html"
RUN_DIRECTORY: Final = ".zeroflaw-run"
LOG_NAME: Final = "log.jsonl"
PICTURE_SUFFIXES: Final = (".mask.png", ".overlay.png", ".map.png")
# Only of runs that know the truth.
TRUTH_SUFFIX: Final = ".truth.png"
RECORD_SUFFIX: Final = ".json"
RESULT_SUFFIXES: Final = (*PICTURE_SUFFIXES, TRUTH_SUFFIX, RECORD_SUFFIX)

_LOG_VERSION: Final = 1
# How the summary began before runs kept a log.
_UNLOGGED_SUMMARY: Final = ("file", "status", "decision", "image_score")


@dataclass(frozen=True)
class Entry:
    """One picture in a folder of results, or a file that was left out.

    Attributes:
        source: Where the picture lay, absolute.
        name: Its path below the folder that was searched.
        stem: Path of its results below the folder, without their suffixes; empty if it has none.
        outcome: `accept`, `reject`, `hold`, `failed` or `left_out`; empty while its results are
            only planned.
        row: Its row of the summary by column; empty if it has none.
        card: Its part of the page; empty if there is none.
    """

    source: str
    name: str
    stem: str
    outcome: str = ""
    row: dict[str, str] = field(default_factory=dict)
    card: str = ""

    def files(self) -> tuple[str, ...]:
        """Return paths below the folder of every result it may have."""
        return tuple(self.stem + suffix for suffix in RESULT_SUFFIXES) if self.stem else ()


def read_log(folder: Path) -> dict[str, Entry] | None:
    """Return the entries of a folder of results by source, or None if no run ever wrote there.

    Lines that a killed run left unfinished are passed over.

    Raises:
        RunFolderError: The log is of a newer version, or cannot be read.
    """
    log = folder / RUN_DIRECTORY / LOG_NAME
    try:
        # Not Path.is_file, which raises where a folder does not let anyone look into it.
        is_there = os.path.isfile(log)  # noqa: PTH113
        if is_there and not (log.is_symlink() or log.parent.is_symlink()):
            return {entry.source: entry for entry in _entries(log)}
        return _unlogged(folder)
    except OSError as error:
        raise RunFolderError(
            f"{log} cannot be read: {error.strerror}", "check its permissions"
        ) from error


def result_files(folder: Path) -> frozenset[str] | None:
    """Return paths below a folder of everything that runs wrote there; None if none ever did."""
    try:
        entries = read_log(folder)
    except RunFolderError:
        return frozenset()
    if entries is None:
        return None
    own = {SUMMARY_NAME, SHEET_NAME}
    return frozenset(own.union(*(entry.files() for entry in entries.values())))


def log_line(entry: Entry) -> bytes:
    """Return an entry as a line of the log. Names need not be UTF-8, so that it is ASCII."""
    return json.dumps(asdict(entry)).encode("ascii") + b"\n"


def first_line() -> bytes:
    """Return the line that every log begins with."""
    return json.dumps({"zeroflaw_run_log": _LOG_VERSION}).encode("ascii") + b"\n"


def _entries(log: Path) -> Iterator[Entry]:
    with log.open("rb") as file:
        for line in file:
            try:
                values = json.loads(line)
            except ValueError:
                continue
            if not isinstance(values, dict):
                continue
            version = values.get("zeroflaw_run_log")
            if isinstance(version, int) and version > _LOG_VERSION:
                raise RunFolderError(
                    f"{log.parent.parent} holds results of a newer version of zeroflaw",
                    "choose another --out, or use that version",
                )
            entry = _entry(values)
            if entry is not None:
                yield entry


def _entry(values: dict[str, Any]) -> Entry | None:
    """Return an entry, if the values are one and its results lie inside the folder."""
    try:
        entry = Entry(**values)
    except TypeError:
        return None
    row = entry.row
    texts = (entry.source, entry.name, entry.stem, entry.outcome, entry.card)
    if not (all(isinstance(text, str) for text in texts) and isinstance(row, dict)):
        return None
    return entry if _stays_inside(entry.stem) else None


def _stays_inside(stem: str) -> bool:
    path = PurePosixPath(stem)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in stem


def _unlogged(folder: Path) -> dict[str, Entry] | None:
    """Read a run before there was a log: its summary names everything it wrote."""
    summary = folder / SUMMARY_NAME
    if not os.path.isfile(summary) or summary.is_symlink():  # noqa: PTH113
        return None
    try:
        with summary.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            table = csv.DictReader(file)
            if tuple(table.fieldnames or ())[: len(_UNLOGGED_SUMMARY)] != _UNLOGGED_SUMMARY:
                return None
            rows = [
                {key: value for key, value in row.items() if key and isinstance(value, str)}
                for row in table
            ]
    except csv.Error:
        return None
    found = {}
    for row in rows:
        source = os.path.realpath(row["file"])
        stem = row.get("output") or ""
        if _stays_inside(stem):
            outcome = row.get("decision") or "failed"
            name = stem + PurePosixPath(row["file"]).suffix
            found[source] = Entry(source, name, stem, outcome, row)
    return found
