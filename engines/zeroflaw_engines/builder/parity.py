"""An engine's outputs beside those of the FP32 reference, on fixed inputs. It takes a GPU.

*Unverified*: no GPU has run this yet; its arithmetic is tested on ONNX Runtime.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines.builder.differences import cosine, largest_difference, norm_ratio
from zeroflaw_engines.built_engines.sidecar import EngineParity
from zeroflaw_engines.contract import (
    IMAGES,
    LABEL_NEGATIVE,
    LABEL_NOT_A_POINT,
    LABEL_POSITIVE,
    LABEL_UNUSED,
    PATCH_TOKENS,
    TEXT_EMBEDDINGS,
    WEIGHT_BITS,
    WEIGHT_UNIT,
    EngineContract,
    EngineName,
)
from zeroflaw_engines.errors import BuildError, ComparisonError
from zeroflaw_engines.sessions.batches import taken_apart
from zeroflaw_engines.sessions.device_tensor import Tensor
from zeroflaw_engines.sessions.session import Outputs, Session

MIN_COSINE: Final = 0.999
_MAX_DIFFERENCE: Final = 0.01  # of a single value in [0, 1], which has no direction
# A cosine of 0.999 leaves the norm within 0.1 %; a scale that was lost changes it by far more.
_MAX_FACTOR: Final = 0.01
_SEED: Final = 4
_FRAME_SIDES: Final = (96, 128)  # height and width of what `frame_resizer` is given
_REMEDY: Final = (
    "report the GPU and the backend's version; another version, or `--precision fp32`, may help"
)


def check_parity(engine: Session, reference: Session) -> EngineParity:
    """Compare an engine with the FP32 reference: on one image, and on as many as a call takes.

    Args:
        reference: The FP32 graph of the same contract.

    Raises:
        BuildError: An output is not finite, or differs too much.
    """
    figures: dict[str, float] = {}
    for images in sorted({1, engine.contract.max_batch}):
        inputs = fixed_inputs(engine.contract, images)
        runs = [
            taken_apart(session.contract, session.execute(inputs), images)
            for session in (engine, reference)
        ]
        for got, want in zip(*runs, strict=True):
            for name, figure in _figures(engine.contract.name, got, want).items():
                figures[name] = min(figure, figures.get(name, figure))
    return EngineParity(status="passed", cosine=figures)


def _figures(engine: EngineName, got: Outputs, want: Outputs) -> dict[str, float]:
    figures = {}
    for name in want:
        what = f"{engine}: the output {name}"
        try:
            figures[name], fault = _agreement(got[name], want[name], what)
        except ComparisonError as error:
            figures[name], fault = 0.0, error.cause
        if fault:
            raise BuildError(
                f"{what} differs from the FP32 reference: {fault}; the engine was not published",
                _REMEDY,
            )
    return figures


def _agreement(got: Tensor, want: Tensor, what: str) -> tuple[float, str]:
    """Return the figure of an output, and what is too much in it."""
    if want.size == 1:
        figure, minimum = 1 - largest_difference(got, want, what), 1 - _MAX_DIFFERENCE
        measure = "one minus the difference"
    else:
        figure, minimum, measure = cosine(got, want, what), MIN_COSINE, "cosine"
        ratio = norm_ratio(got, want, what)
        if abs(ratio - 1) > _MAX_FACTOR:
            return figure, f"{ratio:.4f} times as large, more than {_MAX_FACTOR:.0%} off"
    return figure, "" if figure >= minimum else f"{measure} {figure:.6f}, less than {minimum}"


def fixed_inputs(contract: EngineContract, images: int = 1) -> dict[str, Tensor]:
    """Make inputs that are the same on every machine and in every run.

    Other dynamic axes than that of the images are 1, but for those of `frame_resizer`.
    """
    rng = np.random.default_rng(_SEED)
    inputs: dict[str, Tensor] = {}
    image_size = max((size for spec in contract.inputs for size in spec.shape[1:3]
                      if spec.name == "image" and isinstance(size, int)), default=0)  # fmt: skip
    for spec in contract.inputs:
        dynamic = {IMAGES: images}
        shape = tuple(dynamic.get(n, 1) if isinstance(n, str) else n for n in spec.shape)
        if spec.name == "image":
            inputs[spec.name] = _picture(shape, rng)
        elif spec.name == "image_size":
            content = np.array([image_size, image_size * 3 // 4], np.int32)
            inputs[spec.name] = np.broadcast_to(content, shape).copy()
        elif spec.name == "frame":
            inputs[spec.name] = _picture((1, *_FRAME_SIDES, 3), rng)[0]
        elif spec.name in {"row_weights", "column_weights"}:
            inputs[spec.name] = _halving(_FRAME_SIDES[spec.name == "column_weights"])
        elif spec.name in {TEXT_EMBEDDINGS, PATCH_TOKENS, "bank"}:
            value = rng.standard_normal(shape)
            unit = value / np.linalg.norm(value, axis=-1, keepdims=True)
            inputs[spec.name] = unit.astype(spec.dtype)
        elif spec.name == "point_coords":
            inputs[spec.name] = rng.uniform(50, 500, shape).astype(np.float32)
        elif spec.name == "point_labels":
            labels = np.full(shape, LABEL_UNUSED, np.int32)
            labels[:, :3], labels[:, 3:5], labels[:, 5] = (
                LABEL_POSITIVE,
                LABEL_NEGATIVE,
                LABEL_NOT_A_POINT,
            )
            inputs[spec.name] = labels
        elif spec.name == "has_mask_input":
            inputs[spec.name] = np.ones(shape, np.float32)
        elif spec.name == "valid_rows":
            rows = inputs["bank"].shape[1]
            inputs[spec.name] = np.array([max(1, rows * 3 // 4)], np.int32)
        else:
            inputs[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
    return inputs


def _halving(side: int) -> NDArray[np.float16]:
    """Return the weights of `frame_resizer` that make one pixel of two, with some fine part."""
    weights = np.zeros((2, side // 2, side), np.float16)
    at = np.arange(side // 2)
    coarse = (1 << WEIGHT_BITS) // WEIGHT_UNIT // 2
    weights[0, at, 2 * at], weights[0, at, 2 * at + 1] = coarse - 1, coarse
    weights[1, at, 2 * at] = WEIGHT_UNIT // 2
    return weights


def _picture(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw waves with noise on them: neither flat nor without structure, each of its own."""
    images, height, width, channels = shape
    y, x, c = np.ogrid[:height, :width, :channels]
    waves = np.sin(x / 17 + c) + np.cos(y / 29 - c)
    noisy = 128 + 45 * waves + rng.normal(0, 8, (images, height, width, channels))
    noisy += 10 * np.arange(images)[:, None, None, None]
    picture: NDArray[np.uint8] = np.clip(noisy, 0, 255).astype(np.uint8)
    return picture
