"""Reading a bundle: the directory that is the whole contract between workstation and station."""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from zeroflaw_engines.bundle.directory.lock import standing_bundle
from zeroflaw_engines.bundle.directory.verification import read_verified, verify_files
from zeroflaw_engines.bundle.graph_entries import (
    AttentionForm,
    EngineFile,
    Graph,
    GraphTarget,
    GraphVariant,
)
from zeroflaw_engines.bundle.manifest import MANIFEST_NAME, FileEntry, Manifest
from zeroflaw_engines.bundle.manifest_text import decode_manifest
from zeroflaw_engines.bundle.products.names import normal_name
from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings, decode_prompt_bank, read_prompt_bank
from zeroflaw_engines.bundle.reference_bank import (
    ReferenceBank,
    check_described,
    decode_reference_bank,
)
from zeroflaw_engines.bundle.shipped import (
    bundle_path,
    file_of_bundle,
    is_shipped,
    shipped_frame_resizer,
)
from zeroflaw_engines.contract import (
    CLIP_ENCODER,
    FRAME_RESIZER,
    SAM_DECODER,
    SAM_ENCODER,
    SINGLE_GRAPH_ENGINES,
    EngineContract,
    EngineName,
    engine_contract,
)
from zeroflaw_engines.errors import (
    BundleChangedError,
    BundleDamagedError,
    BundleError,
    EngineError,
    ProductError,
)

# A writer must come between a manifest and its bank, microseconds apart, that often.
_MAX_TRIES: Final = 200

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest was read and whose files were checked.

    Attributes:
        read_bank: The prompt bank that was read with the manifest; None if none was.
    """

    path: Path
    manifest: Manifest
    read_bank: Mapping[str, TextEmbeddings] | None = field(default=None, repr=False, compare=False)

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

    @property
    def tower(self) -> str:
        """Digest of the CLIP encoder, its preprocessing included: what reference banks are of."""
        entry = self._engine_file(CLIP_ENCODER)
        lines = [self.manifest.files[name].sha256 for name in (entry.onnx, entry.weights) if name]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def file(self, name: str) -> Path:
        """Return the path of a file that the manifest names."""
        return file_of_bundle(self.path, name)

    def contract(self, engine: EngineName) -> EngineContract:
        """Return the contract of one engine at this bundle's sizes."""
        return engine_contract(engine, self.manifest.sizes)

    def onnx_path(self, engine: EngineName) -> Path:
        """Return the reference graph of one engine.

        Raises:
            EngineError: The bundle has no such engine.
        """
        if engine == FRAME_RESIZER:
            return shipped_frame_resizer().path
        return self.file(self._engine_file(engine).onnx)

    def graph(self, engine: EngineName, target: GraphTarget) -> Graph:
        """Return the graph of one engine that a target takes.

        `onnxruntime` takes the FP32 reference; `openvino` takes its variant, or the reference
        where there is none (same numbers, slower); `tensorrt` takes its FP16 variant. Of
        `frame_resizer`, which ships with zeroflaw, and `box_proposer` all take the one graph.

        Raises:
            EngineError: The bundle has no such engine, or no graph of it for TensorRT.
        """
        if engine == FRAME_RESIZER:
            return shipped_frame_resizer()
        entry = self._engine_file(engine)
        variant = entry.variant(target)
        if variant is None and target == "tensorrt" and engine not in SINGLE_GRAPH_ENGINES:
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
            path=self.file(chosen.onnx),
            weights_path=self.file(chosen.weights) if chosen.weights else None,
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
                else "set refiner to none, or export it again with SAM: `zeroflaw export --sam`"
                if engine in (SAM_ENCODER, SAM_DECODER)
                else "export it again",
            )
        return entry

    def text_embeddings(self, product: str) -> TextEmbeddings:
        """Return the text embeddings of one product, float32 [2, embedding_size].

        Raises:
            ProductError: The bundle does not know the product.
        """
        return self.bank[self._known_name(product)]

    def reference_digest(self, product: str) -> str | None:
        """Return the SHA-256 that names a product's reference bank; None if it has none.

        Raises:
            ProductError: The bundle does not know the product.
        """
        reference = self.manifest.products[self._known_name(product)].reference
        return None if reference is None else self.manifest.files[reference.bank].sha256

    def reference_bank(self, product: str) -> ReferenceBank | None:
        """Read a product's reference bank, and verify it; None if it has none.

        Raises:
            ProductError: The bundle does not know the product.
            BundleChangedError: The bank was replaced or removed since the bundle was opened.
            BundleDamagedError: Its file is missing or altered.
            ReferenceBankError: It does not belong to this bundle, or is none to match with.
        """
        reference = self.manifest.products[self._known_name(product)].reference
        if reference is None:
            return None
        name = reference.bank
        data = self.product_file(name, f"the reference bank of product {product!r}")
        sizes = self.manifest.sizes.reference
        bank = decode_reference_bank(data, self.path / name, sizes, self.tower)
        check_described(bank, reference)
        return bank

    def product_file(self, name: str, what: str) -> bytes:
        """Read a file that comes and goes with its product, and verify it.

        Args:
            what: It is, for the error.

        Raises:
            BundleChangedError: It was replaced or removed since the bundle was opened.
            BundleDamagedError: It is missing or altered.
        """
        try:
            return read_verified(self.path, name, self.manifest.files[name])
        except BundleDamagedError as error:
            if self._has_still(name):
                raise
            raise BundleChangedError(
                f"{what} in {self.path} was replaced since the bundle was opened",
                "run the command again, or load it again",
            ) from error

    def _has_still(self, name: str) -> bool:
        """Return whether the bundle at the path is one with the same file."""
        try:
            return read_manifest(self.path).files.get(name) == self.manifest.files[name]
        except BundleError:
            return False

    def _known_name(self, product: str) -> str:
        name = self.product_name(product)
        if name is None or name not in self.bank:
            known = ", ".join(sorted(self.manifest.products)) or "none"
            raise ProductError(
                f"the bundle {self.path} has no product {product!r} (it has: {known})",
                f"name a known one, or {self.how_to_add(product)}",
            )
        return name

    @cached_property
    def bank(self) -> Mapping[str, TextEmbeddings]:
        """Text embeddings by product: those that were read with the manifest."""
        if self.read_bank is not None:
            return self.read_bank
        return read_prompt_bank(self.file(self.manifest.prompts), self.manifest.clip.embedding_size)

    def product_name(self, product: str) -> str | None:
        """Return the bundle's own spelling of a product's name; None if it is not known."""
        known = self.manifest.products
        return next((name for name in (product, normal_name(product)) if name in known), None)

    def how_to_add(self, product: str) -> str:
        """Say how a user can add a product that the bundle lacks, as part of a remedy."""
        name = shlex.quote(product)
        if self.manifest.text is None and self.manifest.takes_texts:
            return f"export the bundle again with it, or with --text-encoder: `--product {name}`"
        if is_shipped(self.path):
            copying = f"zeroflaw bundle copy {self.path.resolve().name} my_bundle"
            return f"add it to a copy: `{copying}`, then `zeroflaw products add my_bundle {name}`"
        return f"add it with `zeroflaw products add {shlex.quote(str(self.path))} {name}`"


def open_bundle(path: str | Path, *, verify_digests: bool = True) -> Bundle:
    """Open a bundle and verify it: schema, paths, files, sizes and digests.

    A bundle that another process changes meanwhile is read again, until all that was read belongs
    together. The prompt bank comes with it, since the next writer removes its file.

    Args:
        path: The bundle's directory, or the name of one that ships with zeroflaw, as `mini`.
        verify_digests: Whether to hash every file. Without it, sizes alone are checked, and the
            prompt bank is hashed; leave that to callers that have verified the same files a
            moment ago.

    Raises:
        BundleError: There is no bundle at the path.
        BundleDamagedError: A file is missing or altered; the error says which.
        BundleSchemaError: The manifest is not one that this version understands.
    """
    verified: dict[str, tuple[str, os.stat_result]] = {}
    tries = 0
    while True:
        tries += 1
        root, data = _standing_manifest(bundle_path(path))
        manifest = decode_manifest(data, str(root / MANIFEST_NAME))
        try:
            # The banks first, since only they change while products are added and learned: a
            # graph of gigabytes is hashed no faster than a product is learned.
            bank = _read_prompts(root, manifest)
            for files in (_product_files(manifest), _graphs(manifest)):
                verify_files(root, files, verified, verify_digests=verify_digests)
        except (BundleDamagedError, ProductError):
            if tries == _MAX_TRIES or _still_has(root, data):
                raise
        else:
            if tries == _MAX_TRIES or _still_has(root, data, manifest):
                return Bundle(path=root, manifest=manifest, read_bank=bank)


def read_manifest(path: str | Path) -> Manifest:
    """Read a bundle's manifest alone, without looking at the files that it names.

    Args:
        path: As for `open_bundle`.

    Raises:
        BundleError: There is no bundle at the path.
        BundleDamagedError: The manifest is not valid.
        BundleSchemaError: It is not one that this version understands.
    """
    root, data = _standing_manifest(bundle_path(path))
    return decode_manifest(data, str(root / MANIFEST_NAME))


def require_same_engine(bundle: Bundle, engine: EngineName) -> None:
    """Refuse to go on with an engine that another process replaced since the bundle was opened.

    Raises:
        BundleChangedError: The graphs at the bundle's path are others by now, or gone.
    """
    try:
        now = read_manifest(bundle.path)
    except BundleError as error:
        raise _changed(bundle) from error
    if _files_of(now, engine) != _files_of(bundle.manifest, engine):
        raise _changed(bundle)


def require_same_models(bundle: Bundle, now: Bundle) -> None:
    """Refuse to store what was computed with models that have been replaced since.

    Args:
        bundle: As it was when the computing began.

    Raises:
        BundleChangedError: They are not the same models.
    """
    if bundle.identity != now.identity:
        raise _changed(bundle)


def _standing_manifest(path: Path) -> tuple[Path, bytes]:
    """Find the directory to read from, and its manifest; look again where it moved meanwhile."""
    for _ in range(_MAX_TRIES):
        root = standing_bundle(path)
        try:
            return root, (root / MANIFEST_NAME).read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            missing = error
            if root.is_dir() and not (root / MANIFEST_NAME).exists():
                break
        except OSError as error:
            raise BundleError(
                f"{root / MANIFEST_NAME} cannot be read: {error}", "check its permissions"
            ) from error
    raise BundleError(
        f"{path} is not a bundle: it has no {MANIFEST_NAME}",
        "name the directory that `zeroflaw export` wrote",
    ) from missing


def _still_has(root: Path, data: bytes, manifest: Manifest | None = None) -> bool:
    """Return whether the manifest there is the one that was read, or differs in products alone."""
    try:
        _, now = _standing_manifest(root)
        if now == data:
            return True
        return manifest is not None and _graphs(manifest) == _graphs(
            decode_manifest(now, str(root / MANIFEST_NAME))
        )
    except BundleError:
        return False


def _read_prompts(root: Path, manifest: Manifest) -> dict[str, TextEmbeddings]:
    name = manifest.prompts
    data = read_verified(root, name, manifest.files[name])
    return decode_prompt_bank(data, root / name, manifest.clip.embedding_size)


def _product_files(manifest: Manifest) -> dict[str, FileEntry]:
    return {name: manifest.files[name] for name in sorted(manifest.product_files)}


def _graphs(manifest: Manifest) -> dict[str, FileEntry]:
    """Return the files that stay as they are while products are added, learned and forgotten."""
    passing = {manifest.prompts} | manifest.product_files
    return {name: entry for name, entry in manifest.files.items() if name not in passing}


def _files_of(manifest: Manifest, engine: EngineName) -> dict[str, FileEntry]:
    entry = manifest.engines.get(engine)
    graphs: tuple[EngineFile | GraphVariant, ...] = (entry, *entry.variants) if entry else ()
    names = {name for graph in graphs for name in (graph.onnx, graph.weights) if name}
    return {name: manifest.files[name] for name in sorted(names)}


def _changed(bundle: Bundle) -> BundleChangedError:
    return BundleChangedError(
        f"the bundle {bundle.path} was replaced by another since it was opened",
        "run the command again, or load it again",
    )
