"""What the scores of good photos tell of the photos themselves: some are not good, or copies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from zeroflaw_engines.errors import ReferenceBankError

# Robust standard deviations above the median: the median absolute deviation times 1.4826.
_FAR: Final = 6.0
_DEVIATIONS_OF_A_MAD: Final = 1.4826
# Few photos tell their spread badly: the limit is wider by this share over their number.
_FEW: Final = 4.0
# Scores and mean distances that differ by less are alike, however alike the others are; of the
# highest distance a score may take half.
_LEAST_DIFFERENCE: Final = 0.05
_LEAST_OF_HIGHEST: Final = 0.1
# A photo is a near copy if it is this share as far from another one as is usual.
_NEAR_COPY: Final = 0.1
_NAMED: Final = 10


def far_above(values: ArrayLike, least: float) -> set[int]:
    """Find values that lie far above the others.

    Args:
        values: [n], at least 0.
        least: Differences from the median that are never far.

    Returns:
        Their numbers; none of fewer than three values, of which none has "others".
    """
    known = np.asarray(values, np.float64)
    if known.size < 3:
        return set()
    median = float(np.median(known))
    spread = _DEVIATIONS_OF_A_MAD * float(np.median(np.abs(known - median)))
    limit = max(_FAR * spread * (1 + _FEW / known.size), least)
    return set(np.flatnonzero(known - median > limit).tolist())


def require_usual(
    paths: Sequence[Path], scores: ArrayLike, highest: ArrayLike, mean: ArrayLike
) -> None:
    """Refuse to learn from photos of which some seem not to be good.

    A defect has a high score or a high distance somewhere; another part is far everywhere. To take
    such photos out silently would break what the threshold promises: their user must say whether
    they are good.

    Args:
        scores: [n] in [0, 1], each photo's image score without its own rows.
        highest: [n], the highest values of their reference maps.
        mean: [n], the means of these.

    Raises:
        ReferenceBankError: There are such photos; the error names them with their scores.
    """
    far = far_above(scores, _LEAST_DIFFERENCE) | far_above(mean, _LEAST_DIFFERENCE)
    far |= far_above(highest, _LEAST_OF_HIGHEST)
    if not far:
        return
    score, distance = np.asarray(scores, np.float64), np.asarray(highest, np.float64)
    order = sorted(far, key=lambda i: -distance[i])
    listed = ", ".join(
        f"{paths[i]} (score {score[i]:.3f}, distance {distance[i]:.3f})" for i in order[:_NAMED]
    )
    raise ReferenceBankError(
        f"{len(far)} of {len(paths)} photos look unlike the others, which have a median score of"
        f" {np.median(score):.3f} and a median distance of {np.median(distance):.3f}:"
        f" {listed}{', ...' if len(order) > _NAMED else ''}; nothing was learned",
        "look at each: take it out if it shows a defect or another part, or give --keep-unusual"
        " if all are good",
    )


def near_copies(
    paths: Sequence[Path], nearest: Sequence[Path], apart: ArrayLike
) -> tuple[str, ...]:
    """Warn of photos that are nearly copies of others.

    Args:
        nearest: The photo in the bank that each is nearest to.
        apart: [n], how far it is from that one.
    """
    values = np.asarray(apart, np.float64)
    pairs = {
        tuple(sorted((str(paths[i]), str(nearest[i]))))
        for i in np.flatnonzero(values < _NEAR_COPY * np.median(values)).tolist()
    }
    return tuple(
        f"{one} and {other} are nearly the same picture: what is claimed holds for photos of"
        " different parts; take one of them out if they show the same part"
        for one, other in sorted(pairs)
    )
