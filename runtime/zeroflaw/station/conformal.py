"""Conformal thresholds: a decision threshold from scores of good images, and what it promises.

Split: the images have no part in what scores them. If a new good part is exchangeable with the n
images, its score is equally likely to take any of the n + 1 ranks among theirs. A threshold just
above their k-th smallest score therefore rejects it with a probability of at most 1 - k / (n + 1),
whatever the scores' distribution is, and the true rate at that threshold follows
Beta(n - k + 1, k).

Leave-one-out: all n photos are in the bank, and each is scored without its own rows. The same rank
gives the same bound, by the argument of the jackknife-minmax (Barber, Candès, Ramdas, Tibshirani,
Predictive inference with the jackknife+, Annals of Statistics 49, 2021, arXiv 1905.02928). Let the
new part be photo n + 1, and R(i, j) the score of photo i against the bank of all but i and j.
Photos are thinned alone, so that banks differ by whole photos, and a score never falls where a
bank loses rows. A new part that is rejected against the bank of all n therefore has
m = min_j R(n + 1, j) above R(i, n + 1) for k of the i: it is strange. Of n + 1 photos at most
n + 1 - k are strange: the one of them with the smallest m exceeds none of the others' R, and
exceeds k. Any of the exchangeable photos may be the new one, so that it is strange with a
probability of at most 1 - k / (n + 1). How the true rate varies with the photos is not known here,
so that there is no interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from zeroflaw.records.threshold import NEAR_ONE, is_near_one
from zeroflaw_engines.bundle.manifest import CalibrationScheme
from zeroflaw_engines.errors import CalibrationError, MissingExtraError

CONFIDENCE: Final = 0.95
# Least threshold, 1.2e-38: one that is above 0 in single precision too. No region has a peak below
# it, so that it stands for "any region at all".
_LEAST: Final = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class ConformalThreshold:
    """A threshold, and what is known of the false-reject rate at it.

    Attributes:
        threshold: Scores at and above it are rejected; in (0, 1].
        false_reject_rate: The rate that was aimed at.
        images: n, the number of good images.
        rank: k; the threshold lies just above their k-th smallest score.
        interval: 95 % interval of the true rate; None of `leave_one_out`. Where scores tie at the
            threshold, the true rate may lie below it, never above.
        observed_rate: Share of the images themselves that the threshold rejects.
        warnings: What the user must know, such as that the images are too few.
        scheme: What the scores are.
    """

    threshold: float
    false_reject_rate: float
    images: int
    rank: int
    interval: tuple[float, float] | None
    observed_rate: float
    warnings: tuple[str, ...]
    scheme: CalibrationScheme = "split"

    @property
    def expected_rate(self) -> float:
        """Upper bound of the rate that is expected over all draws of the good images."""
        return 1 - self.rank / (self.images + 1)


def conformal_threshold(
    scores: ArrayLike, false_reject_rate: float, scheme: CalibrationScheme = "split"
) -> ConformalThreshold:
    """Return the threshold that rejects at most the given share of good parts, in expectation.

    k = ceil((n + 1) (1 - a)), and the threshold is the next number above the k-th smallest
    score. Where k > n there is no such score: the largest is taken, and a warning says how many
    images it takes and what can be claimed. Where the k-th smallest score is 0, as of decision
    scores of parts without any region, the threshold is the least there is: parts that score 0 are
    accepted, and all others rejected.

    Args:
        scores: [n], scores of good parts in [0, 1].
        false_reject_rate: a, inside (0, 1).
        scheme: What they are: of images that the bank has not, or each without its own rows.

    Raises:
        CalibrationError: There is no score, one is not in [0, 1], the rate is out of its range,
            or the k-th smallest score is 1, above which no threshold is.
        MissingExtraError: SciPy is not installed; `leave_one_out` does not need it.
    """
    require_rate(false_reject_rate)
    ordered = np.sort(np.asarray(scores, np.float64))
    n = ordered.size
    if n == 0:
        raise CalibrationError(
            "there is no score to calibrate with", "give images of good parts, 100 or more"
        )
    # Sorting puts NaN last, and NaN compares as False.
    if not (ordered[0] >= 0 and ordered[-1] <= 1):
        raise CalibrationError(
            f"the scores reach from {ordered[0]} to {ordered[-1]}, outside [0, 1]",
            "check the bundle with `zeroflaw bundle verify`",
        )
    wanted = math.ceil((n + 1) * (1 - _exact(false_reject_rate)))
    rank = min(wanted, n)
    highest_accepted = ordered[rank - 1]
    if highest_accepted >= 1:
        raise CalibrationError(
            f"{int((ordered >= 1).sum())} of {n} good images have the highest score there is, 1:"
            " a threshold that accepts them would accept every part",
            "check that the images show good parts of this product; if they do, this model does"
            " not know it well enough: choose another product name or --image-scoring",
        )
    warnings = []
    if wanted > n:
        warnings.append(
            f"{n} good images are too few for a false-reject rate of {false_reject_rate:.4g}: it"
            f" takes {images_for(false_reject_rate)}. The threshold lies just above the highest"
            f" score; with {n} images, no rate below {1 / (n + 1):.2g} can be claimed"
        )
    accepted = int((ordered <= highest_accepted).sum())
    if accepted > rank:
        warnings.append(
            f"{int((ordered == highest_accepted).sum())} good images share the score at the"
            " threshold: the true false-reject rate may lie below "
            + ("the interval" if scheme == "split" else "what is expected")
        )
    threshold = max(float(np.nextafter(highest_accepted, np.inf)), _LEAST)
    if highest_accepted <= 0:
        warnings.append(
            f"{accepted} of {n} good images have the score 0: they have nothing that a rule asks"
            " for. Every part that has what a rule without a limit of its own asks for is rejected,"
            " whatever its peak; give such a rule a min_peak to let weak regions pass"
        )
    if is_near_one(threshold):
        warnings.append(
            f"the threshold {threshold:.9g} is within {NEAR_ONE:g} of 1, the highest score there"
            " is: nearly every part will be accepted. This model hardly tells these good parts"
            " from defects: try another product name or --image-scoring, and check with defects"
        )
    interval = None
    if scheme == "split":
        tail = (1 - CONFIDENCE) / 2
        quantile = quantile_of_beta()
        low, high = (quantile(n - rank + 1, rank, p) for p in (tail, 1 - tail))
        interval = (low, high)
    return ConformalThreshold(
        threshold=threshold,
        false_reject_rate=false_reject_rate,
        images=n,
        rank=rank,
        interval=interval,
        observed_rate=(n - accepted) / n,
        warnings=tuple(warnings),
        scheme=scheme,
    )


def images_for(false_reject_rate: float) -> int:
    """Return how many good images it takes to claim a rate, inside (0, 1)."""
    return math.ceil(1 / _exact(false_reject_rate) - 1)


def require_rate(rate: float) -> None:
    """Refuse false-reject rates that are none.

    Raises:
        CalibrationError: It is not inside (0, 1).
    """
    if not 0 < rate < 1:
        raise CalibrationError(
            f"the false-reject rate {rate} is not inside (0, 1)", "give a share, as 0.01 for 1 %"
        )


def quantile_of_beta() -> Callable[[float, float, float], float]:
    """Return the quantile function of the Beta distribution: of a, b and a probability.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    try:
        # Not scipy.stats.beta.ppf, which is the same and takes far longer to import.
        from scipy.special import betaincinv
    except ImportError as error:
        raise MissingExtraError(
            "calibration needs SciPy, which is not installed", "install zeroflaw[evaluate]"
        ) from error
    return lambda a, b, probability: float(betaincinv(a, b, probability))


def _exact(rate: float) -> Fraction:
    """Return the rate as its decimal text says: ranks are not to be rounded past a number."""
    return Fraction(str(rate))
