"""Digests of files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's contents, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_files(paths: Iterable[Path]) -> dict[Path, str]:
    """SHA-256 of several files, read side by side (hashlib releases the interpreter lock)."""
    todo = list(paths)
    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(zip(todo, pool.map(sha256_of_file, todo), strict=True))
