"""Rules: what a product's own table of rules makes of a frame's regions and its image score.

The rows of the table are joined by OR, the conditions of a row by AND. All of it is brought to one
number, the *decision score*, which reaches the product's threshold exactly where a row holds; so a
threshold that is calibrated on the decision scores of good photos keeps its guarantee under rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zeroflaw.pipeline.masks.regions import Region
from zeroflaw.records.threshold import shown_threshold
from zeroflaw_engines.bundle.products.settings import Rule
from zeroflaw_engines.errors import SettingsError


@dataclass(frozen=True)
class Firing:
    """A row of the table that rejects a frame.

    Attributes:
        rule: Name of the row.
        text: What was found, and the row's limits: the middle of a sentence.
    """

    rule: str
    text: str


def decision_score(
    rules: Sequence[Rule],
    image_score: float,
    regions: Sequence[Region],
    mm_per_pixel: float | None = None,
) -> float:
    """Return what is compared with the threshold, in [0, 1].

    It is 1 if a row holds whose limits are all fixed. Else it is the highest statistic of the rows
    that the threshold is a limit of: of a row by the image score that score, of one by regions the
    `min_regions`-th highest peak of those that touch its zones and reach its area; 0 if there are
    fewer, or if its `min_image_score` is not reached. Without rules it is the image score.

    So for every threshold above 0 it reaches the threshold exactly where a row of the table holds.

    Args:
        image_score: In [0, 1].
        regions: With the zones that they touch.
        mm_per_pixel: Side of a pixel on the part; needed by rows with an area in mm2.

    Raises:
        SettingsError: A row has an area in mm2, and there is no scale.
    """
    if not rules:
        return image_score
    scores = []
    for rule in rules:
        score = _statistic(rule, image_score, regions, mm_per_pixel)
        fixed = _fixed_limit(rule)
        scores.append(score if fixed is None else float(score >= fixed))
    return max(scores)


def firing_rule(
    rules: Sequence[Rule],
    image_score: float,
    regions: Sequence[Region],
    threshold: float,
    mm_per_pixel: float | None = None,
) -> Firing | None:
    """Return the first row of the table that holds; None if none does, or there is none.

    Args:
        threshold: In [0, 1], the limit of rows that leave theirs to the product; the rest as
            `decision_score` takes it.
    """
    for rule in rules:
        fixed = _fixed_limit(rule)
        limit = threshold if fixed is None else fixed
        statistic = _statistic(rule, image_score, regions, mm_per_pixel)
        # A threshold of 0 rejects every frame, and no rule does.
        if statistic > 0 and statistic >= limit:
            whose = "the product's threshold" if fixed is None else "its limit"
            if rule.by == "image_score":
                text = f"the image score {image_score:.6f} reaches {whose} {shown_threshold(limit)}"
            else:
                found = _qualifying(rule, regions, mm_per_pixel)[: rule.min_regions]
                text = _text(
                    rule, found, f"{whose} {shown_threshold(limit)}", image_score, mm_per_pixel
                )
            return Firing(rule.name, text)
    return None


def _statistic(
    rule: Rule, image_score: float, regions: Sequence[Region], mm_per_pixel: float | None
) -> float:
    """Return the value that a row compares with its limit."""
    if rule.by == "image_score":
        return image_score
    if rule.min_image_score is not None and image_score < rule.min_image_score:
        return 0.0
    found = _qualifying(rule, regions, mm_per_pixel)
    return found[rule.min_regions - 1].peak_score if len(found) >= rule.min_regions else 0.0


def _fixed_limit(rule: Rule) -> float | None:
    """Return what a row itself compares its statistic with; None: the product's threshold."""
    return rule.min_image_score if rule.by == "image_score" else rule.min_peak


def _qualifying(rule: Rule, regions: Sequence[Region], mm_per_pixel: float | None) -> list[Region]:
    """Return the regions in a row's zones that reach its area, those of the highest peaks first."""
    zones = frozenset(rule.zones)
    # One of the two at most.
    least, scale = float(rule.min_area_px or 0), 1.0
    if rule.min_area_mm2 is not None:
        if mm_per_pixel is None:
            raise SettingsError(
                f"the rule {rule.name!r} has an area in mm2, and there is no scale",
                "give mm_per_pixel, the side of a pixel on the part, or min_area_px",
            )
        # 100 px of 0.7 mm are 49 mm2, and a little less in floating point.
        least, scale = rule.min_area_mm2 * (1 - 1e-9), mm_per_pixel**2
    found = [
        region
        for region in regions
        if region.area * scale >= least and (not zones or not zones.isdisjoint(region.zones))
    ]
    return sorted(found, key=lambda region: -region.peak_score)


def _text(
    rule: Rule,
    found: Sequence[Region],
    limit: str,
    image_score: float,
    mm_per_pixel: float | None,
) -> str:
    """Say what of the regions fulfils a row: of several, the one of the lowest peak."""
    last = found[-1]
    if rule.min_area_px is not None:
        least = f" (at least {rule.min_area_px} px)"
    elif rule.min_area_mm2 is not None:
        least = f" (at least {rule.min_area_mm2:g} mm2)"
    else:
        least = ""
    where = f" in zone {', '.join(map(repr, last.zones))}" if last.zones else ""
    area = f"{last.area} px"
    if mm_per_pixel is not None:
        area += f" = {last.area * mm_per_pixel**2:.4g} mm2"
    text = f"a region of {area}{least}{where} has the peak {last.peak_score:.6f}"
    if rule.min_regions > 1:
        text = f"{rule.min_regions} regions qualify, and of them {text}"
    text += f", which reaches {limit}"
    if rule.min_image_score is not None:
        text += f", and the image score {image_score:.6f} reaches {rule.min_image_score:g}"
    return text
