"""Writing files and directories so that no reader sees a half, not even after a power cut."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Final
from uuid import uuid4

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
# What a kernel or a file system answers that cannot exchange.
_NO_EXCHANGE: Final = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_durably(path: Path, data: bytes) -> None:
    """Replace a file in one rename: a reader sees the old contents or the new ones.

    A writer that is killed leaves `.NAME.XXXXXXXX` beside the file; see `temporary_pattern`.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        write_durably(temporary, data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def temporary_pattern(name: str) -> str:
    """Give the glob pattern of what killed calls of `replace_durably` left of a file."""
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
