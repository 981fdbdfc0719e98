"""As which products classes are inspected, and how the settings of products are told."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from zeroflaw_benchmarks.evaluate.passes.scorings import INSPECTED_REFINERS
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.products.settings import ProductSettings
from zeroflaw_engines.errors import EvaluationError, ProductError
from zeroflaw_engines.parameters import Refiner


def product_of_class(bundle: Bundle, class_name: str, forced: str | None = None) -> str:
    """Choose the product as which a class is inspected.

    It is the one that was forced, or that of the class's name, or the only one there is.

    Raises:
        ProductError: The bundle has none of these.
    """
    known = sorted(bundle.manifest.products)
    for name in (forced,) if forced is not None else (class_name, *known[: len(known) == 1]):
        if name in known:
            return name
    raise ProductError(
        f"the bundle {bundle.path} has no product {forced or class_name!r} "
        f"(it has: {', '.join(known) or 'none'})",
        f"add it with `zeroflaw products add {bundle.path} {forced or class_name}`, or name one "
        "of these for all classes with --product",
    )


def settings_of(bundle: Bundle, products: Collection[str]) -> dict[str, ProductSettings]:
    """Return the settings of those products that have some."""
    found = {name: bundle.manifest.products[name].settings for name in sorted(products)}
    return {name: settings for name, settings in found.items() if settings is not None}


def refuse_what_takes_whole_frames(
    settings: Mapping[str, ProductSettings],
    refiner: Refiner = "cascade",
    *,
    ablations: Sequence[object] = (),
    shots: Sequence[object] = (),
) -> None:
    """Refuse ablations and shots of products with settings, and shots of some refiners.

    Args:
        settings: Of the products that have some.
        ablations: That were asked for.
        shots: That were asked for.

    Raises:
        EvaluationError: Both are measured on encodings of whole frames, which such products are
            not judged by, and which are not all that the refiner takes.
    """
    if shots and refiner in INSPECTED_REFINERS:
        raise EvaluationError(
            f"--shots cannot be measured with the refiner {refiner}: it takes the frame itself,"
            " and draws of reference photos are measured on encodings",
            "leave it out, or choose another refiner (--set refiner=cascade)",
        )
    asked = [name for name, given in (("--ablate", ablations), ("--shots", shots)) if given]
    if not (settings and asked):
        return
    raise EvaluationError(
        f"{' and '.join(asked)} cannot be measured for {', '.join(map(repr, settings))}: they"
        " look at frames as a whole, and the settings say how frames are looked at",
        "leave them out, evaluate other classes (--class), or name a product without settings"
        " (--product)",
    )


def refuse_settings(bundle: Bundle, product: str) -> None:
    """Refuse a product with settings where photos of any size are looked at as a whole.

    Raises:
        EvaluationError: It has some.
    """
    name = bundle.product_name(product)
    if name is not None and settings_of(bundle, [name]):
        raise EvaluationError(
            f"the product {name!r} has settings, which say how its frames are looked at, and this"
            " measurement looks at photos of any size as a whole",
            "name a product without settings, or measure it with `zeroflaw evaluate`",
        )


def settings_note(product: str, settings: ProductSettings) -> str:
    """Say in a sentence how the frames of a product are seen."""
    return f"The product {product} has settings ({settings.digest[:16]}): {_seen(settings)}."


def _seen(settings: ProductSettings) -> str:
    return "; ".join(_parts(settings))


def _parts(settings: ProductSettings) -> Iterator[str]:
    yield f"frames of {settings.frame_width} x {settings.frame_height} px"
    tiles = settings.tiles
    if tiles is None:
        yield "seen as a whole"
    else:
        yield f"{tiles.rows} x {tiles.columns} tiles with an overlap of {tiles.overlap:g}"
        if tiles.coarse_to_fine:
            yield f"tiles left out where the whole frame's map is at most {tiles.coarse_limit:g}"
    for kind in ("include", "exclude"):
        names = [zone.name for zone in settings.zones if zone.kind == kind]
        if names:
            yield f"zones to {kind}: {', '.join(names)}"
    if settings.alignment is not None:
        yield f"aligned by {settings.alignment.method}"
    if settings.rules:
        yield f"rules: {', '.join(rule.name for rule in settings.rules)}"
