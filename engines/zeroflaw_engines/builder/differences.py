"""How far two arrays lie apart: the one place where results are compared with what they should be.

A comparison that cannot tell is refused. `max(0.0, nan)` is 0.0, arrays of other shapes are
broadcast, nothing can be measured relative to zero, and a cosine does not see a factor: each of
these would turn a broken engine into a small difference.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zeroflaw_engines.errors import ComparisonError

_REMEDY: Final = "look at the engine and at the inputs that the comparison was made with"


def largest_difference(got: ArrayLike, want: ArrayLike, what: str) -> float:
    """Compute the largest absolute difference of two arrays.

    Args:
        got: Numbers of any shape.
        want: Of the same shape.

    Raises:
        ComparisonError: The shapes differ, there is nothing to compare, or a value is not finite.
    """
    a, b = _comparable(got, want, what)
    return float(np.abs(a - b).max())


def relative_difference(got: ArrayLike, want: ArrayLike, what: str) -> float:
    """Compute the largest absolute difference over the largest magnitude of `want`.

    Arguments are those of `largest_difference`.

    Raises:
        ComparisonError: As there, or `want` is zero everywhere.
    """
    a, b = _comparable(got, want, what)
    return float(np.abs(a - b).max() / _largest(b, what))


def cosine(got: ArrayLike, want: ArrayLike, what: str) -> float:
    """Compute the cosine of the angle between two arrays, in [-1, 1]; it does not see a factor.

    Arguments are those of `largest_difference`.

    Raises:
        ComparisonError: As there, or `want` is zero everywhere. Where only `got` is, it is 0.
    """
    a, b = _comparable(got, want, what)
    _largest(b, what)
    # Scaled first: the squares of 1e200 have no sum.
    a, b = a / (np.abs(a).max() or 1.0), b / np.abs(b).max()
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.vdot(a, b)) / norms if norms else 0.0


def norm_ratio(got: ArrayLike, want: ArrayLike, what: str) -> float:
    """Compute the Euclidean norm of `got` over that of `want`: the factor a cosine does not see.

    Arguments are those of `largest_difference`.

    Raises:
        ComparisonError: As there, or `want` is zero everywhere.
    """
    a, b = _comparable(got, want, what)
    scale = _largest(b, what)
    return float(np.linalg.norm(a / scale) / np.linalg.norm(b / scale))


def mask_iou(got: NDArray[Any], want: NDArray[Any], what: str = "the masks") -> float:
    """Compute intersection over union of two masks; 1 where both are empty.

    Args:
        got: bool, of any shape.
        want: bool, of the same shape.

    Raises:
        ComparisonError: The shapes differ, or one is not of booleans.
    """
    if got.dtype != np.bool_ or want.dtype != np.bool_:
        raise ComparisonError(
            f"{what} are {got.dtype} and {want.dtype}, not bool", "give masks, not scores"
        )
    _require_same_shape(got, want, what)
    union = int((got | want).sum())
    return int((got & want).sum()) / union if union else 1.0


def require_finite(values: ArrayLike, what: str) -> None:
    """Refuse values that are not finite.

    Raises:
        ComparisonError: One is NaN or infinite.
    """
    array = np.asarray(values)
    finite = np.isfinite(array)
    if not finite.all():
        raise ComparisonError(
            f"{what}: {int(np.count_nonzero(~finite))} of {array.size} values are not finite,"
            f" the first of them {array[~finite].flat[0]}",
            _REMEDY,
        )


def _comparable(
    got: ArrayLike, want: ArrayLike, what: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Convert both to float64, in which neither float16 overflows nor uint8 wraps around."""
    given, wanted = np.asarray(got), np.asarray(want)
    _require_same_shape(given, wanted, what)
    if not given.size:
        raise ComparisonError(f"{what}: there is no value to compare", _REMEDY)
    require_finite(given, what)
    require_finite(wanted, f"{what}, as wanted")
    return given.astype(np.float64), wanted.astype(np.float64)


def _require_same_shape(got: NDArray[Any], want: NDArray[Any], what: str) -> None:
    if got.shape != want.shape:
        raise ComparisonError(
            f"{what}: {list(got.shape)} cannot be compared with {list(want.shape)}",
            "compare arrays of one shape",
        )


def _largest(want: NDArray[np.float64], what: str) -> float:
    largest = float(np.abs(want).max())
    if largest == 0:
        raise ComparisonError(
            f"{what}, as wanted: zero everywhere, and nothing is measured relative to zero",
            _REMEDY,
        )
    return largest
