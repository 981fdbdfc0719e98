"""Verifying the files of a bundle: each is there, inside the bundle, and what the manifest says."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from zeroflaw_engines.bundle.manifest import FileEntry
from zeroflaw_engines.bundle.shipped import file_of_bundle, is_shipped
from zeroflaw_engines.errors import BundleDamagedError
from zeroflaw_engines.files import sha256_of_files


def read_verified(root: Path, name: str, entry: FileEntry) -> bytes:
    """Read a file of a bundle, and refuse it if size or digest are not the manifest's.

    Raises:
        BundleDamagedError: It is missing, altered, or cannot be read.
    """
    _require_size(root, name, entry)
    try:
        data = file_of_bundle(root, name).read_bytes()
    except OSError as error:
        raise _unreadable(root, error) from error
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise _altered(root, name)
    return data


def verify_files(
    root: Path,
    files: Mapping[str, FileEntry],
    verified: dict[str, tuple[str, os.stat_result]],
    *,
    verify_digests: bool,
) -> None:
    """Check files of a bundle.

    Args:
        verified: What need not be hashed again; it is added to.
        verify_digests: Whether to hash them, or to check sizes alone.

    Raises:
        BundleDamagedError: One is missing, altered, or cannot be read.
    """
    todo = {}
    for name, entry in files.items():
        status = _require_size(root, name, entry)
        digest, before = verified.get(name, ("", status))
        if digest != entry.sha256 or _signature(before) != _signature(status):
            todo[name] = status
    if not verify_digests:
        return
    try:
        paths = {name: file_of_bundle(root, name) for name in todo}
        digests = sha256_of_files(paths.values())
    except OSError as error:
        raise _unreadable(root, error) from error
    for name, status in todo.items():
        if digests[paths[name]] != files[name].sha256:
            raise _altered(root, name)
        verified[name] = (files[name].sha256, status)


def _require_size(root: Path, name: str, entry: FileEntry) -> os.stat_result:
    """Check that a file is there, inside the bundle, and of its size."""
    file = file_of_bundle(root, name)
    if not file.is_file():
        raise BundleDamagedError(f"{file} is missing from the bundle", _remedy(root))
    home = root if file == root / name else file.parent
    if not file.resolve().is_relative_to(home.resolve()):
        raise BundleDamagedError(f"{file} is a link that leads out of the bundle", _remedy(root))
    try:
        status = file.stat()
    except OSError as error:
        raise _unreadable(root, error) from error
    if status.st_size != entry.bytes:
        raise BundleDamagedError(
            f"{file} has {status.st_size} bytes where the manifest says {entry.bytes}",
            _remedy(root),
        )
    return status


def _signature(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _remedy(root: Path) -> str:
    if is_shipped(root):
        return "install zeroflaw again: this bundle is part of it"
    return "copy the bundle anew, or export it again"


def _unreadable(root: Path, error: OSError) -> BundleDamagedError:
    return BundleDamagedError(f"{error.filename} cannot be read: {error.strerror}", _remedy(root))


def _altered(root: Path, name: str) -> BundleDamagedError:
    return BundleDamagedError(
        f"{file_of_bundle(root, name)} was altered: its SHA-256 is not the manifest's",
        _remedy(root),
    )
