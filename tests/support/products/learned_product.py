"""Products with a reference bank, made of frames as they are and stored without a calibration."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from zeroflaw.inspector import Inspector
from zeroflaw.pipeline.encoding.clip import encode_clip
from zeroflaw.station.thinning import bank_of_photos, thinned
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.manifest import FileEntry, Reference, ReferencePhoto
from zeroflaw_engines.bundle.reference_bank import ReferenceBank, encode_reference_bank
from zeroflaw_engines.bundle.writer import replace_manifest
from zeroflaw_engines.image_files.frame import rgb_frame
from zeroflaw_engines.sessions.device_tensor import on_host


def tokens_of(inspector: Inspector, frame: np.ndarray) -> np.ndarray:
    """Patch tokens, float32 [blocks, tokens, width]; they do not depend on the product."""
    bundle = inspector.bundle
    seen = encode_clip(
        rgb_frame(frame),
        bundle.manifest.clip.image_size,
        bundle.text_embeddings("object"),
        inspector.sessions.clip_encoder,
    )
    assert seen.patch_tokens is not None
    return on_host(seen.patch_tokens)


def bank_of(inspector: Inspector, frames: Sequence[np.ndarray], rows: int) -> ReferenceBank:
    """A bank of so many rows a frame and block."""
    return bank_of_photos(
        [thinned(tokens_of(inspector, frame), rows) for frame in frames], inspector.bundle.tower
    )


def store(
    path: Path, product: str, bank: ReferenceBank | None, *, threshold: float | None = None
) -> str | None:
    """Give a product of the bundle there a bank, or take it away; return the bank's digest."""
    bundle = open_bundle(path, verify_digests=False)
    entry, files = bundle.manifest.products[product], dict(bundle.manifest.files)
    if entry.reference is not None:
        files.pop(entry.reference.bank)
        (bundle.path / entry.reference.bank).unlink()
    reference, digest = None, None
    if bank is not None:
        name = f"reference-{uuid.uuid4().hex[:8]}.safetensors"
        data = encode_reference_bank(bank)
        digest = hashlib.sha256(data).hexdigest()
        (bundle.path / name).write_bytes(data)
        files[name] = FileEntry(sha256=digest, bytes=len(data))
        reference = Reference(
            bank=name,
            rows=bank.rows,
            photos=tuple(
                ReferencePhoto(name=f"{i}.png", sha256=f"{i:064x}")
                for i in range(int(bank.photos.max()) + 1)
            ),
            tower=bank.tower,
            backend="onnxruntime",
            precision="fp32",
            created="2026-01-01T00:00:00+00:00",
        )
    products = {
        **bundle.manifest.products,
        product: msgspec.structs.replace(entry, reference=reference, threshold=threshold),
    }
    replace_manifest(
        bundle.path, msgspec.structs.replace(bundle.manifest, products=products, files=files)
    )
    return digest
