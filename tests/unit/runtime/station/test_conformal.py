"""The two schemes of conformal thresholds: what they share, and what each can say."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from zeroflaw.station.conformal import conformal_threshold, images_for
from zeroflaw_engines.errors import MissingExtraError


@pytest.mark.parametrize("n", [2, 8, 19, 99])
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_both_schemes_take_the_same_rank_and_threshold(rng, n: int, rate: float) -> None:
    scores = rng.random(n)
    split = conformal_threshold(scores, rate, "split")
    left_out = conformal_threshold(scores, rate, "leave_one_out")
    assert (left_out.threshold, left_out.rank) == (split.threshold, split.rank)
    assert left_out.expected_rate == split.expected_rate
    assert left_out.warnings == split.warnings
    assert split.interval is not None
    assert left_out.interval is None
    assert (split.scheme, left_out.scheme) == ("split", "leave_one_out")


def test_leaving_one_out_needs_no_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    assert conformal_threshold([0.1, 0.2], 0.4, "leave_one_out").rank == 2
    with pytest.raises(MissingExtraError):
        conformal_threshold([0.1, 0.2], 0.4, "split")


def test_ties_are_told_without_an_interval_that_is_not_there() -> None:
    (text,) = conformal_threshold([0.1, 0.2, 0.2, 0.2], 0.5, "leave_one_out").warnings
    assert "3 good images share the score" in text
    assert "interval" not in text


@pytest.mark.parametrize(
    ("rate", "images"), [(0.01, 99), (0.05, 19), (0.1, 9), (0.2, 4), (0.3, 3), (0.5, 1), (0.9, 1)]
)
def test_the_images_that_a_rate_takes_are_just_enough(rate: float, images: int) -> None:
    assert images_for(rate) == images
    scores = np.linspace(0.1, 0.9, images)
    assert not any("too few" in text for text in conformal_threshold(scores, rate).warnings)
    if images > 1:
        fewer = conformal_threshold(scores[1:], rate).warnings
        assert any("too few" in text for text in fewer)
