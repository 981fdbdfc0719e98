"""Reading a bundle: the directory that is the whole contract between workstation and station."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from zeroflaw_engines.contract import EngineContract, EngineName, engine_contract
from zeroflaw_engines.digests import sha256_of_files
from zeroflaw_engines.embedded import bundle_path
from zeroflaw_engines.errors import (
    BundleDamagedError,
    BundleError,
    EngineError,
    ProductError,
)
from zeroflaw_engines.manifest import MANIFEST_NAME, Manifest, decode_manifest
from zeroflaw_engines.prompt_bank import TextEmbeddings, read_prompt_bank


@dataclass(frozen=True)
class Graph:
    """Stub of helper fp16's `Graph`; its own replaces this at the merge."""

    path: Path
    weights_path: Path | None
    precision: str
    attention: str
    sha256: dict[str, str]
    opset: int


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest was read and whose files were checked.

    Attributes:
        path: The directory.
        manifest: Its manifest.
    """

    path: Path
    manifest: Manifest

    @property
    def identity(self) -> str:
        """Digest that names the models of this bundle: equal for equal engines and weights."""
        lines = [
            f"{name} {self.manifest.files[file].sha256}"
            for name, engine in sorted(self.manifest.engines.items())
            for file in (engine.onnx, engine.weights)
            if file
        ]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def contract(self, engine: EngineName) -> EngineContract:
        """The contract of one engine at this bundle's sizes."""
        return engine_contract(engine, self.manifest.sizes)

    def onnx_path(self, engine: EngineName) -> Path:
        """The graph of one engine.

        Raises:
            EngineError: The bundle has no such engine.
        """
        entry = self.manifest.engines.get(engine)
        if entry is None:
            raise EngineError(
                f"the bundle {self.path} has no {engine}",
                "export it again with that engine (`zeroflaw export --text-encoder`)"
                if engine == "text_encoder"
                else "export it again",
            )
        return self.path / entry.onnx

    def graph(self, engine: EngineName, target: str) -> Graph:
        """Stub of helper fp16's `Bundle.graph`: the reference only."""
        if target == "tensorrt":
            raise EngineError(
                f"the bundle {self.path} has no fp16 graph of {engine}",
                "export it again with `zeroflaw export --precision fp16`",
            )
        entry = self.manifest.engines[engine]
        files = [entry.onnx, *([entry.weights] if entry.weights else [])]
        return Graph(
            path=self.path / entry.onnx,
            weights_path=self.path / entry.weights if entry.weights else None,
            precision=entry.precision,
            attention="extended",
            sha256={name: self.manifest.files[name].sha256 for name in files},
            opset=entry.opset,
        )

    def text_embeddings(self, product: str) -> TextEmbeddings:
        """Text embeddings of one product, float32 [2, embedding_size].

        Raises:
            ProductError: The bundle does not know the product.
        """
        manifest = self.manifest
        if not (self.path / manifest.prompts).exists():
            # Another process has added products since, and with them a new bank.
            manifest = read_manifest(self.path)
        bank = read_prompt_bank(self.path / manifest.prompts, manifest.clip.embedding_size)
        if product not in manifest.products or product not in bank:
            known = ", ".join(sorted(manifest.products)) or "none"
            raise ProductError(
                f"the bundle {self.path} has no product {product!r} (it has: {known})",
                f"add it with `zeroflaw products add {self.path} {product}`, or name a known one",
            )
        return bank[product]


def open_bundle(path: str | Path, *, verify_digests: bool = True) -> Bundle:
    """Opens a bundle and verifies it: schema, paths, files, sizes and digests.

    Args:
        path: The bundle's directory, or the text `mini` for the one that ships with zeroflaw.
        verify_digests: Whether to hash every file. Without it, sizes alone are checked; leave
            that to callers that have verified the same files a moment ago.

    Raises:
        BundleError: There is no bundle at the path.
        BundleDamagedError: A file is missing or altered; the error says which.
        BundleSchemaError: The manifest is not one that this version understands.
    """
    root = bundle_path(path)
    manifest = read_manifest(root)
    _verify_files(root, manifest, verify_digests=verify_digests)
    return Bundle(path=root, manifest=manifest)


def read_manifest(path: str | Path) -> Manifest:
    """Reads a bundle's manifest alone, without looking at the files that it names.

    Args:
        path: As for `open_bundle`.

    Raises:
        BundleError: There is no bundle at the path.
        BundleDamagedError: The manifest is not valid.
        BundleSchemaError: It is not one that this version understands.
    """
    root = bundle_path(path)
    manifest_path = root / MANIFEST_NAME
    try:
        data = manifest_path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(
            f"{root} is not a bundle: it has no {MANIFEST_NAME}",
            "name the directory that `zeroflaw export` wrote",
        ) from error
    except OSError as error:
        raise BundleError(
            f"{manifest_path} cannot be read: {error}", "check its permissions"
        ) from error
    return decode_manifest(data, str(manifest_path))


def _verify_files(root: Path, manifest: Manifest, *, verify_digests: bool) -> None:
    remedy = "copy the bundle anew, or export it again"
    inside = root.resolve()
    for name, entry in manifest.files.items():
        file = root / name
        if not file.is_file():
            raise BundleDamagedError(f"{file} is missing from the bundle", remedy)
        if not file.resolve().is_relative_to(inside):
            raise BundleDamagedError(f"{file} is a link that leads out of the bundle", remedy)
        size = file.stat().st_size
        if size != entry.bytes:
            raise BundleDamagedError(
                f"{file} has {size} bytes where the manifest says {entry.bytes}", remedy
            )
    if not verify_digests:
        return
    try:
        digests = sha256_of_files(root / name for name in manifest.files)
    except OSError as error:
        raise BundleDamagedError(
            f"{error.filename} cannot be read: {error.strerror}", remedy
        ) from error
    for name, entry in manifest.files.items():
        if digests[root / name] != entry.sha256:
            raise BundleDamagedError(
                f"{root / name} was altered: its SHA-256 is not the manifest's", remedy
            )
