"""Rules: the decision score against the table itself, row by row and condition by condition."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroflaw.pipeline.masks.regions import Region
from zeroflaw.records.rules import decision_score, firing_rule
from zeroflaw_engines.bundle.products.settings import ProductSettings, Rule, Zone
from zeroflaw_engines.bundle.products.settings_checks import check_settings
from zeroflaw_engines.errors import SettingsError

NAMES = ("rim", "face", "thread")


def region(area=100, peak=0.6, *zones) -> Region:
    return Region(
        x=0, y=0, width=1, height=1, area=area, centroid=(0.0, 0.0), peak_score=peak,
        polygon=(), holes=(), zones=zones,
    )  # fmt: skip


def holds(rule: Rule, score: float, regions, threshold: float, scale: float | None) -> bool:
    """One row, as the documentation puts it."""
    limit = threshold if rule.min_image_score is None else rule.min_image_score
    if rule.by == "image_score":
        return score >= limit
    if rule.min_image_score is not None and score < rule.min_image_score:
        return False
    count = 0
    for one in regions:
        in_zone = rule.zones == () or any(name in rule.zones for name in one.zones)
        large = rule.min_area_px is None or one.area >= rule.min_area_px
        if rule.min_area_mm2 is not None:
            large = one.area * scale**2 >= rule.min_area_mm2
        peak = threshold if rule.min_peak is None else rule.min_peak
        count += in_zone and large and one.peak_score >= peak
    return count >= rule.min_regions


# Few values, so that they are often equal.
VALUES = st.sampled_from([0.25, 0.5, 0.5000000000000001, 0.75, 1.0])
SCORES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
BY_REGIONS = st.builds(
    Rule,
    name=st.just("r"),
    zones=st.lists(st.sampled_from(NAMES), unique=True).map(tuple),
    min_area_px=st.none() | st.sampled_from([1, 10, 20]),
    min_peak=st.none() | VALUES,
    min_regions=st.integers(1, 3),
    min_image_score=st.none() | VALUES,
) | st.builds(
    Rule, name=st.just("mm"), min_area_mm2=st.sampled_from([0.1, 2.5, 5.0]),
    min_peak=st.none() | VALUES,
)  # fmt: skip
BY_SCORE = st.builds(
    Rule, name=st.just("s"), by=st.just("image_score"), min_image_score=st.none() | VALUES
)
TABLES = st.lists(BY_REGIONS | BY_SCORE, min_size=1, max_size=4).map(
    lambda rules: [msgspec.structs.replace(rule, name=f"row {i}") for i, rule in enumerate(rules)]
)
REGIONS = st.lists(
    st.builds(
        lambda area, peak, zones: region(area, peak, *zones),
        st.sampled_from([1, 9, 10, 20, 40]),
        SCORES,
        st.lists(st.sampled_from(NAMES), unique=True),
    ),
    max_size=5,
)


@given(rules=TABLES, score=SCORES, regions=REGIONS, threshold=VALUES)
def test_the_score_reaches_the_threshold_exactly_where_a_row_of_the_table_holds(
    rules, score, regions, threshold
):
    scale = 0.5
    named = tuple(Zone(name=name, polygon=((0, 0), (9, 0), (9, 9))) for name in NAMES)
    check_settings(
        ProductSettings(
            frame_width=9, frame_height=9, mm_per_pixel=scale, zones=named, rules=tuple(rules)
        )
    )
    rows = [holds(rule, score, regions, threshold, scale) for rule in rules]
    found = decision_score(rules, score, regions, scale)
    assert 0 <= found <= 1
    assert (found >= threshold) == any(rows)
    firing = firing_rule(rules, score, regions, threshold, scale)
    assert (None if firing is None else firing.rule) == next(
        (rule.name for rule, row in zip(rules, rows, strict=True) if row), None
    )


def test_a_threshold_of_0_rejects_and_no_rule_does():
    rules = [Rule(name="r"), Rule(name="s", min_regions=3)]
    assert decision_score(rules, 0.0, []) == 0.0
    assert firing_rule(rules, 0.0, [], 0.0) is None
    assert firing_rule(rules, 0.0, [region()], 0.0).rule == "r"


def test_without_rules_the_image_score_decides():
    assert decision_score((), 0.37, [region(peak=0.9)]) == 0.37
    assert firing_rule((), 0.9, [], 0.5) is None


@pytest.mark.parametrize(("area", "score"), [(399, 0.0), (400, 0.6)])
def test_an_area_in_mm2_is_that_of_the_pixels_by_the_scale(area, score):
    rule = Rule(name="r", min_area_mm2=1.0)
    assert decision_score([rule], 0.9, [region(area)], 0.05) == score
    with pytest.raises(SettingsError, match="no scale"):
        decision_score([rule], 0.9, [region(area)])


@pytest.mark.parametrize("tenths", range(1, 40))
def test_an_area_that_is_just_reached_counts_whatever_its_rounding(tenths):
    """100 px of 0.7 mm are 49 mm2, and 48.99999999999999 in floating point."""
    least = 100 * tenths**2 / 100
    rule = Rule(name="r", min_area_mm2=least)
    assert decision_score([rule], 0.9, [region(100)], tenths / 10) == 0.6
    assert decision_score([rule], 0.9, [region(99)], tenths / 10) == 0.0


def test_of_several_regions_the_one_that_makes_their_number_full_counts():
    rule = Rule(name="r", min_regions=2, min_area_px=10)
    regions = [region(100, 0.3), region(9, 0.9), region(10, 0.8), region(50, 0.5)]
    assert decision_score([rule], 0.0, regions) == 0.5
    assert decision_score([rule], 0.0, regions[:2]) == 0.0


def test_the_text_names_rule_area_peak_zone_and_limits():
    rules = [
        Rule(name="never", min_peak=0.99),
        Rule(name="scratch", zones=("rim",), min_area_mm2=2.0, min_image_score=0.1),
    ]
    regions = [region(5000, 0.9, "face"), region(900, 0.625, "face", "rim")]
    firing = firing_rule(rules, 0.25, regions, 0.5, 0.05)
    assert firing.rule == "scratch"
    assert firing.text == (
        "a region of 900 px = 2.25 mm2 (at least 2 mm2) in zone 'face', 'rim' has the peak"
        " 0.625000, which reaches the product's threshold 0.500000, and the image score 0.250000"
        " reaches 0.1"
    )
    two = Rule(name="specks", min_regions=2, min_peak=0.25)
    text = firing_rule([two], 0.25, [*regions, region(3, 0.3)], 0.5).text
    assert text.startswith("2 regions qualify, and of them a region of 900 px in zone")
    assert text.endswith("has the peak 0.625000, which reaches its limit 0.250000")
    by_score = Rule(name="s", by="image_score")
    assert "image score 0.750000 reaches" in firing_rule([by_score], 0.75, [], 0.5).text


def test_regions_are_not_changed():
    given_regions = [region(10, 0.1), region(20, 0.9)]
    before = [dataclasses.replace(one) for one in given_regions]
    decision_score([Rule(name="r")], 0.5, given_regions)
    assert given_regions == before
