"""Which method is best for a data set, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from zeroflaw_benchmarks.evaluate.comparison.columns import COLUMNS, Column
from zeroflaw_benchmarks.evaluate.comparison.resampling import Figures

# From this share of the resamplings on, one method is called better than another.
SURE: Final = 0.95
# Of fewer images a method may be ahead on all by chance: a coin falls so in 0.5^4 of all cases.
_LEAST_VARIED: Final = 5


@dataclass(frozen=True)
class Rival:
    """How often the best is better than another row, over resamplings of the images.

    Attributes:
        name: Of the other row.
        value: Its figure, in [0, 1].
        share: Of the resamplings in which the best is better; a tie counts one half.
    """

    name: str
    value: float
    share: float


@dataclass(frozen=True)
class Verdict:
    """Which row is best, in numbers and in words.

    Attributes:
        within_ms: The bound, ms; None: any.
        best: The row's title; None if none is within the bound.
        rivals: The other rows within the bound, the nearest first.
        text: Sentences.
    """

    best_by: Column
    within_ms: float | None
    best: str | None
    rivals: tuple[Rival, ...]
    text: str


def verdict_of(
    names: Sequence[str],
    values: Sequence[float],
    milliseconds: Sequence[float],
    resampled: Sequence[Figures],
    *,
    best_by: Column,
    within_ms: float | None,
    dataset: str,
    varied: int,
) -> Verdict:
    """Choose the best row within the bound, and compare it with the others there.

    Args:
        names: Titles of the rows.
        values: Their figures, NaN where undefined: such a row is never the best.
        milliseconds: Of their inspections.
        resampled: Their figures of each resampling, float64 [draws]: the same draws for all.
        varied: Images that decide the column and of which a draw may have another: all but one of
            each class. With few of them nothing is called worse: their draws are all alike.
    """
    column = COLUMNS[best_by]
    fast = [at for at, ms in enumerate(milliseconds) if within_ms is None or ms <= within_ms]
    bound = "" if within_ms is None else f" within {within_ms:g} ms"
    able = [at for at in fast if not np.isnan(values[at])]
    if not able:
        why = (
            f"none of the rows has a defined {column}"
            if fast
            else f"the fastest row takes {min(milliseconds):.0f} ms"
        )
        text = f"No method is best for {dataset} by {column}{bound}: {why}."
        return Verdict(best_by, within_ms, None, (), text)
    best = max(able, key=lambda at: (values[at], -milliseconds[at]))
    rivals = tuple(
        sorted(
            (
                Rival(names[at], values[at], _share_better(resampled[best], resampled[at]))
                for at in able
                if at != best
            ),
            key=lambda rival: rival.share,
        )
    )
    figures = f"{100 * values[best]:.1f} %, {milliseconds[best]:.0f} ms"
    sentences = [f"Best for {dataset} by {column}{bound}: {names[best]} ({figures})."]
    if varied < _LEAST_VARIED and rivals:
        others = ", ".join(_figure(rival) for rival in rivals)
        sentences.append(
            f"The data set has too few images to tell it from {others}: resamplings of so few are"
            " all alike."
        )
        return Verdict(best_by, within_ms, names[best], rivals, " ".join(sentences))
    worse = [rival for rival in rivals if rival.share >= SURE]
    close = [rival for rival in rivals if rival.share < SURE]
    if worse:
        told = ", ".join(f"{_figure(rival)} in {_percent(rival.share)} %" for rival in worse)
        sentences.append(f"It is better than {told} of the resamplings of the images.")
    if close:
        told = "; ".join(
            f"{_figure(rival)}, better in {_percent(rival.share)} %" for rival in close
        )
        sentences.append(f"The data set cannot tell it from {told} of the resamplings.")
    return Verdict(best_by, within_ms, names[best], rivals, " ".join(sentences))


def _figure(rival: Rival) -> str:
    return f"{rival.name} ({100 * rival.value:.1f} %)"


def _percent(share: float) -> str:
    # All of a finite number of draws is not certainty.
    if share > 0.999:
        return "over 99.9"
    return f"{100 * share:.1f}" if share > 0.99 else f"{100 * share:.0f}"


def _share_better(best: Figures, other: Figures) -> float:
    """The share of the draws in which one is higher; draws that leave one undefined are none."""
    defined = ~(np.isnan(best) | np.isnan(other))
    if not defined.any():
        return 0.5
    a, b = best[defined], other[defined]
    return float(np.mean((a > b) + 0.5 * (a == b)))
