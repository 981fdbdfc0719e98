"""Decisions: accept only what was seen, with finite values, below the threshold."""

import numpy as np
import pytest

from zeroflaw.pipeline.encoding.frame_information import FrameInformation
from zeroflaw.records.decision import blind_reason, verdict_of
from zeroflaw_engines.errors import EngineError
from zeroflaw_engines.parameters import MethodParameters

SEEN = FrameInformation(contrast=0.4, clipped=0.0, peak=0.9)
NAN, INF = float("nan"), float("inf")


def verdict(score=0.2, threshold=0.5, *, seen=SEEN, masked=0, abnormal=0.0, **parameters):
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
