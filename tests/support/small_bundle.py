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
import pytest

from zeroflaw_engines import files
from zeroflaw_engines.bundle import writer as bundle_writer
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.graph_entries import EngineFile
from zeroflaw_engines.bundle.identities import ReferenceIdentity
from zeroflaw_engines.bundle.manifest import (
    Calibration,
    Product,
    Reference,
    ReferencePhoto,
    brought_up,
)
from zeroflaw_engines.bundle.products.settings import ProductSettings
from zeroflaw_engines.bundle.products.writer import set_reference
from zeroflaw_engines.bundle.reference_bank import ReferenceBank
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
# Without an interval, as the scheme has none.
LEFT_OUT = msgspec.structs.replace(CALIBRATION, scheme="leave_one_out", interval=None)


def write_small_bundle(directory: Path, *, mark: str = "") -> Bundle:
    """Writes it; bundles of different marks have different engines. It takes small banks."""
    mini = open_bundle("mini", verify_digests=False)
    engines = {
        name: msgspec.structs.replace(engine, weights=None)
        for name, engine in mini.manifest.engines.items()
        if name != "text_encoder"
    }
    engines["reference_matcher"] = EngineFile(
        onnx="reference_matcher.onnx", weights=None, opset=engines["clip_encoder"].opset
    )
    directory.mkdir(parents=True)
    for engine in engines.values():
        (directory / engine.onnx).write_text(f"{engine.onnx} {mark}")
    shutil.copyfile(mini.path / mini.manifest.prompts, directory / mini.manifest.prompts)
    sizes = ReferenceIdentity(tokens=4, width=8, rows=16)
    write_manifest(
        directory, brought_up(mini.manifest, engines=engines, text=None, reference=sizes)
    )
    return open_bundle(directory)


def reference_bank(
    bundle: Bundle, seed: int = 0, *, photos: int = 2, each: int = 3
) -> ReferenceBank:
    """A bank that fits the bundle, with `each` random rows of each photo."""
    sizes = bundle.manifest.sizes.reference
    tokens = np.random.default_rng(seed).normal(size=(sizes.blocks, photos * each, sizes.width))
    tokens /= np.linalg.norm(tokens, axis=-1, keepdims=True)
    numbers = np.repeat(np.arange(photos, dtype=np.int32), each)
    return ReferenceBank(tokens.astype(np.float16), numbers, bundle.tower)


def described(bank: ReferenceBank) -> Reference:
    """What the manifest says of a bank."""
    photos = [f"{number}" for number in range(bank.photos[-1] + 1)]
    return Reference(
        bank="",
        rows=bank.rows,
        photos=tuple(
            ReferencePhoto(name=f"{name}.png", sha256=hashlib.sha256(name.encode()).hexdigest())
            for name in photos
        ),
        tower=bank.tower,
        backend="onnxruntime",
        precision="fp32",
        created="2026-01-01T00:00:00+00:00",
    )


def threshold_of(seed: int) -> float:
    return (1 + seed % 50) / 100


def of_rules(calibration: Calibration, settings: ProductSettings | None) -> Calibration:
    """The calibration as it is of a product with these settings."""
    if settings is None or not settings.rules:
        return calibration
    return msgspec.structs.replace(calibration, statistic="decision_score")


def learn(
    bundle: Bundle, product: str = "object", seed: int = 0, settings: ProductSettings | None = None
) -> Bundle:
    """Gives a product a bank and a calibrated threshold, both of the seed."""
    bank = reference_bank(bundle, seed)
    return set_reference(
        bundle, product, bank, described(bank), threshold_of(seed), of_rules(LEFT_OUT, settings),
        embeddings=bundle.text_embeddings(product), before=bundle.reference_digest(product),
        settings=settings,
    )  # fmt: skip


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


def fail_midway(monkeypatch: pytest.MonkeyPatch, step: str, kind: type[BaseException]) -> None:
    """Make a writer fail at the bank, the manifest or the rename, with half a file written."""
    real = files.write_durably

    def write_half(path: Path, data: bytes) -> None:
        if (step == "bank") == (path.suffix == ".safetensors"):
            path.write_bytes(data[: len(data) // 2])
            raise kind
        real(path, data)

    def fail(self: Path, target: Path) -> None:
        raise kind

    if step == "rename":
        monkeypatch.setattr(Path, "replace", fail)
    else:
        monkeypatch.setattr(files, "write_durably", write_half)
        monkeypatch.setattr(bundle_writer, "write_durably", write_half)


def interrupt_after_the_rename(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise KeyboardInterrupt as soon as a file has taken another one's place."""
    real = Path.replace

    def replace_then_interrupt(self: Path, target: Path) -> None:
        real(self, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", replace_then_interrupt)


def disk_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
