"""The folder that one run of `zeroflaw inspect` owns: whole results, or none of them.

Every file appears under its name at once and complete: it is written elsewhere, brought to the
disk and renamed. What the run is going to replace is removed before the first picture is read,
and a picture's record comes after its pictures, so that a run which dies at any moment leaves
neither an earlier decision nor a record without its pictures.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final, Literal

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from zeroflaw.images import write_image
from zeroflaw.station.picture_search import LeftOut, Picture, PictureSearch
from zeroflaw.station.result_names import result_stems
from zeroflaw.station.run_log import (
    LOG_NAME,
    PICTURE_SUFFIXES,
    RECORD_SUFFIX,
    RUN_DIRECTORY,
    SHEET_NAME,
    SUMMARY_NAME,
    Entry,
    first_line,
    log_line,
    read_log,
)
from zeroflaw_engines.errors import ImageFileError, ResultsError

Existing = Literal["append", "replace", "refuse"]
RunState = Literal["under way", "interrupted", "done"]

# A page or summary is written anew when that costs a twentieth of the time since the last time.
_REST_FOR_WRITING: Final = 20


@dataclass(frozen=True)
class Job:
    """One picture of a run.

    Attributes:
        picture: The file.
        entry: Its line in the log, as it was planned.
    """

    picture: Picture
    entry: Entry


@dataclass(frozen=True)
class Results:
    """What a folder of results holds at one moment, for its page and summary.

    Attributes:
        state: Of the run.
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
    """A folder of results while a run writes it; see `open_run_folder`.

    Attributes:
        path: The folder.
        jobs: The pictures of the run, with the names of their results.
        replaced: Entries of earlier runs whose results were removed for this one.
        earlier: Entries of earlier runs that stay.
        set_aside: Files of the user's that had the names of the page or the summary, as they are
            called now.
    """

    def __init__(
        self, path: Path, search: PictureSearch, publish: Publish, *, existing: Existing
    ) -> None:
        self.path = path
        self._publish = publish
        self._state = path / RUN_DIRECTORY
        before = read_log(path)
        if before and existing == "refuse":
            raise ResultsError(
                f"{path} holds the results of {len(before)} files already",
                "choose another --out, or say --existing append or --existing replace",
            )
        earlier, self.replaced = _divided(
            (before or {}).values(), search, everything=existing == "replace"
        )
        self.earlier = tuple(earlier)
        for entry in self.replaced:
            _remove(path, entry)
        self.set_aside = [] if before is not None else _set_aside(path)
        stems = result_stems(
            [picture.name for picture in search.pictures],
            path,
            (entry.stem for entry in self.earlier if entry.stem),
        )
        self.jobs = tuple(
            Job(picture, Entry(_real(picture.path), picture.name.as_posix(), stem))
            for picture, stem in zip(search.pictures, stems, strict=True)
        )
        self._entries: list[Entry] = []
        self._left_out: list[Entry] = []
        self._log = self._new_log()
        self._published_at = self._publishing_took = 0.0
        self.publish("under way")

    def leave_out(self, left_out: LeftOut, row: Mapping[str, str], card: str) -> None:
        """Notes a file that the run leaves out."""
        source = _real(left_out.path)
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
        """Writes the results of a picture, all of them or none, and notes what came out.

        Args:
            job: The picture.
            pictures: By suffix, `PICTURE_SUFFIXES` or none of them.
            record: Its JSON.
            outcome: See `Entry`.
            row: See `Entry`.
            card: See `Entry`.

        Raises:
            ResultsError: The disk is full, or does not take the name; none of the results is
                there.
        """
        try:
            with _disk_errors_named(self.path):
                self._write(job.entry.stem, pictures, record)
        except BaseException:
            _remove(self.path, job.entry)
            raise
        self.note(job, outcome=outcome, row=row, card=card)

    def note(self, job: Job, *, outcome: str, row: Mapping[str, str], card: str) -> None:
        """Notes what came out of a picture, and publishes page and summary if it is time."""
        entry = replace(job.entry, outcome=outcome, row=dict(row), card=card)
        self._entries.append(entry)
        self._append(entry)
        if time.monotonic() - self._published_at >= _REST_FOR_WRITING * self._publishing_took:
            self.publish("under way")

    def publish(self, state: RunState) -> None:
        """Writes the page and the summary of what is there so far."""
        begun = time.monotonic()
        results = Results(
            state, len(self.jobs), (*self._entries, *self._left_out), self.earlier
        )  # fmt: skip
        with _disk_errors_named(self.path):
            for name, data in self._publish(results).items():
                _replace(self.path / name, data, by_way_of=self._state / name)
        self._published_at = time.monotonic()
        self._publishing_took = self._published_at - begun

    def close(self) -> None:
        """Closes the log."""
        self._log.close()

    def _new_log(self) -> IO[bytes]:
        """Writes the log anew: what stays, and what is planned; and opens it to go on."""
        log = self._state / LOG_NAME
        planned = (job.entry for job in self.jobs)
        lines = b"".join([first_line(), *map(log_line, (*self.earlier, *planned))])
        _replace(log, lines, by_way_of=log.with_suffix(".new"))
        return log.open("ab")

    def _append(self, entry: Entry) -> None:
        with _disk_errors_named(self.path):
            self._log.write(log_line(entry))
            self._log.flush()
            os.fsync(self._log.fileno())

    def _write(
        self, stem: str, pictures: Mapping[str, NDArray[np.uint8]], record: bytes
    ) -> None:
        written = [self._state / f"part{suffix}" for suffix in (*pictures, RECORD_SUFFIX)]
        try:
            for path, pixels in zip(written, pictures.values(), strict=False):
                write_image(path, pixels)
                _sync(path)
        except ImageFileError as error:
            raise ResultsError(
                error.cause.replace(str(path), f"{self.path / stem}{path.name[4:]}"), error.remedy
            ) from error
        _write_durably(written[-1], record)
        targets = [self.path / (stem + suffix) for suffix in (*pictures, RECORD_SUFFIX)]
        targets[0].parent.mkdir(parents=True, exist_ok=True)
        for path, target in zip(written, targets, strict=True):
            path.replace(target)


@contextmanager
def open_run_folder(
    path: Path, search: PictureSearch, publish: Publish, *, existing: Existing = "append"
) -> Iterator[RunFolder]:
    """Takes a folder for the results of a run, and leaves it with a page of what was done.

    Earlier results of the same pictures, and of pictures of the same name below their folder,
    are removed at once; so is what a killed run left unfinished. Only files that runs wrote are
    ever removed.

    Args:
        path: The folder; made if needed.
        search: The pictures of the run.
        publish: Gives the page and the summary, by name, of what is there.
        existing: `append` keeps the results of other pictures, on the page and in the summary
            too; `replace` removes them; `refuse` takes no folder that has any.

    Raises:
        ResultsError: The folder cannot be written, another run is writing it, or it holds
            results and these are refused.
    """
    with _disk_errors_named(path):
        state = path / RUN_DIRECTORY
        if state.is_symlink() or (state / "lock").is_symlink():
            raise ResultsError(f"{state} is a link", "remove it, or choose another --out")
        state.mkdir(parents=True, exist_ok=True)
        lock = FileLock(state / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise ResultsError(
                f"another run is writing into {path}", "wait for its end, or choose another --out"
            ) from error
    try:
        with _disk_errors_named(path):
            folder = RunFolder(path, search, publish, existing=existing)
        finished: RunState = "interrupted"
        try:
            yield folder
            finished = "done"
        finally:
            folder.close()
            folder.publish(finished)
    finally:
        lock.release()


def _divided(
    entries: Iterable[Entry], search: PictureSearch, *, everything: bool
) -> tuple[list[Entry], list[Entry]]:
    """Entries of earlier runs that stay, and those that this run replaces."""
    sources = {_real(picture.path) for picture in search.pictures}
    sources |= {_real(one.path) for one in search.left_out}
    names = {picture.name.as_posix() for picture in search.pictures}
    stay, go = [], []
    for entry in entries:
        touched = entry.source in sources or (bool(entry.stem) and entry.name in names)
        (go if everything or touched or not entry.outcome else stay).append(entry)
    return stay, go


def _remove(folder: Path, entry: Entry) -> None:
    """Removes the results of an entry, the record first, and folders that are empty then."""
    if _leads_out(folder, entry.stem):
        return
    for name in reversed(entry.files()):
        with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            (folder / name).unlink()
    for parent in (folder / entry.stem).parents:
        if parent == folder or not entry.stem:
            break
        try:
            parent.rmdir()
        except OSError:
            break


def _leads_out(folder: Path, stem: str) -> bool:
    """Whether a link lies between a folder and the results of a stem below it."""
    parents = Path(stem).parents
    return any((folder / parent).is_symlink() for parent in parents if parent.parts)


def _set_aside(folder: Path) -> list[Path]:
    """Renames what bears the names of our page and summary though no run wrote it."""
    renamed = []
    for name in (SHEET_NAME, SUMMARY_NAME):
        path = folder / name
        if path.is_file() or path.is_symlink():
            free = (path.with_name(f"{path.stem}.before-{n}{path.suffix}") for n in range(1, 10**6))
            renamed.append(path.rename(next(one for one in free if not os.path.lexists(one))))
    return renamed


def _replace(path: Path, data: bytes, *, by_way_of: Path) -> None:
    _write_durably(by_way_of, data)
    by_way_of.replace(path)


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _real(path: Path) -> str:
    """The path without links in its folders; a link itself keeps its name."""
    return os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118 - `..` stays text


@contextmanager
def _disk_errors_named(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        named = error.filename2 or error.filename or folder
        raise ResultsError(
            f"{named} cannot be written: {error.strerror or error}",
            "choose another --out, or free space on its disk",
        ) from error


__all__ = [
    "Existing", "Job", "PICTURE_SUFFIXES", "Results", "RunFolder", "RunState", "open_run_folder",
]  # fmt: skip
_: Sequence[str] = ()
