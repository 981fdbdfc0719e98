"""What the commands say of a product: threshold, reference bank, settings."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from zeroflaw.pictures.settings_overlay import patch_size, patch_text
from zeroflaw.pipeline.view.tiles import TileGrid
from zeroflaw.records.threshold import shown_threshold, uncalibrated_peaks
from zeroflaw.station.products.editing import DroppedParts, grid_of, takes_threshold
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.manifest import Product
from zeroflaw_engines.bundle.products.polygons import area
from zeroflaw_engines.bundle.products.settings import ProductSettings, Rule, Zone
from zeroflaw_engines.bundle.products.settings_checks import corners


def bank_text(bundle: Bundle, name: str, product: Product) -> str:
    """Return what is to be said of a product's reference bank in its line; empty without one."""
    reference = product.reference
    if reference is None:
        return ""
    size = bundle.manifest.files[reference.bank].bytes
    return (
        f"; learned {reference.created[:10]} from {len(reference.photos)} photos,"
        f" bank {str(bundle.reference_digest(name))[:12]} of {reference.rows} rows,"
        f" {size / 1e6:.1f} MB"
    )


def threshold_text(product: Product, default: float) -> str:
    """Return a product's decision threshold and where it comes from, in one line."""
    if product.threshold is None:
        return f"threshold {default} (default)"
    own = f"threshold {shown_threshold(product.threshold)}"
    calibration = product.calibration
    if calibration is None:
        return f"{own} (not calibrated)"
    interval = ""
    if calibration.interval is not None:
        low, high = calibration.interval
        interval = f" {low:.2g} to {high:.2g} with 95 % confidence,"
    return (
        f"{own}, calibrated {calibration.created[:10]} on {calibration.images} good images for"
        f" {calibration.false_reject_rate:.4g} false rejects,{interval}"
        + (" each left out of the bank," if calibration.scheme == "leave_one_out" else "")
        + f" image_scoring={calibration.image_scoring}"
        + (f" on {calibration.backend} in {calibration.precision}" if calibration.backend else "")
    )


def settings_summary(settings: ProductSettings | None) -> str:
    """Return what is to be said of a product's settings in its line; empty without any."""
    if settings is None:
        return ""
    tiles = settings.tiles
    parts = [
        "" if tiles is None else f"{tiles.rows} x {tiles.columns} tiles",
        _count(len(settings.zones), "zone"),
        _count(len(settings.rules), "rule"),
        "aligned" if settings.alignment else "",
    ]
    frame = f"{settings.frame_width} x {settings.frame_height} px"
    return f"; settings {settings.digest[:12]}: {', '.join([frame, *filter(None, parts)])}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number > 1)}" if number else ""


def product_document(bundle: Bundle, name: str) -> dict[str, object]:
    """Return what `list --json` and `show --json` print; docs/inspection.md describes it.

    Args:
        name: As the bundle spells it.
    """
    product = bundle.manifest.products[name]
    default = bundle.manifest.method_parameters.decision_threshold
    own, calibration, reference = product.threshold, product.calibration, product.reference
    settings = product.settings
    return {
        "product": name,
        "threshold": default if own is None else own,
        "source": "default" if own is None else "calibrated" if calibration else "set",
        "calibration": calibration,
        "reference": None
        if reference is None
        else {
            "bank": bundle.reference_digest(name),
            "bank_bytes": bundle.manifest.files[reference.bank].bytes,
            "rows": reference.rows,
            "photos": reference.photos,
            "augmentations": reference.augmentations,
            "created": reference.created,
            "backend": reference.backend,
            "precision": reference.precision,
        },
        "settings": settings,
        "settings_digest": None if settings is None else settings.digest,
        "view": None if settings is None else _view_document(bundle, settings),
    }


def _view_document(bundle: Bundle, settings: ProductSettings) -> dict[str, object]:
    grid = grid_of(settings, bundle.manifest.sizes)
    patch = patch_size(grid)
    scale = settings.mm_per_pixel
    areas = [(zone.name, area(corners(zone, settings.frame_size))) for zone in settings.zones]
    return {
        "tiles": len(grid.windows),
        "tile_width": grid.tile[1],
        "tile_height": grid.tile[0],
        "patch_width": None if patch is None else patch[1],
        "patch_height": None if patch is None else patch[0],
        "zones": [
            {"name": name, "area_px": px, "area_mm2": None if scale is None else px * scale**2}
            for name, px in areas
        ],
    }


def product_rows(bundle: Bundle, name: str) -> Iterator[tuple[str, str]]:
    """Give what `show` prints of a product: a heading and a text a line.

    Args:
        name: As the bundle spells it.
    """
    product = bundle.manifest.products[name]
    settings = product.settings
    default = bundle.manifest.method_parameters.decision_threshold
    yield "product", name
    yield (
        "threshold",
        threshold_text(product, default).removeprefix("threshold ")
        + ("" if takes_threshold(settings) else "; no rule takes it: their limits are fixed"),
    )
    if product.threshold is None:
        for text in uncalibrated_peaks(name, settings, default):
            yield "warning", text
    yield "reference bank", bank_text(bundle, name, product).removeprefix("; ") or "none"
    if settings is None:
        yield "settings", "none: frames of any size, seen as a whole; all of a frame is judged"
        yield "rules", "reject if the image score reaches the threshold"
        return
    yield "settings", f"digest {settings.digest}"
    yield "frame", f"{settings.frame_width} x {settings.frame_height} px; others are held"
    scale = settings.mm_per_pixel
    yield "scale", "none" if scale is None else f"{scale:g} mm a pixel"
    yield from _tile_rows(settings, grid_of(settings, bundle.manifest.sizes))
    if not settings.zones:
        yield "zones", "none: all of the frame is judged"
    for zone in settings.zones:
        yield "zone", _zone_text(zone, settings)
    if not settings.rules:
        yield "rules", "reject if the image score reaches the threshold"
    for rule in settings.rules:
        yield "rule", f"{rule.name}: {rule_text(rule)}"
    alignment = settings.alignment
    if alignment is None:
        yield "alignment", "none: frames are taken as they are"
    else:
        yield (
            "alignment",
            (
                f"{alignment.method} with the photo {alignment.photo[:12]}; held beyond"
                f" {alignment.max_shift:g} px, {alignment.max_rotation:g} degrees, or below a"
                f" correlation of {alignment.min_correlation:g}"
            ),
        )


def rule_text(rule: Rule) -> str:
    """Say in words when a rule rejects."""
    score = (
        "reaches the threshold"
        if rule.min_image_score is None
        else f"is {rule.min_image_score:g} or more"
    )
    if rule.by == "image_score":
        return f"reject if the image score {score}"
    many = rule.min_regions > 1
    text = f"reject if there are {rule.min_regions} regions" if many else "reject if a region"
    if rule.zones:
        text += f" in {' or '.join(rule.zones)}"
    if rule.min_area_px is not None:
        text += f" of {rule.min_area_px} px or more"
    if rule.min_area_mm2 is not None:
        text += f" of {rule.min_area_mm2:g} mm2 or more"
    peak = (
        "that reaches the threshold" if rule.min_peak is None else f"of {rule.min_peak:g} or more"
    )
    text += f" {'with' if many else 'has'} a peak {peak}"
    return text + ("" if rule.min_image_score is None else f", and the image score {score}")


def dropped_text(dropped: DroppedParts, *, stored: bool, cleared: bool) -> str:
    """Say what a change of settings does.

    Args:
        stored: Whether it was made, or only tried.
        cleared: Whether settings were taken away.
    """
    if not dropped.changed:
        has = "has no settings" if cleared else "has these settings already"
        return f"{has}; nothing is changed"
    lost = (
        [] if dropped.threshold is None else [f"the threshold {shown_threshold(dropped.threshold)}"]
    )
    lost += ["the reference bank"] if dropped.bank else []
    if not stored:
        loses = f"; it would lose {' and '.join(lost)}" if lost else ""
        return f"{'it has settings' if cleared else 'the settings fit'}; nothing is changed{loses}"
    loses = f"; {' and '.join(lost)} held for the old ones alone and went" if lost else ""
    return f"the settings are {'taken away' if cleared else 'stored'}{loses}"


def next_text(
    bundle: str, product: str, settings: ProductSettings | None, dropped: DroppedParts
) -> str:
    """Say which commands follow a change of settings."""
    where, name = shlex.quote(bundle), shlex.quote(product)
    inspect = f"`zeroflaw inspect {where} PHOTOS --product {name}`"
    if dropped.bank:
        return f"next: `zeroflaw products learn {where} {name} GOOD_PHOTOS`, then {inspect}"
    if takes_threshold(settings):
        return f"next: `zeroflaw calibrate {where} GOOD_PHOTOS --product {name}`, then {inspect}"
    return f"next: {inspect}; the rules' limits are fixed, so that there is nothing to calibrate"


def _tile_rows(settings: ProductSettings, grid: TileGrid) -> Iterator[tuple[str, str]]:
    tiles = settings.tiles
    if tiles is None or len(grid.windows) == 1:
        yield "tiles", "none: frames are seen as a whole"
    else:
        yield (
            "tiles",
            (
                f"{tiles.rows} rows x {tiles.columns} columns of {grid.tile[1]} x {grid.tile[0]}"
                f" px, overlap {tiles.overlap:g}, banks {tiles.banks}"
            ),
        )
        yield (
            "coarse to fine",
            "off: every tile is seen"
            if tiles.coarse_limit is None
            else "on: tiles are left out where the map of the whole frame is at most"
            f" {tiles.coarse_limit:g}",
        )
    patch = patch_size(grid)
    if patch is not None:
        yield "smallest defect", f"{patch_text(settings, patch)}: one patch of the map"


def _zone_text(zone: Zone, settings: ProductSettings) -> str:
    px = area(corners(zone, settings.frame_size))
    height, width = settings.frame_size
    scale = settings.mm_per_pixel
    mm2 = "" if scale is None else f", {px * scale**2:.4g} mm2"
    what = "excluded" if zone.kind == "exclude" else f"included, {zone.severity}"
    return (
        f"{zone.name}: {what}, {len(zone.polygon)} corners, {px:.0f} px{mm2},"
        f" {100 * px / (height * width):.3g} % of the frame"
    )
