"""Calibration: what the threshold promises, against simulation and exact arithmetic."""

from __future__ import annotations

import hashlib
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zeroflaw.records.threshold import decision_threshold
from zeroflaw.station.calibration import score_good_images
from zeroflaw.station.conformal import conformal_threshold
from zeroflaw_engines.bundle.manifest import Calibration, Product
from zeroflaw_engines.errors import CalibrationError, ImageFileError, MissingExtraError
from zeroflaw_engines.parameters import MethodParameters

DRAWS = 3000


def evenly(n: int) -> np.ndarray:
    return np.arange(1, n + 1) / (n + 2)


def simulate(rng: np.random.Generator, n: int, rate: float):
    """True false-reject rates of thresholds from draws of n uniform scores, and an interval.

    A part with a uniform score is rejected with the probability 1 - threshold.
    """
    fits = [conformal_threshold(rng.random(n), rate) for _ in range(DRAWS)]
    assert len({fit.interval for fit in fits}) == 1  # n and rank alone decide
    return np.array([1 - fit.threshold for fit in fits]), fits[0]


@pytest.mark.parametrize(
    ("n", "rate"), [(19, 0.05), (40, 0.05), (99, 0.05), (99, 0.01), (150, 0.1), (60, 0.3)]
)
def test_the_mean_rate_is_as_promised_and_the_interval_covers(rng, n: int, rate: float) -> None:
    rates, fit = simulate(rng, n, rate)
    error = 4 * rates.std() / np.sqrt(DRAWS)
    assert rates.mean() <= rate + error
    # ... and the largest rank that keeps the promise is taken: one more would miss the aim.
    assert abs(rates.mean() - fit.expected_rate) <= error
    assert fit.expected_rate <= rate + 1e-12 < fit.expected_rate + 1 / (n + 1) + 2e-12
    low, high = fit.interval
    below, above = (rates < low).mean(), (rates > high).mean()
    error = 4 * np.sqrt(0.025 * 0.975 / DRAWS)
    assert abs(below - 0.025) <= error
    assert abs(above - 0.025) <= error


@pytest.mark.parametrize("shape", [(2, 5), (0.5, 0.5), (30, 1)])
def test_the_distribution_of_scores_does_not_matter(rng, shape: tuple[float, float]) -> None:
    from scipy.stats import beta

    rates = [
        beta.sf(conformal_threshold(rng.beta(*shape, size=50), 0.1).threshold, *shape)
        for _ in range(DRAWS)
    ]
    assert np.mean(rates) <= 0.1 + 4 * np.std(rates) / np.sqrt(DRAWS)
    assert np.mean(rates) >= 0.08


def test_scores_that_tie_are_rejected_no_more_often(rng) -> None:
    """Six possible scores: the promise holds, and the interval's upper end too."""
    levels = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    share = np.array([0.3, 0.3, 0.2, 0.1, 0.07, 0.03])
    rates, missed, told = [], 0, 0
    for _ in range(DRAWS):
        scores = rng.choice(levels, 40, p=share)
        fit = conformal_threshold(scores, 0.1)
        assert fit.observed_rate == (scores >= fit.threshold).mean()
        rate = share[levels >= fit.threshold].sum()
        rates.append(rate)
        missed += rate > fit.interval[1]
        told += any("good images share" in text for text in fit.warnings)
    assert np.mean(rates) <= 0.1
    assert missed / DRAWS <= 0.025 + 4 * np.sqrt(0.025 * 0.975 / DRAWS)
    assert told > DRAWS / 2


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.02, 0.05, 0.1, 0.25, 0.3, 1 / 3, 0.5, 0.9])
def test_the_rank_is_exact(rate: float) -> None:
    for n in (1, 2, 9, 10, 19, 20, 98, 99, 100, 199, 299, 998, 999, 1000):
        fit = conformal_threshold(evenly(n), rate)
        exact = Fraction(str(rate))
        # The smallest k whose expected rate, 1 - k / (n + 1), is no more than the aim.
        wanted = next(k for k in range(1, n + 2) if 1 - Fraction(k, n + 1) <= exact)
        assert fit.rank == min(wanted, n)
        assert (wanted > n) == any("too few" in text for text in fit.warnings)


@pytest.mark.parametrize("n", [1, 99, 250])
def test_the_score_of_the_rank_is_accepted_and_the_next_is_not(n: int) -> None:
    scores = evenly(n)
    fit = conformal_threshold(np.random.default_rng(n).permutation(scores), 0.01)
    assert scores[fit.rank - 1] < fit.threshold
    assert (scores[fit.rank :] >= fit.threshold).all()
    assert fit.observed_rate == (scores >= fit.threshold).mean() == (n - fit.rank) / n
    # Engines give float32: nothing of theirs fits between the score and the threshold.
    score = np.float32(scores[fit.rank - 1])
    single = conformal_threshold([score], 0.5).threshold
    assert float(score) < single < float(np.nextafter(score, np.float32(1)))


def test_too_few_images_are_told_with_what_it_takes() -> None:
    fit = conformal_threshold(evenly(98), 0.01)
    assert fit.rank == 98
    (text,) = fit.warnings
    assert "98 good images are too few" in text
    assert "it takes 99" in text
    assert "no rate below 0.01 can" in text
    assert conformal_threshold(evenly(99), 0.01).warnings == ()
    (text,) = conformal_threshold([0.2, 0.3, 0.1], 0.001).warnings
    assert "it takes 999" in text
    assert "no rate below 0.25 can" in text


def test_the_interval_is_exact_for_the_highest_of_n() -> None:
    """P(rate <= x) = 1 - (1 - x)^n if the threshold lies above all of n scores."""
    low, high = conformal_threshold(evenly(120), 0.001).interval
    assert 1 - (1 - low) ** 120 == pytest.approx(0.025)
    assert 1 - (1 - high) ** 120 == pytest.approx(0.975)


def test_scores_of_one_are_refused_where_the_threshold_would_have_to_exceed_them() -> None:
    with pytest.raises(CalibrationError, match="3 of 10 good images have the highest score"):
        conformal_threshold([0.5] * 7 + [1.0] * 3, 0.1)
    # Where so few may be rejected, they are.
    fit = conformal_threshold([*evenly(18), 1.0], 0.1)
    assert fit.rank == 18
    assert fit.observed_rate == 1 / 19
    below = np.nextafter(1.0, 0.0)
    assert conformal_threshold([below], 0.5).threshold == 1.0


@pytest.mark.parametrize(
    "scores", [[], [np.nan], [0.5, np.nan], [0.5, np.inf], [-0.1, 0.5], [0.5, 1.1]]
)
def test_scores_that_are_none_are_refused(scores: list[float]) -> None:
    with pytest.raises(CalibrationError) as caught:
        conformal_threshold(scores, 0.5)
    assert caught.value.remedy


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 2.0, float("nan"), float("inf")])
def test_rates_out_of_range_are_refused(rate: float) -> None:
    with pytest.raises(CalibrationError, match="false-reject rate"):
        conformal_threshold([0.5], rate)


def test_the_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    with pytest.raises(MissingExtraError) as caught:
        conformal_threshold([0.5], 0.5)
    assert "zeroflaw[evaluate]" in caught.value.remedy


@pytest.fixture
def parts(tmp_path: Path, rng) -> list[Path]:
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        Image.fromarray(np.full((8, 8, 3), 20 * i, np.uint8)).save(path)
    return paths


def brightness(frame: np.ndarray) -> float:
    return float(frame.mean()) / 255


def test_each_content_counts_once_and_bad_files_are_reported(
    parts: list[Path], tmp_path: Path
) -> None:
    copy, cut, missing = tmp_path / "copy.png", tmp_path / "cut.png", tmp_path / "missing.png"
    copy.write_bytes(parts[1].read_bytes())
    cut.write_bytes(parts[1].read_bytes()[:40])
    files = [*parts[:3], cut, copy, *parts[3:], missing]
    seen = []
    good = score_good_images(files, brightness, progress=lambda *what: seen.append(what))
    np.testing.assert_allclose(good.scores, np.arange(5) * 20 / 255)
    assert good.copies == (copy,)
    assert good.failed == (cut, missing)
    assert [path for path, _ in seen] == files
    assert {path for path, error in seen if isinstance(error, ImageFileError)} == {cut, missing}
    assert all(error is None for path, error in seen if path not in (cut, missing))


def test_the_digest_is_of_the_contents_alone(parts: list[Path], tmp_path: Path) -> None:
    digest = score_good_images(parts, brightness).digest
    lines = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in parts)
    assert digest == hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    renamed = parts[0].rename(tmp_path / "renamed.png")
    assert score_good_images([*parts[:0:-1], renamed, parts[1]], brightness).digest == digest
    assert score_good_images(parts[1:], brightness).digest != digest


def test_good_images_are_read_at_their_white_level(parts: list[Path], tmp_path: Path) -> None:
    expected = score_good_images(parts, brightness).scores
    deep = []
    for path in parts:
        values = np.round(np.asarray(Image.open(path).convert("L")) * (4095 / 255))
        deep.append(tmp_path / f"deep_{path.name}")
        Image.fromarray(values.astype(np.uint16)).save(deep[-1])
    np.testing.assert_allclose(score_good_images(deep, brightness).scores, expected / 16, atol=0.01)
    good = score_good_images(deep, brightness, white_level=4095)
    np.testing.assert_allclose(good.scores, expected)


def test_what_is_to_be_known_of_good_images_is_told(parts: list[Path], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    tall = np.arange(200, dtype=np.uint8).reshape(20, 10)
    Image.fromarray(tall).save(tmp_path / "turned.png", exif=exif)
    shapes = []
    for orientation in ("as_stored", "apply"):
        good = score_good_images(
            [*parts, tmp_path / "turned.png"],
            lambda frame: shapes.append(frame.shape[:2]) or brightness(frame),
            orientation=orientation,
        )
        assert len(good.warnings) == 1
        assert "turned.png: its orientation tag is 6" in good.warnings[0]
    assert (shapes[5], shapes[11]) == ((20, 10), (10, 20))


def test_no_readable_image_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="there is no image"):
        score_good_images([], brightness)
    with pytest.raises(CalibrationError, match="none of 2 files could be judged"):
        score_good_images([tmp_path / "a.png", tmp_path / "b.png"], brightness)


def entry(threshold: float | None, scoring: str | None) -> Product:
    if scoring is None:
        return Product(sentences=(1, 1), threshold=threshold)
    calibration = Calibration(
        false_reject_rate=0.1,
        images=9,
        rank=9,
        interval=(0.0, 0.3),
        observed_rate=0.0,
        image_scoring=scoring,  # type: ignore[arg-type]
        data_digest="0" * 64,
        created="",
    )
    return Product(sentences=(1, 1), threshold=threshold, calibration=calibration)


@pytest.mark.parametrize(
    ("product", "scoring", "threshold", "warned"),
    [
        (entry(None, None), "cls", 0.4, False),
        (entry(0.7, None), "cls", 0.7, False),
        (entry(0.0, None), "map_max", 0.0, False),
        (entry(0.7, "cls"), "cls", 0.7, False),
        (entry(0.7, "map_max"), "map_max", 0.7, False),
        (entry(0.7, "cls"), "map_max", 0.4, True),
        (entry(0.7, "map_max"), "cls", 0.4, True),
    ],
)
def test_a_threshold_is_not_applied_to_another_score(
    product: Product, scoring: str, threshold: float, warned: bool
) -> None:
    parameters = MethodParameters(image_scoring=scoring, decision_threshold=0.4)
    got, warnings = decision_threshold("nut", product, parameters)
    assert got == threshold
    assert bool(warnings) == warned
    if warned:
        assert "'nut'" in warnings[0]
        assert "0.4" in warnings[0]
