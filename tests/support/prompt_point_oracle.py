"""PPG once more, slowly: written from sections 3.1 and 4 of the method's description."""

import itertools
import math
from types import SimpleNamespace

import cv2
import numpy as np

from zeroflaw.pipeline.geometry import frame_geometry
from zeroflaw.pipeline.refining.prompt_points import point_prompts

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
