"""Polygons: whether the outline of a zone is one that has an inside."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

# Rounding error of a turn in float64, as a share of its two products' sizes (Shewchuk 1997,
# "Adaptive Precision Floating-Point Arithmetic", ccwerrboundA).
_ROUNDING: Final = (3 + 16 * 2.0**-53) * 2.0**-53


def area(points: Points) -> float:
    """Return the area that a polygon encloses, px2; its sides must not cross.

    Args:
        points: float64 [n, 2], corners (x, y).
    """
    # From its first corner, so that far from the origin no digits are lost.
    x, y = (points - points[0]).T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def repeated_corner(points: Points) -> tuple[int, int] | None:
    """Return two corners that are the same point, counted from 0; None if all differ.

    Args:
        points: float64 [n, 2], corners (x, y).
    """
    order = np.lexsort(points.T)
    same = np.flatnonzero((points[order[1:]] == points[order[:-1]]).all(axis=1))
    if not same.size:
        return None
    pair = order[same[0] : same[0] + 2].tolist()
    return min(pair), max(pair)


def crossing_sides(points: Points) -> tuple[int, int] | None:
    """Return two sides of a polygon that meet elsewhere than in a corner that they share.

    Decided without rounding. Side i leads from corner i to the next one; the last, to the first.

    Args:
        points: float64 [n, 2], finite corners (x, y), no two of them the same point.

    Returns:
        The sides, counted from 0; None if the outline has one inside.
    """
    n = len(points)
    ends = np.roll(points, -1, axis=0)
    before = np.roll(points, 1, axis=0)
    folded = _straight(before, points, ends) & (
        np.einsum("ij,ij->i", before - points, ends - points) > 0
    )
    if folded.any():
        corner = int(np.flatnonzero(folded)[0])
        first, second = sorted(((corner - 1) % n, corner))
        return first, second
    low, high = np.minimum(points, ends), np.maximum(points, ends)
    for i in range(n - 2):
        # The next side shares a corner; so does the last one with the first.
        others = np.arange(i + 2, n - 1 if i == 0 else n)
        near = (low[others] <= high[i]).all(axis=1) & (low[i] <= high[others]).all(axis=1)
        others = others[near]
        if others.size:
            met = _meet(points[i], ends[i], points[others], ends[others])
            if met.any():
                return i, int(others[np.flatnonzero(met)[0]])
    return None


def _meet(a: Points, b: Points, c: Points, d: Points) -> NDArray[np.bool_]:
    """Return whether one side ab and each of n sides cd whose boxes overlap have a common point.

    Of two such sides each has an end on either side of the other's line, or on it.
    """
    a, b = np.broadcast_to(a, c.shape), np.broadcast_to(b, c.shape)
    parted: NDArray[np.bool_] = _turns(a, b, c) * _turns(a, b, d) > 0
    return ~parted & (_turns(c, d, a) * _turns(c, d, b) <= 0)


def _straight(a: Points, b: Points, c: Points) -> NDArray[np.bool_]:
    straight: NDArray[np.bool_] = _turns(a, b, c) == 0
    return straight


def _turns(a: Points, b: Points, c: Points) -> NDArray[np.int8]:
    """Return for n corners a, b, c on which side of the line ab the point c lies: -1, 0 or 1."""
    left = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1])
    right = (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    turns = np.sign(left - right).astype(np.int8)
    # The last term is for products too small for a float64 of full precision.
    bound = _ROUNDING * (np.abs(left) + np.abs(right)) + np.finfo(np.float64).tiny
    unsure = np.abs(left - right) <= bound
    for i in np.flatnonzero(unsure):
        turns[i] = _exact_turn(a[i].tolist(), b[i].tolist(), c[i].tolist())
    return turns


def _exact_turn(a: list[float], b: list[float], c: list[float]) -> int:
    (ax, ay), (bx, by), (cx, cy) = (map(Fraction, point) for point in (a, b, c))
    turn = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    return (turn > 0) - (turn < 0)
