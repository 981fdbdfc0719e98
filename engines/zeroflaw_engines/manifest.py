"""The manifest of a bundle: what `bundle.json` holds, as frozen structs.

Version 3 of the schema. Version 1, which had no calibration and no demonstration models, and
version 2, which had one graph an engine, are read as well. A reader refuses versions newer than
its own; unknown names inside a known version are refused too, since they mean damage or a typing
error, never a feature.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal

import msgspec

from zeroflaw_engines.contract import EngineName, EngineSizes
from zeroflaw_engines.errors import BundleDamagedError, BundleSchemaError, ProductError
from zeroflaw_engines.graph_entries import EngineFile, GraphTarget, Struct
from zeroflaw_engines.parameters import MethodParameters

MANIFEST_NAME: Final = "bundle.json"
SCHEMA_VERSION: Final = 3
MAX_PRODUCT_NAME: Final = 64

_SHA256 = re.compile(r"[0-9a-f]{64}")

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class FileEntry(Struct, frozen=True, kw_only=True):
    """One file of the bundle: its digest and size in bytes."""

    sha256: str
    bytes: int


class WeightsIdentity(Struct, frozen=True, kw_only=True):
    """Where weights came from.

    Attributes:
        name: Official name, file name, or `random`.
        sha256: Digest of the file; None for random weights.
    """

    name: str
    sha256: str | None = None


class ClipIdentity(Struct, frozen=True, kw_only=True):
    """The CLIP tower and its adapters.

    Attributes:
        architecture: Name in the registry of the export, as `vit_l_14_336`.
        activation: `gelu` (erf) or `quick_gelu`; APRIL-GAN's adapters at 518 px pair with `gelu`.
        image_size: Side of the square input, px.
        embedding_size: Width of the shared image-text space.
        tapped_blocks: 1-based blocks whose patch tokens are adapted.
        mean: RGB mean in [0, 1], as the graph applies it.
        std: RGB standard deviation in [0, 1], as the graph applies it.
        weights: Of the towers.
        adapters: Of the linear adapters.
    """

    architecture: str
    activation: Literal["gelu", "quick_gelu"]
    image_size: int
    embedding_size: int
    tapped_blocks: tuple[int, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights: WeightsIdentity
    adapters: WeightsIdentity


class SamIdentity(Struct, frozen=True, kw_only=True):
    """The SAM encoder and decoder.

    Attributes:
        architecture: Name in the registry of the export, as `vit_h`.
        image_size: Side of the padded square input, px.
        feature_size: Side of the feature grid, cells.
        feature_channels: Channels of the features.
        max_prompts: Rows of the decoder's point input.
        mean: RGB mean in [0, 255], as the graph applies it.
        std: RGB standard deviation in [0, 255], as the graph applies it.
        weights: Of the whole model.
    """

    architecture: str
    image_size: int
    feature_size: int
    feature_channels: int
    max_prompts: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights: WeightsIdentity


class TextIdentity(Struct, frozen=True, kw_only=True):
    """The optional text engine.

    Attributes:
        context: Most tokens of one sentence.
        tokenizer: File of the tokenizer, in the format of the `tokenizers` library.
        ensembles: File of the sentence ensembles, TOML.
    """

    context: int
    tokenizer: str
    ensembles: str


class Calibration(Struct, frozen=True, kw_only=True):
    """Where a product's decision threshold comes from: scores of good images alone.

    Attributes:
        false_reject_rate: The rate that was aimed at, inside (0, 1).
        images: Number of good images that were scored, each content once.
        rank: The threshold lies just above the rank-th smallest of their scores.
        interval: 95 % interval of the true false-reject rate at the threshold.
        observed_rate: Share of the images themselves that the threshold rejects.
        image_scoring: The parameter that the scores depend on; the threshold holds for no other.
        data_digest: SHA-256 over the sorted SHA-256 of the image files, one a line.
        created: UTC time, ISO 8601.
    """

    false_reject_rate: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    images: Annotated[int, msgspec.Meta(ge=1)]
    rank: Annotated[int, msgspec.Meta(ge=1)]
    interval: tuple[Share, Share]
    observed_rate: Share
    image_scoring: Literal["cls", "map_max"]
    data_digest: str
    created: str


class Product(Struct, frozen=True, kw_only=True):
    """A product that the bundle can inspect; its embeddings are in the prompt bank.

    Attributes:
        sentences: Number of normal and abnormal sentences behind the embeddings.
        threshold: The product's own decision threshold, in [0, 1], if it has one.
        calibration: Where the threshold comes from, if it was calibrated. It holds for these
            embeddings alone, so that new ones drop both.
    """

    sentences: tuple[int, int]
    threshold: Share | None = None
    calibration: Calibration | None = None


class ParityFigure(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One figure of the export's parity check.

    Attributes:
        engine: The engine that was checked.
        image: `real` or `noise`.
        quantity: What was compared, with its unit.
        value: The largest difference that was seen.
        tolerance: The largest that is accepted.
        target: Which of the engine's graphs was checked.
    """

    engine: EngineName
    image: Literal["real", "noise"]
    quantity: str
    value: float
    tolerance: float
    target: GraphTarget = "onnxruntime"


class Manifest(Struct, frozen=True, kw_only=True):
    """All of `bundle.json`.

    Attributes:
        schema_version: Version of this schema.
        created: UTC time of the export, ISO 8601.
        zeroflaw_version: Version that wrote the bundle.
        random_weights: Seed, if any part of the weights is random: such a bundle finds nothing.
        demonstration: A sentence that says what the model is, if it is one to try zeroflaw with
            and not one to inspect with.
        clip: The CLIP side.
        sam: The SAM side.
        text: The text engine, if the bundle has one.
        engines: Graphs by engine name.
        prompts: File of the prompt bank: one float32 [2, embedding_size] tensor a product.
        products: By name.
        parameters: Method parameters, by name.
        parity: Figures of the export's parity check.
        files: Digest and size of every file but this one.
    """

    schema_version: int
    created: str
    zeroflaw_version: str
    random_weights: int | None
    clip: ClipIdentity
    sam: SamIdentity
    text: TextIdentity | None
    engines: dict[EngineName, EngineFile]
    prompts: str
    products: dict[str, Product]
    parameters: dict[str, Any]
    parity: tuple[ParityFigure, ...]
    files: dict[str, FileEntry]
    demonstration: str | None = None

    @property
    def sizes(self) -> EngineSizes:
        """The sizes on which the engine contract depends."""
        return EngineSizes(
            clip_image_size=self.clip.image_size,
            embedding_size=self.clip.embedding_size,
            sam_image_size=self.sam.image_size,
            sam_feature_size=self.sam.feature_size,
            sam_feature_channels=self.sam.feature_channels,
            max_prompts=self.sam.max_prompts,
        )

    @property
    def method_parameters(self) -> MethodParameters:
        """The recorded method parameters, validated."""
        return MethodParameters.from_mapping(self.parameters)


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as readable JSON with a fixed order of names."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode_manifest(data: bytes, where: str) -> Manifest:
    """Reads and validates a manifest.

    Args:
        data: Contents of `bundle.json`.
        where: Path for error messages.

    Raises:
        BundleDamagedError: It is not JSON, or a path or digest in it is not acceptable.
        BundleSchemaError: Its version or its fields are not those of this schema.
    """
    try:
        raw = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleDamagedError(
            f"{where} is not valid JSON ({error})", "export the bundle again or copy it anew"
        ) from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise BundleSchemaError(
            f"{where} has no schema_version of 1 or more", "check that this is a zeroflaw bundle"
        )
    if version > SCHEMA_VERSION:
        raise BundleSchemaError(
            f"{where} has schema version {version}, newer than the {SCHEMA_VERSION} read here",
            "upgrade zeroflaw on this machine, or export the bundle with this version",
        )
    try:
        manifest = msgspec.convert(raw, Manifest)
    except msgspec.ValidationError as error:
        raise BundleSchemaError(
            f"{where} does not fit schema version {version}: {error}",
            "export the bundle again",
        ) from error
    _check_version(manifest, where)
    _check_references(manifest, where)
    return manifest


def parameters_record(parameters: MethodParameters) -> dict[str, Any]:
    """The parameters as the manifest stores them."""
    return dataclasses.asdict(parameters)


def check_product_name(name: str) -> None:
    """Refuses product names that could not be printed or used as a file name.

    Raises:
        ProductError: The name is empty, too long, or has other than printable characters.
    """
    if (
        name in {".", ".."}
        or not 0 < len(name) <= MAX_PRODUCT_NAME
        or not name.isprintable()
        or name != name.strip()
        or set(name) & set('/\\:*?"<>|')
    ):
        raise ProductError(
            f"{name!r} is not a product name",
            f"use 1 to {MAX_PRODUCT_NAME} printable characters without path separators",
        )


def check_relative_path(name: str, where: str) -> None:
    """Refuses paths that could lead out of the bundle.

    Raises:
        BundleDamagedError: The path is absolute, has `..`, or is not in plain POSIX form.
    """
    path = PurePosixPath(name)
    plain = bool(name) and "\\" not in name and ":" not in name and "\0" not in name
    if not plain or not path.parts or path.is_absolute() or ".." in path.parts or str(path) != name:
        raise BundleDamagedError(
            f"{where} names the file {name!r}, which is not a plain path inside the bundle",
            "do not use this bundle; export it again or copy it anew from a trusted place",
        )


def _check_version(manifest: Manifest, where: str) -> None:
    """Refuses fields that the manifest's own version does not have."""
    calibrated = any(product.calibration for product in manifest.products.values())
    since = 1
    if calibrated or manifest.demonstration is not None:
        since = 2
    if any(
        engine.variants or engine.attention is not None for engine in manifest.engines.values()
    ) or any(figure.target != "onnxruntime" for figure in manifest.parity):
        since = 3
    if manifest.schema_version < since:
        raise BundleSchemaError(
            f"{where} has fields that schema version {manifest.schema_version} does not know",
            "export the bundle again",
        )


def _check_references(manifest: Manifest, where: str) -> None:
    for name, entry in manifest.files.items():
        check_relative_path(name, where)
        if not _SHA256.fullmatch(entry.sha256) or entry.bytes < 0:
            raise BundleDamagedError(
                f"{where} has no valid digest and size for {name}", "export the bundle again"
            )
    references = [manifest.prompts]
    for engine in manifest.engines.values():
        for graph in engine.graphs:
            references += [graph.onnx] + ([graph.weights] if graph.weights else [])
    if manifest.text:
        references += [manifest.text.tokenizer, manifest.text.ensembles]
    for name in references:
        check_relative_path(name, where)
        if name not in manifest.files:
            raise BundleDamagedError(
                f"{where} uses the file {name} but has no digest for it", "export the bundle again"
            )
    _check_engines(manifest, where)
    for name, product in manifest.products.items():
        calibration = product.calibration
        if calibration and (
            product.threshold is None
            or calibration.rank > calibration.images
            or not _SHA256.fullmatch(calibration.data_digest)
        ):
            raise BundleSchemaError(
                f"{where}: the calibration of product {name!r} contradicts itself",
                "calibrate the product again in a whole copy of the bundle",
            )
        try:
            check_product_name(name)
        except ProductError as error:
            raise BundleSchemaError(f"{where}: {error.cause}", "export the bundle again") from error


def _check_engines(manifest: Manifest, where: str) -> None:
    for engine_name, engine in manifest.engines.items():
        targets = [graph.target for graph in engine.variants]
        if len(set(targets)) < len(targets):
            raise BundleSchemaError(
                f"{where} has two graphs of {engine_name} for one target", "export the bundle again"
            )
    required: tuple[EngineName, ...] = ("clip_encoder", "sam_encoder", "sam_decoder")
    for engine_name in (*required, *(("text_encoder",) if manifest.text else ())):
        if engine_name not in manifest.engines:
            raise BundleSchemaError(
                f"{where} has no engine {engine_name}", "export the bundle again"
            )
