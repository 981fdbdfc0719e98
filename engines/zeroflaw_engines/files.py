"""Files that are written whole, not even half after a power cut; and their digests."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

from zeroflaw_engines.errors import ZeroflawError

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
# What a kernel or a file system answers that cannot exchange.
_NO_EXCHANGE: Final = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})
_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_READ_ONLY: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's contents, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_files(paths: Iterable[Path]) -> dict[Path, str]:
    """Return the SHA-256 of several files, read side by side: hashlib releases the GIL."""
    todo = list(paths)
    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(zip(todo, pool.map(sha256_of_file, todo), strict=True))


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path, temporary: Path | None = None) -> Iterator[Path]:
    """Give a file to write that takes the place of another when the block ends well.

    A reader sees the old contents or the new ones. A power cut may still take the new ones: for
    what cannot be made again there is `replace_durably`.

    Args:
        path: The file to replace, if there is one; a link of that name is not followed.
        temporary: What is written first, on the same disk, and is all that a killed writer
            leaves; default: `.NAME.XXXXXXXX` beside the file, as in `temporary_pattern`.
    """
    temporary = temporary or path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # it takes space that a full disk lacks
        raise


def replace_durably(path: Path, data: bytes, temporary: Path | None = None) -> None:
    """Replace a file in one rename, and wait until the disk has it; see `replacing`."""
    with replacing(path, temporary) as written:
        write_durably(written, data)
    sync(path.parent)


@contextmanager
def disk_errors_named(
    named: Path,
    kind: Callable[[str, str], ZeroflawError],
    remedy: str,
    *,
    full: tuple[str, str] | None = None,
    read_only: str | None = None,
    ours: Callable[[Path | None], bool] | None = None,
) -> Iterator[None]:
    """Turn errors of the disk into errors of ours, which say what was being written.

    Args:
        named: The file or directory that is to be named.
        full: What a full disk left undone, and what helps then; default: as for other errors.
        read_only: What helps where nothing may be written; default: as for other errors.
        ours: Whether an error about a file is one of ours, the others pass; the file is None
            where the system names none. Default: all are.

    Raises:
        ZeroflawError: Of the class `kind`: the block raised OSError.
    """
    try:
        yield
    except OSError as error:
        if full is not None and error.errno in _DISK_FULL:
            raise kind(f"no space left on the disk of {named}; {full[0]}", full[1]) from error
        file = Path(error.filename).absolute() if error.filename else None
        denied = read_only is not None and error.errno in _READ_ONLY
        if ours is not None and not denied and not ours(file):
            raise
        about = "" if file is None or file == named else f" ({file})"
        raise kind(
            f"{named} cannot be written: {error.strerror or error}{about}",
            read_only if denied and read_only is not None else remedy,
        ) from error


def temporary_pattern(name: str) -> str:
    """Give the glob pattern of what killed writers left of a file that they were replacing."""
    return f".{name}." + "[0-9a-f]" * 8


def sync(path: Path) -> None:
    """Make a file's contents, or the names in a directory, durable."""
    if path.is_dir() and os.name != "posix":
        return  # Windows opens no directories
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """Make a directory durable with everything in it."""
    for path in directory.rglob("*"):
        if path.is_file():
            sync(path)
    for path in (*directory.rglob("*"), directory):
        if path.is_dir():
            sync(path)


def exchange(one: Path, other: Path) -> bool:
    """Let two paths of one file system change places, in one step of the kernel.

    Returns:
        Whether they did; False where the system or the file system has no such step, and both
        are as they were.

    Raises:
        OSError: The step exists and failed.
    """
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    # The C library of a small distribution may be older than the call.
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    code = rename(
        _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE)
    )
    if code == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))
