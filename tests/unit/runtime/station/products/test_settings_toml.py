"""Settings as text: what is printed can be given back, and errors name place, reason and remedy."""

from __future__ import annotations

import re
import tomllib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.products.product_settings import FULL, PART, WHOLE, product_settings
from zeroflaw.station.products.settings_toml import (
    WrittenSettings,
    read_settings,
    settings_text,
)
from zeroflaw_engines.bundle.products.settings import ProductSettings, Zone
from zeroflaw_engines.bundle.products.settings_checks import check_settings
from zeroflaw_engines.errors import SettingsError

WHERE = "part.toml"


def same(written: WrittenSettings, given_: ProductSettings) -> None:
    """What was read says what was printed."""
    for name in ("frame_width", "frame_height", "mm_per_pixel", "zones", "rules"):
        assert getattr(written, name) == getattr(given_, name)
    for name in ("tiles", "alignment"):
        one, other = getattr(written, name), getattr(given_, name)
        assert (one is None) == (other is None)
        if other is not None:
            fields = msgspec.structs.asdict(other)
            fields.pop("template", None)
            if name == "alignment":
                fields["photo_sha256"] = fields.pop("photo")
            for field, value in fields.items():
                assert getattr(one, field) == value


@settings(max_examples=200, deadline=None)
@given(product_settings())
def test_what_is_printed_can_be_read(drawn: ProductSettings) -> None:
    check_settings(drawn)
    text = settings_text(drawn)
    same(read_settings(text, WHERE), drawn)
    assert settings_text(drawn) == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_written_as_toml_reads_it(name: str) -> None:
    zone = Zone(name=name, polygon=PART.polygon)
    text = settings_text(msgspec.structs.replace(WHOLE, zones=(zone,)))
    assert tomllib.loads(text)["zones"][0]["name"] == name


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_is_written_as_toml_reads_it(number: float) -> None:
    text = settings_text(msgspec.structs.replace(WHOLE, mm_per_pixel=number))
    assert tomllib.loads(text)["mm_per_pixel"] == number


def test_the_text_is_one_that_a_person_would_write() -> None:
    text = settings_text(msgspec.structs.replace(FULL, zones=FULL.zones[:1], alignment=None))
    assert text.startswith(
        "frame_width = 320\nframe_height = 240\nmm_per_pixel = 0.05\n\n[tiles]\n"
    )
    assert "polygon = [[20, 20], [300, 20], [300, 220], [20, 220]]\n" in text
    assert 'zones = ["edge"]\nmin_area_px = 8\nmin_peak = 0.4\nmin_regions = 2\n' in text
    corners = tuple((float(i), float(i * i)) for i in range(9))
    many = msgspec.structs.replace(WHOLE, zones=(Zone(name="a", polygon=corners),))
    assert "polygon = [\n    [0, 0],\n    [1, 1],\n" in settings_text(many)


ZONE = '[[zones]]\nname = "a"\npolygon = [[0, 0], [9, 0], [9, 9]]\n'
REFUSED = {
    "no TOML": ("frame_width =", "part.toml is no TOML", "--toml"),
    "more digits than are read": (f"mm_per_pixel = {'9' * 5000}", "is no TOML", "mend"),
    "a setting twice": ("mm_per_pixel = 1\nmm_per_pixel = 2", "is no TOML", "mend"),
    "an unknown setting": ("frame_with = 3", "frame_with: there is no such", "mean frame_width?"),
    "an unknown setting of a zone": (ZONE + "color = 1", "zones[0].color: there", "polygon, kind"),
    "an unknown setting of tiles": (
        "[tiles]\nrow = 1",
        "tiles.row: there is no such setting",
        "mean rows? there are: rows, columns, smallest_defect",
    ),
    "an unknown setting of the alignment": (
        "[alignment]\nmax_shift = 1\ntemplate = 'x'",
        "alignment.template: there is no such setting",
        "photo_sha256",
    ),
    "a missing name": (
        ZONE + "[[zones]]\npolygon = []",
        "zones[1].name: it is missing",
        "give a text of its own",
    ),
    "a missing polygon": ("[[zones]]\nname = 'a'", "zones[0].polygon: it is missing", "corners"),
    "a missing shift": ("[alignment]\n", "alignment.max_shift: it is missing", "px of the frame"),
    "a text for a number": (
        "frame_width = '12'",
        "part.toml: frame_width: expected `int`, got `str`",
        "the frames' width in px",
    ),
    "a date for a number": ("mm_per_pixel = 2026-01-01", "mm_per_pixel: expected", "above 0"),
    "a number for a table": ("tiles = 3", "tiles: expected `object`", "a table [tiles]"),
    "a table for tables": ("[zones]\n", "zones: expected `array`", "tables [[zones]]"),
    "a scale of 0": ("mm_per_pixel = 0", "mm_per_pixel: expected `float` > 0", "above 0"),
    "a scale of inf": ("mm_per_pixel = inf", "mm_per_pixel is inf", "finite"),
    "a scale of nan": ("mm_per_pixel = nan", "mm_per_pixel", "above 0"),
    "a width of 0": ("frame_width = 0", "frame_width: expected `int` >= 1", "width in px"),
    "a half corner": (
        ZONE.replace("[9, 0]", "[9]"),
        "zones[0].polygon[1]: expected `array` of length 2",
        "a list of corners [x, y]",
    ),
    "a corner of text": (
        ZONE.replace("[9, 0]", "[9, 'x']"),
        "zones[0].polygon[1][1]: expected `float`, got `str`",
        "a list of corners [x, y]",
    ),
    "a corner of nan": (ZONE.replace("9, 0", "nan, 0"), "zones[0].polygon[1][0] is nan", "finite"),
    "a kind that is none": (ZONE + "kind = 'hole'", "zones[0].kind: invalid enum", '"exclude"'),
    "a rule's area of 0": (
        "[[rules]]\nname = 'a'\nmin_area_px = 0",
        "rules[0].min_area_px: expected `int` >= 1",
        "a whole number from 1",
    ),
    "rows alone": ("[tiles]\nrows = 2", "tiles: rows or columns are missing", "smallest_defect"),
    "neither": ("[tiles]\noverlap = 0.1", "tiles: rows or columns are missing", "give both"),
    "rows and a defect": (
        "[tiles]\nrows = 2\nsmallest_defect = 12",
        "tiles: smallest_defect was given with rows or columns",
        "alone",
    ),
    "a defect without end": ("[tiles]\nsmallest_defect = inf", "tiles.smallest_defect is inf", ""),
    "a defect of 0": ("[tiles]\nsmallest_defect = 0", "tiles.smallest_defect: expected", "above"),
    "two photos": (
        f"[alignment]\nmax_shift = 1\nphoto = 'a.png'\nphoto_sha256 = '{'0' * 64}'",
        "alignment: photo and photo_sha256 were both given",
        "a new reference photo",
    ),
    "a digest that is none": (
        "[alignment]\nmax_shift = 1\nphoto_sha256 = 'abc'",
        "alignment.photo_sha256: expected",
        "64 hexadecimal digits",
    ),
}


@pytest.mark.parametrize(("text", "says", "remedy"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused(text: str, says: str, remedy: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(says)) as caught:
        read_settings(text, WHERE)
    assert remedy in caught.value.remedy
    # A reader of TOML knows no null.
    assert "null" not in caught.value.cause


def test_every_setting_has_a_meaning_for_the_remedy() -> None:
    from zeroflaw.station.products import settings_toml as module

    structs = (WrittenSettings, module.WrittenTiles, module.WrittenAlignment, Zone, module.Rule)
    names = {"zones"} | {field for struct in structs for field in struct.__struct_fields__}
    assert names == set(module._MEANINGS)
