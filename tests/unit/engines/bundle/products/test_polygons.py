"""Outlines that cross themselves, against exact fractions; areas, against OpenCV."""

from __future__ import annotations

import time
from fractions import Fraction
from itertools import combinations

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zeroflaw_engines.bundle.products.polygons import area, crossing_sides, repeated_corner
from zeroflaw_engines.bundle.products.settings import MAX_CORNERS

# A coarse grid: corners on sides, and sides on one another, are as frequent as crossings.
CORNER = st.tuples(st.integers(0, 5), st.integers(0, 5))
OUTLINE = st.lists(CORNER, min_size=3, max_size=9, unique=True)

Pair = tuple[Fraction, Fraction]


def common_points(p: Pair, q: Pair, r: Pair, s: Pair) -> list[Pair]:
    """All that two segments have in common: no point, one, or the ends of a piece."""
    u, v, w = ((b[0] - a[0], b[1] - a[1]) for a, b in ((p, q), (r, s), (p, r)))
    cross = u[0] * v[1] - u[1] * v[0]
    if cross:
        t = (w[0] * v[1] - w[1] * v[0]) / cross
        k = (w[0] * u[1] - w[1] * u[0]) / cross
        return [(p[0] + t * u[0], p[1] + t * u[1])] if 0 <= t <= 1 and 0 <= k <= 1 else []
    if w[0] * u[1] - w[1] * u[0]:
        return []
    # On one line: the shares of pq at which the ends of rs lie.
    size = u[0] ** 2 + u[1] ** 2
    first, last = sorted(((e[0] - p[0]) * u[0] + (e[1] - p[1]) * u[1]) / size for e in (r, s))
    low, high = max(first, Fraction(0)), min(last, Fraction(1))
    return [(p[0] + t * u[0], p[1] + t * u[1]) for t in (low, high)] if low <= high else []


def crosses(outline: list[tuple[float, float]]) -> set[tuple[int, int]]:
    """Every two sides that have more in common than a corner that both end in."""
    corners = [(Fraction(x), Fraction(y)) for x, y in outline]
    n = len(corners)
    sides = [(corners[i], corners[(i + 1) % n]) for i in range(n)]
    found = set()
    for i, j in combinations(range(n), 2):
        shared = set(sides[i]) & set(sides[j]) if (j - i) % n in (1, n - 1) else set()
        if set(common_points(*sides[i], *sides[j])) - shared:
            found.add((i, j))
    return found


@settings(max_examples=400, deadline=None)
@given(OUTLINE)
@example([(0, 0), (4, 4), (4, 0), (0, 4)])
@example([(0, 0), (2, 0), (4, 0)])
@example([(0, 0), (4, 0), (4, 4), (4, 2), (0, 4)])
@example([(0, 0), (4, 0), (4, 4), (2, 0), (0, 4)])
def test_sides_cross_where_exact_fractions_say_so(outline: list[tuple[int, int]]) -> None:
    want = crosses(outline)
    found = crossing_sides(np.array(outline, np.float64))
    assert found in want if want else found is None


@settings(max_examples=100, deadline=None)
@given(OUTLINE, st.floats(1e-3, 1e3), st.floats(0, 1), st.integers(0, 8))
def test_sides_cross_where_numbers_are_rounded(
    outline: list[tuple[int, int]], scale: float, angle: float, turned: int
) -> None:
    """Points that lay on a line are off it by a rounding error: what counts is where they are."""
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = np.roll(np.array(outline, np.float64) @ turn * scale + 1000, turned, axis=0)
    if repeated_corner(points) is None:
        want = crosses(points.tolist())
        found = crossing_sides(points)
        assert found in want if want else found is None


@given(st.lists(CORNER, min_size=3, max_size=12))
def test_repeated_corners_are_found(outline: list[tuple[int, int]]) -> None:
    found = repeated_corner(np.array(outline, np.float64))
    if len(set(outline)) == len(outline):
        assert found is None
    else:
        assert found[0] < found[1]
        assert outline[found[0]] == outline[found[1]]


def star(corners: int) -> np.ndarray:
    """An outline without crossings: radii of a seed in the order of their angles."""
    angles = np.sort(np.random.default_rng(0).uniform(0, 2 * np.pi, corners))
    radii = np.random.default_rng(1).uniform(100, 1400, corners)
    return 1500 + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_the_area_is_that_of_opencv() -> None:
    points = star(50)
    assert area(points) == pytest.approx(cv2.contourArea(points.astype(np.float32)), rel=1e-5)
    assert area(points[::-1] + 40_000) == pytest.approx(area(points))


def comb(corners: int) -> np.ndarray:
    """Long slanting teeth: the boxes of all sides overlap, and no two sides cross."""
    x = np.linspace(0, 1000, corners - 1)
    y = x + np.where(np.arange(corners - 1) % 2, 1000.0, 5.0)
    return np.concatenate([np.stack([x, y], axis=1), [[1000.0, 0.0]]])


@pytest.mark.parametrize("shape", [star, comb])
def test_as_many_corners_as_a_zone_may_have_take_no_time(shape) -> None:
    points = shape(MAX_CORNERS)
    start = time.perf_counter()
    assert crossing_sides(points) is None
    assert time.perf_counter() - start < 5
    # The very last sides are looked at too.
    points[[-3, -2]] = points[[-2, -3]]
    found = crossing_sides(points)
    assert found is not None
    assert min(found) >= MAX_CORNERS - 6
