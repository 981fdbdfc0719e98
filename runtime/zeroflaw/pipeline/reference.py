"""Reference banks in an inspection: matching a frame's patches, and fusing what comes of it.

APRIL-GAN's few-shot mode (arXiv 2305.17382, section 2.2): a patch is as anomalous as it is far
from the nearest patch of the good photos.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.engine_outputs import require_alive, require_finite, run_engine
from zeroflaw.pipeline.geometry import FloatArray
from zeroflaw_engines.bundle.reference_bank import ReferenceBank
from zeroflaw_engines.contract import PATCH_TOKENS, REFERENCE_MATCHER
from zeroflaw_engines.errors import EngineError, ReferenceBankError
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, Tensor
from zeroflaw_engines.sessions.session import Session

# Rounding of FP16 may carry a distance below 0 or past 2 by this much.
_ROUNDING: Final = 5e-3


@dataclass(frozen=True, eq=False)
class LoadedBank:
    """A reference bank where the matcher reads it.

    Attributes:
        tokens: float16 [blocks, rows, width], padded to the rows that the matcher takes.
        valid_rows: int32 [1], those that are no padding.
        digest: SHA-256 of the bank's file.
    """

    tokens: Tensor | DeviceTensor
    valid_rows: NDArray[np.int32]
    digest: str


@dataclass(frozen=True, eq=False)
class LoadedBanks:
    """The reference banks of a product: one for all that is matched, or one a tile.

    Attributes:
        digest: SHA-256 of their file.
        first: The bank for all, or the one of the first tile.
        by_tile: By the number of the tile; None: the first is for all.
    """

    digest: str
    first: LoadedBank
    by_tile: Mapping[int, LoadedBank] | None = None

    def of_tile(self, number: int) -> LoadedBank:
        """Return the bank that a tile is matched with.

        Raises:
            ReferenceBankError: There is a bank a tile, and none of this one.
        """
        if self.by_tile is None:
            return self.first
        bank = self.by_tile.get(number)
        if bank is None:
            raise ReferenceBankError(
                f"the tile {number} is judged, and has no reference bank",
                "learn the product anew with `zeroflaw products learn`",
            )
        return bank


def load_banks(bank: ReferenceBank, digest: str, matcher: Session) -> LoadedBanks:
    """Put the banks of one file where a matcher reads them."""
    if bank.tiles is None:
        return LoadedBanks(digest, load_bank(bank, digest, matcher))
    by_tile = {
        number: load_bank(bank.of_tile(number), digest, matcher) for number in bank.tile_numbers
    }
    return LoadedBanks(digest, by_tile[bank.tile_numbers[0]], by_tile)


def load_bank(bank: ReferenceBank, digest: str, matcher: Session) -> LoadedBank:
    """Put a bank where a matcher reads it; nothing of it is uploaded again in a call."""
    rows = int(matcher.contract.inputs[1].shape[1])
    return LoadedBank(
        matcher.upload("bank", bank.padded(rows)), np.array([bank.rows], np.int32), digest
    )


def match(tokens: Tensor | DeviceTensor, bank: LoadedBank, matcher: Session) -> FloatArray:
    """Return the reference map: how far each patch is from the nearest of the bank.

    Args:
        tokens: float32 [blocks, tokens, width], L2-normalised, of the CLIP encoder.
        matcher: The session of the engine `reference_matcher`.

    Returns:
        float32 [S, S] in [0, 2]: the mean over the blocks of 1 - the highest cosine.

    Raises:
        EngineError: The engine failed, or returned values that are not such distances.
    """
    inputs = {PATCH_TOKENS: tokens, "bank": bank.tokens, "valid_rows": bank.valid_rows}
    found: FloatArray = run_engine(matcher, inputs)["reference_map"][0]
    # Memory that no kernel wrote would say that every patch is a good one.
    require_alive(REFERENCE_MATCHER, "reference_map", found)
    low, high = float(found.min()), float(found.max())  # NaN is carried through
    if low >= 0 and high <= 2:
        return found
    require_finite(REFERENCE_MATCHER, "reference_map", found)
    if not (low >= -_ROUNDING and high <= 2 + _ROUNDING):
        raise EngineError(
            f"{REFERENCE_MATCHER} returned distances from {low:g} to {high:g}, outside [0, 2]",
            "learn the product again; `zeroflaw bundle verify` checks the bundle",
        )
    clipped: FloatArray = found.clip(0, 2)
    return clipped


def reference_distances(reference_map: FloatArray, parameters: MethodParameters) -> FloatArray:
    """Return the reference map on the scale of the zero-shot map.

    Args:
        reference_map: float32 [S, S] in [0, 2], from `match`.
        parameters: `reference_distance`.

    Returns:
        float32 [S, S] in [0, 1]; larger distances, of tokens that point away from all of the
        bank, are 1.
    """
    scale = np.float32(0.5 if parameters.reference_distance == "half_cosine" else 1)
    distances: FloatArray = np.minimum(scale * reference_map, np.float32(1))
    return distances


def fused_map(
    zero_shot_map: FloatArray, reference_map: FloatArray, parameters: MethodParameters
) -> FloatArray:
    """Return the anomaly map of a product with a reference bank.

    Args:
        zero_shot_map: float32 [S, S] in [0, 1].
        reference_map: float32 [S, S] in [0, 1], from `reference_distances`.
        parameters: `reference_fusion`.

    Returns:
        float32 [S, S] in [0, 1].
    """
    fusion = parameters.reference_fusion
    if fusion == "zero_shot":
        return zero_shot_map
    if fusion == "reference":
        return reference_map
    if fusion == "max":
        fused = np.maximum(zero_shot_map, reference_map)
    elif fusion == "mean":
        fused = np.float32(0.5) * (zero_shot_map + reference_map)
    else:
        fused = np.minimum(zero_shot_map + reference_map, np.float32(1))
    return fused


def fused_score(
    zero_shot_score: float, reference_map: FloatArray, parameters: MethodParameters
) -> float:
    """Return the image score of a product with a reference bank, in [0, 1].

    Args:
        zero_shot_score: In [0, 1].
        reference_map: float32 [S, S] in [0, 1], from `reference_distances`.
        parameters: `reference_image_scoring`.
    """
    scoring = parameters.reference_image_scoring
    if scoring == "zero_shot":
        return zero_shot_score
    highest = float(reference_map.max())
    return highest if scoring == "reference" else 0.5 * (zero_shot_score + highest)
