"""PPG against a slow oracle written from sections 3.1 and 4 of the method's description."""

import itertools
import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroflaw.pipeline.geometry import frame_geometry
from zeroflaw.pipeline.prompt_points import point_prompts, spaced_best, surrounding_ring
from zeroflaw_engines.parameters import MethodParameters

# Half-widths of the rows of the 25 x 25 ellipse (477 ones), top to bottom.
ELLIPSE_25 = [0, 5, 7, 8, 9, 10, 10, 11, 11, *[12] * 7, 11, 11, 10, 10, 9, 8, 7, 5, 0]

FRAMES = [(48, 48), (30, 90), (90, 30), (1, 1), (3, 500), (600, 4)]
SPACINGS = ["cell", "euclidean", "rank_stride"]
# Spacings under which a 64-px map still has room for several points.
SPACING_PIXELS = {"cell": 30, "euclidean": 6, "rank_stride": 37}


def small_geometry(frame, *, squash_sam=False, map_size=64):
    return frame_geometry(
        frame, map_size=map_size, sam_size=128, feature_size=8, squash_sam=squash_sam
    )


def smooth_map(seed, size=64, sigma=5):
    noise = np.random.default_rng(seed).normal(size=(size, size))
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma)
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)


def random_features(seed, channels=6, cells=8):
    return np.random.default_rng(seed).normal(size=(channels, cells, cells)).astype(np.float32)


# --- the oracle -------------------------------------------------------------------------------


def offsets(kernel, size):
    low = -(size // 2)
    span = range(low, low + size)
    if kernel == "rectangle":
        return [(dy, dx) for dy in span for dx in span]
    if kernel == "cross":
        return [(dy, 0) for dy in span] + [(0, dx) for dx in span]
    assert size == 25
    return [(row - 12, dx) for row, half in enumerate(ELLIPSE_25) for dx in range(-half, half + 1)]


def dilated(region, kernel, size):
    height, width = region.shape
    out = np.zeros_like(region)
    ys, xs = np.nonzero(region)
    for dy, dx in offsets(kernel, size):
        # dst(p) = max over the kernel of src(p + offset)
        y, x = ys - dy, xs - dx
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        out[y[inside], x[inside]] = True
    return out


def greedy(score, allowed, count, spacing_kind, spacing):
    ys, xs = np.nonzero(allowed)
    pixels = sorted(
        zip(ys.tolist(), xs.tolist(), strict=True), key=lambda p: (-score[p], p[0], p[1])
    )
    if spacing_kind == "rank_stride":
        return [(x, y) for y, x in pixels[::spacing][:count]]
    apart_squared = spacing if spacing_kind == "cell" else spacing**2
    taken = []
    for y, x in pixels:
        if len(taken) == count:
            break
        if all((y - v) ** 2 + (x - u) ** 2 >= apart_squared for u, v in taken):
            taken.append((x, y))
    return taken


def is_greedy_up_to_rounding(points, score, allowed, count, spacing_kind, spacing, within=2e-6):
    """Whether each point is as good as the best one left, but for rounding."""
    if not all(allowed[y, x] for x, y in points):
        return False
    if spacing_kind == "rank_stride":
        ranked = np.sort(score[allowed])[::-1][::spacing][:count]
        taken = np.array([score[y, x] for x, y in points])
        return len(taken) == len(ranked) and bool((abs(taken - ranked) <= within).all())
    apart_squared = spacing if spacing_kind == "cell" else spacing**2
    ys, xs = np.mgrid[: score.shape[0], : score.shape[1]]
    left = allowed.copy()
    for x, y in points:
        if not left[y, x] or score[y, x] < score[left].max() - within:
            return False
        left &= (ys - y) ** 2 + (xs - x) ** 2 >= apart_squared
    return len(points) == count or not left.any()


def overlap(grid, content, cell, cells):
    """Overlap of pixels and cells along one axis, in whole units of 1 / grid px."""
    table = np.zeros((cells, grid), dtype=np.int64)
    for j, i in itertools.product(range(cells), range(grid)):
        low, high = max(i * content, j * cell * grid), min((i + 1) * content, (j + 1) * cell * grid)
        table[j, i] = max(0, high - low)
    return table


def bilinear(values, height, width, at_y, at_x):
    """Values[height, width] at fractional indices, the border repeated."""
    at_y, at_x = np.clip(at_y, 0, height - 1), np.clip(at_x, 0, width - 1)
    y0, x0 = np.floor(at_y).astype(int), np.floor(at_x).astype(int)
    y1, x1 = np.minimum(y0 + 1, height - 1), np.minimum(x0 + 1, width - 1)
    fy, fx = (at_y - y0)[:, None], (at_x - x0)[None, :]
    top = values[np.ix_(y0, x0)] * (1 - fx) + values[np.ix_(y0, x1)] * fx
    bottom = values[np.ix_(y1, x0)] * (1 - fx) + values[np.ix_(y1, x1)] * fx
    return top * (1 - fy) + bottom * fy


def similarity_map(features, region, content, cell, kind):
    cells = features.shape[1]
    grid_h, grid_w = region.shape
    rows, columns = math.ceil(content[0] / cell), math.ceil(content[1] / cell)
    area = (
        overlap(grid_h, content[0], cell, cells)
        @ region.astype(np.int64)
        @ overlap(grid_w, content[1], cell, cells).T
    )[:rows, :columns]
    vectors = features[:, :rows, :columns].astype(np.float64)
    unit = vectors / np.sqrt((vectors**2).sum(axis=0))
    if kind == "prototype":
        prototype = (vectors * area).sum(axis=(1, 2)) / area.sum()
        prototype /= np.sqrt((prototype**2).sum())
        cosine = (unit * prototype[:, None, None]).sum(axis=0)
    else:
        covered = [unit[:, r, c] for r, c in zip(*np.nonzero(area), strict=True)]
        cosine = np.max([(unit * v[:, None, None]).sum(axis=0) for v in covered], axis=0)
    at_y = (np.arange(grid_h) + 0.5) * content[0] / grid_h / cell - 0.5
    at_x = (np.arange(grid_w) + 0.5) * content[1] / grid_w / cell - 0.5
    return bilinear(cosine, rows, columns, at_y, at_x)


def oracle(anomaly_map, features, geometry, p):
    side = len(anomaly_map)
    grid = (side, side)
    values = anomaly_map.astype(np.float64)
    if p.prompt_grid == "sam":
        grid = geometry.sam_content
        at_y = (np.arange(grid[0]) + 0.5) * side / grid[0] - 0.5
        at_x = (np.arange(grid[1]) + 0.5) * side / grid[1] - 0.5
        values = bilinear(values, side, side, at_y, at_x)
    region = values > p.extreme_threshold
    seeded = not region.any()
    if seeded:
        if p.no_region == "skip":
            return None
        region[np.unravel_index(values.argmax(), grid)] = True
    positives = greedy(values, region, p.positive_points, p.point_spacing, p.spacing_pixels)
    ring = dilated(region, p.dilation_kernel, p.dilation_size) & ~region
    negatives, similarity = [], None
    if ring.any() and p.negative_points:
        cell = geometry.sam_size // geometry.feature_size
        similarity = similarity_map(features, region, geometry.sam_content, cell, p.similarity)
        negatives = greedy(-similarity, ring, p.negative_points, p.point_spacing, p.spacing_pixels)
    return SimpleNamespace(
        grid=grid,
        positives=positives,
        negatives=negatives,
        region=region,
        seeded=seeded,
        ring=ring,
        similarity=similarity,
    )


def grid_points(prompts, geometry, grid):
    """Points of the grid that belong to points in the frame; they must be its pixel centres."""
    frame = np.array(geometry.frame[::-1], np.float64)
    size = np.array(grid[::-1], np.float64)
    at = (prompts.coords.astype(np.float64) + 0.5) * size / frame - 0.5
    whole = np.rint(at)
    # A frame pixel as float32 is known to 1 part in 2^24.
    np.testing.assert_allclose(at, whole, atol=1e-4 * max(1, (size / frame).max()))
    return [tuple(p) for p in whole.astype(int).tolist()]


def assert_as_oracle(anomaly_map, features, geometry, parameters):
    got = point_prompts(anomaly_map, features, geometry, parameters)
    want = oracle(anomaly_map, features, geometry, parameters)
    if want is None:
        assert got is None
        return None
    points = grid_points(got, geometry, want.grid)
    positives = [p for p, label in zip(points, got.labels, strict=True) if label == 1]
    negatives = [p for p, label in zip(points, got.labels, strict=True) if label == 0]
    assert points == positives + negatives
    assert positives == want.positives
    if parameters.similarity == "max_pair" and negatives != want.negatives:
        # Every covered cell has a cosine of 1 with itself, so that Map_s has plateaus on which
        # rounding alone decides.
        valid = is_greedy_up_to_rounding(
            negatives,
            -want.similarity,
            want.ring,
            parameters.negative_points,
            parameters.point_spacing,
            parameters.spacing_pixels,
        )
        assert valid, f"{negatives} are not the lowest of Map_s, such as {want.negatives}"
    else:
        assert negatives == want.negatives
    np.testing.assert_array_equal(got.extreme_region, want.region)
    assert got.from_region is not want.seeded
    assert got.coords.dtype == np.float32
    assert got.labels.dtype == np.int32
    return want


# --- point_prompts ----------------------------------------------------------------------------


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("point_spacing", SPACINGS)
@pytest.mark.parametrize("similarity", ["prototype", "max_pair"])
@pytest.mark.parametrize("dilation_kernel", ["ellipse", "rectangle", "cross"])
@pytest.mark.parametrize("prompt_grid", ["map", "sam"])
def test_points_are_those_of_the_oracle(
    frame, point_spacing, similarity, dilation_kernel, prompt_grid
):
    parameters = MethodParameters(
        extreme_threshold=0.8,
        positive_points=6,
        negative_points=5,
        point_spacing=point_spacing,
        spacing_pixels=SPACING_PIXELS[point_spacing],
        similarity=similarity,
        dilation_kernel=dilation_kernel,
        prompt_grid=prompt_grid,
    )
    for seed in (1, 2):
        assert_as_oracle(smooth_map(seed), random_features(seed), small_geometry(frame), parameters)


@pytest.mark.parametrize("count", range(1, 11))
@pytest.mark.parametrize("point_spacing", SPACINGS)
def test_every_count(count, point_spacing):
    parameters = MethodParameters(
        extreme_threshold=0.6,
        positive_points=count,
        negative_points=count,
        point_spacing=point_spacing,
        spacing_pixels=SPACING_PIXELS[point_spacing],
    )
    want = assert_as_oracle(smooth_map(3), random_features(3), small_geometry((40, 56)), parameters)
    assert len(want.positives) == len(want.negatives) == count


@pytest.mark.parametrize("negative_points", [0, 4])
def test_signs_have_counts_of_their_own(negative_points):
    parameters = MethodParameters(
        extreme_threshold=0.6,
        positive_points=2,
        negative_points=negative_points,
        spacing_pixels=30,
    )
    got = point_prompts(smooth_map(3), random_features(3), small_geometry((40, 56)), parameters)
    assert got.labels.tolist() == [1, 1] + [0] * negative_points


@pytest.mark.parametrize(("kernel", "size"), [("rectangle", 7), ("cross", 31), ("rectangle", 1)])
def test_dilation_of_other_sizes(kernel, size):
    parameters = MethodParameters(
        extreme_threshold=0.8, dilation_kernel=kernel, dilation_size=size, spacing_pixels=9
    )
    for seed in range(3):
        assert_as_oracle(
            smooth_map(seed), random_features(seed), small_geometry((50, 70)), parameters
        )


@pytest.mark.parametrize("similarity", ["prototype", "max_pair"])
@pytest.mark.parametrize("frame", [(480, 640), (700, 250), (1536, 1536)])
def test_sizes_of_the_paper(frame, similarity):
    geometry = frame_geometry(frame, map_size=518, sam_size=1024, feature_size=64, squash_sam=False)
    parameters = MethodParameters(extreme_threshold=0.85, similarity=similarity)
    anomaly_map, features = smooth_map(11, size=518, sigma=25), random_features(11, cells=64)
    want = assert_as_oracle(anomaly_map, features, geometry, parameters)
    assert len(want.positives) == len(want.negatives) == 3


@pytest.mark.parametrize("prompt_grid", ["map", "sam"])
@pytest.mark.parametrize("frame", [(30, 90), (3, 500)])
def test_squashed_sam_input(frame, prompt_grid):
    parameters = MethodParameters(
        extreme_threshold=0.8, prompt_grid=prompt_grid, spacing_pixels=30, sam_input="squashed"
    )
    for seed in (4, 5):
        want = assert_as_oracle(
            smooth_map(seed),
            random_features(seed),
            small_geometry(frame, squash_sam=True),
            parameters,
        )
        assert want.grid == ((64, 64) if prompt_grid == "map" else (128, 128))


CORNERS = [(0, 0), (0, 58), (58, 0), (58, 58), (0, 30), (30, 58)]


@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("similarity", ["prototype", "max_pair"])
def test_regions_at_the_border(corner, similarity):
    y, x = corner
    anomaly_map = 0.4 * smooth_map(6)
    anomaly_map[y : y + 6, x : x + 6] += 0.55
    parameters = MethodParameters(spacing_pixels=20, similarity=similarity)
    want = assert_as_oracle(anomaly_map, random_features(6), small_geometry((64, 80)), parameters)
    assert want.region.sum() == 36
    assert want.negatives


def test_region_that_fills_the_map_has_no_negatives():
    anomaly_map = 0.6 + 0.4 * smooth_map(7)
    got = point_prompts(
        anomaly_map, random_features(7), small_geometry((40, 60)), MethodParameters()
    )
    assert got.extreme_region.all()
    assert got.labels.tolist() == [1, 1, 1]


@pytest.mark.parametrize("pixel", [(20, 41), (0, 0), (63, 63), (0, 17)])
@pytest.mark.parametrize("point_spacing", SPACINGS)
def test_single_pixel(pixel, point_spacing):
    anomaly_map = np.full((64, 64), 0.1, np.float32)
    anomaly_map[pixel] = 0.9
    parameters = MethodParameters(point_spacing=point_spacing, spacing_pixels=5)
    want = assert_as_oracle(anomaly_map, random_features(8), small_geometry((64, 48)), parameters)
    assert want.positives == [pixel[::-1]]


def test_pixel_at_the_threshold_is_not_extreme():
    anomaly_map = np.full((64, 64), 0.5, np.float32)
    geometry = small_geometry((20, 20))
    assert point_prompts(anomaly_map, random_features(1), geometry, MethodParameters()) is None
    anomaly_map[5, 9] = np.nextafter(np.float32(0.5), np.float32(1))
    got = point_prompts(anomaly_map, random_features(1), geometry, MethodParameters())
    assert np.argwhere(got.extreme_region).tolist() == [[5, 9]]


@pytest.mark.parametrize("prompt_grid", ["map", "sam"])
@pytest.mark.parametrize("frame", [(48, 48), (30, 90), (1, 1), (3, 500)])
def test_no_region(frame, prompt_grid):
    anomaly_map, features = 0.3 * smooth_map(9), random_features(9)
    geometry = small_geometry(frame)
    skip = MethodParameters(prompt_grid=prompt_grid, no_region="skip")
    assert point_prompts(anomaly_map, features, geometry, skip) is None
    seeded = MethodParameters(prompt_grid=prompt_grid, no_region="always_run")
    want = assert_as_oracle(anomaly_map, features, geometry, seeded)
    assert want.seeded
    assert len(want.positives) == 1


def test_no_region_does_not_alter_a_map_that_has_one():
    anomaly_map, features, geometry = smooth_map(2), random_features(2), small_geometry((48, 48))
    for no_region in ("skip", "always_run"):
        want = assert_as_oracle(
            anomaly_map, features, geometry, MethodParameters(no_region=no_region, spacing_pixels=9)
        )
        assert not want.seeded


def test_ties_are_taken_in_row_major_order():
    anomaly_map = np.full((64, 64), 0.1, np.float32)
    anomaly_map[20:40, 10:50] = 0.75
    # All features alike: every similarity is equal too.
    features = np.ones((4, 8, 8), np.float32)
    features[0] = 3
    parameters = MethodParameters(spacing_pixels=49, dilation_kernel="rectangle", dilation_size=5)
    got = point_prompts(anomaly_map, features, small_geometry((64, 64)), parameters)
    assert grid_points(got, small_geometry((64, 64)), (64, 64))[:3] == [
        (10, 20),
        (17, 20),
        (24, 20),
    ]
    assert got.coords[got.labels == 1].tolist() == [[10, 20], [17, 20], [24, 20]]


@pytest.mark.parametrize("similarity", ["prototype", "max_pair"])
def test_zero_features_give_finite_points(similarity):
    features = np.zeros((4, 8, 8), np.float32)
    parameters = MethodParameters(spacing_pixels=9, similarity=similarity, extreme_threshold=0.8)
    with np.errstate(all="raise"):
        got = point_prompts(smooth_map(2), features, small_geometry((48, 48)), parameters)
    assert got.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert np.isfinite(got.coords).all()


def test_padding_of_sam_is_not_looked_at():
    geometry = small_geometry((30, 90))
    parameters = MethodParameters(extreme_threshold=0.8, spacing_pixels=20)
    features = random_features(3)
    want = point_prompts(smooth_map(3), features, geometry, parameters)
    # 30 x 90 becomes 43 x 128: rows 3 to 7 of the feature grid hold padding only.
    features[:, 3:] = np.nan
    got = point_prompts(smooth_map(3), features, geometry, parameters)
    np.testing.assert_array_equal(got.coords, want.coords)


def test_inputs_stay_as_they_are():
    anomaly_map, features = 0.3 * smooth_map(9), random_features(9)
    before = anomaly_map.copy(), features.copy()
    point_prompts(
        anomaly_map, features, small_geometry((9, 9)), MethodParameters(no_region="always_run")
    )
    np.testing.assert_array_equal(anomaly_map, before[0])
    np.testing.assert_array_equal(features, before[1])


def test_max_pair_leaves_out_a_cell_that_the_region_only_touches():
    # Content 666 px high: the lower edge of map row 335 is exactly at 432 px = 27 cells.
    geometry = frame_geometry(
        (666, 1024), map_size=518, sam_size=1024, feature_size=64, squash_sam=False
    )
    assert geometry.sam_content == (666, 1024)
    anomaly_map = np.zeros((518, 518), np.float32)
    anomaly_map[330:336, 250:260] = 0.9
    features = np.zeros((2, 64, 64), np.float32)
    features[0] = 1
    # Row 27 of the cells, just below S_a, is the only one unlike it: all negatives lie there.
    features[:, 27] = np.array([0, 1], np.float32)[:, None]
    assert_as_oracle(anomaly_map, features, geometry, MethodParameters(similarity="max_pair"))


# --- its parts --------------------------------------------------------------------------------


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
