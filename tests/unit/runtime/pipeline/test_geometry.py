"""Geometry against Pillow, segment-anything itself and brute force."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from segment_anything.utils.transforms import ResizeLongestSide

from zeroflaw.pipeline.geometry import (
    cell_coverage,
    cell_interpolation,
    fit,
    frame_geometry,
    frame_to_sam,
    grid_to_frame,
    real_cells,
    squash,
)

SIZES = [
    (64, 64),
    (480, 640),
    (640, 480),
    (100, 37),
    (1, 1),
    (2, 3),
    (3, 500),
    (500, 3),
    (518, 518),
    (1024, 700),
    (1024, 1024),
    (1300, 1701),
]


def geometry_of(frame, *, squash_sam=False, map_size=518, sam_size=1024, feature_size=64):
    return frame_geometry(
        frame,
        map_size=map_size,
        sam_size=sam_size,
        feature_size=feature_size,
        squash_sam=squash_sam,
    )


def random_frame(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


# --- sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sam_size", [64, 1024])
@pytest.mark.parametrize("frame", [*SIZES, (4000, 6000), (999, 1000), (1000, 2001)])
def test_content_is_that_of_resize_longest_side(frame, sam_size):
    geometry = geometry_of(frame, sam_size=sam_size)
    height, width = ResizeLongestSide.get_preprocess_shape(*frame, sam_size)
    # SAM itself fails on content without height or width.
    assert geometry.sam_content == (max(1, height), max(1, width))
    assert geometry.sam_source == geometry.frame == frame
    assert max(geometry.sam_content) == sam_size


def test_content_over_many_sizes():
    for height in range(1, 2100, 13):
        for width in (1, 333, 640, 1023, 2048):
            want = ResizeLongestSide.get_preprocess_shape(height, width, 1024)
            got = geometry_of((height, width)).sam_content
            assert got == (max(1, want[0]), max(1, want[1]))


@pytest.mark.parametrize("frame", SIZES)
def test_squashed_sam_source_is_the_map_square(frame):
    geometry = geometry_of(frame, squash_sam=True)
    assert geometry.frame == frame
    assert geometry.sam_source == (518, 518)
    assert geometry.sam_content == (1024, 1024)


@pytest.mark.parametrize("content", [1, 15, 16, 17, 683, 1008, 1009, 1024])
def test_real_cells(content):
    assert real_cells(content, 16.0) == len({pixel // 16 for pixel in range(content)})


def test_cell():
    assert geometry_of((3, 4)).cell == 16
    assert geometry_of((3, 4), sam_size=64, feature_size=4).cell == 16
    assert geometry_of((3, 4), sam_size=100, feature_size=8).cell == 12.5


# --- images -----------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [*SIZES, (3000, 2000)])
@pytest.mark.parametrize("size", [32, 518])
def test_squash_is_pillows_bicubic(frame, size):
    image = random_frame(frame)
    want = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    got = squash(image, size)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, np.asarray(want))


@pytest.mark.parametrize("frame", [*SIZES, (2000, 3000)])
def test_fit_is_resize_longest_side(frame):
    image, geometry = random_frame(frame), geometry_of(frame)
    got = fit(image, geometry)
    height, width = geometry.sam_content
    assert got.shape == (1024, 1024, 3)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got[:height, :width], ResizeLongestSide(1024).apply_image(image))
    assert not got[height:].any()
    assert not got[:, width:].any()


def test_fit_of_a_frame_too_narrow_for_sam():
    image = random_frame((1, 3000))
    got = fit(image, geometry_of((1, 3000)))
    want = Image.fromarray(image).resize((1024, 1), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(got[:1], np.asarray(want))
    assert not got[1:].any()


def test_fit_of_the_squashed_frame():
    image = random_frame((120, 333))
    geometry = geometry_of((120, 333), squash_sam=True)
    square = Image.fromarray(image).resize((518, 518), Image.Resampling.BICUBIC)
    want = square.resize((1024, 1024), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(fit(squash(image, 518), geometry), np.asarray(want))


@pytest.mark.parametrize("frame", [(64, 64), (518, 518), (100, 37)])
def test_images_are_not_altered(frame):
    image = random_frame(frame)
    before = image.copy()
    squash(image, 518)
    fit(image, geometry_of(frame))
    np.testing.assert_array_equal(image, before)


# --- points -----------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [*SIZES, (4000, 6000)])
def test_frame_to_sam_is_apply_coords(frame, rng):
    points = rng.random((50, 2)) * frame[::-1]
    got = frame_to_sam(points, geometry_of(frame))
    assert got.dtype == np.float32
    np.testing.assert_allclose(
        got, ResizeLongestSide(1024).apply_coords(points, frame), rtol=1e-6, atol=1e-5
    )


@pytest.mark.parametrize("frame", SIZES)
def test_frame_to_sam_by_way_of_the_squashed_frame(frame, rng):
    points = rng.random((50, 2)) * frame[::-1]
    scale = np.array([518 / frame[1], 518 / frame[0]])
    # Centres stay together between frame and squashed frame; from there on it is SAM's business.
    squashed = points if frame == (518, 518) else (points + 0.5) * scale - 0.5
    want = ResizeLongestSide(1024).apply_coords(squashed, (518, 518))
    got = frame_to_sam(points, geometry_of(frame, squash_sam=True))
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("frame", SIZES)
@pytest.mark.parametrize("grid", [(518, 518), (683, 1024), (1, 64)])
def test_grid_to_frame_keeps_centres_together(frame, grid):
    ys, xs = np.mgrid[0 : grid[0] : 7, 0 : grid[1] : 11]
    points = np.stack([xs.ravel(), ys.ravel()], axis=1)
    got = grid_to_frame(points, grid, geometry_of(frame))
    want = [
        (
            float(Fraction(2 * x + 1, 2) * Fraction(frame[1], grid[1]) - Fraction(1, 2)),
            float(Fraction(2 * y + 1, 2) * Fraction(frame[0], grid[0]) - Fraction(1, 2)),
        )
        for x, y in points.tolist()
    ]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_grid_to_frame_corners():
    geometry = geometry_of((100, 200))
    points = np.array([[0, 0], [1, 1]])
    assert grid_to_frame(points, (2, 2), geometry).tolist() == [[49.5, 24.5], [149.5, 74.5]]
    assert grid_to_frame(np.zeros((0, 2)), (2, 2), geometry).shape == (0, 2)


# --- feature cells ----------------------------------------------------------------------------

AXES = [
    (518, 1024, 16, 64),
    (518, 683, 16, 64),
    (518, 1, 16, 64),
    (683, 683, 16, 64),
    (64, 128, 16, 8),
    (64, 43, 16, 8),
    (5, 128, 16, 8),
    (1, 100, 16, 8),
    (1, 1, 16, 8),
]


def exact_coverage(grid, content, cell, cells):
    table = np.zeros((cells, grid))
    for i in range(grid):
        left, right = Fraction(i * content, grid), Fraction((i + 1) * content, grid)
        for j in range(int(left) // cell, min(cells, int(right) // cell + 1)):
            table[j, i] = max(Fraction(0), min(right, (j + 1) * cell) - max(left, j * cell)) / cell
    return table


@pytest.mark.parametrize(("grid", "content", "cell", "cells"), AXES)
def test_cell_coverage(grid, content, cell, cells):
    got = cell_coverage(grid, content, float(cell), cells)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, exact_coverage(grid, content, cell, cells), atol=1e-6)
    # Every pixel lies in some cell with all of its width.
    np.testing.assert_allclose(got.sum(axis=0), content / grid / cell, rtol=1e-5)


def test_cell_coverage_is_zero_where_intervals_only_touch():
    # The right edge of pixel 335 is at 336 * 666 / 518 = 432 = 27 * 16 px exactly.
    got = cell_coverage(518, 666, 16.0, 64)
    assert got[26, 335] > 0
    assert got[27, 335] == 0


@pytest.mark.parametrize(("grid", "content", "cell", "cells"), AXES)
def test_cell_interpolation(grid, content, cell, cells, rng):
    got = cell_interpolation(grid, content, float(cell), cells)
    real = -(-content // cell)
    values = rng.random(cells)
    want = []
    for i in range(grid):
        at = (Fraction(2 * i + 1, 2) * Fraction(content, grid)) / cell - Fraction(1, 2)
        at = min(max(at, Fraction(0)), Fraction(real - 1))
        low = int(at)
        high = min(low + 1, real - 1)
        want.append(values[low] + float(at - low) * (values[high] - values[low]))
    np.testing.assert_allclose(got @ values, want, atol=1e-5)
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-6)
    assert not got[:, real:].any()
    assert got.dtype == np.float32
