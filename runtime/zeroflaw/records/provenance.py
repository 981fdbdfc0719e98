"""What judges the frames of an Inspector, by digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from zeroflaw.records.record import calibration_digest
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.version import __version__


@dataclass(frozen=True)
class Provenance:
    """What judges a frame; the fields of an `Inspection` have the same names and meanings."""

    software: str
    bundle: str
    text_embeddings: str
    calibration: str | None
    parameters: str
    backend: str


def provenances(
    bundle: Bundle,
    prompts: Mapping[str, TextEmbeddings],
    parameters: MethodParameters,
    backend: str,
) -> dict[str, Provenance]:
    """Name what judges the frames of each product, by the product's name.

    Args:
        prompts: Its text embeddings, by product.
    """
    return {
        name: Provenance(
            software=__version__,
            bundle=bundle.identity,
            text_embeddings=hashlib.sha256(prompts[name].tobytes()).hexdigest(),
            calibration=calibration_digest(product),
            parameters=parameters.digest,
            backend=backend,
        )
        for name, product in bundle.manifest.products.items()
    }


def bundle_warnings(bundle: Bundle) -> tuple[str, ...]:
    """Say what a reader of each result must know of the bundle."""
    seed = bundle.manifest.random_weights
    if seed is None:
        return ()
    return (f"the bundle has random weights (seed {seed}): scores and masks mean nothing",)
