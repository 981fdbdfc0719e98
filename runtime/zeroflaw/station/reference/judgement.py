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
# Scores that differ by less are alike, however alike the others are.
_LEAST_DIFFERENCE: Final = 0.05
# A photo is a near copy if nothing of it is farther than this share of what is usual.
_NEAR_COPY: Final = 0.1
_NAMED: Final = 10


def unusual_photos(scores: ArrayLike) -> list[int]:
    """Find the photos whose scores lie far above the others'.

    Args:
        scores: [n] in [0, 1], each against good photos without itself.

    Returns:
        Their numbers, the highest score first; none of fewer than three, which have no "others".
    """
    values = np.asarray(scores, np.float64)
    if values.size < 3:
        return []
    median = np.median(values)
    spread = _DEVIATIONS_OF_A_MAD * np.median(np.abs(values - median))
    limit = median + max(_FAR * spread * (1 + _FEW / values.size), _LEAST_DIFFERENCE)
    far = np.flatnonzero(values > limit)
    return [int(i) for i in far[np.argsort(-values[far], kind="stable")]]


def require_usual(paths: Sequence[Path], scores: ArrayLike) -> None:
    """Refuse to learn from photos of which some seem not to be good.

    To take them out silently would break what the threshold promises: their user must say whether
    they are good.

    Args:
        scores: [n] in [0, 1], of these files.

    Raises:
        ReferenceBankError: There are such photos; the error names them with their scores.
    """
    far = unusual_photos(scores)
    if not far:
        return
    values = np.asarray(scores, np.float64)
    listed = ", ".join(f"{paths[i]} ({values[i]:.3f})" for i in far[:_NAMED])
    raise ReferenceBankError(
        f"{len(far)} of {len(paths)} photos look unlike the others, whose scores have a median of"
        f" {np.median(values):.3f}: {listed}{', ...' if len(far) > _NAMED else ''}; nothing was"
        " learned",
        "look at each: take it out if it shows a defect or another part, or give --keep-unusual"
        " if all are good",
    )


def near_copies(
    paths: Sequence[Path], highest: ArrayLike, nearest: Sequence[Path]
) -> tuple[str, ...]:
    """Warn of photos that are nearly copies of others.

    Args:
        highest: [n], the highest value of each photo's reference map, without itself.
        nearest: The photo in the bank that each is nearest to.
    """
    values = np.asarray(highest, np.float64)
    pairs = {
        tuple(sorted((str(paths[i]), str(nearest[i]))))
        for i in np.flatnonzero(values < _NEAR_COPY * np.median(values)).tolist()
    }
    return tuple(
        f"{one} and {other} are nearly the same picture: what is claimed holds for photos of"
        " different parts; take one of them out if they show the same part"
        for one, other in sorted(pairs)
    )
