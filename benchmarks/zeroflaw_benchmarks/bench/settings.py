"""A product with settings in a bench: the size of its frames, and what is not measured of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from zeroflaw.inspector import Inspector
from zeroflaw_benchmarks.bench.frames import BenchFrame
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.products.settings import ProductSettings
from zeroflaw_engines.errors import BenchmarkError

DEFAULT_SIZE: Final = (1024, 1024)


def settings_of_product(bundle: str | Path, product: str | None) -> ProductSettings | None:
    """Return the settings of a product of a bundle; None if it has none, or is unknown.

    Args:
        product: None takes the first.
    """
    opened = open_bundle(bundle, verify_digests=False)
    products = opened.manifest.products
    name = min(products, default=None) if product is None else opened.product_name(product)
    return None if name is None else products[name].settings


def size_of_frames(
    size: tuple[int, int] | None, settings: ProductSettings | None
) -> tuple[int, int]:
    """Return the height and width of the frames to inspect, px.

    Args:
        size: That was asked for; None takes that of the settings.

    Raises:
        BenchmarkError: The product's settings are made for frames of another size.
    """
    if settings is None:
        return size or DEFAULT_SIZE
    if size is not None and size != settings.frame_size:
        raise BenchmarkError(
            f"frames of {size[1]}x{size[0]} px were asked for, and the product's settings are made"
            f" for {settings.frame_width}x{settings.frame_height} px: such frames are held",
            "leave --size out, or name a product without settings",
        )
    return settings.frame_size


def refuse_what_takes_whole_frames(
    settings: ProductSettings | None, *, peers: Sequence[str], scale: Sequence[str], load: bool
) -> None:
    """Refuse what would hold frames of a product with settings against whole ones.

    Raises:
        BenchmarkError: Something such was asked for.
    """
    asked = [
        name
        for name, given in (
            ("--peers", bool(peers)),
            ("--load", load),
            ("--scale megapixels", "megapixels" in scale),
        )
        if given
    ]
    if settings is not None and asked:
        raise BenchmarkError(
            f"{', '.join(asked)} cannot be measured for a product with settings: they are of frames"
            " that are seen as a whole, in any size",
            "leave them out, or name a product without settings",
        )


def settings_notes(
    inspector: Inspector, frame: BenchFrame, product: str, settings: ProductSettings | None
) -> tuple[str, ...]:
    """Say how a product's frames are seen, and what the figures of a report are then.

    The frame is inspected once more, to count the tiles that are run. Of a product without
    settings there is nothing to say.
    """
    if settings is None:
        return ()
    encoded = inspector.encode_frame(frame.pixels, product=product)
    inspection = inspector.decode_frame(encoded)
    notes = [f"the product {product} has settings ({settings.digest[:16]}): no goals are stated"]
    seen = inspection.tiles
    if seen is None:
        notes.append("its frames are seen as a whole")
    else:
        calls = sum(span.stage == "sam_encoder" for span in encoded.watch.spans)
        notes.append(
            f"its frames are seen in {seen.rows} x {seen.columns} tiles, of which CLIP was run on"
            f" {seen.run}; the SAM encoder was called {calls} times; stages are sums over tiles"
        )
    notes.append("`host code alone`, roofline and transfers are of one frame seen as a whole")
    return tuple(notes)
