"""Settings of products in evaluations: notes, refusals, and decisions counted."""

from __future__ import annotations

import math

import pytest

from support.small_bundle import write_small_bundle
from zeroflaw_benchmarks.evaluate.decisions import decision_figures
from zeroflaw_benchmarks.evaluate.passes.inspecting_pass import InspectedSample
from zeroflaw_benchmarks.evaluate.products import (
    refuse_settings,
    refuse_what_takes_whole_frames,
    settings_note,
    settings_of,
)
from zeroflaw_engines.bundle.products.settings import ProductSettings, Rule, Tiles
from zeroflaw_engines.bundle.products.writer import set_settings
from zeroflaw_engines.errors import EvaluationError

RULES = (Rule(name="large", min_area_px=50), Rule(name="any", by="image_score"))
SETTINGS = ProductSettings(frame_width=64, frame_height=48, rules=RULES)


@pytest.fixture
def bundle(tmp_path):
    return set_settings(write_small_bundle(tmp_path / "bundle"), "object", SETTINGS)


def test_products_with_settings_are_found_and_refused_where_frames_are_whole(bundle):
    others = sorted(set(bundle.manifest.products) - {"object"})
    assert settings_of(bundle, bundle.manifest.products) == {"object": SETTINGS}
    with pytest.raises(EvaluationError, match="'object' has settings"):
        refuse_settings(bundle, "object")
    for other in others:
        refuse_settings(bundle, other)
    refuse_what_takes_whole_frames({"object": SETTINGS})
    refuse_what_takes_whole_frames({}, shots=(1,), ablations=("kernel",))
    with pytest.raises(EvaluationError, match="--ablate and --shots"):
        refuse_what_takes_whole_frames({"object": SETTINGS}, shots=(1,), ablations=("kernel",))


def inspected(*, anomalous, decision, score, rule=None):
    return InspectedSample(
        anomalous=anomalous,
        outside=False,
        decision=decision,
        decision_score=score,
        threshold=0.5,
        rule=rule,
        status="ok",
        image_scores={},
    )


def test_decisions_are_counted_by_truth_and_by_rule():
    found = decision_figures(
        "nut",
        SETTINGS,
        [
            inspected(anomalous=False, decision="accept", score=0.1),
            inspected(anomalous=False, decision="reject", score=0.6, rule="any"),
            inspected(anomalous=False, decision="hold", score=0.2),
            inspected(anomalous=True, decision="reject", score=1.0, rule="large"),
            inspected(anomalous=True, decision="accept", score=0.4),
        ],
    )
    assert found.good == {"accept": 1, "reject": 1, "hold": 1}
    assert found.defective == {"accept": 1, "reject": 1, "hold": 0}
    assert found.rules == {"large": (0, 1), "any": (1, 0)}
    assert found.auroc == pytest.approx(5 / 6)
    assert found.threshold == 0.5
    good = [inspected(anomalous=False, decision="accept", score=0.1)]
    assert math.isnan(decision_figures("nut", SETTINGS, good).auroc)


def test_the_note_names_tiles_and_what_is_left_out():
    tiles = Tiles(rows=2, columns=3, overlap=0.25, coarse_to_fine=True, coarse_limit=0.01)
    note = settings_note("nut", ProductSettings(frame_width=64, frame_height=48, tiles=tiles))
    assert "2 x 3 tiles with an overlap of 0.25" in note
    assert "at most 0.01" in note
    assert "seen as a whole" in settings_note("nut", SETTINGS)
