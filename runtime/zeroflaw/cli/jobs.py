"""Which image files a command works on, and where the results of each go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zeroflaw.images import IMAGE_SUFFIXES
from zeroflaw_engines.errors import ImageFileError


@dataclass(frozen=True)
class Job:
    """One file to inspect, and the stem of what comes of it.

    Attributes:
        source: The image file.
        stem: Path below the output directory, without suffix; no two jobs share one.
    """

    source: Path
    stem: Path


def find_jobs(files_or_folders: Sequence[Path]) -> list[Job]:
    """The images to inspect, each once, with output stems that do not collide.

    Folders are searched through all their levels, and their levels are kept below the output
    directory.

    Raises:
        ImageFileError: A path does not exist, or there is no image.
    """
    jobs = list(_jobs(files_or_folders))
    if not jobs:
        raise ImageFileError(
            f"there is no image in {', '.join(map(str, files_or_folders))}",
            f"name files, or folders with files ending in {', '.join(sorted(IMAGE_SUFFIXES))}",
        )
    return jobs


def _jobs(files_or_folders: Sequence[Path]) -> Iterator[Job]:
    seen: set[Path] = set()
    stems: set[Path] = set()
    for given in files_or_folders:
        if given.is_dir():
            found = sorted(
                path
                for path in given.rglob("*")
                if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES
            )
        elif given.exists():
            found = [given]
        else:
            raise ImageFileError(f"{given} does not exist", "check the path")
        for path in found:
            if path.resolve() in seen:
                continue
            seen.add(path.resolve())
            relative = path.relative_to(given) if given.is_dir() else Path(path.name)
            yield Job(path, _free_stem(relative, stems))


def _free_stem(relative: Path, stems: set[Path]) -> Path:
    """The path without its suffix; with it, and then with a number, if that is taken."""
    candidates = [relative.with_suffix(""), relative.with_name(relative.name.replace(".", "_"))]
    number = 2
    while True:
        stem = candidates.pop(0) if candidates else relative.with_name(f"{relative.stem}_{number}")
        number += not candidates
        if stem not in stems:
            stems.add(stem)
            return stem
