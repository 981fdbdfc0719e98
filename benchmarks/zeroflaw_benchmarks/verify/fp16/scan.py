"""What of an engine leaves the range of FP16: on its own, and with weights that provoke it."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from zeroflaw_benchmarks.verify.fp16.engines import ScaledSession, StoredSession
from zeroflaw_benchmarks.verify.fp16.storage import StoredTensor
from zeroflaw_engines.builder.differences import relative_difference, require_finite
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.contract import CLIP_ENCODER, SAM_DECODER, SAM_ENCODER, EngineName
from zeroflaw_engines.sessions.batches import clip_encoder_inputs, stacked, taken_apart
from zeroflaw_engines.sessions.device_tensor import Tensor
from zeroflaw_export.graphs.precision_recipe import PrecisionRecipe
from zeroflaw_export.parity import checks as parity

LARGEST_STORED: Final = 30_000.0
# The matcher is left out: products of unit vectors cannot overflow.
SCANNED_ENGINES: Final[tuple[EngineName, ...]] = (CLIP_ENCODER, SAM_ENCODER, SAM_DECODER)


@dataclass(frozen=True)
class EngineScan:
    """What a scan of one engine saw.

    Attributes:
        engine: `clip_encoder`, `sam_encoder` or `sam_decoder`.
        recipe: Identity of the recipe.
        scale: Factor of the provocation; 1 for the weights as they are.
        tensors: Tensors that are stored in FP16.
        overflowing: Those with an infinity or what is not a number.
        large: Those beyond 30000 in magnitude.
        largest: The largest magnitude of all, or of the first tensor that overflows.
        where: That tensor.
        relative_error: Of the outputs against FP32 of the same weights, the largest, over the
            largest value; NaN where the outputs are not finite. None if not compared.
    """

    engine: str
    recipe: str
    scale: float
    tensors: int
    overflowing: int
    large: int
    largest: float
    where: str
    relative_error: float | None = None

    @property
    def accepted(self) -> bool:
        """Say whether everything stays in the range of FP16 with room to spare, outputs as well."""
        finite = self.relative_error is None or math.isfinite(self.relative_error)
        return finite and not self.overflowing and not self.large


def scan_summary(
    engine: str, recipe: PrecisionRecipe, scale: float, scan: list[StoredTensor]
) -> EngineScan:
    """Compute the figures of a scan."""
    by_size = max(scan, key=lambda tensor: tensor.largest)
    worst = next((tensor for tensor in scan if tensor.overflows), by_size)
    return EngineScan(
        engine=engine,
        recipe=recipe.id,
        scale=scale,
        tensors=len(scan),
        overflowing=sum(tensor.overflows for tensor in scan),
        large=sum(not tensor.largest <= LARGEST_STORED for tensor in scan),
        largest=worst.largest,
        where=f"{worst.name} ({worst.operator})",
    )


def provoke(bundle: Bundle, recipe: PrecisionRecipe, scale: float) -> tuple[EngineScan, ...]:
    """Scan every engine on the images of the parity check, with weights that provoke overflow."""
    scans = []
    features: dict[str, Tensor] = {}
    # The encoder comes before the decoder, whose features are those of its FP32 graph.
    for engine in SCANNED_ENGINES:
        with tempfile.TemporaryDirectory() as folder:
            full = ScaledSession(bundle, engine, Path(folder), scale)
            half = StoredSession(bundle, engine, Path(folder), recipe=recipe, scale=scale)
            errors = []
            for kind in parity.IMAGE_KINDS:
                contract = bundle.contract(engine)
                inputs = stacked(contract, [_image_inputs(bundle, engine, kind, features)])
                want, got = (
                    taken_apart(contract, session.execute(inputs), 1)[0] for session in (full, half)
                )
                if engine == SAM_ENCODER:
                    features[kind] = want["features"]
                errors += [_relative_error(got[name], want[name], name) for name in want]
            summary = scan_summary(engine, recipe, scale, half.scan())
            scans.append(replace(summary, relative_error=float(np.max(errors))))
            half.close()
    return tuple(scans)


def _relative_error(got: Tensor, want: Tensor, name: str) -> float:
    """NaN where FP16 overflowed, which a scan is made to find; FP32 must be finite."""
    require_finite(want, f"{name} in FP32")
    return relative_difference(got, want, name) if np.isfinite(got).all() else float("nan")


def _image_inputs(
    bundle: Bundle, engine: str, kind: parity.ImageKind, features: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The inputs of one image, in the form of an encoder that takes one."""
    sizes = bundle.manifest.sizes
    if engine == CLIP_ENCODER:
        image = parity.parity_image(kind, sizes.clip_image_size, sizes.clip_image_size)
        product = min(bundle.manifest.products)
        texts = bundle.text_embeddings(product)
        return clip_encoder_inputs(bundle.contract(CLIP_ENCODER), image[None], texts)
    if engine == SAM_ENCODER:
        content = parity.sam_content(kind, sizes.sam_image_size)
        return parity.sam_encoder_inputs(content, bundle.contract(SAM_ENCODER))
    prompts = list(parity.decoder_prompts(sizes.low_res_size, sizes.max_prompts))
    joined = {name: np.concatenate([one[name] for one in prompts]) for name in prompts[0]}
    return {"features": features[kind], **joined}
