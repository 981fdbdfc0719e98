"""Giving a product its reference bank, with the threshold that holds for it, and taking it away."""

from __future__ import annotations

from uuid import uuid4

import msgspec

from zeroflaw_engines.bundle.bundle import Bundle, open_bundle, require_same_models
from zeroflaw_engines.bundle.manifest import Calibration, FileEntry, Reference, brought_up
from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.bundle.reference_bank import (
    ReferenceBank,
    check_described,
    check_reference_bank,
    digest_of_bank,
    encode_reference_bank,
)
from zeroflaw_engines.bundle.writer import (
    changing,
    require_same_product,
    require_threshold,
    take_up,
)
from zeroflaw_engines.errors import ProductError


def set_reference(  # noqa: PLR0917 - what is stored comes in the order in which it is made
    bundle: Bundle,
    product: str,
    bank: ReferenceBank,
    reference: Reference,
    threshold: float | None,
    calibration: Calibration | None,
    *,
    embeddings: TextEmbeddings,
    before: str | None,
) -> Bundle:
    """Give a product a reference bank, in place of the one it has, and the threshold for it.

    The bank gets a file of its own, and the manifest is replaced last, in one rename: a reader
    sees the product as it was or as it is now. What other processes changed meanwhile in other
    products stays.

    Args:
        reference: Where the bank comes from; the name of its file is filled in.
        threshold: In [0, 1]; None for a product that takes the bundle's.
        calibration: Of the threshold, with scores by this bank; its `reference` is filled in.
        embeddings: Those that the photos were scored with.
        before: Digest of the bank that the product had when learning began; None if it had none.

    Returns:
        The bundle as it is now.

    Raises:
        ReferenceBankError: The bank does not belong to the bundle, or is not as described.
        ProductError: The product is unknown, or was added or learned by another process
            meanwhile; or the threshold is out of its range, or of another bank.
        BundleError: The bundle cannot be written, or another process is changing it.
    """
    check_reference_bank(bank, bundle.manifest.sizes.reference, bundle.tower)
    check_described(bank, reference)
    if threshold is not None:
        require_threshold(product, threshold)
    data = encode_reference_bank(bank)
    digest = digest_of_bank(data)
    if calibration is not None:
        if calibration.reference not in (None, digest):
            raise ProductError(
                f"the threshold of product {product!r} is of the reference bank"
                f" {calibration.reference}, not of {digest}",
                "calibrate with the bank that is stored",
            )
        calibration = msgspec.structs.replace(calibration, reference=digest)
    file = f"reference-{uuid4().hex[:8]}.safetensors"
    with changing(bundle) as path:
        current = open_bundle(path, verify_digests=False)
        require_same_models(bundle, current)
        name = require_same_product(current, product, embeddings, before)
        entry = msgspec.structs.replace(
            current.manifest.products[name],
            threshold=threshold,
            calibration=calibration,
            reference=msgspec.structs.replace(reference, bank=file),
        )
        manifest = brought_up(
            current.manifest,
            products={**current.manifest.products, name: entry},
            files={**current.manifest.files, file: FileEntry(sha256=digest, bytes=len(data))},
        )
        take_up(path, current.manifest, manifest, {file: data})
    return Bundle(path=bundle.path, manifest=manifest, read_bank=current.bank)


def forget_reference(bundle: Bundle, product: str) -> Bundle:
    """Take a product's reference bank away, with its threshold, which holds for the bank alone.

    Returns:
        The bundle as it is now.

    Raises:
        ProductError: The product is unknown, or has no reference bank.
        BundleError: The bundle cannot be written, or another process is changing it.
    """
    with changing(bundle) as path:
        current = open_bundle(path, verify_digests=False)
        if current.reference_digest(product) is None:
            raise ProductError(
                f"product {product!r} has no reference bank that it could forget",
                "see `zeroflaw products list` for those that have one",
            )
        name = current.product_name(product) or product
        entry = msgspec.structs.replace(
            current.manifest.products[name], threshold=None, calibration=None, reference=None
        )
        manifest = brought_up(current.manifest, products={**current.manifest.products, name: entry})
        take_up(path, current.manifest, manifest, {})
    return Bundle(path=bundle.path, manifest=manifest, read_bank=current.bank)
