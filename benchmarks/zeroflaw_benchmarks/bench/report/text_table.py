"""A table of texts, and how figures are written in it."""

from __future__ import annotations

from dataclasses import dataclass

from zeroflaw_benchmarks.bench.machine.spread import Spread

Row = tuple[str, ...]


@dataclass(frozen=True)
class TextTable:
    """A table of texts.

    Attributes:
        title: What it shows.
        heads: Of the columns; the first is aligned to the left, the others to the right.
        rows: Of as many texts.
        note: What a reader must know of it; empty if nothing.
    """

    title: str
    heads: Row
    rows: tuple[Row, ...]
    note: str = ""


def ms(value: float) -> str:
    """Write milliseconds with as many digits as say something."""
    return f"{value:.2f}" if value < 1000 else f"{value:.0f}"


def spread_ms(value: Spread | None, scale: float = 1e3) -> str:
    """Write a spread as milliseconds, `median (least-most)`; nothing if there is none.

    Args:
        scale: Milliseconds in its unit: 1000 for seconds.
    """
    if value is None:
        return ""
    low, middle, high = (ms(scale * v) for v in (value.least, value.middle, value.most))
    return f"{middle} ({low}-{high})"
