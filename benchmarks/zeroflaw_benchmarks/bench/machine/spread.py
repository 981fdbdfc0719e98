"""Figures over the rounds of a benchmark, and ratios that a slow machine does not change."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import msgspec


class Spread(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A figure over the rounds.

    Attributes:
        middle: Median.
        least: Smallest.
        most: Largest.
    """

    middle: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.least:.2f}-{self.most:.2f})"


def spread(values: Sequence[float]) -> Spread:
    """Return the median, the smallest and the largest value."""
    return Spread(median(values), min(values), max(values))


def times_faster(slow: Sequence[float], fast: Sequence[float]) -> Spread:
    """Return how many times faster, from the ratio inside each round."""
    return spread([a / b for a, b in zip(slow, fast, strict=True)])
