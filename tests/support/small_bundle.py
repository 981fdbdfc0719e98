"""A bundle of a few kilobytes: mini's manifest and prompt bank, with a few bytes for each engine.

Everything that reads, verifies and changes bundles takes it; no engine can be loaded.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np

from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.manifest import Product
from zeroflaw_engines.bundle.writer import write_manifest

ENTRY = Product(sentences=(1, 1))


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
