"""One writer at a time for each bundle, and what killed writers left behind.

A bundle that exists is locked by a file inside it, so that every path to it finds the same lock
and nothing beside it need be writable. A bundle that is being exported is locked by a file beside
its path, since it is not there yet. Both files go away with the lock; a killed writer's stays,
unlocked, until the next one.

Beside a bundle NAME, a killed export leaves `.NAME.partial-*`, which nobody has read; or, where
the file system cannot let two directories change places, `.NAME.replaced-*`, which is the bundle
if there is nothing at its path.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final
from uuid import uuid4

from zeroflaw_engines.bundle.manifest import MANIFEST_NAME
from zeroflaw_engines.errors import BundleError
from zeroflaw_engines.files import exchange, sync, sync_tree, temporary_pattern

LOCK_NAME: Final = ".lock"
PARTIAL: Final = ".partial-"
# Directories in which products are being learned. They outlive their process, which can go on
# from them, so that no other writer removes them.
LEARNING: Final = ".learning-"
_REPLACED: Final = ".replaced-"
# In a directory of files on their way into a bundle: their names, one a line.
MOVED_NAME: Final = ".moved"
_PRODUCT_FILE = re.compile(
    r"(prompts(-[0-9a-f]{8})?|reference-[0-9a-f]{8})\.safetensors|alignment-[0-9a-f]{8}\.png"
)
_LOCK_SECONDS = 10.0
# An export of hours is not thrown away for graphs that are being added meanwhile.
_PUBLISH_SECONDS: Final = 600.0
_POLL_SECONDS: Final = 0.02
# A living writer is between its two renames for microseconds.
_GAP_SECONDS: Final = 0.5


@dataclass(frozen=True)
class _Lock:
    """A lock that is held: the descriptors of its file and of the directory of that file."""

    name: str
    file: int
    directory: int

    def release(self) -> None:
        """Remove the file, and let the next one in."""
        with suppress(OSError):
            os.unlink(self.name, dir_fd=self.directory)
        os.close(self.file)
        os.close(self.directory)


@contextmanager
def locked_bundle(path: Path, *, seconds: float | None = None) -> Iterator[Path]:
    """Hold the lock of a bundle that exists.

    Args:
        seconds: How long to wait for another process; default: 10.

    Yields:
        Its real path, without links.

    Raises:
        BundleError: Another process holds the lock.
        OSError: There is no directory, or nothing may be written in it.
    """
    deadline = time.monotonic() + (_LOCK_SECONDS if seconds is None else seconds)
    while True:
        real = standing_bundle(path).resolve()
        lock = _try_to_lock(real, LOCK_NAME)
        if lock is not None:
            break
        if time.monotonic() > deadline:
            raise _busy(path, real / LOCK_NAME)
        time.sleep(_POLL_SECONDS)
    try:
        yield real
    finally:
        lock.release()


@contextmanager
def locked_name(target: Path) -> Iterator[None]:
    """Hold the lock of a bundle's name, for an export to it; its parent must exist.

    Args:
        target: Its real path, where there need be nothing yet.

    Raises:
        BundleError: Another process holds the lock.
        OSError: Nothing may be written in the parent.
    """
    name = _name_lock(target)
    deadline = time.monotonic() + _LOCK_SECONDS
    while (lock := _try_to_lock(target.parent, name)) is None:
        if time.monotonic() > deadline:
            raise _busy(target, target.with_name(name))
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


def clear_beside(target: Path) -> None:
    """Remove what killed exports left beside a bundle, or bring the bundle back from it.

    The caller holds the lock of the name.
    """
    for left in _beside(target, _REPLACED):
        if target.exists():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.rename(target)
    for left in _beside(target, PARTIAL):
        shutil.rmtree(left, ignore_errors=True)


def clear_beside_if_idle(target: Path) -> None:
    """Do as `clear_beside`, unless an export is under way or the parent is read-only."""
    if not (
        _beside(target, _REPLACED)
        or _beside(target, PARTIAL)
        or target.with_name(_name_lock(target)).exists()
    ):
        return
    with suppress(OSError):
        lock = _try_to_lock(target.parent, _name_lock(target))
        if lock is not None:
            try:
                clear_beside(target)
            finally:
                lock.release()


def clear_inside(path: Path, kept: Container[str]) -> None:
    """Remove what killed writers left inside a bundle: banks, graphs and manifests on their way.

    The caller holds the bundle's lock, so that no writer is alive that they could belong to.

    Args:
        kept: The files that the manifest names.
    """
    for file in path.iterdir():
        if _PRODUCT_FILE.fullmatch(file.name) and file.name not in kept:
            file.unlink()
    for temporary in path.glob(temporary_pattern(MANIFEST_NAME)):
        temporary.unlink()
    for partial in path.glob(f"{PARTIAL}*"):
        for name in _moved_names(partial):
            if name not in kept:
                (path / name).unlink(missing_ok=True)
        shutil.rmtree(partial, ignore_errors=True)


def standing_bundle(path: Path) -> Path:
    """Give the directory to read a bundle from: its path, but for what a killed export left.

    Where directories cannot change places, a bundle is away from its path for a moment while it
    is replaced. A reader waits for that moment to pass. If the writer was killed in it, the old
    bundle is brought back, or read where it is if the parent is read-only.
    """
    deadline = time.monotonic() + _GAP_SECONDS
    while not path.exists():
        real = path.resolve()
        if not _beside(real, _REPLACED):
            break
        clear_beside_if_idle(real)
        if time.monotonic() > deadline:
            left = _beside(real, _REPLACED)
            return left[0] if left and not path.exists() else path
        time.sleep(_POLL_SECONDS)
    return path


def publish(staging: Path, target: Path) -> None:
    """Put a whole directory at a path, in place of the bundle that is there.

    At every moment there is a whole bundle at the path, or `standing_bundle` finds it. The caller
    holds the lock of the name.

    Args:
        staging: The directory, on the file system of the target; it is gone afterwards.
        target: A real path: nothing, or a bundle.

    Raises:
        BundleError: Another process is changing the bundle that is there.
        OSError: The file system refused; the target is as it was.
    """
    sync_tree(staging)
    if not target.exists():
        staging.rename(target)
    else:
        with locked_bundle(target, seconds=_PUBLISH_SECONDS) as real:
            if exchange(staging, real):
                old = staging
            else:
                old = real.with_name(f".{real.name}{_REPLACED}{uuid4().hex[:8]}")
                real.rename(old)
                try:
                    staging.rename(real)
                except BaseException:
                    old.rename(real)
                    raise
            sync(real.parent)
            shutil.rmtree(old, ignore_errors=True)
    sync(target.parent)


def _moved_names(partial: Path) -> list[str]:
    """Return the names of files that a killed writer was moving into its bundle."""
    try:
        names = (partial / MOVED_NAME).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [name for name in names if PurePath(name).name == name]


def _beside(target: Path, kind: str) -> list[Path]:
    return sorted(target.parent.glob(f".{glob.escape(target.name)}{kind}*"))


def _busy(target: Path, lock: Path) -> BundleError:
    return BundleError(
        f"another process is writing {target} (it holds {lock})",
        "wait for it to end and try again",
    )


def _name_lock(target: Path) -> str:
    return f".{target.name}{LOCK_NAME}"


def _try_to_lock(directory: Path, name: str) -> _Lock | None:
    """Take the lock of a file in a directory, which is made if need be.

    Returns:
        The lock; None if another holds it, or if meanwhile the file or the directory is no longer
        the one at its path, so that to hold it would lock nothing.
    """
    # The descriptor keeps the directory's inode from being given to another one.
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        file = _lock_file(name, opened)
    except BaseException:
        os.close(opened)
        raise
    if file is None:
        os.close(opened)
        return None
    lock = _Lock(name, file, opened)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(opened), directory.stat()):
            return lock
    lock.release()
    return None


def _lock_file(name: str, directory: int) -> int | None:
    import fcntl

    try:
        file = _open_lock(name, directory)
    except FileNotFoundError:
        return None  # the directory was removed meanwhile
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held it before has removed the file, if this is not the one in the directory.
        if os.path.samestat(os.fstat(file), os.stat(name, dir_fd=directory)):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(file)
        raise
    os.close(file)
    return None


def _open_lock(name: str, directory: int) -> int:
    flags = os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(name, os.O_RDWR | flags, 0o666, dir_fd=directory)
    except PermissionError:
        # A lock file that another user left; to lock it takes no right to write it, but on NFS.
        return os.open(name, os.O_RDONLY | flags, 0o666, dir_fd=directory)
