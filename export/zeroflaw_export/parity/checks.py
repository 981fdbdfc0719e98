"""Parity: each graph of an engine against its reference, on a real and on a noise image.

The reference of an export is the PyTorch model (see `references`). That of a graph which is
added to an existing bundle is the reference graph there, which was checked at its export.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from zeroflaw_engines.builder.differences import largest_difference, relative_difference
from zeroflaw_engines.bundle.graph_entries import GraphTarget
from zeroflaw_engines.bundle.manifest import ParityFigure
from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.contract import (
    LABEL_NOT_A_POINT,
    LABEL_UNUSED,
    PATCH_TOKENS,
    REFERENCE_MATCHER,
    EngineContract,
    EngineName,
)
from zeroflaw_engines.errors import ComparisonError, ParityError
from zeroflaw_engines.sessions.batches import clip_encoder_inputs
from zeroflaw_engines.sessions.device_tensor import Tensor
from zeroflaw_engines.sessions.session import Session
from zeroflaw_export.parity.encoder_runs import encoder_runs

ImageKind = Literal["real", "noise"]
IMAGE_KINDS: Final[tuple[ImageKind, ...]] = ("real", "noise")

MAP_TOLERANCE: Final = 1e-4
SENTENCE_TOLERANCE: Final = 1e-4
RELATIVE_TOLERANCE: Final = 1e-3
DISTANCE_TOLERANCE: Final = 1e-5


@dataclass(frozen=True)
class Tolerances:
    """The largest differences that are accepted of one graph.

    Attributes:
        maps: Of anomaly maps and image scores, which are in [0, 1].
        relative: Of features, tokens, low-res logits and predicted IoUs, over the largest value.
        distances: Of reference maps, which are in [0, 2].
        target: Which of the engine's graphs they are for.
    """

    maps: float
    relative: float
    distances: float
    target: GraphTarget = "onnxruntime"


def fp32_tolerances() -> Tolerances:
    """Return those of FP32 graphs, which differ from PyTorch in the order of sums alone."""
    return Tolerances(MAP_TOLERANCE, RELATIVE_TOLERANCE, DISTANCE_TOLERANCE)


# A value that is stored in FP16 is off by up to 2^-11 = 4.9e-4 of itself. Such errors are
# independent, so that of the few hundred that meet in one output about ten times one is left; the
# maps have a factor of 100 (the logit scale) before their sigmoid, of slope 1/4, on unit vectors.
# Cosines of unit vectors have no such factor.
FP16_TOLERANCES: Final = Tolerances(maps=2e-2, relative=5e-3, distances=1e-3, target="tensorrt")

# A reference takes what the engine takes, and gives what it should give.
ClipReference = Callable[
    [NDArray[np.uint8], TextEmbeddings],
    tuple[NDArray[np.float32], float, NDArray[np.float32] | None],
]  # image [S, S, 3] -> map [S, S], score, patch tokens where the encoder gives them
SamEncoderReference = Callable[
    [NDArray[np.uint8]], NDArray[np.float32]
]  # content [H, W, 3] -> features
SamDecoderReference = Callable[
    [NDArray[np.float32], dict[str, Tensor]], tuple[NDArray[np.float32], NDArray[np.float32]]
]  # features, prompts -> low-res logits, predicted IoUs

PlainReferenceMap = Callable[
    [dict[str, Tensor], int], NDArray[np.floating[Any]]
]  # a matcher's inputs, side of the map -> map

_Measure = Callable[[ArrayLike, ArrayLike, str], float]
_What = tuple[EngineName, ImageKind, str]  # an engine, an image, and a quantity of its outputs

# Numbers of points for which the decoder is checked, without and with a box and a mask.
_POINT_COUNTS: Final = (1, 2, 7, 20)


def parity_image(kind: ImageKind, height: int, width: int) -> NDArray[np.uint8]:
    """Make an image to check with: a photograph (coffee, CC0, from scikit-image), or noise.

    Returns:
        uint8 [height, width, 3], RGB.
    """
    if kind == "noise":
        return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    with files("zeroflaw_export.parity").joinpath("parity.jpg").open("rb") as file:
        photo = Image.open(file).convert("RGB")
        return np.asarray(photo.resize((width, height), Image.Resampling.BICUBIC))


def check_clip_encoder(
    session: Session,
    reference: ClipReference,
    embeddings: TextEmbeddings,
    tolerances: Tolerances | None = None,
) -> list[ParityFigure]:
    """Compare the anomaly map, the image score and the patch tokens with those of a reference.

    Args:
        reference: `references.reference_clip`, or another graph.
        embeddings: float32 [2, E].
        tolerances: Default: those of FP32.

    Raises:
        ParityError: A difference is larger than is accepted, or a value is not finite.
    """
    accepted = tolerances or fp32_tolerances()
    figures = []
    size = session.contract.inputs[0].shape[1]
    assert isinstance(size, int)  # noqa: S101 - the contract fixes it
    images = {kind: parity_image(kind, size, size) for kind in IMAGE_KINDS}
    runs = encoder_runs(
        session,
        {
            kind: clip_encoder_inputs(session.contract, image[None], embeddings)
            for kind, image in images.items()
        },
    )
    for kind, image in images.items():
        want_map, want_score, want_tokens = reference(image, embeddings)
        quantities: list[tuple[str, _Measure, str, ArrayLike, float]] = [
            ("anomaly map, largest difference",
             largest_difference, "anomaly_map", want_map[None], accepted.maps),
            ("image score, difference",
             largest_difference, "image_score", [want_score], accepted.maps),
        ]  # fmt: skip
        if want_tokens is not None:
            quantities.append(
                ("patch tokens, largest difference over largest value",
                 relative_difference, PATCH_TOKENS, want_tokens, accepted.relative)
            )  # fmt: skip
        for quantity, measure, name, want, tolerance in quantities:
            what: _What = ("clip_encoder", kind, quantity)
            value = max(_difference(what, measure, got[name], want) for got in runs[kind])
            figures.append(_figure(what, value, tolerance, accepted.target))
    return _accepted(figures)


def check_reference_matcher(
    session: Session, reference: PlainReferenceMap, tolerances: Tolerances
) -> list[ParityFigure]:
    """Compare the reference map with one computed otherwise.

    The tokens of the real case lie near rows of the bank, those of the other anywhere.

    Args:
        reference: Its definition in NumPy, or another graph.

    Raises:
        ParityError: A difference is larger than is accepted, or a value is not finite.
    """
    figures = []
    for kind in IMAGE_KINDS:
        inputs = matcher_inputs(session.contract, kind)
        got = session.execute(inputs)["reference_map"][0]
        what: _What = (REFERENCE_MATCHER, kind, "reference map, largest difference")
        value = _difference(what, largest_difference, got, reference(inputs, len(got)))
        figures.append(_figure(what, value, tolerances.distances, tolerances.target))
    return _accepted(figures)


def matcher_inputs(contract: EngineContract, kind: ImageKind) -> dict[str, Tensor]:
    """Make tokens and a bank that is not full; its padding would be nearest, were it matched."""
    tokens, rows = (tuple(map(int, spec.shape)) for spec in contract.inputs[:2])
    rng = np.random.default_rng(2)
    valid = max(1, rows[1] * 3 // 4)
    bank = _unit(rng.standard_normal(rows)).astype(np.float16)
    near = bank[:, rng.integers(0, valid, tokens[1])].astype(np.float64)
    noise = rng.standard_normal(tokens) / np.sqrt(tokens[2])
    query = _unit(near + 0.2 * noise if kind == "real" else noise).astype(np.float32)
    padding = rows[1] - valid
    bank[:, valid:] = query[:, np.arange(padding) % tokens[1]]
    return {PATCH_TOKENS: query, "bank": bank, "valid_rows": np.array([valid], np.int32)}


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit


def check_sam_encoder(
    session: Session,
    wanted: dict[ImageKind, NDArray[np.float32]],
    tolerances: Tolerances | None = None,
) -> list[ParityFigure]:
    """Compare the features with those of a reference.

    Args:
        wanted: From `sam_features`.
        tolerances: Default: those of FP32.

    Raises:
        ParityError: A difference is larger than is accepted, or a value is not finite.
    """
    accepted = tolerances or fp32_tolerances()
    figures = []
    side = session.contract.inputs[0].shape[1]
    assert isinstance(side, int)  # noqa: S101 - the contract fixes it
    runs = encoder_runs(
        session,
        {kind: sam_encoder_inputs(sam_content(kind, side), session.contract) for kind in wanted},
    )
    for kind, want in wanted.items():
        what: _What = ("sam_encoder", kind, "features, largest difference over largest value")
        value = max(
            _difference(what, relative_difference, got["features"], want) for got in runs[kind]
        )
        figures.append(_figure(what, value, accepted.relative, accepted.target))
    return _accepted(figures)


def sam_encoder_inputs(content: NDArray[np.uint8], contract: EngineContract) -> dict[str, Tensor]:
    """Make the SAM encoder's inputs of content uint8 [H, W, 3] with H, W up to its side.

    They are in the form of one image; see `zeroflaw_engines.sessions.batches`.
    """
    height, width = content.shape[:2]
    # The graph has to blank the rest.
    side = int(contract.inputs[0].shape[1])
    image = np.full((1, side, side, 3), 255, np.uint8)
    image[0, :height, :width] = content
    return {"image": image, "image_size": np.array([height, width], np.int32)}


def sam_features(reference: SamEncoderReference, side: int) -> dict[ImageKind, NDArray[np.float32]]:
    """Compute the reference's features of the images that the SAM encoder is checked with."""
    return {kind: reference(sam_content(kind, side)) for kind in IMAGE_KINDS}


def sam_content(kind: ImageKind, side: int) -> NDArray[np.uint8]:
    """Make content to check a SAM encoder with, uint8 [H, side, 3].

    The real image is wide, so that SAM's padding is checked as well.
    """
    return parity_image(kind, side * 2 // 3 if kind == "real" else side, side)


def check_sam_decoder(
    session: Session,
    reference: SamDecoderReference,
    features: dict[ImageKind, NDArray[np.float32]],
    tolerances: Tolerances | None = None,
) -> list[ParityFigure]:
    """Compare all four masks and IoUs with those of a reference.

    Args:
        reference: `references.reference_sam_decoder`, or another graph.
        features: From `sam_features`.
        tolerances: Default: those of FP32.

    Raises:
        ParityError: A difference is larger than is accepted, or a value is not finite.
    """
    accepted = tolerances or fp32_tolerances()
    figures = []
    max_prompts, low = session.contract.inputs[1].shape[1], session.contract.inputs[3].shape[3]
    assert isinstance(max_prompts, int)  # noqa: S101 - the contract fixes it
    assert isinstance(low, int)  # noqa: S101 - as above
    for kind, feature in features.items():
        logits: _What = (
            "sam_decoder",
            kind,
            "low-res logits, largest difference over largest value",
        )
        iou: _What = ("sam_decoder", kind, "predicted IoU, largest difference over largest value")
        differences: dict[_What, list[float]] = {logits: [], iou: []}
        for prompt in decoder_prompts(low, max_prompts):
            want_logits, want_iou = reference(feature, prompt)
            got = session.execute({"features": feature, **prompt})
            for what, is_, should_be in (
                (logits, got["low_res_logits"], want_logits),
                (iou, got["predicted_iou"], want_iou),
            ):
                differences[what].append(_difference(what, relative_difference, is_, should_be))
        figures += [
            _figure(what, max(values), accepted.relative, accepted.target)
            for what, values in differences.items()
        ]
    return _accepted(figures)


def check_text_encoder(
    session: Session, tokens: NDArray[np.int32], wanted: NDArray[np.float32]
) -> list[ParityFigure]:
    """Compare sentence embeddings with those of a reference.

    Args:
        tokens: int32 [N, T], T at most the context.
        wanted: float32 [N, E].

    Raises:
        ParityError: A difference is larger than is accepted, or a value is not finite.
    """
    got = session.execute({"token_ids": tokens})["sentence_embeddings"]
    what: _What = ("text_encoder", "real", "sentence embeddings, largest difference")
    value = _difference(what, largest_difference, got, wanted)
    return _accepted([_figure(what, value, SENTENCE_TOLERANCE)])


def decoder_prompts(low: int, max_prompts: int) -> Iterator[dict[str, Tensor]]:
    """Yield prompts to check a decoder with: 1 to 20 points, without and with a box and a mask.

    Args:
        low: Side of the low-res logits, px.
        max_prompts: Rows of the point input.
    """
    rng = np.random.default_rng(1)
    side = 4 * low  # four of SAM's pixels a cell of its low-res logits
    for count in _POINT_COUNTS:
        for with_box in (False, True):
            coords = np.zeros((1, max_prompts, 2), np.float32)
            labels = np.full((1, max_prompts), LABEL_UNUSED, np.int32)
            used = count + (2 if with_box else 1)
            coords[0, :used] = rng.uniform(0, side - 1, (used, 2))
            coords[0, used:] = rng.uniform(0, side - 1)  # unused rows must not matter
            labels[0, :count] = rng.integers(0, 2, count)
            labels[0, count:used] = (2, 3) if with_box else (LABEL_NOT_A_POINT,)
            mask = rng.normal(0, 4, (1, 1, low, low)).astype(np.float32) * with_box
            yield {
                "point_coords": coords,
                "point_labels": labels,
                "mask_input": mask,
                "has_mask_input": np.array([with_box], np.float32),
            }


def _difference(
    what: _What,
    measure: _Measure,
    got: ArrayLike,
    want: ArrayLike,
) -> float:
    """Measure the difference of two results; a ParityError says why it cannot be measured."""
    engine, image, quantity = what
    try:
        return measure(got, want, quantity)
    except ComparisonError as error:
        raise ParityError(
            f"{engine} differs from the original on the {image} image: {error.cause}",
            "nothing was published; check the weights, and the versions of torch, onnxscript and"
            " onnxruntime",
        ) from error


def _figure(
    what: _What,
    value: float,
    tolerance: float,
    target: GraphTarget = "onnxruntime",
) -> ParityFigure:
    engine, image, quantity = what
    return ParityFigure(
        engine=engine,
        image=image,
        quantity=quantity,
        value=float(value),
        tolerance=tolerance,
        target=target,
    )


def _accepted(figures: list[ParityFigure]) -> list[ParityFigure]:
    for figure in figures:
        if not figure.value <= figure.tolerance:  # a NaN is refused as well
            raise ParityError(
                f"{figure.engine} of {figure.target} differs from the original on the "
                f"{figure.image} image: "
                f"{figure.quantity} {figure.value:.2e}, accepted {figure.tolerance:.0e}",
                "nothing was published; check the versions of torch, onnxscript and onnxruntime, "
                "and that the weights are those of this architecture",
            )
    return figures
