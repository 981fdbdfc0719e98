"""A bundle of a few kilobytes: mini's manifest and prompt bank, with a few bytes for each engine.

Everything that reads, verifies and changes bundles takes it; no engine can be loaded.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path

import msgspec
import numpy as np

from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.manifest import Calibration, Product
from zeroflaw_engines.bundle.writer import write_manifest

ENTRY = Product(sentences=(1, 1))
PRODUCT = Product(sentences=(245, 175))
CALIBRATION = Calibration(
    false_reject_rate=0.1,
    images=10,
    rank=10,
    interval=(0.0, 0.3),
    observed_rate=0.0,
    image_scoring="cls",
    data_digest=hashlib.sha256(b"").hexdigest(),
    created="2026-01-01T00:00:00+00:00",
)


def write_small_bundle(directory: Path, *, mark: str = "") -> Bundle:
    """Writes it; bundles of different marks have different engines."""
    mini = open_bundle("mini", verify_digests=False)
    engines = {
        name: msgspec.structs.replace(engine, weights=None)
        for name, engine in mini.manifest.engines.items()
        if name != "text_encoder"
    }
    directory.mkdir(parents=True)
    for engine in engines.values():
        (directory / engine.onnx).write_text(f"{engine.onnx} {mark}")
    shutil.copyfile(mini.path / mini.manifest.prompts, directory / mini.manifest.prompts)
    write_manifest(directory, msgspec.structs.replace(mini.manifest, engines=engines, text=None))
    return open_bundle(directory)


def rows(seed: int) -> np.ndarray:
    """Text embeddings that fit it."""
    values = np.random.default_rng(seed).normal(size=(2, 96))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def left_overs(bundle: Path) -> list[str]:
    """Files in and beside a bundle that belong to nobody."""
    listed = {*open_bundle(bundle).manifest.files, "bundle.json"}
    inside = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*")}
    beside = {path.name for path in bundle.parent.iterdir()} - {bundle.name}
    return sorted(inside - listed) + sorted(f"../{name}" for name in beside)


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
