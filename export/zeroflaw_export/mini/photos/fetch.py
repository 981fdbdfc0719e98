"""Fetch the photos: download, check, unpack, and keep what can be trained on.

    python -m zeroflaw_export.mini.photos.fetch WORK

The photos of a source are WORK/photos/SOURCE/*.jpg, and WORK/photos/LICENCES.txt says whose they
are. The archives stay in WORK/photo_archives, which may be deleted.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Annotated, Final
from uuid import uuid4

import cv2
import msgspec
import numpy as np
import typer
from filelock import FileLock
from numpy.typing import NDArray

from zeroflaw_engines.errors import DatasetError, DownloadError
from zeroflaw_engines.files import disk_errors_named, replacing, temporary_pattern
from zeroflaw_engines.process.terminal import err, run_module
from zeroflaw_export.mini.photos.archives import members_of
from zeroflaw_export.mini.photos.pictures import fingerprint, photo_of
from zeroflaw_export.mini.photos.sources import PhotoSource, PhotoSources, read_photo_sources
from zeroflaw_export.weights.download import download

# Part of what a finished folder was made by: raised whenever the same archive gives other photos.
_RULES: Final = 1
_RECORD: Final = ".source"
_QUALITY: Final = 95
_LONGEST_STEM: Final = 80


def fetch(
    work: Path,
    sources: PhotoSources | None = None,
    *,
    report: Callable[[str, int], None] = lambda _name, _count: None,
) -> list[Path]:
    """Make the folders of photos that are not there yet, and list all photos.

    A folder appears when it is whole, and is made anew only when what is said of its source has
    changed. Of copies of a photo within a source, the first is kept.

    Args:
        sources: Default: those that `mini` is trained on.
        report: Called with a source's name and the number of its photos, once they are there.

    Returns:
        JPEG files, by source and name.

    Raises:
        DownloadError: A source cannot be reached, or sends something else.
        DatasetError: An archive cannot be read, or gives no photo; a folder cannot be written.
    """
    sources = sources or read_photo_sources()
    photos = work / "photos"
    found: list[Path] = []
    with disk_errors_named(photos, DatasetError, "check the path and the space on its disk"):
        photos.mkdir(parents=True, exist_ok=True)
        with FileLock(photos / ".lock"):
            for source in sources.sources:
                folder = photos / source.name
                if not _is_done(folder, source, sources):
                    _make_folder(folder, source, sources, work / "photo_archives")
                of_source = sorted(folder.glob("*.jpg"))
                report(source.name, len(of_source))
                found += of_source
            with replacing(photos / "LICENCES.txt") as licences:
                licences.write_text(_licences(sources), encoding="utf-8")
    return found


def _is_done(folder: Path, source: PhotoSource, sources: PhotoSources) -> bool:
    record = folder / _RECORD
    return record.is_file() and record.read_text("ascii") == _made_by(source, sources)


def _made_by(source: PhotoSource, sources: PhotoSources) -> str:
    said = msgspec.json.encode([_RULES, source, sources.exclude])
    return hashlib.sha256(said).hexdigest()


def _make_folder(folder: Path, source: PhotoSource, sources: PhotoSources, archives: Path) -> None:
    for left_by_killed_run in folder.parent.glob(temporary_pattern(folder.name)):
        shutil.rmtree(left_by_killed_run)
    archive = _download(source, archives)
    partial = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}")
    partial.mkdir()
    try:
        seen: set[bytes] = set()
        for member, data in members_of(archive, lambda name: sources.wants(source, name)):
            photo = photo_of(data, cut_out=source.cut_out)
            if photo is None or (mark := fingerprint(photo)) in seen:
                continue
            seen.add(mark)
            (partial / _file_name(member)).write_bytes(_jpeg(photo))
        if not seen:
            raise DatasetError(
                f"the photo source {source.name} gives no photo of {archive}",
                "check its include and exclude patterns",
            )
        (partial / _RECORD).write_text(_made_by(source, sources), encoding="ascii")
        if folder.exists():
            shutil.rmtree(folder)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _download(source: PhotoSource, archives: Path) -> Path:
    target = archives / source.archive
    try:
        return download(source.url, target, source.digest)
    except DownloadError as error:
        raise DownloadError(
            f"the photo source {source.name} ({source.package} {source.version}): {error.cause}",
            f"{error.remedy}; a file that was fetched by other means belongs at {target}",
        ) from error


def _file_name(member: str) -> str:
    """Name a photo after its member; the digest tells apart what the readable part does not."""
    stem = re.sub(r"[^A-Za-z0-9.]+", "_", PurePosixPath(member).with_suffix("").as_posix())
    digest = hashlib.sha256(member.encode()).hexdigest()[:8]
    return f"{stem[-_LONGEST_STEM:].strip('_.')}-{digest}.jpg"


def _jpeg(photo: NDArray[np.uint8]) -> bytes:
    bgr = cv2.cvtColor(photo, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return encoded.tobytes()


def _licences(sources: PhotoSources) -> str:
    return "\n".join(
        f"{source.name}: {source.package} {source.version} ({source.kind})\n"
        f"    {source.url}\n"
        f"    licences: {', '.join(source.licences)}\n"
        f"    by: {source.credit}\n"
        for source in sources.sources
    )


def _command(
    work: Annotated[Path, typer.Argument(help="Directory of the making of mini.")],
) -> None:
    """Fetch the photos that mini is trained on."""
    photos = fetch(work, report=lambda name, count: err.print(f"{name}: {count} photos"))
    err.print(f"{len(photos)} photos")


if __name__ == "__main__":
    run_module(_command)
