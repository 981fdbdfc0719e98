"""Thinning: the patch tokens of good photos that go into a reference bank.

Each photo is thinned by itself, to the same number of rows: what a bank holds of one photo does
not depend on the others, so that the bank without a photo's rows is the bank that the others
alone would have given. The guarantee of leave-one-out calibration rests on that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.geometry import FloatArray
from zeroflaw_engines.bundle.reference_bank import ReferenceBank
from zeroflaw_engines.errors import ReferenceBankError


def greedy_coreset(tokens: FloatArray, rows: int) -> NDArray[np.intp]:
    """Choose tokens that leave none far from all of them (PatchCore's greedy k-centre).

    The first is the one nearest to the mean; each that follows is the farthest from those chosen.

    Args:
        tokens: float32 [N, D], L2-normalised.
        rows: How many to choose; all, in this order, if there are no more.

    Returns:
        Their numbers, in the order of choice: the choice of fewer is a beginning of it.
    """
    cosines = tokens @ tokens.T
    chosen = [int((tokens @ tokens.mean(axis=0)).argmax())]
    nearest = cosines[chosen[0]].copy()
    nearest[chosen[0]] = np.inf
    for _ in range(min(rows, len(tokens)) - 1):
        farthest = int(nearest.argmin())
        chosen.append(farthest)
        np.maximum(nearest, cosines[farthest], out=nearest)
        nearest[farthest] = np.inf
    return np.array(chosen)


def thinned(tokens: FloatArray, rows: int) -> NDArray[np.float16]:
    """Thin the tokens of one photo, each block by itself.

    Args:
        tokens: float32 [blocks, N, width], L2-normalised; N is larger with augmentations.
        rows: Rows that are left of each block.

    Returns:
        float16 [blocks, min(rows, N), width].
    """
    return np.stack([block[greedy_coreset(block, rows)] for block in tokens]).astype(np.float16)


def bank_of_photos(photos: Sequence[NDArray[np.float16]], tower: str) -> ReferenceBank:
    """Join the thinned tokens of photos to a bank.

    Args:
        photos: float16 [blocks, rows, width] of each, from `thinned`.
        tower: Digest of the CLIP encoder that gave them; see `Bundle.tower`.
    """
    counts = [photo.shape[1] for photo in photos]
    numbers = np.repeat(np.arange(len(photos), dtype=np.int32), counts)
    return ReferenceBank(np.concatenate(photos, axis=1), numbers, tower)


def bank_of_tiles(banks: Mapping[int, ReferenceBank]) -> ReferenceBank:
    """Join banks of one tile each, of the same photos, to those of one file.

    Args:
        banks: By the number of the tile, ascending; at least one.
    """
    numbers = np.repeat(np.array(list(banks), np.int32), [bank.rows for bank in banks.values()])
    parts = list(banks.values())
    return ReferenceBank(
        np.concatenate([part.tokens for part in parts], axis=1),
        np.concatenate([part.photos for part in parts]),
        parts[0].tower,
        numbers,
    )


def rows_of_a_photo(photos: int, rows: int, tiles: int = 1) -> int:
    """Share the rows of a bank among photos.

    Args:
        photos: At least 1.
        rows: Of the whole bank, a block.
        tiles: That have a bank each, and share the rows evenly.

    Raises:
        ReferenceBankError: There are more photos than rows.
    """
    if photos > rows // tiles:
        among = f", which {tiles} tiles share: {rows // tiles} each" if tiles > 1 else ""
        raise ReferenceBankError(
            f"{photos} photos do not fit into a bank of {rows} rows a block{among}",
            'give fewer photos, or a larger budget, or choose banks = "one"'
            if tiles > 1
            else "give fewer photos, or a larger budget",
        )
    return rows // tiles // photos
