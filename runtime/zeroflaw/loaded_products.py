"""What a bundle says of its products, loaded: all that may change while the models stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from zeroflaw.pipeline.reference import LoadedBank, LoadedBanks, load_banks
from zeroflaw.pipeline.view.product_view import ProductView, product_view
from zeroflaw.pipeline.view.tiles import require_takes_tiles
from zeroflaw.records.provenance import Provenance, bundle_warnings, provenance_of
from zeroflaw.records.threshold import decision_threshold
from zeroflaw.sessions import Sessions
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle, require_same_models
from zeroflaw_engines.bundle.products.settings import ProductSettings
from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.contract import REFERENCE_MATCHER
from zeroflaw_engines.errors import BundleChangedError, EngineMissingError, ProductError
from zeroflaw_engines.parameters import MethodParameters

# How often other processes may change the products while their banks are read.
_MAX_READS: Final = 20


@dataclass(frozen=True, eq=False)
class LoadedProduct:
    """What judges the frames of one product.

    Attributes:
        name: The bundle's own spelling.
        embeddings: float32 [2, embedding_size].
        banks: Its reference banks, where the matcher reads them; None if it has none.
        view: How its frames are looked at; None: as a whole, and all of it.
        settings: What the view is of, and the rules; None if it has none.
        threshold: Decision score at and above which frames are rejected, in [0, 1].
        threshold_warnings: What to know about that.
        warnings: What a reader of every result must know, those among them.
        provenance: What judges, by digest.
    """

    name: str
    embeddings: TextEmbeddings
    banks: LoadedBanks | None
    view: ProductView | None
    settings: ProductSettings | None
    threshold: float
    threshold_warnings: tuple[str, ...]
    warnings: tuple[str, ...]
    provenance: Provenance

    @property
    def bank(self) -> LoadedBank | None:
        """The reference bank of the whole frame; of banks of one tile each, the first."""
        return None if self.banks is None else self.banks.first

    def bank_of_tile(self, number: int) -> LoadedBank | None:
        """Return the reference bank that a tile is matched with, counted row by row from 0."""
        return None if self.banks is None else self.banks.of_tile(number)


@dataclass(frozen=True, eq=False)
class LoadedProducts:
    """The products of one state of a bundle; nothing of it changes.

    Attributes:
        bundle: In that state.
        by_name: Each with what judges it.
    """

    bundle: Bundle
    by_name: Mapping[str, LoadedProduct]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the products, sorted."""
        return tuple(sorted(self.by_name))

    def named(self, product: str | None) -> LoadedProduct:
        """Return the product that is meant: the one named, or the only one there is.

        Raises:
            ProductError: It is unknown, or there are several to choose from.
        """
        known = self.names
        if product is None and len(known) == 1:
            return self.by_name[known[0]]
        name = self.bundle.product_name(product) if isinstance(product, str) else None
        if name is None:
            asked = "no product was named" if product is None else f"unknown product {product!r}"
            raise ProductError(
                f"{asked}; this bundle has: {', '.join(known) or 'none'}",
                f"name one of these, or {self.bundle.how_to_add(str(product or 'NAME'))}",
            )
        return self.by_name[name]


def load_products(
    bundle: Bundle,
    sessions: Sessions,
    parameters: MethodParameters,
    *,
    explicit: bool,
    loaded: LoadedProducts | None = None,
) -> LoadedProducts:
    """Load the products of a bundle, and all of their banks.

    A bundle whose products another process changes meanwhile is read again, until all that was
    read belongs together.

    Args:
        sessions: Of the same models.
        explicit: Whether the decision threshold was given, rather than recorded in the bundle.
        loaded: What is loaded already: banks of the same digest are taken from there.

    Raises:
        BundleChangedError: The bundle was replaced by one of other models, or changes all the time.
        BundleDamagedError: A bank cannot be read.
        ReferenceBankError: A bank does not belong to the bundle.
        EngineMissingError: A product has a bank, and no reference_matcher was loaded.
        SettingsError: A product has tiles, and the refiner takes none.
    """
    for _ in range(_MAX_READS):
        try:
            return _load(bundle, sessions, parameters, explicit=explicit, loaded=loaded)
        except BundleChangedError as error:
            changed = error
        bundle = reopened(bundle)
    raise changed


def reopened(bundle: Bundle) -> Bundle:
    """Open a bundle again for the products that it has now.

    The engines are not hashed again: they have been loaded, and what is compared are the digests
    that the manifest gives them.

    Raises:
        BundleError: There is no whole bundle any more.
        BundleChangedError: It was replaced by one of other models.
    """
    now = open_bundle(bundle.path, verify_digests=False)
    require_same_models(bundle, now)
    return now


def _load(
    bundle: Bundle,
    sessions: Sessions,
    parameters: MethodParameters,
    *,
    explicit: bool,
    loaded: LoadedProducts | None,
) -> LoadedProducts:
    known = {
        product.banks.digest: product.banks
        for product in (loaded.by_name.values() if loaded else ())
        if product.banks
    }
    known_views = {
        product.name: product.view
        for product in (loaded.by_name.values() if loaded else ())
        if product.view
    }
    of_bundle = bundle_warnings(bundle)
    by_name = {}
    for name, product in bundle.manifest.products.items():
        digest = bundle.reference_digest(name)
        banks = None if digest is None else known.get(digest)
        if digest is not None and banks is None:
            banks = _loaded_banks(bundle, name, digest, sessions)
        threshold, warnings = decision_threshold(
            name,
            product,
            parameters,
            backend=sessions.clip_encoder.backend,
            explicit=explicit,
            reference=digest,
        )
        view = product_view(product.settings, bundle, known_views.get(name))
        require_takes_tiles(parameters.refiner, name, None if view is None else view.grid)
        by_name[name] = LoadedProduct(
            name=name,
            embeddings=bundle.bank[name],
            banks=banks,
            view=view,
            settings=product.settings,
            threshold=threshold,
            threshold_warnings=warnings,
            warnings=of_bundle + warnings,
            provenance=provenance_of(bundle, name, parameters, sessions.backend),
        )
    return LoadedProducts(bundle, by_name)


def _loaded_banks(bundle: Bundle, product: str, digest: str, sessions: Sessions) -> LoadedBanks:
    if sessions.reference_matcher is None:
        raise EngineMissingError(
            f"{product!r} of the bundle {bundle.path} has a reference bank, and no"
            f" {REFERENCE_MATCHER} was loaded to match it with",
            "load an Inspector of the bundle as it is now: that loads the engine, or says what is"
            " missing (`zeroflaw build` builds it for TensorRT)",
        )
    bank = bundle.reference_bank(product)
    if bank is None:
        raise BundleChangedError(
            f"the reference bank of {product!r} was taken out of the bundle {bundle.path}",
            "load it again",
        )
    return load_banks(bank, digest, sessions.reference_matcher)
