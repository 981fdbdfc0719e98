"""What the settings of a product must satisfy beyond the kinds of their fields.

Errors name the place as `zones[1].polygon`, counted from 0 as the parts stand in the settings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines.bundle.products.names import MAX_PRODUCT_NAME, normal_name
from zeroflaw_engines.bundle.products.polygons import area, crossing_sides, repeated_corner
from zeroflaw_engines.bundle.products.settings import (
    MAX_CORNERS,
    MAX_PARTS,
    Alignment,
    ProductSettings,
    Rule,
    Tiles,
    Zone,
)
from zeroflaw_engines.errors import SettingsError

# Of a pixel, mm: from those of electron microscopes to those of satellites.
_SCALES: Final = (1e-6, 1e6)
_WHAT: Final = {"zones": "zone", "rules": "rule"}


def check_settings(settings: ProductSettings) -> None:
    """Refuse settings that contradict themselves; the error names the place and the remedy.

    Raises:
        SettingsError: They do, or a value is not of its kind, out of its range or not finite.
    """
    _check_kinds(settings)
    _check_scale(settings.mm_per_pixel)
    _check_names("zones", [zone.name for zone in settings.zones])
    _check_names("rules", [rule.name for rule in settings.rules])
    for number, zone in enumerate(settings.zones):
        _check_zone(f"zones[{number}].polygon", zone, settings)
    for number, rule in enumerate(settings.rules):
        _check_rule(f"rules[{number}]", rule, settings)
    if settings.tiles is not None:
        _check_tiles(settings.tiles, settings)
    if settings.alignment is not None:
        _check_alignment(settings.alignment, settings)


def corners(zone: Zone, frame_size: tuple[int, int]) -> NDArray[np.float64]:
    """Return the corners of a zone, float64 [n, 2], (x, y) in pixels of the frame.

    Args:
        frame_size: Height and width, px.
    """
    points = np.asarray(zone.polygon, np.float64).reshape(-1, 2)
    if zone.units == "relative":
        return points * frame_size[::-1]
    return points


def _check_kinds(settings: ProductSettings) -> None:
    """Refuse what a program may put into the fields, and a file may not hold.

    The struct checks nothing when it is made, and neither it nor TOML refuses infinity.
    """
    try:
        document = msgspec.to_builtins(settings)
        msgspec.convert(document, ProductSettings)
        # A text may have signs that no file can hold.
        msgspec.json.encode(document)
    except (msgspec.ValidationError, TypeError, UnicodeEncodeError, OverflowError) as error:
        raise SettingsError(
            f"the settings do not fit: {error}", "give each setting a value of its kind and range"
        ) from error
    require_finite(document)


def require_finite(document: object) -> None:
    """Refuse numbers without end, and NaN, anywhere in a document of lists and tables.

    Raises:
        SettingsError: There is one; the error names the place.
    """
    for place, number in _numbers(document):
        if not math.isfinite(number):
            raise SettingsError(f"{place} is {number}", "give a finite number")


def _numbers(document: object, place: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(document, float):
        yield place, document
    elif isinstance(document, Mapping):
        for name, value in document.items():
            yield from _numbers(value, f"{place}.{name}" if place else str(name))
    elif isinstance(document, Sequence) and not isinstance(document, str):
        for number, value in enumerate(document):
            yield from _numbers(value, f"{place}[{number}]")


def _check_scale(scale: float | None) -> None:
    """Refuse a scale whose square, the area of a pixel, may be no number, or 0."""
    low, high = _SCALES
    if scale is not None and not low <= scale <= high:
        raise SettingsError(
            f"mm_per_pixel: a pixel of {scale:g} mm is outside of {low:g} to {high:g} mm",
            "give the side of a pixel on the part in mm",
        )


def _check_names(part: str, names: Sequence[str]) -> None:
    what = _WHAT[part]
    if len(names) > MAX_PARTS:
        raise SettingsError(
            f"{part}: there are {len(names)}, of at most {MAX_PARTS}", "leave some out"
        )
    seen: dict[str, int] = {}
    for number, name in enumerate(names):
        place = f"{part}[{number}].name"
        if not 0 < len(name) <= MAX_PRODUCT_NAME or not name.isprintable() or name != name.strip():
            raise SettingsError(
                f"{place}: {name!r} is no name of a {what}",
                f"use 1 to {MAX_PRODUCT_NAME} printable characters",
            )
        other = seen.setdefault(normal_name(name), number)
        if other != number:
            raise SettingsError(
                f"{place}: the {what} {name!r} is there already, as {part}[{other}]",
                f"give every {what} a name of its own",
            )


def _check_zone(place: str, zone: Zone, settings: ProductSettings) -> None:
    height, width = settings.frame_size
    name, count = repr(zone.name), len(zone.polygon)
    if not 3 <= count <= MAX_CORNERS:
        raise SettingsError(
            f"{place}: the zone {name} has {count} corners",
            f"give at least three corners [x, y], and at most {MAX_CORNERS}",
        )
    points = corners(zone, settings.frame_size)
    outside = np.flatnonzero(((points < 0) | (points > (width, height))).any(axis=1))
    if outside.size:
        first = outside[0]
        raise SettingsError(
            f"{place}[{first}]: the zone {name} reaches outside the frame of {width} x {height} px,"
            f" to x = {points[first, 0]:.7g}, y = {points[first, 1]:.7g}",
            'move its corners inside; with units = "relative" they lie between 0 and 1',
        )
    pair = repeated_corner(points)
    if pair is not None:
        raise SettingsError(
            f"{place}: the corners [{pair[0]}] and [{pair[1]}] of the zone {name} are one point",
            "leave the last corner out: the outline leads back to the first by itself"
            if pair == (0, count - 1)
            else "give each corner once; an outline that touches itself is two zones",
        )
    sides = crossing_sides(points)
    if sides is not None:
        one, other = (f"[{side}]-[{(side + 1) % count}]" for side in sides)
        raise SettingsError(
            f"{place}: the zone {name} crosses itself: its sides {one} and {other} meet",
            "give the corners in the order in which a pen would draw the outline",
        )
    enclosed = area(points)
    if enclosed < 1:
        raise SettingsError(
            f"{place}: the zone {name} has an area of {enclosed:.3g} px", "draw it larger"
        )


def _check_rule(place: str, rule: Rule, settings: ProductSettings) -> None:
    included = [zone.name for zone in settings.zones if zone.kind == "include"]
    for name in rule.zones:
        if name not in included:
            raise SettingsError(
                f"{place}.zones: the rule {rule.name!r} is of the zone {name!r}, which is no zone"
                f" to include (there are: {', '.join(sorted(included)) or 'none'})",
                "name zones that are judged",
            )
    of_regions = (
        rule.zones, rule.min_area_px, rule.min_area_mm2, rule.min_peak, rule.min_regions != 1,
    )  # fmt: skip
    if rule.by == "image_score" and any(of_regions):
        raise SettingsError(
            f"{place}: the rule {rule.name!r} is by the image score, and has conditions on regions",
            'leave out zones, areas, min_peak and min_regions, or choose by = "regions"',
        )
    if rule.min_area_px is not None and rule.min_area_mm2 is not None:
        raise SettingsError(
            f"{place}: the rule {rule.name!r} has an area in px and one in mm2", "give one of them"
        )
    if rule.min_area_mm2 is not None and settings.mm_per_pixel is None:
        raise SettingsError(
            f"{place}.min_area_mm2: the rule {rule.name!r} has an area in mm2, and the settings"
            " have no scale",
            "give mm_per_pixel, the side of a pixel on the part, or min_area_px",
        )
    _check_attainable(place, rule, settings)


def _check_attainable(place: str, rule: Rule, settings: ProductSettings) -> None:
    """Refuse a rule that no frame fulfils: what it is for would be accepted silently."""
    least = float(rule.min_area_px or 1)
    if rule.min_area_mm2 is not None and settings.mm_per_pixel is not None:
        least = rule.min_area_mm2 / settings.mm_per_pixel**2
    height, width = settings.frame_size
    if rule.min_regions * least > height * width:
        many = "a region" if rule.min_regions == 1 else f"{rule.min_regions} regions"
        raise SettingsError(
            f"{place}: the rule {rule.name!r} can never hold: it takes {many} of {least:.7g} px or"
            f" more, and the frame has {height * width} px",
            "give a smaller area or number, and check mm_per_pixel",
        )


def _check_tiles(tiles: Tiles, settings: ProductSettings) -> None:
    if tiles.coarse_to_fine != (tiles.coarse_limit is not None):
        raise SettingsError(
            "tiles: coarse_to_fine and coarse_limit were not given together",
            "give both: the limit is the highest value of the coarse map that is clearly good",
        )
    if tiles.banks == "per_tile" and settings.alignment is None:
        raise SettingsError(
            'tiles.banks: "per_tile" was given for a part that is not aligned',
            'add an [alignment], or choose banks = "one"',
        )


def _check_alignment(alignment: Alignment, settings: ProductSettings) -> None:
    if not any(zone.kind == "include" for zone in settings.zones):
        raise SettingsError(
            "alignment: there is no zone to include: what leaves the picture when a frame is"
            " shifted would not be judged",
            "add a zone that says where the part lies, at least max_shift inside the frame",
        )
    if alignment.method == "phase_correlation" and alignment.max_rotation:
        raise SettingsError(
            "alignment.max_rotation: phase_correlation finds no rotation",
            'leave it out, or choose method = "ecc"',
        )
