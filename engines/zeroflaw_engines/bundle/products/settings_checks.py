"""What the settings of a product must satisfy beyond the kinds of their fields."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines.bundle.products.settings import ProductSettings, Rule, Zone
from zeroflaw_engines.errors import SettingsError

Point = tuple[float, float]


def check_settings(settings: ProductSettings) -> None:
    """Refuse settings that contradict themselves; the error names the part and the remedy.

    Raises:
        SettingsError: They do.
    """
    _check_names("zone", [zone.name for zone in settings.zones])
    _check_names("rule", [rule.name for rule in settings.rules])
    for zone in settings.zones:
        _check_zone(zone, settings)
    for rule in settings.rules:
        _check_rule(rule, settings)
    tiles, alignment = settings.tiles, settings.alignment
    if tiles is not None:
        if tiles.coarse_to_fine != (tiles.coarse_limit is not None):
            raise SettingsError(
                "coarse_to_fine and coarse_limit were not given together",
                "give both: the limit is the highest value of the coarse map that is clearly good",
            )
        if tiles.banks == "per_tile" and alignment is None:
            raise SettingsError(
                'banks = "per_tile" was given for a part that is not aligned',
                'add an [alignment], or choose banks = "one"',
            )
    if alignment is not None and not any(zone.kind == "include" for zone in settings.zones):
        raise SettingsError(
            "an alignment was given without a zone to include: what leaves the picture when a"
            " frame is shifted would not be judged",
            "add a zone that says where the part lies, at least max_shift inside the frame",
        )


def corners(zone: Zone, frame_size: tuple[int, int]) -> NDArray[np.float64]:
    """Return the corners of a zone, float64 [n, 2], (x, y) in pixels of the frame.

    Args:
        frame_size: Height and width, px.
    """
    points = np.asarray(zone.polygon, np.float64).reshape(-1, 2)
    if zone.units == "relative":
        return points * frame_size[::-1]
    return points


def _check_names(what: str, names: Iterable[str]) -> None:
    known = list(names)
    for name in known:
        if not name.strip():
            raise SettingsError(f"a {what} has no name", "give every one a name of its own")
        if known.count(name) > 1:
            raise SettingsError(
                f"the {what} {name!r} is there twice", "give every one a name of its own"
            )


def _check_zone(zone: Zone, settings: ProductSettings) -> None:
    points = corners(zone, settings.frame_size)
    height, width = settings.frame_size
    if len(points) < 3 or not np.isfinite(points).all():
        raise SettingsError(
            f"the zone {zone.name!r} has {len(points)} corners, or some that are no numbers",
            "give at least three corners (x, y)",
        )
    if (points < 0).any() or (points > (width, height)).any():
        raise SettingsError(
            f"the zone {zone.name!r} reaches outside the frame of {width} x {height} px",
            'move its corners inside; with units = "relative" they lie between 0 and 1',
        )
    crossing = _crossing(points)
    if crossing is not None:
        raise SettingsError(
            f"the zone {zone.name!r} crosses itself: its sides {crossing[0] + 1} and"
            f" {crossing[1] + 1} meet",
            "give the corners in the order in which a pen would draw the outline",
        )
    x, y = points.T
    area = abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2
    if area < 1:
        raise SettingsError(
            f"the zone {zone.name!r} has an area of {area:.3g} px", "draw it larger"
        )


def _crossing(points: NDArray[np.float64]) -> tuple[int, int] | None:
    """Return two sides of a polygon that have a point in common and are no neighbours' corner."""
    sides = list(zip(points.tolist(), np.roll(points, -1, axis=0).tolist(), strict=True))
    n = len(sides)
    for i, j in combinations(range(n), 2):
        neighbours = j == i + 1 or (i == 0 and j == n - 1)
        if neighbours:
            # They share a corner, and may not lie on one another beyond it.
            a, corner, b = (
                (sides[i][0], sides[i][1], sides[j][1])
                if j == i + 1
                else (sides[j][0], sides[j][1], sides[i][1])
            )
            back = _turn(a, corner, b) == 0 and _dot(a, corner, b) > 0
            if back:
                return i, j
        elif _meet(*sides[i], *sides[j]):
            return i, j
    return None


def _turn(a: Iterable[float], b: Iterable[float], c: Iterable[float]) -> float:
    (ax, ay), (bx, by), (cx, cy) = a, b, c
    return (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)


def _dot(a: Iterable[float], corner: Iterable[float], b: Iterable[float]) -> float:
    (ax, ay), (cx, cy), (bx, by) = a, corner, b
    return (ax - cx) * (bx - cx) + (ay - cy) * (by - cy)


def _meet(a: list[float], b: list[float], c: list[float], d: list[float]) -> bool:
    """Return whether the segments ab and cd have a point in common."""
    turns = _turn(a, b, c), _turn(a, b, d), _turn(c, d, a), _turn(c, d, b)
    if (turns[0] > 0) != (turns[1] > 0) and (turns[2] > 0) != (turns[3] > 0) and all(turns):
        return True
    return any(
        turn == 0 and _between(p, q, r)
        for turn, p, q, r in zip(turns, (a, a, c, c), (b, b, d, d), (c, d, a, b), strict=True)
    )


def _between(p: list[float], q: list[float], r: list[float]) -> bool:
    return all(min(s, t) <= u <= max(s, t) for s, t, u in zip(p, q, r, strict=True))


def _check_rule(rule: Rule, settings: ProductSettings) -> None:
    included = {zone.name for zone in settings.zones if zone.kind == "include"}
    for name in rule.zones:
        if name not in included:
            raise SettingsError(
                f"the rule {rule.name!r} is of the zone {name!r}, which is no zone to include"
                f" (there are: {', '.join(sorted(included)) or 'none'})",
                "name zones that are judged",
            )
    of_regions = (
        rule.zones, rule.min_area_px, rule.min_area_mm2, rule.min_peak, rule.min_regions != 1,
    )  # fmt: skip
    if rule.by == "image_score" and any(of_regions):
        raise SettingsError(
            f"the rule {rule.name!r} is by the image score, and has conditions on regions",
            'leave out zones, areas, min_peak and min_regions, or choose by = "regions"',
        )
    if rule.min_area_px is not None and rule.min_area_mm2 is not None:
        raise SettingsError(
            f"the rule {rule.name!r} has an area in px and one in mm2", "give one of them"
        )
    if rule.min_area_mm2 is not None and settings.mm_per_pixel is None:
        raise SettingsError(
            f"the rule {rule.name!r} has an area in mm2, and the settings have no scale",
            "give mm_per_pixel, the side of a pixel on the part, or min_area_px",
        )
