"""The folder that one run of `zeroflaw inspect` owns: whole results, or none of them.

Every file appears under its name at once and complete: it is written elsewhere, brought to the
disk and renamed. What the run is going to replace is gone before the first picture is read, and
a picture's record comes after its pictures, so that a run which dies at any moment leaves neither
an earlier decision nor a record without its pictures.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from PIL import Image

from zeroflaw.station.earlier_results import (
    EarlierResults,
    Existing,
    divide_earlier,
    remove_results,
    set_aside,
    source_of,
)
from zeroflaw.station.interrupts import interrupts_deferred
from zeroflaw.station.picture_search import LeftOut, Picture, PictureSearch
from zeroflaw.station.result_names import result_stems
from zeroflaw.station.run_log import (
    LOG_NAME,
    RECORD_SUFFIX,
    RUN_DIRECTORY,
    SHEET_NAME,
    SUMMARY_NAME,
    Entry,
    first_line,
    log_line,
    read_log,
)
from zeroflaw_engines.errors import ResultsError, RunFolderError
from zeroflaw_engines.files import disk_errors_named, replace_durably, write_durably

RunState = Literal["under way", "interrupted", "done"]

# Page and summary are written anew as soon as that took a twentieth of the time since the last.
_REST_FOR_WRITING: Final = 20
_REMEDY: Final = "choose another --out, or free space on its disk"
_PART: Final = ".part"


@dataclass(frozen=True)
class Job:
    """One picture of a run.

    Attributes:
        entry: Its line in the log, as it was planned.
    """

    picture: Picture
    entry: Entry


@dataclass(frozen=True)
class Results:
    """What a folder of results holds at one moment, for its page and summary.

    Attributes:
        state: Of the run; `under way` also after it was killed.
        planned: How many pictures the run has.
        entries: Of this run, in order, those that were left out last.
        earlier: Of earlier runs.
    """

    state: RunState
    planned: int
    entries: tuple[Entry, ...]
    earlier: tuple[Entry, ...]


Publish = Callable[[Results], Mapping[str, bytes]]


class RunFolder:
    """A folder of results while a run writes it; see `open_run_folder`, which makes it.

    Attributes:
        jobs: The pictures of the run, with the names of their results.
        earlier: What became of the results of earlier runs.
        set_aside: Files of the user's that had the names of page or summary, as they are called
            now.
    """

    def __init__(
        self, path: Path, search: PictureSearch, publish: Publish, existing: Existing
    ) -> None:
        self.path = path
        self._state = path / RUN_DIRECTORY
        self._publish = publish
        self._planned = len(search.pictures)
        self._entries: list[Entry] = []
        self._left_out: list[Entry] = []
        self._remove_parts()
        before = read_log(path)
        self.earlier = divide_earlier(path, (before or {}).values(), search, existing)
        self.set_aside = set_aside(path) if before is None else []
        self._let_go()
        self.jobs = _jobs(path, search, self.earlier)
        self._write_log(job.entry for job in self.jobs)
        self.publish("under way")
        self._log = (self._state / LOG_NAME).open("ab")

    def leave_out(self, left_out: LeftOut, row: Mapping[str, str], card: str) -> None:
        """Note a file that the run leaves out."""
        source = source_of(left_out.path)
        entry = Entry(source, left_out.path.name, "", "left_out", dict(row), card)
        self._left_out.append(entry)
        self._append(entry)

    def store(
        self,
        job: Job,
        *,
        pictures: Mapping[str, NDArray[np.uint8]],
        record: bytes,
        outcome: str,
        row: Mapping[str, str],
        card: str,
    ) -> None:
        """Write the results of a picture, all of them or none, and note what came out.

        Args:
            pictures: uint8 [H, W] or [H, W, 3] RGB, by the suffix of their file.

        Raises:
            ResultsError: The disk is full, or does not take the name; none of the results is
                there, and nothing is noted.
            RunFolderError: Log, page or summary cannot be written.
        """
        with interrupts_deferred():
            try:
                with disk_errors_named(self.path, ResultsError, _REMEDY):
                    self._write(job.entry.stem, pictures, record)
            except ResultsError:
                remove_results(self.path, job.entry)
                self._remove_parts()
                raise
            self._note(replace(job.entry, outcome=outcome, row=dict(row), card=card))

    def store_nothing(self, job: Job, *, outcome: str, row: Mapping[str, str], card: str) -> None:
        """Note what became of a picture whose results cannot be written."""
        with interrupts_deferred():
            self._note(replace(job.entry, stem="", outcome=outcome, row=dict(row), card=card))

    def publish(self, state: RunState) -> None:
        """Write page and summary of what is there."""
        begun = time.monotonic()
        entries = (*self._entries, *self._left_out)
        results = Results(state, self._planned, entries, self.earlier.stay)
        with disk_errors_named(self.path, RunFolderError, _REMEDY), interrupts_deferred():
            for name, data in self._publish(results).items():
                replace_durably(self.path / name, data, self._state / (name + _PART))
        self._published_at = time.monotonic()
        self._publishing_took = self._published_at - begun

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def _let_go(self) -> None:
        """Remove earlier results, after log, page and summary have ceased to name them."""
        try:
            self._write_log(replace(entry, outcome="") for entry in self.earlier.go)
            self.publish("under way")
        except (OSError, RunFolderError):
            # On a full disk it must go without them; what is removed then makes room.
            for name in (SHEET_NAME, SUMMARY_NAME):
                (self.path / name).unlink(missing_ok=True)
        for entry in self.earlier.go:
            remove_results(self.path, entry)

    def _remove_parts(self) -> None:
        """Remove files that were never finished; they take space that a full disk lacks."""
        for part in self._state.glob(f"*{_PART}"):
            part.unlink()

    def _note(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._append(entry)
        if time.monotonic() - self._published_at >= _REST_FOR_WRITING * self._publishing_took:
            self.publish("under way")

    def _append(self, entry: Entry) -> None:
        with disk_errors_named(self.path, RunFolderError, _REMEDY):
            self._log.write(log_line(entry))
            self._log.flush()
            os.fsync(self._log.fileno())

    def _write_log(self, planned: Iterable[Entry]) -> None:
        """Write the log anew: the results that stay, and those that there may be from now on."""
        lines = (log_line(entry) for entry in (*self.earlier.stay, *planned))
        replace_durably(
            self._state / LOG_NAME,
            b"".join([first_line(), *lines]),
            self._state / (LOG_NAME + _PART),
        )

    def _write(self, stem: str, pictures: Mapping[str, NDArray[np.uint8]], record: bytes) -> None:
        # The record comes last: it is what makes the pictures a result.
        files = {suffix: _png(pixels) for suffix, pixels in pictures.items()}
        files[RECORD_SUFFIX] = record
        parts = {suffix: self._state / (suffix[1:] + _PART) for suffix in files}
        for suffix, data in files.items():
            with disk_errors_named(self.path / (stem + suffix), ResultsError, _REMEDY):
                write_durably(parts[suffix], data)
        (self.path / stem).parent.mkdir(parents=True, exist_ok=True)
        for suffix, part in parts.items():
            part.replace(self.path / (stem + suffix))


@contextmanager
def open_run_folder(
    path: Path, search: PictureSearch, publish: Publish, *, existing: Existing = "append"
) -> Iterator[RunFolder]:
    """Take a folder for the results of a run, and leave it with a page of what was done.

    Earlier results of the same pictures, and of pictures of the same name below their folder,
    are removed at once; so is what a killed run left unfinished. Only files that runs wrote are
    ever removed.

    Args:
        path: The folder; made if needed.
        publish: Gives page and summary, by name, of what is there.
        existing: `append` keeps the results of other pictures, on the page and in the summary
            too; `replace` removes them; `refuse` takes no folder that has any.

    Raises:
        RunFolderError: The folder cannot be written, another run is writing it, or it holds
            results and these are refused.
    """
    with _locked(path):
        _require_names_free(path)
        with disk_errors_named(path, RunFolderError, _REMEDY):
            folder = RunFolder(path, search, publish, existing)
        state: RunState = "interrupted"
        try:
            yield folder
            state = "done"
        finally:
            with interrupts_deferred():
                folder.close()
                folder.publish(state)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    state = path / RUN_DIRECTORY
    lock = FileLock(state / "lock")
    if state.is_symlink() or Path(lock.lock_file).is_symlink():
        raise RunFolderError(
            f"{state} or its lock is a link, and may lead elsewhere",
            "remove it, or choose another --out",
        )
    with disk_errors_named(path, RunFolderError, _REMEDY):
        state.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise RunFolderError(
                f"another run is writing into {path}", "wait for its end, or choose another --out"
            ) from error
    try:
        yield
    finally:
        lock.release()


def _require_names_free(path: Path) -> None:
    """Refuse a folder that cannot take a page or summary, before anything is inspected."""
    for name in (SHEET_NAME, SUMMARY_NAME):
        if (path / name).is_dir() and not (path / name).is_symlink():
            raise RunFolderError(
                f"{path / name} cannot be written: it is a folder",
                "rename it, or choose another --out",
            )


def _jobs(path: Path, search: PictureSearch, earlier: EarlierResults) -> tuple[Job, ...]:
    names = [picture.name for picture in search.pictures]
    stems = result_stems(names, path, (entry.stem for entry in earlier.stay if entry.stem))
    return tuple(
        Job(picture, Entry(source_of(picture.path), picture.name.as_posix(), stem))
        for picture, stem in zip(search.pictures, stems, strict=True)
    )


def _png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()
