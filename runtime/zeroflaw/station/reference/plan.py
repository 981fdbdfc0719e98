"""Which photos go into a reference bank, and which calibrate its threshold."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from zeroflaw.station.conformal import images_for, quantile_of_beta, require_rate
from zeroflaw.station.reference.photos import Photo
from zeroflaw.station.thinning import rows_of_a_photo
from zeroflaw_engines import arguments
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.manifest import CalibrationScheme
from zeroflaw_engines.contract import ReferenceSizes
from zeroflaw_engines.errors import ReferenceBankError

CalibrationChoice = Literal["auto", "split", "leave_one_out"]

# What a split takes beyond the photos that calibrate, so that its bank is worth it.
_LEAST_BANK: Final = 16
_MOST_BANK: Final = 64


@dataclass(frozen=True)
class LearningPlan:
    """What becomes of each photo.

    Attributes:
        scheme: How the threshold is calibrated.
        bank: Photos whose tokens go into the bank.
        calibrating: Photos whose scores give the threshold: those of the bank for
            `leave_one_out`, none of them for `split`.
        rows_of_a_photo: Rows of the bank for each of its photos; of the bank of each tile.
    """

    scheme: CalibrationScheme
    bank: tuple[Photo, ...]
    calibrating: tuple[Photo, ...]
    rows_of_a_photo: int


def plan_learning(
    photos: Sequence[Photo],
    false_reject_rate: float,
    calibration: CalibrationChoice = "auto",
    *,
    rows: int,
    tiles: int = 1,
    shots: int | None = None,
    seed: int = 0,
    failed: int = 0,
) -> LearningPlan:
    """Decide which photos go into the bank.

    Photos are drawn by the digest of their content and the seed: the same photos give the same
    bank, in whatever order they come and whatever their names are.

    Args:
        photos: Each content once.
        false_reject_rate: Inside (0, 1).
        calibration: A scheme; `auto` splits if those that calibrate can claim the rate.
        rows: Of the bank, for each block.
        tiles: That have a bank each, and share the rows.
        shots: Photos in the bank; default: all, or the share of a split.
        failed: Files that were left out, for the error.

    Raises:
        ReferenceBankError: The photos are too few, or too many for the rows.
        CalibrationError: The rate is out of its range.
        MissingExtraError: SciPy is not installed and the scheme is a split.
    """
    require_rate(false_reject_rate)
    arguments.choice("calibration", calibration, get_args(CalibrationChoice))
    arguments.whole_number("seed", seed, minimum=0)
    if shots is not None:
        arguments.whole_number("shots", shots, minimum=1)
    n = len(photos)
    if n < 2 or (shots is not None and n < shots):
        raise _too_few(n, shots, failed)
    split = calibration == "split"
    needed = images_for(false_reject_rate)
    if calibration == "auto":
        split = n - needed >= (_LEAST_BANK if shots is None else shots)
    if shots is None:
        room = n - needed if n - needed >= _LEAST_BANK else n
        shots = min(room, n // 2, _MOST_BANK) if split else n
    if shots < 2 and not split:
        raise _too_few(shots, None, 0)
    if split and shots == n:
        raise ReferenceBankError(
            f"all {n} photos would be in the bank, and a split calibrates with others",
            "give more photos, or choose leave_one_out",
        )
    drawn = set(
        sorted(photos, key=lambda one: hashlib.sha256(f"{seed} {one.sha256}".encode()).digest())[
            :shots
        ]
    )
    bank = tuple(photo for photo in photos if photo in drawn)
    share = rows_of_a_photo(shots, rows, tiles)
    if not split:
        return LearningPlan("leave_one_out", bank, bank, share)
    quantile_of_beta()
    others = tuple(photo for photo in photos if photo not in drawn)
    return LearningPlan("split", bank, others, share)


def reference_sizes(bundle: Bundle) -> ReferenceSizes:
    """Return the sizes of the banks that a bundle takes.

    Raises:
        ReferenceBankError: It takes none.
    """
    sizes = bundle.manifest.sizes.reference
    if sizes is None:
        raise ReferenceBankError(
            f"the bundle {bundle.path} cannot learn products: it has no reference_matcher",
            "export it again with this version of zeroflaw",
        )
    return sizes


def rows_of_budget(sizes: ReferenceSizes, bank_bytes: int | None) -> int:
    """Return the rows that a bank may have for each block.

    Args:
        bank_bytes: What its tokens may take; default: as much as the bundle takes.

    Raises:
        ReferenceBankError: The bundle takes no such bank.
    """
    if bank_bytes is None:
        return sizes.rows
    arguments.whole_number("bank_bytes", bank_bytes, minimum=1)
    row = sizes.bank_bytes // sizes.rows
    if not row <= bank_bytes <= sizes.bank_bytes:
        raise ReferenceBankError(
            f"a bank of {bank_bytes} bytes was asked for; this bundle takes banks of {row} to"
            f" {sizes.bank_bytes} bytes",
            "choose another budget, or leave it out for the largest bank",
        )
    return bank_bytes // row


def _too_few(photos: int, shots: int | None, failed: int) -> ReferenceBankError:
    left_out = f" ({failed} files were left out)" if failed else ""
    if photos == 0:
        cause = f"there is no photo to learn from{left_out}"
    elif shots is not None and photos < shots:
        cause = f"{shots} photos were to be drawn of {photos}{left_out}"
    else:
        cause = (
            f"one photo alone cannot be learned from{left_out}: nothing is left to calibrate the"
            " threshold with"
        )
    return ReferenceBankError(cause, "give two different photos of good parts or more, best eight")
