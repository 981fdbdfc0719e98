"""Decisions: accept only what was seen, with finite values, below the threshold."""

import numpy as np
import pytest

from zeroflaw.pipeline.encoding.frame_information import FrameInformation
from zeroflaw.pipeline.view.zones import zone_layout
from zeroflaw.records.decision import Reason, blind_reason, decision_fault, verdict_of
from zeroflaw.records.rules import Firing
from zeroflaw_engines.bundle.products.settings import Rule, Zone
from zeroflaw_engines.errors import EngineError
from zeroflaw_engines.parameters import MethodParameters

SEEN = FrameInformation(contrast=0.4, clipped=0.0, peak=0.9)
NAN, INF = float("nan"), float("inf")


def verdict(
    score=0.2,
    threshold=0.5,
    *,
    seen=SEEN,
    masked=0,
    abnormal=0.0,
    held=None,
    zones=None,
    rules=(),
    firing=None,
    **parameters,
):
    mask = np.zeros((20, 50), np.bool_)
    mask.flat[:masked] = True
    anomaly_map = np.full((10, 10), 0.1, np.float32)
    anomaly_map.flat[: int(100 * abnormal)] = 0.99
    return verdict_of(
        score,
        threshold,
        information=seen,
        mask=mask,
        anomaly_map=anomaly_map,
        parameters=MethodParameters(**parameters),
        held=held,
        zones=zones,
        rules=rules,
        firing=firing,
    )


@pytest.mark.parametrize(
    ("score", "threshold", "decision", "code"),
    [
        (0.2, 0.5, "accept", "below_threshold"),
        (0.5, 0.5, "reject", "reaches_threshold"),
        (np.nextafter(0.5, 0), 0.5, "accept", "below_threshold"),
        (0.0, 0.0, "reject", "reaches_threshold"),
        (1.0, 1.0, "reject", "reaches_threshold"),
    ],
)
def test_the_threshold_itself_rejects(score, threshold, decision, code):
    found = verdict(score, threshold)
    assert (found.decision, found.reason.code, found.warnings) == (decision, code, ())
    assert f"{threshold:.6f}" in found.reason.text


def test_a_threshold_just_above_0_is_not_called_0():
    assert "the threshold 1.18e-38" in verdict(0.0, 1.1754943508222875e-38).reason.text
    assert "the threshold 0.000000" in verdict(0.0, 0.0).reason.text


@pytest.mark.parametrize("score", [NAN, INF, -INF])
def test_a_score_that_is_not_finite_decides_nothing(score):
    with pytest.raises(EngineError, match="cannot be compared") as error:
        verdict(score)
    assert "bundle verify" in error.value.remedy
    with pytest.raises(EngineError):
        verdict(0.2, score)


@pytest.mark.parametrize("score", [0.1, 0.9])
@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (FrameInformation(0.0, 0.0, 0.5), "low_contrast"),
        (FrameInformation(0.0399, 0.0, 0.5), "low_contrast"),
        (FrameInformation(0.4, 0.9001, 1.0), "clipped"),
        (FrameInformation(0.06, 0.0, 16 / 255), "dark"),
        (FrameInformation(0.0, 1.0, 0.0), "dark"),
    ],
)
def test_a_blind_frame_is_held_whatever_its_score_is(seen, code, score):
    found = verdict(score, seen=seen)
    assert (found.decision, found.reason.code) == ("hold", code)
    assert found.reason == blind_reason(seen, MethodParameters())


@pytest.mark.parametrize(
    ("seen", "off"),
    [
        (FrameInformation(0.0, 0.0, 0.5), {"min_contrast": 0}),
        (FrameInformation(0.4, 1.0, 1.0), {"max_clipped": 1}),
        (FrameInformation(0.4, 0.0, 0.01), {"min_peak": 0}),
        (FrameInformation(0.0, 1.0, 0.0), {"min_contrast": 0, "max_clipped": 1, "min_peak": 0}),
    ],
)
def test_each_limit_of_blind_frames_can_be_taken_away(seen, off):
    assert verdict(seen=seen).decision == "hold"
    assert verdict(seen=seen, **off).decision == "accept"


def test_limits_of_blind_frames_belong_to_what_has_information():
    assert blind_reason(FrameInformation(0.04, 0.9, 17 / 255), MethodParameters()) is None


@pytest.mark.parametrize("against", [{"masked": 1}, {"abnormal": 0.4}])
def test_an_acceptance_that_mask_or_map_contradict_warns_or_holds(against):
    warned = verdict(**against)
    assert warned.decision == "accept"
    assert len(warned.warnings) == 1
    assert "0.200000" in warned.warnings[0]
    held = verdict(**against, contradiction="hold")
    assert (held.decision, held.reason.code, held.warnings) == ("hold", "contradiction", ())
    ignored = verdict(**against, contradiction="ignore")
    assert (ignored.decision, ignored.warnings) == ("accept", ())
    rejected = verdict(0.8, **against, contradiction="hold")
    assert (rejected.decision, rejected.warnings) == ("reject", ())


def test_a_contradiction_has_to_cover_its_area():
    assert verdict(masked=10, contradiction="hold", contradiction_area=0.01).decision == "accept"
    assert verdict(masked=11, contradiction="hold", contradiction_area=0.01).decision == "hold"
    assert verdict(abnormal=0.3, contradiction="hold", contradiction_area=0.3).decision == "accept"
    assert verdict(abnormal=0.31, contradiction="hold", contradiction_area=0.3).decision == "hold"


FIRING = Firing("scratch", "a region of 9 px has the peak 0.600000, which reaches 0.500000")


def test_a_rule_that_rejects_is_the_reason():
    rules = (Rule(name="scratch"),)
    found = verdict(0.6, rules=rules, firing=FIRING)
    assert (found.decision, found.reason.code) == ("reject", "rule")
    assert found.reason.text == f"the rule 'scratch' rejects: {FIRING.text}"
    assert verdict(0.4, rules=rules).reason.text.startswith(
        "the decision score 0.400000 lies below"
    )
    # The score alone decides: a rule that is named beside a score below the threshold does not.
    assert verdict(0.4, rules=rules, firing=FIRING).decision == "accept"
    # With a threshold of 0 no rule is needed.
    assert verdict(0.0, 0.0, rules=rules).reason.code == "reaches_threshold"


@pytest.mark.parametrize("code", ["wrong_frame_size", "misaligned", "zone_out_of_view"])
@pytest.mark.parametrize("score", [0.1, 0.9])
def test_what_cannot_be_judged_is_held_before_all_else(code, score):
    reason = Reason(code, "it does not fit")
    blind = FrameInformation(0.0, 1.0, 0.0)
    for seen in (SEEN, blind):
        found = verdict(score, seen=seen, held=reason, firing=FIRING)
        assert (found.decision, found.reason, found.warnings) == ("hold", reason, ())


@pytest.mark.parametrize(
    ("masked", "abnormal", "decision"),
    # Of 1000 pixels of the frame 200 are judged, and of 100 of the map 20.
    [(20, 0.0, "accept"), (21, 0.0, "hold"), (0, 0.02, "accept"), (0, 0.03, "hold")],
)
def test_a_contradiction_is_a_share_of_what_is_judged(masked, abnormal, decision):
    zone = Zone(name="top", polygon=((0, 0), (50, 0), (50, 4), (0, 4)))
    zones = zone_layout([zone], (20, 50))
    assert zones.judged_pixels == 200
    found = verdict(
        masked=masked, abnormal=abnormal, zones=zones, contradiction="hold", contradiction_area=0.1
    )
    assert found.decision == decision
    if decision == "hold":
        assert "of what is judged of the frame" in found.reason.text


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (("accept", 0.9, 0.4, 0.5), None),
        (("accept", 0.1, 0.5, 0.5), "the decision score 0.5 reaches the threshold"),
        (("accept", NAN, 0.1, 0.5), "image score nan"),
        (("reject", 0.1, 1.5, 0.5), "decision score 1.5"),
        (("hold", 0.1, 0.1, INF), "threshold inf"),
        (("good", 0.1, 0.1, 0.5), "no decision"),
    ],
)
def test_the_decision_score_guards_an_acceptance(values, complaint):
    fault = decision_fault(*values)
    assert fault is None if complaint is None else complaint in fault
