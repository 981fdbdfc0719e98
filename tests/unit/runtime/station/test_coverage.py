"""What a learned threshold promises: the true false-reject rate, by simulation.

Photos are clouds of tokens. Each photo has an effect of its own (light, position) and tokens around
the same few patterns, and now and then an odd spot; good photos are exchangeable, and differ. The
bank, the thinning, the schemes and the fused score are those of the runtime; the distance is plain
NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from zeroflaw.pipeline.reference import fused_score
from zeroflaw.station.conformal import conformal_threshold
from zeroflaw.station.thinning import bank_of_photos, thinned
from zeroflaw_engines.bundle.reference_bank import ReferenceBank
from zeroflaw_engines.parameters import MethodParameters

REPEATS = 500
FRESH = 50
TOKENS, WIDTH, ROWS_OF_A_PHOTO = 4, 12, 3
PATTERNS = np.random.default_rng(1).normal(size=(TOKENS, WIDTH))
PARAMETERS = MethodParameters()
# Rates that so many photos can claim.
RATES = {8: (0.2,), 20: (0.2, 0.1, 0.05), 50: (0.2, 0.1, 0.05), 150: (0.2, 0.1, 0.05)}


def photos(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Good photos: tokens, float32 [n, TOKENS, WIDTH], L2-normalised, and zero-shot scores [n]."""
    effect = rng.normal(size=(n, 1, WIDTH)) * rng.gamma(2, 0.2, size=(n, 1, 1))
    tokens = PATTERNS + effect + 0.3 * rng.normal(size=(n, TOKENS, WIDTH))
    odd = rng.random(n) < 0.1
    tokens[odd, 0] += 2 * rng.normal(size=(int(odd.sum()), WIDTH))
    tokens /= np.linalg.norm(tokens, axis=-1, keepdims=True)
    return tokens.astype(np.float32), 0.2 * rng.beta(2, 6, n)


def bank_of(tokens: np.ndarray) -> ReferenceBank:
    """The bank of photos, each thinned alone."""
    return bank_of_photos([thinned(photo[None], ROWS_OF_A_PHOTO) for photo in tokens], "0" * 64)


def nearest(tokens: np.ndarray, bank: ReferenceBank) -> np.ndarray:
    """The highest cosine of each token to each photo of a bank, [n, TOKENS, photos]."""
    cosines = tokens @ bank.tokens[0].astype(np.float32).T
    starts = np.flatnonzero(np.diff(bank.photos, prepend=-1))
    return np.maximum.reduceat(cosines, starts, axis=-1)


def scores_of(cosines: np.ndarray, zero_shot: np.ndarray) -> np.ndarray:
    """Image scores from the highest cosine of each token, [n, TOKENS]."""
    distances = np.minimum(1 - cosines, 1)
    return np.array(
        [fused_score(z, d, PARAMETERS) for z, d in zip(zero_shot, distances, strict=True)]
    )


@dataclass
class Draw:
    """One draw of good photos: the scores that calibrate, and those of fresh good parts."""

    calibrating: np.ndarray
    fresh: np.ndarray


def leave_one_out(rng: np.random.Generator, n: int, *, own_rows: bool = False) -> Draw:
    (tokens, zero_shot), (new, new_zero_shot) = photos(rng, n), photos(rng, FRESH)
    bank = bank_of(tokens)
    cosines = nearest(tokens, bank)
    if not own_rows:
        cosines[np.arange(n), :, np.arange(n)] = -1
    return Draw(
        scores_of(cosines.max(axis=-1), zero_shot),
        scores_of(nearest(new, bank).max(axis=-1), new_zero_shot),
    )


def split(rng: np.random.Generator, n: int) -> Draw:
    (tokens, zero_shot), (new, new_zero_shot) = photos(rng, n), photos(rng, FRESH)
    kept = max(1, n // 10)
    bank = bank_of(tokens[:kept])
    return Draw(
        scores_of(nearest(tokens[kept:], bank).max(axis=-1), zero_shot[kept:]),
        scores_of(nearest(new, bank).max(axis=-1), new_zero_shot),
    )


def rates_of(draws: list[Draw], rate: float, scheme) -> tuple[float, float, float]:
    """The mean true false-reject rate, its standard error, and what was promised."""
    fits = [conformal_threshold(draw.calibrating, rate, scheme) for draw in draws]
    rates = np.array(
        [(draw.fresh >= fit.threshold).mean() for draw, fit in zip(draws, fits, strict=True)]
    )
    return rates.mean(), rates.std(ddof=1) / np.sqrt(len(rates)), fits[0].expected_rate


@pytest.mark.parametrize("n", RATES)
def test_leave_one_out_keeps_its_promise(n: int) -> None:
    rng = np.random.default_rng(n)
    draws = [leave_one_out(rng, n) for _ in range(REPEATS)]
    for rate in RATES[n]:
        mean, error, promised = rates_of(draws, rate, "leave_one_out")
        assert promised <= rate
        assert mean <= rate + 3 * error
        assert mean <= promised + 3 * error
        assert mean > 0.3 * rate  # and it is no threshold that rejects nothing


@pytest.mark.parametrize("n", RATES)
def test_a_split_keeps_its_promise(n: int) -> None:
    rng = np.random.default_rng(n)
    draws = [split(rng, n) for _ in range(REPEATS)]
    for rate in RATES[n]:
        if len(draws[0].calibrating) < 1 / rate - 1:
            continue
        mean, error, promised = rates_of(draws, rate, "split")
        assert promised <= rate
        assert mean <= rate + 3 * error
        assert abs(mean - promised) <= 4 * error  # scores do not tie: the bound is reached


@pytest.mark.parametrize("n", [8, 20])
def test_too_few_photos_claim_what_they_can(n: int) -> None:
    rng = np.random.default_rng(n)
    draws = [leave_one_out(rng, n) for _ in range(REPEATS)]
    mean, error, promised = rates_of(draws, 0.01, "leave_one_out")
    assert promised == pytest.approx(1 / (n + 1))
    assert mean <= promised + 3 * error
    fit = conformal_threshold(draws[0].calibrating, 0.01, "leave_one_out")
    assert any(f"no rate below {1 / (n + 1):.2g} can be" in text for text in fit.warnings)


@pytest.mark.parametrize("n", RATES)
def test_photos_that_match_themselves_would_break_the_promise(n: int) -> None:
    """The simulation can fail: with their own rows in the bank, photos calibrate wrongly."""
    rng = np.random.default_rng(n)
    draws = [leave_one_out(rng, n, own_rows=True) for _ in range(REPEATS // 5)]
    for rate in RATES[n]:
        mean, error, _ = rates_of(draws, rate, "leave_one_out")
        assert mean > rate + 5 * error
