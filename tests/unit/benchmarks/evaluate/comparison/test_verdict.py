"""Which row is called the best, and what is said of the others."""

from __future__ import annotations

import numpy as np
import pytest

from zeroflaw_benchmarks.evaluate.comparison.verdict import verdict_of

NAMES = ["a", "b", "c"]
DRAWS = 200


def said(values, milliseconds, resampled=None, within_ms=None, varied=100):
    spread = np.linspace(-0.01, 0.01, DRAWS)
    drawn = resampled or [np.full(DRAWS, value) + spread for value in values]
    return verdict_of(
        NAMES,
        values,
        milliseconds,
        drawn,
        best_by="ap",
        within_ms=within_ms,
        dataset="nuts",
        varied=varied,
    )


def test_the_highest_is_best_and_the_others_are_told_from_it():
    got = said([0.5, 0.8, 0.7], [10, 300, 40])
    assert got.best == "b"
    assert got.text.startswith("Best for nuts by AP: b (80.0 %, 300 ms).")
    assert {(rival.name, rival.share) for rival in got.rivals} == {("a", 1), ("c", 1)}
    assert "c (70.0 %) in over 99.9 %" in got.text
    assert "cannot" not in got.text


def test_the_bound_leaves_slower_rows_out():
    got = said([0.5, 0.8, 0.7], [10, 300, 40], within_ms=40)
    assert got.best == "c"
    assert "by AP within 40 ms: c" in got.text
    assert [rival.name for rival in got.rivals] == ["a"]
    got = said([0.5, 0.8, 0.7], [10, 300, 40], within_ms=9)
    assert got.best is None
    assert got.text == "No method is best for nuts by AP within 9 ms: the fastest row takes 10 ms."


def test_what_a_data_set_cannot_tell_apart_is_said():
    draws = np.random.default_rng(0).normal(0.7, 0.05, DRAWS)
    apart = np.where(np.arange(DRAWS) < 0.8 * DRAWS, -0.01, 0.01)
    got = said([0.7, 0.69, 0.5], [10, 10, 10], [draws, draws + apart, draws - 0.2])
    assert got.best == "a"
    shares = {rival.name: rival.share for rival in got.rivals}
    assert shares == {"b": pytest.approx(0.8), "c": 1}
    assert "It is better than c (50.0 %) in over 99.9 % of the resamplings" in got.text
    assert (
        "The data set cannot tell it from b (69.0 %), better in 80 % of the resamplings" in got.text
    )


def test_equal_rows_tie_and_the_faster_is_named():
    draws = np.linspace(0.5, 0.6, DRAWS)
    got = said([0.55, 0.55, 0.1], [20, 10, 1], [draws, draws, draws - 0.4])
    assert got.best == "b"
    assert got.rivals[0].name == "a"
    assert got.rivals[0].share == 0.5


def test_an_undefined_figure_is_never_the_best():
    nan = float("nan")
    got = said([nan, 0.2, nan], [1, 1, 1])
    assert (got.best, got.rivals) == ("b", ())
    got = said([nan, nan, nan], [1, 1, 1])
    assert got.best is None
    assert "none of the rows has a defined AP" in got.text


def test_of_a_few_images_nothing_is_sure():
    """Every draw of one defective image is that image: all shares are 100 %, and say nothing."""
    got = said([0.5, 0.8, 0.7], [10, 300, 40], varied=4)
    assert got.best == "b"
    assert "It is better than" not in got.text
    assert "too few images to tell it from" in got.text
    assert "It is better than" in said([0.5, 0.8, 0.7], [10, 300, 40], varied=5).text
