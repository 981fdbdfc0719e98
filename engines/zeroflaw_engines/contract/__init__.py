"""The contract of the engines: names, shapes and dtypes of every tensor that crosses the border.

The export writes graphs that fulfil it, sessions check that the graphs they load do, and the
runtime speaks only these names. Every size comes from the manifest, so nothing outside the
export knows which CLIP or which SAM a bundle holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from zeroflaw_engines.errors import EngineContractError
from zeroflaw_engines.parameters import Refiner

EngineName = Literal[
    "clip_encoder",
    "sam_encoder",
    "sam_decoder",
    "text_encoder",
    "reference_matcher",
    "frame_resizer",
    "box_proposer",
]

CLIP_ENCODER: Final = "clip_encoder"
SAM_ENCODER: Final = "sam_encoder"
SAM_DECODER: Final = "sam_decoder"
TEXT_ENCODER: Final = "text_encoder"
REFERENCE_MATCHER: Final = "reference_matcher"
FRAME_RESIZER: Final = "frame_resizer"
BOX_PROPOSER: Final = "box_proposer"
PATCH_TOKENS: Final = "patch_tokens"
TEXT_EMBEDDINGS: Final = "text_embeddings"

# Engines of one graph, which every backend runs in FP32 whatever the others compute in.
SINGLE_GRAPH_ENGINES: Final[tuple[EngineName, ...]] = (FRAME_RESIZER, BOX_PROPOSER)

# What each refiner runs beside the CLIP encoder.
ENGINES_OF_REFINER: Final[dict[Refiner, tuple[EngineName, ...]]] = {
    "cascade": (SAM_ENCODER, SAM_DECODER),
    "mmr": (SAM_ENCODER, SAM_DECODER),
    "box_proposals": (BOX_PROPOSER, SAM_ENCODER, SAM_DECODER),
    "none": (),
}

# The dynamic axis of encoders that take several images in one call, and the most that an export
# may ask for: from there on a batch gains nothing on any GPU, and takes memory.
IMAGES: Final = "images"
MAX_BATCH: Final = 8

# Labels of the rows of `point_labels`. The first five are SAM's own (prompt_encoder.py); the
# last is ours: a row that the decoder's attention masks out, so that a fixed number of rows is
# exact for every number of points (SAM's own -1 row is attended to and changes the result).
LABEL_NEGATIVE: Final = 0
LABEL_POSITIVE: Final = 1
LABEL_BOX_TOP_LEFT: Final = 2
LABEL_BOX_BOTTOM_RIGHT: Final = 3
LABEL_NOT_A_POINT: Final = -1
LABEL_UNUSED: Final = -2

# Pillow's weights of 8-bit pictures are whole numbers of 2^-22 (Resample.c, PRECISION_BITS). The
# frame_resizer takes them in two parts that FP16 holds exactly: weight = unit * coarse + fine.
WEIGHT_BITS: Final = 22
WEIGHT_UNIT: Final = 4096
# The largest frame, and the most rows and columns that it is resized to, px: 12 megapixels of
# either orientation, and room for a frame whose columns come first (docs/performance.md).
MAX_FRAME_EXTENT: Final = 4096
MAX_RESIZED_EXTENT: Final = 1280

# SAM's decoder has one single-mask token and three multimask tokens (mask_decoder.py).
MASKS_PER_PROMPT: Final = 4


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of one tensor.

    Attributes:
        name: Name in the graph.
        dtype: NumPy dtype name.
        shape: Sizes; a string is a dynamic axis.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def accepts(self, dtype: str, shape: tuple[int | str, ...]) -> bool:
        """Return whether an array of this dtype and shape may be given for this tensor."""
        return (
            dtype == self.dtype
            and len(shape) == len(self.shape)
            and all(
                isinstance(want, str) or want == got
                for want, got in zip(self.shape, shape, strict=True)
            )
        )

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class EngineContract:
    """The inputs and outputs of one engine, in the order of the graph.

    Attributes:
        limits: The largest size of dynamic axes, by their names; others have none.
    """

    name: EngineName
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    limits: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def max_batch(self) -> int:
        """Most images that one call of an encoder takes."""
        return self.limits.get(IMAGES, 1)


@dataclass(frozen=True)
class ReferenceSizes:
    """The sizes of reference banks, and of the patch tokens that are matched with them.

    Attributes:
        blocks: Layers of the CLIP encoder, each of which has tokens and a bank of its own: the
            tapped blocks of a ViT.
        tokens: Patch tokens of one image, those of a square grid.
        width: Width of a token.
        rows: Rows of a bank that the matcher takes for each block; a smaller bank is padded.
    """

    blocks: int
    tokens: int
    width: int
    rows: int

    @property
    def bank_bytes(self) -> int:
        """Bytes of a full bank in FP16."""
        return 2 * self.blocks * self.rows * self.width


@dataclass(frozen=True)
class ProposalSizes:
    """The sizes of a box proposer.

    Attributes:
        image_size: Side of its square image, px.
        boxes: Boxes that it gives for an image, always as many.
    """

    image_size: int
    boxes: int


@dataclass(frozen=True)
class EngineSizes:
    """Every size that the contract depends on; the manifest holds them.

    Attributes:
        clip_image_size: Side of the square image of the CLIP encoder, px. The anomaly map has
            the same side.
        embedding_size: Width of the shared image-text space; 0 where the localizer takes no texts.
        sam_image_size: Side of SAM's padded square image, px; this and the other sizes of SAM are
            0 in a bundle without it.
        sam_feature_size: Side of SAM's feature grid, cells.
        sam_feature_channels: Channels of SAM's features.
        max_prompts: Rows of the decoder's point input (points, box corners and SAM's own
            not-a-point row together).
        reference: Those of reference banks; None for bundles that take none.
        max_batch: Most images that one call of either encoder takes. With 1 their shapes are
            fixed; with more the first axis is dynamic.
        proposals: Those of the box proposer; None for bundles without one.
    """

    clip_image_size: int
    embedding_size: int
    sam_image_size: int
    sam_feature_size: int
    sam_feature_channels: int
    max_prompts: int
    reference: ReferenceSizes | None = None
    max_batch: int = 1
    proposals: ProposalSizes | None = None

    @property
    def low_res_size(self) -> int:
        """Side of the decoder's low-res logits: four times SAM's feature grid."""
        return 4 * self.sam_feature_size


def engine_contract(name: EngineName, sizes: EngineSizes) -> EngineContract:
    """Return the contract of one engine.

    - `clip_encoder`: `image` is RGB, squashed to a square. `text_embeddings` has the normal
      sentence ensemble in row 0, the abnormal one in row 1, both L2-normalised; a localizer that
      takes no texts has no such input. `anomaly_map` and `image_score` are in [0, 1], by the
      bundle's localizer: APRIL-GAN's are the mean over the tapped blocks of P(abnormal),
      upsampled before softmax, and P(abnormal) of the CLS token. `patch_tokens`, in bundles that
      take reference banks, are L2-normalised, row by row of their grid: of APRIL-GAN the tapped
      blocks, of WinCLIP the patches and the windows of two scales around them.
    - `sam_encoder`: `image` is RGB with the content at the top left; `image_size` is the height
      and width of that content. All outside it is set to SAM's mean colour *after*
      normalisation, as `Sam.preprocess` does, whatever the pixels there are.
    - `sam_decoder`: `point_coords` are (x, y) in the padded image, before SAM's half-pixel
      shift. `mask_input` are logits of an earlier call, or zeros with `has_mask_input` 0.
      All four masks and predicted IoUs come out; token 0 is the single-mask one.
    - `reference_matcher`: `bank` has the tokens of good photos, L2-normalised; rows from
      `valid_rows` on are padding, which nothing is matched with. `reference_map` is in [0, 2]:
      the mean over the blocks of 1 - the highest cosine to a row, upsampled, unless the bundle's
      localizer has a matcher of its own.
    - `text_encoder`: CLIP token ids in, up to the tower's context; L2-normalised sentence
      embeddings out.
    - `frame_resizer`: see `frame_resizer_contract`; it depends on no size.
    - `box_proposer`: see `box_proposer_contract`.

    With a `max_batch` above 1, both encoders take several images in one call. The first axis of
    `image`, `image_size` and of every output is then `images`, also where there is none otherwise:
    `image_size` has two axes, `patch_tokens` four. The texts are the same for all of them.

    Raises:
        EngineContractError: It is that of the matcher, of a bundle that takes no reference banks,
            of the box proposer, of a bundle without one, or one of SAM, of a bundle without it.
    """
    if name in SINGLE_GRAPH_ENGINES:
        of_frames = name == FRAME_RESIZER
        return frame_resizer_contract() if of_frames else box_proposer_contract(sizes.proposals)
    if name in (SAM_ENCODER, SAM_DECODER) and not sizes.sam_image_size:
        raise EngineContractError(
            f"there is no contract of a {name} in a bundle without SAM",
            "set refiner to none, or export the bundle again with SAM (`zeroflaw export --sam`)",
        )
    s = sizes
    clip, sam, low = s.clip_image_size, s.sam_image_size, s.low_res_size
    several: tuple[str, ...] = (IMAGES,) if s.max_batch > 1 else ()
    first: tuple[int | str, ...] = several or (1,)
    limits = {IMAGES: s.max_batch} if several else {}
    grid = (s.sam_feature_channels, s.sam_feature_size, s.sam_feature_size)
    reference = s.reference
    tokens = (
        ()
        if reference is None
        else (
            TensorSpec(
                PATCH_TOKENS, "float32", (reference.blocks, reference.tokens, reference.width)
            ),
        )
    )
    if name == CLIP_ENCODER:
        return EngineContract(
            CLIP_ENCODER,
            (
                TensorSpec("image", "uint8", (*first, clip, clip, 3)),
                *(
                    (TensorSpec(TEXT_EMBEDDINGS, "float32", (2, s.embedding_size)),)
                    if s.embedding_size
                    else ()
                ),
            ),
            (
                TensorSpec("anomaly_map", "float32", (*first, clip, clip)),
                TensorSpec("image_score", "float32", first),
                *(replace(spec, shape=(*several, *spec.shape)) for spec in tokens),
            ),
            limits,
        )
    if name == SAM_ENCODER:
        return EngineContract(
            SAM_ENCODER,
            (
                TensorSpec("image", "uint8", (*first, sam, sam, 3)),
                TensorSpec("image_size", "int32", (*several, 2)),
            ),
            (TensorSpec("features", "float32", (*first, *grid)),),
            limits,
        )
    if name == SAM_DECODER:
        return EngineContract(
            SAM_DECODER,
            (
                TensorSpec("features", "float32", (1, *grid)),
                TensorSpec("point_coords", "float32", ("batch", s.max_prompts, 2)),
                TensorSpec("point_labels", "int32", ("batch", s.max_prompts)),
                TensorSpec("mask_input", "float32", ("batch", 1, low, low)),
                TensorSpec("has_mask_input", "float32", ("batch",)),
            ),
            (
                TensorSpec("low_res_logits", "float32", ("batch", MASKS_PER_PROMPT, low, low)),
                TensorSpec("predicted_iou", "float32", ("batch", MASKS_PER_PROMPT)),
            ),
        )
    if name == REFERENCE_MATCHER:
        if reference is None:
            raise EngineContractError(
                "there is no contract of a reference_matcher without the sizes of its banks",
                "export the bundle again with this version of zeroflaw",
            )
        return EngineContract(
            REFERENCE_MATCHER,
            (
                *tokens,
                TensorSpec("bank", "float16", (reference.blocks, reference.rows, reference.width)),
                TensorSpec("valid_rows", "int32", (1,)),
            ),
            (TensorSpec("reference_map", "float32", (1, clip, clip)),),
        )
    return EngineContract(
        TEXT_ENCODER,
        (TensorSpec("token_ids", "int32", ("sentences", "tokens")),),
        (TensorSpec("sentence_embeddings", "float32", ("sentences", s.embedding_size)),),
    )


def frame_resizer_contract() -> EngineContract:
    """Return the contract of `frame_resizer`, the same for every bundle.

    `row_weights` and `column_weights` are Pillow's weights as whole numbers, coarse part and fine
    part (`WEIGHT_UNIT`). Every row of `frame` is filtered with `column_weights` and rounded to
    8 bits, then every column of that with `row_weights`. `image` is black where the weights are
    zero.
    """
    return EngineContract(
        FRAME_RESIZER,
        (
            TensorSpec("frame", "uint8", ("height", "width", 3)),
            TensorSpec("row_weights", "float16", (2, "rows", "height")),
            TensorSpec("column_weights", "float16", (2, "columns", "width")),
        ),
        (TensorSpec("image", "uint8", (1, "rows", "columns", 3)),),
        {
            "height": MAX_FRAME_EXTENT,
            "width": MAX_FRAME_EXTENT,
            "rows": MAX_RESIZED_EXTENT,
            "columns": MAX_RESIZED_EXTENT,
        },
    )


def box_proposer_contract(sizes: ProposalSizes | None) -> EngineContract:
    """Return the contract of `box_proposer`, whose graph the user brings.

    `image` is RGB, the frame squashed to a square as for `clip_encoder`. `boxes` are (x0, y0, x1,
    y1) from the frame's top left corner, as shares of its width and height, in [0, 1] with
    x0 <= x1 and y0 <= y1; `scores` are in [0, 1], row by row. A row without a box has the score 0
    and the box of the whole frame, (0, 0, 1, 1), so that memory that no kernel wrote is no answer:
    boxes that are one value everywhere, or scores that are all 0 beside other boxes.

    Args:
        sizes: None: there is no such engine.

    Raises:
        EngineContractError: The bundle has no box proposer.
    """
    if sizes is None:
        raise EngineContractError(
            f"there is no contract of a {BOX_PROPOSER} in a bundle without one",
            "export the bundle with `--refiner box_proposals --proposals GRAPH.onnx`",
        )
    side, count = sizes.image_size, sizes.boxes
    return EngineContract(
        BOX_PROPOSER,
        (TensorSpec("image", "uint8", (1, side, side, 3)),),
        (
            TensorSpec("boxes", "float32", (1, count, 4)),
            TensorSpec("scores", "float32", (1, count)),
        ),
    )
