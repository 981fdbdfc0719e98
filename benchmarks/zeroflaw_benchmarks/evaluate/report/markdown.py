"""Tables and lists in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence


def percent(value: float) -> str:
    """Write a share in percent with one decimal; `n/a` for NaN."""
    return "n/a" if math.isnan(value) else f"{100 * value:.1f}"


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Write a table; bars in its cells are escaped."""
    rows = [header, ["---"] * len(header), *lines]
    escaped = ([cell.replace("|", r"\|") for cell in cells] for cells in rows)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in escaped)


def listed(items: Iterable[str]) -> Iterator[str]:
    """Write a list, and the empty line after it."""
    yield from (f"- {item}" for item in items)
    yield ""
