"""The parts of PPG: the ring around the extreme region, and points that keep apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.prompt_point_oracle import (
    ELLIPSE_25,
    SPACINGS,
    dilated,
    greedy,
)
from zeroflaw.pipeline.refining.prompt_points import spaced_best, surrounding_ring
from zeroflaw_engines.parameters import MethodParameters


@pytest.mark.parametrize("kernel", ["ellipse", "rectangle", "cross"])
def test_ring_of_random_regions(kernel, rng):
    for density in (0.001, 0.02, 0.5):
        region = rng.random((50, 40)) < density
        region[49, 0] = True
        ring = surrounding_ring(region, MethodParameters(dilation_kernel=kernel))
        np.testing.assert_array_equal(ring, dilated(region, kernel, 25) & ~region)
        assert ring.dtype == np.bool_


@pytest.mark.parametrize("size", [2, 20, 30])
@pytest.mark.parametrize("kernel", ["rectangle", "cross"])
def test_ring_of_even_kernels(kernel, size, rng):
    region = rng.random((60, 70)) < 0.002
    region[30, 30] = True
    ring = surrounding_ring(region, MethodParameters(dilation_kernel=kernel, dilation_size=size))
    np.testing.assert_array_equal(ring, dilated(region, kernel, size) & ~region)


def test_ellipse_has_477_pixels():
    region = np.zeros((25, 25), bool)
    region[12, 12] = True
    ring = surrounding_ring(region, MethodParameters())
    assert [(row.sum() - 1) // 2 for row in ring | region] == ELLIPSE_25
    assert ring.sum() == 476


@given(
    # Few distinct values: ties everywhere.
    values=st.lists(st.integers(0, 3), min_size=70, max_size=70),
    allowed=st.lists(st.booleans(), min_size=70, max_size=70).filter(any),
    count=st.integers(1, 10),
    kind=st.sampled_from(SPACINGS),
    spacing=st.integers(1, 30),
)
@settings(max_examples=200, deadline=None)
def test_spaced_best_is_greedy(values, allowed, count, kind, spacing):
    score = np.array(values, np.float32).reshape(7, 10)
    mask = np.array(allowed).reshape(7, 10)
    parameters = MethodParameters(point_spacing=kind, spacing_pixels=spacing)
    got = spaced_best(score, mask, count, parameters)
    assert [tuple(p) for p in got.tolist()] == greedy(score, mask, count, kind, spacing)


@pytest.mark.parametrize(
    ("kind", "apart", "points"),
    [
        ("cell", 19, 1),
        ("cell", 20, 2),
        ("euclidean", 399, 1),
        ("euclidean", 400, 2),
        ("rank_stride", 400, 1),
    ],
)
def test_default_spacing_of_two_pixels(kind, apart, points):
    allowed = np.zeros((3, 500), bool)
    allowed[1, [40, 40 + apart]] = True
    score = np.zeros((3, 500), np.float32)
    got = spaced_best(score, allowed, 10, MethodParameters(point_spacing=kind))
    assert got[:, 0].tolist() == [40, 40 + apart][:points]


def test_rank_stride_takes_every_400th_of_the_ranking():
    score = np.random.default_rng(5).permutation(3000).reshape(50, 60).astype(np.float32)
    got = spaced_best(
        score, np.ones((50, 60), bool), 10, MethodParameters(point_spacing="rank_stride")
    )
    assert [score[y, x] for x, y in got] == [2999 - 400 * i for i in range(8)]
