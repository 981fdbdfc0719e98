"""Reading a bundle: the directory that is the whole contract between workstation and station."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
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
from zeroflaw_engines.graph_entries import AttentionForm, EngineFile, GraphTarget, Precision
from zeroflaw_engines.manifest import MANIFEST_NAME, Manifest, decode_manifest
from zeroflaw_engines.prompt_bank import TextEmbeddings, read_prompt_bank

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Graph:
    """One graph of an engine, as a backend loads it.

    Attributes:
        engine: The engine.
        path: The ONNX file.
        weights_path: The file of its external weights, if it has one.
        opset: Version of the ONNX operators.
        precision: `fp16` is strongly typed, with islands of FP32.
        attention: How SAM's relative position is written.
        recipe: Identity of the precision recipe; None for FP32.
        sha256: Digests of its files by file name.
    """

    engine: EngineName
    path: Path
    weights_path: Path | None
    opset: int
    precision: Precision
    attention: AttentionForm
    recipe: str | None
    sha256: Mapping[str, str]


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
        """Digest that names the models of this bundle: equal for equal engines and weights.

        It covers the reference graphs alone. Variants are other forms of the same models, and
        results stay comparable when one is added.
        """
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
        """The reference graph of one engine.

        Raises:
            EngineError: The bundle has no such engine.
        """
        return self.path / self._engine_file(engine).onnx

    def graph(self, engine: EngineName, target: GraphTarget) -> Graph:
        """The graph of one engine that a target takes.

        `onnxruntime` takes the FP32 reference; `openvino` takes its variant, or the reference
        where there is none (same numbers, slower); `tensorrt` takes its FP16 variant.

        Raises:
            EngineError: The bundle has no such engine, or no graph of it for TensorRT.
        """
        entry = self._engine_file(engine)
        variant = entry.variant(target)
        if variant is None and target == "tensorrt":
            raise EngineError(
                f"the bundle {self.path} has no graph of {engine} for TensorRT",
                "add them to a copy of the bundle with `zeroflaw add-fp16 DIR`, or export it with"
                " `zeroflaw export --precision fp16`",
            )
        if variant is None and target == "openvino":
            _logger.info("%s has no graph of %s for OpenVINO: reference", self.path, engine)
        chosen = variant or entry
        files = [chosen.onnx, *([chosen.weights] if chosen.weights else [])]
        before: AttentionForm = "extended" if engine == "sam_encoder" else "none"
        return Graph(
            engine=engine,
            path=self.path / chosen.onnx,
            weights_path=self.path / chosen.weights if chosen.weights else None,
            opset=chosen.opset,
            precision=chosen.precision,
            attention=chosen.attention or before,
            recipe=variant.recipe if variant else None,
            sha256={name: self.manifest.files[name].sha256 for name in files},
        )

    def _engine_file(self, engine: EngineName) -> EngineFile:
        entry = self.manifest.engines.get(engine)
        if entry is None:
            raise EngineError(
                f"the bundle {self.path} has no {engine}",
                "export it again with that engine (`zeroflaw export --text-encoder`)"
                if engine == "text_encoder"
                else "export it again",
            )
        return entry

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
