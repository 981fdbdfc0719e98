"""Comparisons against NumPy and SciPy, and everything that a comparison must refuse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial import distance

from zeroflaw_engines.builder.differences import (
    cosine,
    largest_difference,
    mask_iou,
    norm_ratio,
    relative_difference,
    require_finite,
)
from zeroflaw_engines.errors import ComparisonError

Measure = Callable[[np.ndarray, np.ndarray, str], float]
MEASURES: list[Measure] = [largest_difference, relative_difference, cosine, norm_ratio]
GOOD = np.linspace(-1, 2, 12, dtype=np.float32).reshape(3, 4)


def with_value(value: float) -> np.ndarray:
    array = GOOD.copy()
    array[1, 2] = value
    return array


def test_against_numpy_and_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 5, 7)).astype(np.float32)
    apart = np.abs(a.astype(np.float64) - b).max()
    assert largest_difference(a, b, "x") == apart
    assert relative_difference(a, b, "x") == pytest.approx(apart / np.abs(b).max())
    assert cosine(a, b, "x") == pytest.approx(1 - distance.cosine(a.ravel(), b.ravel()), abs=1e-6)
    assert norm_ratio(3 * b, b, "x") == pytest.approx(3)
    got, want = a > 0, b > 0
    assert mask_iou(got, want) == pytest.approx(1 - distance.jaccard(got.ravel(), want.ravel()))
    assert mask_iou(got & False, want & False) == 1
    assert mask_iou(got & False, want) == 0


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_on_either_side(measure: Measure, bad: float) -> None:
    for got, want in [(with_value(bad), GOOD), (GOOD, with_value(bad)), (with_value(bad),) * 2]:
        with pytest.raises(ComparisonError, match="1 of 12 values are not finite"):
            measure(got, want, "x")


@pytest.mark.parametrize("measure", MEASURES)
def test_other_shapes_are_not_broadcast(measure: Measure) -> None:
    for other in (GOOD[0], GOOD[:, :1], GOOD[None], np.float32(1)):
        with pytest.raises(ComparisonError, match="cannot be compared"):
            measure(other, GOOD, "x")
    with pytest.raises(ComparisonError, match="no value to compare"):
        measure(GOOD[:0], GOOD[:0], "x")
    with pytest.raises(ComparisonError, match="cannot be compared"):
        mask_iou(GOOD[0] > 0, GOOD > 0)
    with pytest.raises(ComparisonError, match="not bool"):
        mask_iou(GOOD, GOOD > 0)


@pytest.mark.parametrize("measure", MEASURES[1:])
def test_nothing_is_measured_relative_to_zero(measure: Measure) -> None:
    for got in (GOOD, GOOD * 0):
        with pytest.raises(ComparisonError, match="zero everywhere"):
            measure(got, GOOD * 0, "x")
    assert largest_difference(GOOD * 0, GOOD * 0, "x") == 0


def test_small_types_neither_wrap_around_nor_overflow() -> None:
    assert largest_difference(np.uint8([1]), np.uint8([255]), "x") == 254
    assert largest_difference(np.float16([-6e4]), np.float16([6e4]), "x") > 1e5
    huge = np.array([1e200, -1e200])
    assert cosine(huge, huge, "x") == pytest.approx(1)
    assert norm_ratio(huge, huge, "x") == pytest.approx(1)
    assert cosine(huge * 0, huge, "x") == 0


def test_require_finite() -> None:
    require_finite(GOOD, "x")
    with pytest.raises(ComparisonError, match="x: 1 of 12"):
        require_finite(with_value(np.nan), "x")
