"""Changing the products of a bundle: adding, calibrating, learning and forgetting."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

import msgspec
import numpy as np

from zeroflaw_engines.bundle.bundle import Bundle, open_bundle, require_same_models
from zeroflaw_engines.bundle.manifest import (
    Calibration,
    Manifest,
    Product,
    Reference,
    brought_up,
)
from zeroflaw_engines.bundle.products.names import check_product_name, normal_name, require_distinct
from zeroflaw_engines.bundle.products.settings import ProductSettings
from zeroflaw_engines.bundle.products.settings_change import (
    file_entry,
    same_settings,
    same_view,
    with_template,
)
from zeroflaw_engines.bundle.products.settings_checks import check_settings
from zeroflaw_engines.bundle.prompt_bank import (
    TextEmbeddings,
    check_text_embeddings,
    encode_prompt_bank,
)
from zeroflaw_engines.bundle.reference_bank import (
    ReferenceBank,
    check_described,
    check_reference_bank,
    digest_of_bank,
    encode_reference_bank,
)
from zeroflaw_engines.bundle.writer import changing, replace_manifest, take_up
from zeroflaw_engines.errors import ProductError


def add_products(
    bundle: Bundle, embeddings: Mapping[str, TextEmbeddings], products: Mapping[str, Product]
) -> Bundle:
    """Add products to a bundle, or replace them, with their thresholds and calibrations.

    A product that is replaced loses its reference bank, which the new entry does not have. It
    keeps its settings, which do not depend on its texts, unless the entry has some, or has a
    threshold: that holds for the settings that come with it, or for none. The new prompt bank gets
    a name of its own and the manifest is replaced last, in one rename, so that a reader sees the
    old products or the new ones and never a mixture.

    Args:
        embeddings: float32 [2, embedding_size] by product name.
        products: The entries of the same names.

    Returns:
        The bundle as it is now.

    Raises:
        ProductError: A name or its embeddings are not acceptable.
        BundleError: The bundle cannot be written, or another process is changing it.
    """
    _check_products(bundle, embeddings, products)
    with changing(bundle) as path:
        current = open_bundle(path, verify_digests=False)
        require_same_models(bundle, current)
        manifest, new, bank = _with_products(current, embeddings, products)
        take_up(path, current.manifest, manifest, new)
    return Bundle(path=bundle.path, manifest=manifest, read_bank=bank)


def set_calibration(
    bundle: Bundle,
    product: str,
    threshold: float,
    calibration: Calibration,
    *,
    embeddings: TextEmbeddings,
    reference: str | None = None,
    settings: ProductSettings | None = None,
) -> Bundle:
    """Set the calibrated decision threshold of a product; its banks stay as they are.

    Args:
        threshold: In [0, 1].
        calibration: Its `reference` is set to that given.
        embeddings: Those that the images were scored with.
        reference: Digest of the reference bank that they were scored with; default: none.
        settings: Those that they were looked at by; default: none.

    Returns:
        The bundle as it is now.

    Raises:
        ProductError: The product is unknown, was added, learned or given other settings since its
            images were scored, or the threshold is out of its range.
        BundleError: The bundle cannot be written, or another process is changing it.
    """
    _require_threshold(product, threshold)
    calibration = msgspec.structs.replace(calibration, reference=reference)
    with changing(bundle) as path:
        current = open_bundle(path, verify_digests=False)
        require_same_models(bundle, current)
        name = _require_same_product(current, product, embeddings, reference, settings)
        entry = msgspec.structs.replace(
            current.manifest.products[name], threshold=threshold, calibration=calibration
        )
        manifest = brought_up(current.manifest, products={**current.manifest.products, name: entry})
        replace_manifest(path, manifest)
    return Bundle(path=bundle.path, manifest=manifest, read_bank=current.bank)


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
    added: Product | None = None,
    settings: ProductSettings | None = None,
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
        added: The entry of a product that the bundle lacked when learning began: it comes with
            the bank, in the same step.
        settings: Those that the photos were looked at by; default: none.

    Returns:
        The bundle as it is now.

    Raises:
        ReferenceBankError: The bank does not belong to the bundle, or is not as described.
        ProductError: The product is unknown, or was added, learned or given other settings by
            another process meanwhile; or the threshold is out of its range, or of another bank.
        BundleError: The bundle cannot be written, or another process is changing it.
    """
    check_reference_bank(bank, bundle.manifest.sizes.reference, bundle.tower)
    check_described(bank, reference)
    if added is not None:
        _check_products(bundle, {product: embeddings}, {product: added})
    if threshold is not None:
        _require_threshold(product, threshold)
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
        if added is None or current.product_name(product) is not None:
            name = _require_same_product(current, product, embeddings, before, settings)
            before_it = current
            new: dict[str, bytes] = {}
        else:
            name = normal_name(product)
            manifest, new, prompts = _with_products(current, {name: embeddings}, {name: added})
            before_it = Bundle(path=path, manifest=manifest, read_bank=prompts)
        entry = msgspec.structs.replace(
            before_it.manifest.products[name],
            threshold=threshold,
            calibration=calibration,
            reference=msgspec.structs.replace(reference, bank=file),
        )
        manifest = brought_up(
            before_it.manifest,
            products={**before_it.manifest.products, name: entry},
            files={**before_it.manifest.files, file: file_entry(data)},
        )
        take_up(path, current.manifest, manifest, {**new, file: data})
    return Bundle(path=bundle.path, manifest=manifest, read_bank=before_it.bank)


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


def set_settings(
    bundle: Bundle,
    product: str,
    settings: ProductSettings | None,
    *,
    template: bytes | None = None,
) -> Bundle:
    """Give a product settings, or take them away.

    Its threshold goes, which holds for its old settings alone; so does its reference bank, unless
    the encoders are shown the same as before. Settings that it has already change nothing.

    Args:
        template: The PNG of the reference photo of a new `alignment`, whose file is named here;
            None keeps the one that `alignment.template` names, which is the product's.

    Returns:
        The bundle as it is now.

    Raises:
        SettingsError: The settings contradict themselves, or a reference photo is missing.
        ProductError: The product is unknown.
        BundleError: The bundle cannot be written, or another process is changing it.
    """
    if settings is not None:
        check_settings(settings)
    with changing(bundle) as path:
        current = open_bundle(path, verify_digests=False)
        require_same_models(bundle, current)
        current.text_embeddings(product)
        name = current.product_name(product) or product
        before = current.manifest.products[name]
        settings, new = with_template(current.manifest, before.settings, settings, template)
        # A photo that was read otherwise is another one, though it is the same file.
        if not new and same_settings(before.settings, settings):
            return Bundle(path=bundle.path, manifest=current.manifest, read_bank=current.bank)
        entry = msgspec.structs.replace(
            before,
            threshold=None,
            calibration=None,
            settings=settings,
            reference=None if new or not same_view(before.settings, settings) else before.reference,
        )
        manifest = brought_up(
            current.manifest,
            products={**current.manifest.products, name: entry},
            files={**current.manifest.files, **{file: file_entry(new[file]) for file in new}},
        )
        take_up(path, current.manifest, manifest, new)
    return Bundle(path=bundle.path, manifest=manifest, read_bank=current.bank)


def _check_products(
    bundle: Bundle, embeddings: Mapping[str, TextEmbeddings], products: Mapping[str, Product]
) -> None:
    if embeddings.keys() != products.keys():
        raise ProductError(
            f"embeddings of {sorted(embeddings)} came with entries of {sorted(products)}",
            "give both for the same products",
        )
    for name, value in embeddings.items():
        check_product_name(name)
        check_text_embeddings(name, value, bundle.manifest.clip.embedding_size)


def _with_products(
    current: Bundle, embeddings: Mapping[str, TextEmbeddings], products: Mapping[str, Product]
) -> tuple[Manifest, dict[str, bytes], Mapping[str, TextEmbeddings]]:
    """Return a bundle's manifest with more products, its new file, and what that holds."""
    spelled = {name: current.product_name(name) or normal_name(name) for name in embeddings}
    require_distinct(spelled.values(), current.manifest.products)
    bank = {**current.bank, **{spelled[name]: rows for name, rows in embeddings.items()}}
    data = encode_prompt_bank(bank)
    new_bank = f"prompts-{uuid4().hex[:8]}.safetensors"
    files = {**current.manifest.files, new_bank: file_entry(data)}
    del files[current.manifest.prompts]
    manifest = brought_up(
        current.manifest,
        prompts=new_bank,
        products={
            **current.manifest.products,
            **{
                spelled[name]: _keeping_settings(product, current.manifest.products, spelled[name])
                for name, product in products.items()
            },
        },
        files=files,
    )
    return manifest, {new_bank: data}, bank


def _keeping_settings(new: Product, known: Mapping[str, Product], name: str) -> Product:
    if new.settings is not None or new.threshold is not None or name not in known:
        return new
    return msgspec.structs.replace(new, settings=known[name].settings)


def _require_threshold(product: str, threshold: float) -> None:
    """Refuse a threshold outside [0, 1].

    Raises:
        ProductError: It is not inside.
    """
    if not 0 <= threshold <= 1:
        raise ProductError(
            f"the threshold of product {product!r} would be {threshold}", "give one in [0, 1]"
        )


def _require_same_product(
    current: Bundle,
    product: str,
    embeddings: TextEmbeddings,
    reference: str | None,
    settings: ProductSettings | None,
) -> str:
    """Refuse to store what was computed for a product that another process changed since.

    Args:
        embeddings: Those that were used.
        reference: Digest of the reference bank that the product had then; None if it had none.
        settings: That it had then; None if it had none.

    Returns:
        The bundle's spelling of its name.

    Raises:
        ProductError: The product is unknown, or has other embeddings, another bank or other
            settings by now.
    """
    name = current.product_name(product) or product
    if not np.array_equal(current.text_embeddings(name), embeddings):
        raise ProductError(
            f"product {product!r} was added anew while its images were scored",
            "calibrate it again, or learn it again",
        )
    if current.manifest.products[name].settings != settings:
        raise ProductError(
            f"the settings of product {product!r} were changed while its images were scored",
            "calibrate it again, or learn it again",
        )
    now = current.reference_digest(name)
    if now != reference:
        what = "lost its reference bank to" if now is None else "was learned by"
        raise ProductError(
            f"product {product!r} {what} another process meanwhile",
            "look at it with `zeroflaw products list`, and begin again if it is not as you want it",
        )
    return name
