"""The manifest of a bundle: what `bundle.json` holds, as frozen structs.

Version 6 of the schema, version 7 where encoders take batches, version 8 where a product has
settings, and version 9 where the localizer is not APRIL-GAN's or the refiner not the cascade, so
that older readers refuse those bundles alone. Version 1, which had no calibration and
no demonstration models, version 2, which had one graph an engine, version 3, which had no digest of
itself, version 4, which had no reference banks, and version 5, whose banks had as many layers as
there are tapped blocks, are read as well. A reader refuses versions newer than its own; inside a
known version, names that are unknown, missing or there twice are refused too, since they mean
damage or a typing error, never a feature.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from zeroflaw_engines.bundle.graph_entries import EngineFile, GraphTarget, Struct
from zeroflaw_engines.bundle.identities import (
    ClipIdentity,
    LocalizerIdentity,
    ProposalsIdentity,
    ReferenceIdentity,
    SamIdentity,
    TextIdentity,
)
from zeroflaw_engines.bundle.products.settings import ProductSettings
from zeroflaw_engines.contract import EngineName, EngineSizes, ProposalSizes, ReferenceSizes
from zeroflaw_engines.parameters import MethodParameters

MANIFEST_NAME: Final = "bundle.json"
# Where a station keeps the engines that it built; no part of the manifest.
ENGINES_DIRECTORY: Final = "engines"
SCHEMA_VERSION: Final = 6
# Of bundles whose encoders take batches.
BATCHES_SINCE: Final = 7
# Of bundles with a product that has settings.
SETTINGS_SINCE: Final = 8
# Of bundles whose localizer or refiner is another than the paper's.
LOCALIZERS_SINCE: Final = 9
NEWEST_VERSION: Final = LOCALIZERS_SINCE

CalibrationScheme = Literal["split", "leave_one_out"]
Statistic = Literal["image_score", "decision_score"]
# Other views of each reference photo that join its rows of the bank.
Augmentation = Literal["rotate_90", "rotate_180", "rotate_270", "flip_horizontal", "flip_vertical"]

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class FileEntry(Struct, frozen=True, kw_only=True):
    """One file of the bundle: its digest and size in bytes."""

    sha256: str
    bytes: int


class ReferencePhoto(Struct, frozen=True, kw_only=True):
    """A photo whose tokens are in a bank: the name of its file, and the file's digest."""

    name: str
    sha256: str


class Reference(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A product's reference bank, and where it comes from.

    Attributes:
        bank: File of the bank.
        rows: Rows of the bank for each tapped block; of all tiles together.
        photos: Whose tokens they are.
        tower: Digest of the CLIP encoder that gave them, its preprocessing included.
        backend: What ran it, as its session describes itself.
        precision: What it computed in.
        created: UTC time, ISO 8601.
        augmentations: Other views of each photo that are in the bank.
        tiles: Numbers of the tiles that have a bank each, row by row from 0, all in the one file;
            none: one bank for all tiles, or for the frame as a whole.
    """

    bank: str
    rows: Annotated[int, msgspec.Meta(ge=1)]
    photos: tuple[ReferencePhoto, ...]
    tower: str
    backend: str
    precision: str
    created: str
    augmentations: tuple[Augmentation, ...] = ()
    tiles: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] = ()


class Calibration(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a product's decision threshold comes from: scores of good images alone.

    Attributes:
        false_reject_rate: The rate that was aimed at, inside (0, 1).
        images: Number of good images that were scored, each content once.
        rank: The threshold lies just above the rank-th smallest of their scores.
        interval: 95 % interval of the true false-reject rate at the threshold; None where none
            can be given (`leave_one_out`).
        observed_rate: Share of the images themselves that the threshold rejects.
        image_scoring: The parameter that the scores depend on; the threshold holds for no other.
        data_digest: SHA-256 over the sorted SHA-256 of the image files, one a line.
        created: UTC time, ISO 8601.
        backend: What ran the CLIP encoder, as its session describes itself: name, version,
            device. None in calibrations of version 3 or older, as the fields after it.
        precision: What it computed in.
        parameters: The method parameters, by name.
        parameters_digest: Their digest, as inspections record it.
        scheme: `split`: no image is in the product's bank. `leave_one_out`: each is, and was
            scored without its own rows.
        reference: Digest of the bank that the scores were computed with; None without a bank.
        statistic: What was scored: `image_score`, or `decision_score`, what the rules of the
            product's settings make of image score and regions.
    """

    false_reject_rate: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    images: Annotated[int, msgspec.Meta(ge=1)]
    rank: Annotated[int, msgspec.Meta(ge=1)]
    interval: tuple[Share, Share] | None
    observed_rate: Share
    image_scoring: Literal["cls", "map_max"]
    data_digest: str
    created: str
    backend: str | None = None
    precision: str | None = None
    parameters: dict[str, Any] | None = None
    parameters_digest: str | None = None
    scheme: CalibrationScheme = "split"
    reference: str | None = None
    statistic: Statistic = "image_score"


class Product(Struct, frozen=True, kw_only=True):
    """A product that the bundle can inspect; its embeddings are in the prompt bank.

    Attributes:
        sentences: Number of normal and abnormal sentences behind the embeddings.
        threshold: The product's own decision threshold, in [0, 1], if it has one.
        calibration: Where the threshold comes from, if it was calibrated. It holds for these
            embeddings alone, so that new ones drop both.
        reference: Its reference bank, if it has learned one; new embeddings drop it too.
        settings: How its frames are looked at, and what decides; None: as a whole, by image score.
    """

    sentences: tuple[int, int]
    threshold: Share | None = None
    calibration: Calibration | None = None
    reference: Reference | None = None
    settings: ProductSettings | None = None


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
        reference: What reference banks it takes, if it takes any.
        localizer: None before version 9, and where it is APRIL-GAN's.
        proposals: The box proposer, if it has one.
        clip: The CLIP side.
        sam: The SAM side; None where the bundle has none, since version 9: it was exported for a
            refiner that runs without.
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
    sam: SamIdentity | None
    text: TextIdentity | None
    engines: dict[EngineName, EngineFile]
    prompts: str
    products: dict[str, Product]
    parameters: dict[str, Any]
    parity: tuple[ParityFigure, ...]
    files: dict[str, FileEntry]
    demonstration: str | None = None
    reference: ReferenceIdentity | None = None
    localizer: LocalizerIdentity | None = None
    proposals: ProposalsIdentity | None = None

    @property
    def localizer_name(self) -> str:
        """Name of the localizer in the registry of the export."""
        return "april_gan" if self.localizer is None else self.localizer.name

    @property
    def takes_texts(self) -> bool:
        """Whether the localizer tells products apart by their sentences."""
        return self.clip.embedding_size > 0

    @property
    def sizes(self) -> EngineSizes:
        """The sizes on which the engine contract depends."""
        return EngineSizes(
            clip_image_size=self.clip.image_size,
            embedding_size=self.clip.embedding_size,
            sam_image_size=0 if self.sam is None else self.sam.image_size,
            sam_feature_size=0 if self.sam is None else self.sam.feature_size,
            sam_feature_channels=0 if self.sam is None else self.sam.feature_channels,
            max_prompts=0 if self.sam is None else self.sam.max_prompts,
            reference=None
            if self.reference is None
            else ReferenceSizes(
                blocks=self.reference.blocks or len(self.clip.tapped_blocks),
                tokens=self.reference.tokens,
                width=self.reference.width,
                rows=self.reference.rows,
            ),
            max_batch=self.max_batch,
            proposals=None
            if self.proposals is None
            else ProposalSizes(self.proposals.image_size, self.proposals.boxes),
        )

    @property
    def max_batch(self) -> int:
        """Most images that one call of either encoder takes: the checks hold them equal."""
        return max((engine.max_batch for engine in self.engines.values()), default=1)

    @property
    def reference_banks(self) -> frozenset[str]:
        """The files of the reference banks, which come and go with their products."""
        return frozenset(one.reference.bank for one in self.products.values() if one.reference)

    @property
    def alignment_templates(self) -> frozenset[str]:
        """The files of the reference photos that frames are aligned with; the same of these."""
        settings = [one.settings for one in self.products.values() if one.settings]
        return frozenset(one.alignment.template for one in settings if one.alignment)

    @property
    def product_files(self) -> frozenset[str]:
        """All files that come and go with their products."""
        return self.reference_banks | self.alignment_templates

    @property
    def method_parameters(self) -> MethodParameters:
        """The recorded method parameters, validated."""
        return MethodParameters.from_mapping(self.parameters)


def sam_text(manifest: Manifest) -> str:
    """Return which SAM a bundle has, on one line."""
    sam = manifest.sam
    return "no SAM" if sam is None else f"{sam.architecture} at {sam.image_size} px"


def schema_version(
    max_batch: int,
    products: Mapping[str, Product] | None = None,
    *,
    localizer: LocalizerIdentity | None = None,
    parameters: MethodParameters | None = None,
    proposals: ProposalsIdentity | None = None,
) -> int:
    """Return the version of the schema that a new manifest has: the oldest that can say it all."""
    other_refiner = parameters is not None and parameters.refiner != "cascade"
    if localizer is not None or proposals is not None or other_refiner:
        return LOCALIZERS_SINCE
    if any(product.settings for product in (products or {}).values()):
        return SETTINGS_SINCE
    return BATCHES_SINCE if max_batch > 1 else SCHEMA_VERSION


def brought_up(manifest: Manifest, **changes: Any) -> Manifest:  # noqa: ANN401 - any field's type
    """Bring a manifest to the current version of the schema, with some fields changed.

    Parameters that its own version did not know are recorded with the defaults that they had.
    Files of products that no product has any more are no longer among the files.
    """
    new = msgspec.structs.replace(
        manifest,
        **{
            "schema_version": schema_version(
                manifest.max_batch,
                changes.get("products", manifest.products),
                localizer=manifest.localizer,
                parameters=manifest.method_parameters,
                proposals=manifest.proposals,
            ),
            "parameters": parameters_record(manifest.method_parameters),
            **changes,
        },
    )
    gone = manifest.product_files - new.product_files
    files = {name: entry for name, entry in new.files.items() if name not in gone}
    return msgspec.structs.replace(new, files=files)


def parameters_record(parameters: MethodParameters) -> dict[str, Any]:
    """Return the parameters as the manifest stores them: those of other refiners are left out."""
    return parameters.relevant
