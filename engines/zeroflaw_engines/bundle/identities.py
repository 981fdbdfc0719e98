"""What a manifest says of the models in a bundle: architectures, sizes, weights."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from zeroflaw_engines.bundle.graph_entries import Struct


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
        embedding_size: Width of the shared image-text space; 0 where the localizer takes no texts.
        tapped_blocks: 1-based blocks, or levels of a pyramid, whose tokens are adapted, or go
            into reference banks.
        mean: RGB mean in [0, 1], as the graph applies it.
        std: RGB standard deviation in [0, 1], as the graph applies it.
        weights: Of the towers.
        adapters: Of what the localizer adds to the towers: APRIL-GAN's linear adapters, unless
            the manifest names another localizer; `none` if it adds nothing.
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


class LocalizerIdentity(Struct, frozen=True, kw_only=True):
    """The method that the clip_encoder computes maps and scores by, if it is not APRIL-GAN's.

    Attributes:
        name: Name in the registry of the export, as `clipsam`.
        parameters: What it was exported with, by name; they are part of the graph.
    """

    name: str
    parameters: dict[str, Any]


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


class ProposalsIdentity(Struct, frozen=True, kw_only=True):
    """The box proposer that the user brought; see `ProposalSizes`.

    Attributes:
        image_size: Side of its square input, px.
        boxes: Boxes that it gives for an image.
        weights: The graph that was given, by its file's name and digest; its external data is
            known by the digest of the bundle's own file.
    """

    image_size: Annotated[int, msgspec.Meta(ge=1)]
    boxes: Annotated[int, msgspec.Meta(ge=1)]
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


class ReferenceIdentity(Struct, frozen=True, kw_only=True):
    """The sizes of the reference banks that a bundle takes; see `ReferenceSizes`.

    Attributes:
        blocks: None before version 6: as many as there are tapped blocks.
    """

    tokens: Annotated[int, msgspec.Meta(ge=1)]
    width: Annotated[int, msgspec.Meta(ge=1)]
    rows: Annotated[int, msgspec.Meta(ge=1)]
    blocks: Annotated[int, msgspec.Meta(ge=1)] | None = None
