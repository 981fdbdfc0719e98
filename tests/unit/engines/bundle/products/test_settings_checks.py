"""Settings that contradict themselves are refused, with the place, the reason and the remedy."""

from __future__ import annotations

import math
import re

import msgspec
import pytest
from hypothesis import given, settings

from support.products.product_settings import (
    ALIGNMENT,
    EDGE,
    FULL,
    PART,
    WHOLE,
    product_settings,
    with_rule,
    with_zone,
)
from zeroflaw_engines.bundle.products.settings import (
    MAX_CORNERS,
    MAX_PARTS,
    ProductSettings,
    Rule,
    Tiles,
    Zone,
)
from zeroflaw_engines.bundle.products.settings_checks import check_settings
from zeroflaw_engines.errors import SettingsError

replace = msgspec.structs.replace


@pytest.mark.parametrize("taken", [FULL, WHOLE, replace(FULL, rules=()), replace(FULL, tiles=None)])
def test_settings_that_make_sense_are_taken(taken: ProductSettings) -> None:
    check_settings(taken)


@settings(max_examples=100, deadline=None)
@given(product_settings())
def test_settings_that_are_taken_come_back_from_json(drawn: ProductSettings) -> None:
    check_settings(drawn)
    again = msgspec.json.decode(msgspec.json.encode(drawn), type=ProductSettings)
    assert again == drawn
    assert (again.digest, again.view_digest) == (drawn.digest, drawn.view_digest)


def tiles(**changes: object) -> ProductSettings:
    return replace(FULL, tiles=replace(FULL.tiles, **changes))


def zones(*names: str) -> ProductSettings:
    return replace(WHOLE, zones=tuple(replace(PART, name=name) for name in names))


NAN, INF = math.nan, math.inf
TRIANGLE = ((10, 10), (20, 10), (20, 20))
REFUSED: dict[str, tuple[ProductSettings, str]] = {
    # kinds and ranges, which a struct does not check by itself
    "a width of 0": (replace(WHOLE, frame_width=0), "frame_width"),
    "a height of 1.5": (replace(WHOLE, frame_height=1.5), "frame_height"),
    "a scale of 0": (replace(WHOLE, mm_per_pixel=0), "mm_per_pixel"),
    "a scale below 0": (replace(WHOLE, mm_per_pixel=-0.1), "mm_per_pixel"),
    "a scale without end": (replace(WHOLE, mm_per_pixel=INF), "mm_per_pixel is inf"),
    "a scale whose square is no number": (
        replace(WHOLE, mm_per_pixel=1e300),
        "mm_per_pixel: a pixel of",
    ),
    "a scale whose square is 0": (replace(WHOLE, mm_per_pixel=1e-300), "mm_per_pixel: a pixel of"),
    "a scale of NaN": (replace(WHOLE, mm_per_pixel=NAN), "mm_per_pixel"),
    "no rows": (tiles(rows=0), "rows"),
    "too many columns": (tiles(columns=65), "columns"),
    "too much overlap": (tiles(overlap=0.51), "overlap"),
    "an overlap of NaN": (tiles(overlap=NAN), "overlap"),
    "an unknown kind": (with_zone(kind="both"), "kind"),
    "an unknown severity": (with_zone(severity="bad"), "severity"),
    "corners of one number": (with_zone(polygon=((1,), (2,), (3,))), "polygon"),
    "a limit above 1": (with_rule(min_peak=1.5), "min_peak"),
    "a limit of 0": (with_rule(min_peak=0.0), "min_peak"),
    "an area of 0": (with_rule(min_area_px=0), "min_area_px"),
    "an area without end": (with_rule(min_area_mm2=INF), "rules[0].min_area_mm2 is inf"),
    "no regions": (with_rule(min_regions=0), "min_regions"),
    "a shift without end": (
        replace(FULL, alignment=replace(ALIGNMENT, max_shift=INF)),
        "alignment.max_shift is inf",
    ),
    "a turn of 46 degrees": (
        replace(FULL, alignment=replace(ALIGNMENT, max_rotation=46.0)),
        "max_rotation",
    ),
    "an object": (replace(WHOLE, zones=(object(),)), "the settings do not fit"),
    "half a sign": (zones("\ud800"), "the settings do not fit"),
    # zones
    "a zone without a name": (zones(""), "zones[0].name"),
    "a zone named by a blank": (zones("a", " "), "zones[1].name"),
    "a name of two lines": (zones("a\nb"), "zones[0].name"),
    "a long name": (zones("a" * 65), "zones[0].name"),
    "a name twice": (zones("a", "b", "a"), "zones[2].name: the zone 'a' is there already"),
    "a name twice, spelled otherwise": (zones("\u00e9", "e\u0301"), "zones[1].name"),
    "too many zones": (zones(*map(str, range(MAX_PARTS + 1))), "zones: there are 65"),
    "two corners": (with_zone(polygon=((0, 0), (9, 9))), "zones[0].polygon: the zone 'part' has 2"),
    "too many corners": (
        with_zone(polygon=tuple((i / 10, (i % 2)) for i in range(MAX_CORNERS + 1))),
        "has 2001 corners",
    ),
    "a corner left of the frame": (
        with_zone(polygon=((-0.001, 0), (9, 0), (9, 9))),
        "zones[0].polygon[0]: the zone 'part' reaches outside the frame of 320 x 240 px",
    ),
    "a corner below the frame": (
        with_zone(polygon=((0, 0), (9, 0), (9, 240.01))),
        "zones[0].polygon[2]",
    ),
    "pixels taken for shares": (
        with_zone(units="relative"),
        "zones[0].polygon[0]: the zone 'part' reaches outside",
    ),
    "a corner of NaN": (with_zone(polygon=((0, NAN), (9, 0), (9, 9))), "zones[0].polygon[0][1] is"),
    "a corner at no end": (
        with_zone(polygon=((0, 0), (INF, 0), (9, 9))),
        "zones[0].polygon[1][0] is inf",
    ),
    "an hourglass": (
        with_zone(polygon=((0, 0), (9, 9), (9, 0), (0, 9))),
        "zones[0].polygon: the zone 'part' crosses itself: its sides [0]-[1] and [2]-[3] meet",
    ),
    "a spike": (
        with_zone(polygon=((0, 0), (9, 0), (9, 9), (9, 4))),
        "crosses itself: its sides [1]-[2] and [2]-[3] meet",
    ),
    "an outline that is closed by hand": (
        with_zone(polygon=(*TRIANGLE, TRIANGLE[0])),
        "the corners [0] and [3] of the zone 'part' are one point",
    ),
    "a corner twice": (
        with_zone(polygon=((0, 0), (9, 0), (9, 0), (9, 9))),
        "the corners [1] and [2]",
    ),
    "a line": (with_zone(polygon=((0, 0), (5, 0), (9, 0))), "crosses itself"),
    "half a pixel": (
        with_zone(polygon=((0, 0), (1, 0), (1, 1))),
        "zones[0].polygon: the zone 'part' has an area of 0.5 px",
    ),
    # rules
    "a rule twice": (
        replace(WHOLE, rules=(Rule(name="a"), Rule(name="a"))),
        "rules[1].name: the rule 'a' is there already, as rules[0]",
    ),
    "a rule of an unknown zone": (with_rule(zones=("hole",)), "rules[0].zones: the rule 'a rule'"),
    "a rule of a zone to exclude": (with_rule(zones=("slot",)), "(there are: edge, part)"),
    "a score with an area": (with_rule(by="image_score", min_area_px=3), "rules[0]: the rule"),
    "a score with a number": (with_rule(by="image_score", min_regions=2), "conditions on regions"),
    "two areas": (with_rule(min_area_px=3, min_area_mm2=1.0), "in px and one in mm2"),
    "an area without a scale": (
        replace(with_rule(min_area_mm2=1.0), mm_per_pixel=None),
        "rules[0].min_area_mm2: the rule 'a rule'",
    ),
    "an area larger than the frame": (
        with_rule(min_area_px=320 * 240 + 1),
        "rules[0]: the rule 'a rule' can never hold: it takes a region of 76801 px or more",
    ),
    "an area of the wrong unit": (with_rule(min_area_mm2=500.0), "can never hold"),
    "more regions than a frame has room for": (
        with_rule(min_area_px=10, min_regions=7681),
        "can never hold: it takes 7681 regions of 10 px or more, and the frame has 76800 px",
    ),
    # tiles and alignment
    "coarse_to_fine alone": (tiles(coarse_limit=None), "tiles: coarse_to_fine and coarse_limit"),
    "coarse_limit alone": (tiles(coarse_to_fine=False), "tiles: coarse_to_fine and coarse_limit"),
    "banks of a part that moves": (
        replace(tiles(banks="per_tile"), alignment=None),
        'tiles.banks: "per_tile"',
    ),
    "an alignment of no zone": (
        replace(WHOLE, alignment=ALIGNMENT),
        "alignment: there is no zone to include",
    ),
    "a rotation that is not found": (
        replace(FULL, alignment=replace(ALIGNMENT, method="phase_correlation")),
        "alignment.max_rotation: phase_correlation finds no rotation",
    ),
}


@pytest.mark.parametrize(("refused", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_settings_that_make_no_sense_are_refused(refused: ProductSettings, says: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(says)) as caught:
        check_settings(refused)
    assert caught.value.remedy


def test_the_error_of_an_outline_that_is_closed_by_hand_says_what_to_leave_out() -> None:
    with pytest.raises(SettingsError) as caught:
        check_settings(with_zone(polygon=(*TRIANGLE, TRIANGLE[0])))
    assert caught.value.remedy.startswith("leave the last corner out")


def test_corners_may_lie_on_the_border_of_the_frame() -> None:
    whole = Zone(name="a", polygon=((0, 0), (320, 0), (320, 240), (0, 240)))
    relative = Zone(name="b", polygon=((0, 0), (1, 0), (1, 1), (0, 1)), units="relative")
    check_settings(replace(WHOLE, zones=(whole, relative)))


def test_digests_are_of_what_matters_to_them() -> None:
    renamed = replace(FULL, zones=(PART, *FULL.zones[1:2], replace(EDGE, severity="minor")))
    elsewhere = replace(FULL, alignment=replace(ALIGNMENT, template="alignment-01234567.png"))
    other_photo = replace(FULL, alignment=replace(ALIGNMENT, photo="0" * 64))
    # A bank holds for what the encoders are shown; a record names the settings as a whole.
    for other, same, same_view in (
        (elsewhere, True, True),
        (replace(FULL, rules=()), False, True),
        (replace(FULL, mm_per_pixel=0.06), False, True),
        (renamed, False, True),
        (other_photo, False, False),
        (replace(FULL, tiles=Tiles(rows=2, columns=3)), False, False),
        (replace(FULL, zones=FULL.zones[:2], rules=()), False, False),
    ):
        assert (other.digest == FULL.digest) == same
        assert (other.view_digest == FULL.view_digest) == same_view
