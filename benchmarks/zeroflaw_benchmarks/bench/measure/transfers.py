"""What one inspection hands to its engines and takes from them."""

from __future__ import annotations

import math

import numpy as np

from zeroflaw.inspector import Inspector
from zeroflaw.pipeline.geometry import geometry_of
from zeroflaw_benchmarks.bench.report.report import Transfer
from zeroflaw_engines.backends import BACKENDS
from zeroflaw_engines.contract import (
    BOX_PROPOSER,
    CLIP_ENCODER,
    ENGINES_OF_REFINER,
    FRAME_RESIZER,
    MASKS_PER_PROMPT,
    PATCH_TOKENS,
    REFERENCE_MATCHER,
    SAM_DECODER,
    EngineName,
    TensorSpec,
)
from zeroflaw_engines.parameters import MethodParameters


def resizes_on_device(inspector: Inspector, frame: tuple[int, int]) -> bool:
    """Say whether `frame_resizer` resizes frames of one size, or the host.

    The host does so also beside a `frame_resizer` that does not take the size, or that gave other
    values than the host.

    Args:
        frame: Height and width, px.

    Raises:
        EngineError: There is not enough memory on the device.
    """
    resizer = inspector.sessions.resizer
    if resizer is None:
        return False
    geometry = geometry_of(frame, inspector.bundle.manifest.sizes, inspector.parameters)
    return resizer.takes(geometry)


def decoder_calls(parameters: MethodParameters) -> int:
    """Return the calls of the decoder in an inspection: of all stages, or one, if boxes are few."""
    return parameters.cascade_stages if parameters.refiner == "cascade" else 1


def transfers_of(
    inspector: Inspector, product: str | None = None, frame: tuple[int, int] | None = None
) -> tuple[Transfer, ...]:
    """List the tensors of an inspection with one prompt: CLIP, and the engines of the refiner.

    Of the decoder they are those of all calls of the cascade, and of one call of other refiners.

    The matcher is among them where the product has a reference bank, which stays on a GPU.

    On a CPU nothing crosses: engines read and write host memory in place. On a GPU features and
    mask logits stay there; features are copied out once, for the point prompts, and of the
    logits the chosen mask of each call. Where the GPU resizes, the frame goes up once, and the
    images of the encoders stay there.

    Args:
        frame: Height and width, px; None has the host resize.
    """
    refiner, calls = inspector.parameters.refiner, decoder_calls(inspector.parameters)
    gpu = inspector.choice is not None and BACKENDS[inspector.choice.backend].on_gpu
    resized_there = frame is not None and resizes_on_device(inspector, frame)
    found = []
    if resized_there and frame is not None:
        pixels = TensorSpec("frame", "uint8", (*frame, 3))
        found.append(_transfer(FRAME_RESIZER, pixels, "in", 1, crosses=gpu))
    engines: list[EngineName] = [CLIP_ENCODER, *ENGINES_OF_REFINER[refiner]]
    if product is not None and inspector.bundle.reference_digest(product) is not None:
        engines.insert(1, REFERENCE_MATCHER)
    for engine in engines:
        times = calls if engine == SAM_DECODER else 1
        contract = inspector.bundle.contract(engine)
        for spec in contract.inputs:
            # Features and tokens come from the encoders, and banks are uploaded once; the first
            # call's mask input is zeros of the host.
            stays = engine == SAM_DECODER and spec.name == "features"
            stays = stays or spec.name in (PATCH_TOKENS, "bank")
            # The box proposer's image is always resized on the host.
            resized = resized_there and engine != BOX_PROPOSER
            stays = stays or (resized and spec.name == "image")
            crossing = 1 if spec.name == "mask_input" else times
            if not stays:
                found.append(_transfer(engine, spec, "in", crossing, crosses=gpu))
        for spec in contract.outputs:
            part = 1 / MASKS_PER_PROMPT if spec.name == "low_res_logits" else 1
            crosses = gpu and spec.name != PATCH_TOKENS
            found.append(_transfer(engine, spec, "out", times * part, crosses=crosses))
    return tuple(found)


def _transfer(
    engine: str, spec: TensorSpec, direction: str, times: float, *, crosses: bool
) -> Transfer:
    elements = math.prod(1 if isinstance(axis, str) else axis for axis in spec.shape)
    return Transfer(
        engine=engine,
        tensor=spec.name,
        direction="in" if direction == "in" else "out",
        megabytes=times * elements * np.dtype(spec.dtype).itemsize / 1e6,
        crosses=crosses,
    )
