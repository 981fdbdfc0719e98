"""What tests write into bundles, and what they look for afterwards."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np

from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.manifest import Product
from zeroflaw_engines.bundle.writer import write_manifest

PRODUCT = Product(sentences=(245, 175))


def unit_rows(seed: int, size: int = 32) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(2, size))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def snapshot(directory: Path) -> dict[str, bytes]:
    """Every file below a directory but locks, which may stay behind."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    }


def fill(staging: Path, bundle: Bundle) -> None:
    """Puts a whole bundle into a staging directory, as an export would."""
    for name in bundle.manifest.files:
        shutil.copyfile(bundle.path / name, staging / name)
    write_manifest(staging, bundle.manifest)


def disk_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
