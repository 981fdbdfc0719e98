"""Which image files a command works on, and which files it leaves out, and why."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from zeroflaw.pictures.images import IMAGE_SUFFIXES
from zeroflaw.station.picture_content import may_be_picture
from zeroflaw.station.run_log import RUN_DIRECTORY, result_files
from zeroflaw_engines.errors import ImageFileError


@dataclass(frozen=True)
class Picture:
    """One file to work on.

    Attributes:
        path: The file, as the user named it or the folder it was found in.
        name: Its path below the folder that was searched; the file's own name if it was named.
    """

    path: Path
    name: PurePath


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that nothing is done with.

    Attributes:
        path: As the user named it, or the folder it was found in.
        why: The reason, as the end of a sentence that begins with the path.
        may_be_picture: Whether a picture may be missing from the results because of it.
    """

    path: Path
    why: str
    may_be_picture: bool


@dataclass(frozen=True)
class PictureSearch:
    """What a search found.

    Attributes:
        pictures: Each file once, in the order given and sorted within a folder; those reached
            through links come after the others.
        left_out: Everything else that lies there.
    """

    pictures: tuple[Picture, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def missed(self) -> tuple[LeftOut, ...]:
        """What was left out though it may be a picture."""
        return tuple(one for one in self.left_out if one.may_be_picture)


def find_pictures(
    files_or_folders: Sequence[Path], *, results: Path | None = None
) -> PictureSearch:
    """Find the image files in folders, and account for everything that it leaves out.

    A file that is named is taken whatever its suffix. Folders are searched through all their
    levels and through links, each folder once, for the suffixes of images. Results of
    `zeroflaw inspect` are never taken, nor is anything in a folder of them that lies in a folder
    that is searched. Hidden files and folders are left out. A name is also found if the disk has
    it in another Unicode normal form (NFC, NFD).

    Raises:
        ImageFileError: A path does not exist, or there is no image.
    """
    search = _Search(results)
    for given in files_or_folders:
        search.take(_existing(given))
    search.finish()
    if not search.pictures:
        left = f" ({len(search.left_out)} files were left out)" if search.left_out else ""
        raise ImageFileError(
            f"there is no image in {', '.join(map(str, files_or_folders))}{left}",
            f"name files, or folders with files ending in {', '.join(sorted(IMAGE_SUFFIXES))}",
        )
    return PictureSearch(tuple(search.pictures), tuple(search.left_out))


class _Search:
    """One search: what was found so far, and the links that are yet to be followed."""

    def __init__(self, results: Path | None) -> None:
        self.pictures: list[Picture] = []
        self.left_out: list[LeftOut] = []
        self._results = None if results is None else results.resolve()
        self._files: dict[Path, Path] = {}
        self._folders: dict[Path, Path] = {}
        self._links: list[tuple[Path, Path]] = []
        self._results_of: dict[Path, frozenset[str] | None] = {}
        self._results_beside: dict[Path, int] = {}

    def take(self, given: Path) -> None:
        """Take what the user named."""
        kind = _kind(given)
        if kind == "folder" and (real := given.resolve()) in self._folders:
            self._leave(given, f"is the folder {self._folders[real]}", may_be_picture=False)
        elif kind == "folder":
            self._folder(given, given)
        elif kind != "file":
            self._leave(given, "is neither a file nor a folder", may_be_picture=True)
        elif self._is_result(given.resolve()):
            self._leave(given, "is a result of an earlier run", may_be_picture=False)
        else:
            self._picture(given, given.resolve(), PurePath(given.name))

    def finish(self) -> None:
        """Take what lies behind links, last, so that a file is known by its own name."""
        while self._links:
            link, root = self._links.pop(0)
            kind = _kind(link)
            if kind == "folder":
                self._subfolder(link, root)
            elif kind == "nothing":
                self._leave(link, "is a link that leads nowhere", may_be_picture=True)
            else:
                self._file(link, link.resolve(), root)
        for folder, number in self._results_beside.items():
            self._leave(folder, f"holds {number} results of earlier runs", may_be_picture=False)

    def _folder(self, folder: Path, root: Path) -> None:
        real = folder.resolve()
        self._folders[real] = folder
        for entry in self._entries(folder):
            path = folder / entry.name
            if entry.is_symlink():
                self._links.append((path, root))
            elif entry.is_dir(follow_symlinks=False):
                self._subfolder(path, root)
            else:
                self._file(path, real / entry.name, root)

    def _subfolder(self, folder: Path, root: Path) -> None:
        if folder.name == RUN_DIRECTORY:
            return  # the record of a run, whose results are counted
        if folder.name.startswith("."):
            self._leave(folder, "is hidden", may_be_picture=_has_pictures(folder))
        elif (real := folder.resolve()) in self._folders:
            self._leave(folder, f"is the folder {self._folders[real]}", may_be_picture=False)
        elif real == self._results or result_files(real) is not None:
            self._folders[real] = folder
            self._leave(folder, "holds the results of a run", may_be_picture=False)
            self._strangers_among_results(folder)
        else:
            self._folder(folder, root)

    def _file(self, path: Path, real: Path, root: Path) -> None:
        if self._is_result(real):
            self._results_beside[path.parent] = self._results_beside.get(path.parent, 0) + 1
        elif _kind(path) == "other":
            self._leave(path, "is not a file that can be read", may_be_picture=_is_named_so(path))
        elif path.name.startswith("."):
            self._leave(path, "is hidden", may_be_picture=may_be_picture(path))
        elif not _is_named_so(path):
            ending = f"ends in {path.suffix}" if path.suffix else "has no suffix"
            self._leave(
                path, f"{ending}, which names no image", may_be_picture=may_be_picture(path)
            )
        else:
            self._picture(path, real, path.relative_to(root))

    def _picture(self, path: Path, real: Path, name: PurePath) -> None:
        if real in self._files:
            self._leave(path, f"is the file {self._files[real]}", may_be_picture=False)
            return
        self._files[real] = path
        self.pictures.append(Picture(path, name))

    def _strangers_among_results(self, folder: Path) -> None:
        """Name pictures that someone put among the results of a run."""
        real = folder.resolve()
        for parent, folders, names in os.walk(real):
            folders[:] = sorted(name for name in folders if name != RUN_DIRECTORY)
            for file in (Path(parent, name) for name in sorted(names)):
                picture = _is_named_so(file) and may_be_picture(file)
                if picture and not self._is_result(file):
                    path = folder / file.relative_to(real)
                    self._leave(path, "lies among the results of a run", may_be_picture=True)

    def _is_result(self, real: Path) -> bool:
        """Return whether a run wrote this file, by the record that it left in a folder above."""
        for folder in real.parents:
            if folder not in self._results_of:
                self._results_of[folder] = result_files(folder)
            written = self._results_of[folder]
            if written is not None and real.relative_to(folder).as_posix() in written:
                return True
        return False

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as found:
                return sorted(found, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            self._leave(folder, f"cannot be read: {error.strerror}", may_be_picture=True)
            return []

    def _leave(self, path: Path, why: str, *, may_be_picture: bool) -> None:
        self.left_out.append(LeftOut(path, why, may_be_picture))


def _kind(path: Path) -> Literal["folder", "file", "other", "nothing"]:
    """Say what lies behind a path. A file whose folder keeps it from being seen is a file."""
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return "file"
    except OSError:
        return "nothing"
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "other"


def _is_named_so(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _has_pictures(folder: Path) -> bool:
    return any(_is_named_so(Path(name)) for _, _, names in os.walk(folder) for name in names)


def _existing(given: Path) -> Path:
    """Return the path, or the one on the disk whose names are the same text in another normal form.

    Raises:
        ImageFileError: There is neither.
    """
    found = path_of_text(given)
    if _kind(found) != "nothing":
        return found
    if found.is_symlink():
        raise ImageFileError(f"{given} is a link that leads nowhere", "check what it links to")
    raise ImageFileError(f"{given} does not exist", "check the path")


def path_of_text(given: Path) -> Path:
    """Spell a path as the disk does: keyboards write `ü` as one character, some disks as two.

    Args:
        given: A path in any Unicode normal form.

    Returns:
        The path itself if it is there or if nothing of the same text is; otherwise the one whose
        names are the same text.
    """
    if os.path.lexists(given):
        return given
    found = Path(given.anchor)
    for part in given.relative_to(given.anchor).parts:
        exact = found / part
        found = exact if os.path.lexists(exact) else _same_text(found, part)
        if not os.path.lexists(found):
            return given
    return found


def _same_text(folder: Path, name: str) -> Path:
    wanted = unicodedata.normalize("NFC", name)
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        names = []
    same = (one for one in names if unicodedata.normalize("NFC", one) == wanted)
    return folder / next(same, name)
