"""APRIL-GAN (arXiv 2305.17382): linear adapters, and a map by the nearer sentences."""

from __future__ import annotations

from functools import partial

from zeroflaw_export.models.clip_encoder import ClipEncoder
from zeroflaw_export.models.load import load_linear_adapters
from zeroflaw_export.models.localizers.localizer import (
    BuiltLocalizer,
    Localizer,
    NoParameters,
    Tower,
)
from zeroflaw_export.parity.references import reference_clip


def build(tower: Tower, parameters: NoParameters) -> BuiltLocalizer:  # noqa: ARG001 - it has none
    """Build APRIL-GAN's localizer.

    Raises:
        WeightsError: The weights are not adapters for the architecture.
    """
    adapters = load_linear_adapters(tower.architecture, tower.weights)
    blocks = tower.architecture.tapped_blocks
    encoder = ClipEncoder(tower.clip, adapters, blocks, tower.image_size, batched=tower.batched)
    return BuiltLocalizer(encoder.eval(), partial(reference_clip, tower.clip, adapters, blocks))


APRIL_GAN = Localizer(
    name="april_gan",
    summary="linear adapters on four blocks, trained on another data set",
    parameters=NoParameters,
    takes_text=True,
    takes_weights=True,
    default_weights="april_gan_visa",
    build=build,
)
