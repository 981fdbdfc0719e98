"""Photos that look unlike the others are named; good ones are hardly ever."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zeroflaw.station.reference.judgement import far_above, near_copies, require_usual
from zeroflaw_engines.errors import ReferenceBankError

PATHS = [Path(f"{i}.png") for i in range(9)]
USUAL = np.array([0.50, 0.51, 0.52, 0.53, 0.54, 0.52, 0.51, 0.53, 0.52])


def changed(number: int, value: float) -> np.ndarray:
    values = USUAL.copy()
    values[number] = value
    return values


def test_usual_photos_are_learned() -> None:
    require_usual(PATHS, USUAL, USUAL, USUAL)
    require_usual(PATHS, changed(3, 0.1), changed(3, 0.1), changed(3, 0.1))  # better than good


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_score_or_a_distance_far_above_the_others_is_named(which: int) -> None:
    figures = [USUAL, USUAL, USUAL]
    figures[which] = changed(4, 0.8)
    with pytest.raises(ReferenceBankError) as caught:
        require_usual(PATHS, *figures)
    assert "1 of 9 photos look unlike the others" in caught.value.cause
    assert "4.png" in caught.value.cause
    assert "5.png" not in caught.value.cause
    assert "0.800" in caught.value.cause or which == 2
    assert "--keep-unusual" in caught.value.remedy


def test_photos_that_are_all_alike_may_differ_a_little() -> None:
    same = np.full(9, 0.5)
    same[2] = 0.54
    require_usual(PATHS, same, same, same)
    same[2] = 0.61
    with pytest.raises(ReferenceBankError, match=r"2\.png"):
        require_usual(PATHS, same, same, same)


def test_two_photos_have_no_others() -> None:
    assert far_above([0.1, 0.9], 0.05) == set()
    assert far_above([0.1, 0.1, 0.9], 0.05) == {2}


@pytest.mark.parametrize("n", [4, 5, 8, 20, 100])
@pytest.mark.parametrize("kind", ["normal", "gumbel"])
def test_good_photos_are_hardly_ever_named(rng, n: int, kind: str) -> None:
    """A spread of 0.05 is wide: the least difference hardly helps."""
    draws = 0.5 + 0.05 * getattr(rng, kind)(size=(1000, n))
    assert np.mean([bool(far_above(draw, 0.05)) for draw in draws]) < 0.1


def test_near_copies_are_named_in_pairs() -> None:
    apart = np.array([0.2, 0.001, 0.25, 0.001, 0.22])
    nearest = [PATHS[i] for i in (1, 3, 0, 1, 2)]
    (text,) = near_copies(PATHS[:5], nearest, apart)
    assert "1.png and 3.png are nearly the same picture" in text
    assert near_copies(PATHS[:5], nearest, np.full(5, 0.2)) == ()
