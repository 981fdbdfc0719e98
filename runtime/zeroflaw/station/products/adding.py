"""Adding products to a bundle on a station, with the bundle's own text engine.

Where the bundle's localizer takes no texts, a product is a name alone and no engine is needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines.backends import load_session
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.manifest import Product
from zeroflaw_engines.bundle.products.names import check_product_name, normal_name, require_distinct
from zeroflaw_engines.bundle.products.writer import add_products
from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings, no_text_embeddings
from zeroflaw_engines.bundle.prompt_ensembles import (
    load_tokenizer,
    product_embeddings,
    read_prompt_ensembles,
)
from zeroflaw_engines.bundle.shipped import require_changeable
from zeroflaw_engines.contract import TEXT_ENCODER
from zeroflaw_engines.errors import ProductError


def add_products_by_name(
    bundle: Bundle,
    names: Iterable[str],
    *,
    ensembles_file: Path | None = None,
    backend: str = "onnxruntime",
) -> Bundle:
    """Compute the prompt ensembles of products and put them into the bundle.

    Args:
        names: Product names; they go into the sentences verbatim, in Unicode's form NFC.
        ensembles_file: TOML file of sentences; default: the bundle's own.

    Returns:
        The bundle as it is now.

    Raises:
        ProductError: The bundle has no text engine and needs one, or was given sentences that
            its localizer does not take; or a name is not acceptable or looks like that of another
            product.
        MissingExtraError: The tokenizers or the ftfy library is not installed.
        BundleError: The bundle cannot be written, or was replaced by another meanwhile.
    """
    require_changeable(bundle.path)
    embeddings, entry = embeddings_by_name(
        bundle, names, ensembles_file=ensembles_file, backend=backend
    )
    return add_products(bundle, embeddings, dict.fromkeys(embeddings, entry))


def embeddings_by_name(
    bundle: Bundle,
    names: Iterable[str],
    *,
    ensembles_file: Path | None = None,
    backend: str = "onnxruntime",
) -> tuple[dict[str, TextEmbeddings], Product]:
    """Compute the prompt ensembles of products, which the bundle need not have.

    Arguments and errors are those of `add_products_by_name`.

    Returns:
        float32 [2, embedding_size] by the products' names as the bundle spells them; and the entry
        of each, with 0 sentences where the localizer takes none.
    """
    wanted = [bundle.product_name(name) or normal_name(name) for name in names]
    for name in wanted:
        check_product_name(name)
    require_distinct(wanted, bundle.manifest.products)
    text = bundle.manifest.text
    if not bundle.manifest.takes_texts:
        if ensembles_file is not None:
            raise ProductError(
                f"the sentences of {ensembles_file} were given to the bundle {bundle.path}, whose"
                " localizer takes no texts",
                "add the product by its name alone",
            )
        return {name: no_text_embeddings() for name in wanted}, Product(sentences=(0, 0))
    if text is None:
        raise ProductError(
            f"the bundle {bundle.path} has no text engine, so it cannot take new products",
            "export it again with --text-encoder, or with the products that you need",
        )
    ensembles = read_prompt_ensembles(ensembles_file or bundle.path / text.ensembles)
    tokenize = load_tokenizer(bundle.path / text.tokenizer, text.context)
    session = load_session(bundle, TEXT_ENCODER, backend=backend)

    def encode(tokens: NDArray[np.int32]) -> NDArray[np.float32]:
        encoded: NDArray[np.float32] = session.execute({"token_ids": tokens})["sentence_embeddings"]
        return encoded

    try:
        embeddings = {
            name: product_embeddings(name, ensembles, tokenize, encode) for name in wanted
        }
    finally:
        session.close()
    normal, abnormal = ensembles.sentences("")
    entry = Product(sentences=(len(normal), len(abnormal)))
    return embeddings, entry
