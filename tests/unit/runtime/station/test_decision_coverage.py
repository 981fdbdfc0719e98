"""What a threshold calibrated on decision scores promises: the true false-reject rate of rules.

Good parts are drawn with a few weak regions each, often none, so that many score 0; the rules, the
score that they make and the scheme are those of the runtime.
"""

from __future__ import annotations

import numpy as np
import pytest

from zeroflaw.pipeline.masks.regions import Region
from zeroflaw.records.rules import decision_score, firing_rule
from zeroflaw.station.conformal import conformal_threshold
from zeroflaw_engines.bundle.products.settings import Rule

REPEATS, FRESH = 200, 40
TABLES = {
    "any region": (Rule(name="any", zones=("rim",)),),
    "large, or two": (
        Rule(name="large", min_area_px=60),
        Rule(name="two", zones=("rim",), min_regions=2, min_image_score=0.2),
    ),
    "with the score": (Rule(name="hub", zones=("hub",)), Rule(name="score", by="image_score")),
    "with a fixed row": (
        Rule(name="crack", min_area_px=200, min_peak=0.9),
        Rule(name="spots", min_area_px=20),
    ),
}


def region(area: int, peak: float, zone: str) -> Region:
    return Region(
        x=0, y=0, width=1, height=1, area=area, centroid=(0.0, 0.0), peak_score=peak,
        polygon=(), holes=(), zones=(zone,),
    )  # fmt: skip


def good_part(rng: np.random.Generator) -> tuple[float, list[Region]]:
    """An image score, and the regions that the model sees in a good part."""
    found = [
        region(int(rng.lognormal(3.5, 1)) + 1, float(rng.beta(3, 4)), rng.choice(["rim", "hub"]))
        for _ in range(rng.poisson(0.8))
    ]
    peaks = [one.peak_score for one in found]
    return max([float(rng.beta(2, 8)), *(0.8 * peak for peak in peaks)]), found


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(("n", "rate"), [(20, 0.2), (20, 0.05), (50, 0.1)])
def test_rules_keep_the_promise_of_the_threshold(table: str, n: int, rate: float) -> None:
    rng = np.random.default_rng(n)
    rules, rates = TABLES[table], []
    for _ in range(REPEATS):
        scores = [decision_score(rules, *good_part(rng)) for _ in range(n)]
        fit = conformal_threshold(scores, rate)
        # What rejects is a row of the table, not the score that stands for it.
        fires = [
            firing_rule(rules, *good_part(rng), fit.threshold) is not None for _ in range(FRESH)
        ]
        assert fit.observed_rate == np.mean(np.array(scores) >= fit.threshold)
        rates.append(np.mean(fires))
    error = np.std(rates, ddof=1) / np.sqrt(REPEATS)
    assert fit.expected_rate <= rate
    assert np.mean(rates) <= rate + 3 * error
    assert np.mean(rates) > 0.1 * rate


def test_parts_without_any_region_leave_the_least_threshold() -> None:
    fit = conformal_threshold([0.0] * 19 + [0.7], 0.1)
    assert 0 < fit.threshold < 1e-30
    # It is not 0 in single precision, and what JSON says of it is read back as it is.
    assert float(np.float32(fit.threshold)) == fit.threshold
    assert fit.observed_rate == 0.05
    (text,) = [text for text in fit.warnings if "score 0" in text]
    assert "19 of 20" in text
    rules = TABLES["any region"]
    weak = [region(1, 1e-6, "rim")]
    assert firing_rule(rules, 0.0, weak, fit.threshold).rule == "any"
    assert firing_rule(rules, 0.9, [], fit.threshold) is None
    assert conformal_threshold([0.0] * 3, 0.5, "leave_one_out").threshold == fit.threshold
