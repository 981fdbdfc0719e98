"""The members of an archive: Debian packages, wheels, and the zip archives that lie in them."""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Final

from zeroflaw_engines.errors import DatasetError

# Games keep their textures in zip archives under names of their own.
_ZIP_SUFFIXES: Final = frozenset({".zip", ".pk3"})
_AR_MAGIC: Final = b"!<arch>\n"
_AR_HEADER: Final = 60

_DAMAGED: Final = (
    tarfile.TarError,
    zipfile.BadZipFile,
    NotImplementedError,  # a zip archive with a compression of its own
    lzma.LZMAError,
    zlib.error,
    EOFError,
)


def members_of(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Read the wanted files of an archive one after another; nothing is written to disk.

    A member of a zip archive within the archive is named by its path in the inner one. Links and
    other special members are passed over.

    Args:
        archive: A Debian package if its name ends in `.deb`, otherwise a zip archive.
        wanted: Whether a file is wanted, by its path without a leading `./`.

    Raises:
        DatasetError: The archive is damaged, or names a member outside itself.
    """
    try:
        with archive.open("rb") as file:
            if archive.suffix == ".deb":
                yield from _deb_members(archive, file, wanted)
            else:
                yield from _zip_members(archive, file, wanted)
    except _DAMAGED as error:
        raise DatasetError(
            f"the archive {archive} cannot be read: {error}", "delete it and fetch it again"
        ) from error


def _deb_members(
    archive: Path, file: IO[bytes], wanted: Callable[[str], bool]
) -> Iterator[tuple[str, bytes]]:
    _seek_data(archive, file)
    # Read as a stream: some packages are larger than the memory they should take.
    with tarfile.open(fileobj=file, mode="r|*") as tar:
        for member in tar:
            if not member.isfile():
                continue
            name = _checked(archive, member.name)
            inner = PurePosixPath(name).suffix.lower() in _ZIP_SUFFIXES
            if not inner and not wanted(name):
                continue
            content = tar.extractfile(member)
            if content is None:
                continue
            if inner:
                yield from _zip_members(archive, io.BytesIO(content.read()), wanted)
            else:
                yield name, content.read()


def _seek_data(archive: Path, file: IO[bytes]) -> None:
    """Go to the tar archive of a Debian package's files, the last member of an `ar` archive."""
    if file.read(len(_AR_MAGIC)) != _AR_MAGIC:
        raise DatasetError(f"{archive} is no Debian package", "delete it and fetch it again")
    while header := file.read(_AR_HEADER):
        try:
            size = int(header[48:58])
        except ValueError:
            break
        name = header[:16].decode("ascii", "replace").rstrip(" /")
        if name.startswith("data.tar"):
            if name.endswith(".zst"):
                raise DatasetError(
                    f"the files of {archive} are packed by zstd, which is not read",
                    "take a package that is packed by xz, as those of Debian are",
                )
            return
        file.seek(size + size % 2, io.SEEK_CUR)
    raise DatasetError(f"{archive} has no data.tar", "delete it and fetch it again")


def _zip_members(
    archive: Path, file: IO[bytes], wanted: Callable[[str], bool]
) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(file) as inner:
        for member in inner.infolist():
            if not member.is_dir():
                name = _checked(archive, member.filename)
                if wanted(name):
                    yield name, inner.read(member)


def _checked(archive: Path, member: str) -> str:
    path = PurePosixPath(member.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise DatasetError(
            f"the archive {archive} has a member that points outside it: {member}",
            "do not trust this archive",
        )
    return path.as_posix()
