"""What judges the frames of an Inspector, by digest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from zeroflaw.records.record import calibration_digest
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.version import __version__


@dataclass(frozen=True)
class Provenance:
    """What judges a frame; the fields of an `Inspection` have the same names and meanings."""

    software: str
    bundle: str
    text_embeddings: str
    reference: str | None
    calibration: str | None
    settings: str | None
    parameters: str
    backend: str


def provenance_of(
    bundle: Bundle, product: str, parameters: MethodParameters, backend: str
) -> Provenance:
    """Name what judges the frames of a product.

    Args:
        product: A name in the bundle's manifest.
    """
    entry = bundle.manifest.products[product]
    return Provenance(
        software=__version__,
        bundle=bundle.identity,
        text_embeddings=hashlib.sha256(bundle.bank[product].tobytes()).hexdigest(),
        reference=bundle.reference_digest(product),
        calibration=calibration_digest(entry),
        settings=None if entry.settings is None else entry.settings.digest,
        parameters=parameters.digest,
        backend=backend,
    )


def bundle_warnings(bundle: Bundle) -> tuple[str, ...]:
    """Say what a reader of each result must know of the bundle."""
    seed = bundle.manifest.random_weights
    if seed is None:
        return ()
    return (f"the bundle has random weights (seed {seed}): scores and masks mean nothing",)
