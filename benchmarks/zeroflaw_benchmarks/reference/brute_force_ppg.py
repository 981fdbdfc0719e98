"""PPG written for clarity alone, straight from the paper's equations and the stated defaults."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# The 477 ones of a 25 x 25 ellipse, as half-widths of its rows.
ELLIPSE_25 = [0, 5, 7, 8, 9, 10, 10, 11, 11, *[12] * 7, 11, 11, 10, 10, 9, 8, 7, 5, 0]


def brute_force_points(
    anomaly_map: Array,
    features: Array,
    frame_size: tuple[int, int],
    content: tuple[int, int],
    *,
    cell: float,
    k: int,
    threshold: float = 0.5,
) -> tuple[Array, Array]:
    """Compute points in frame pixels and labels, positives first (Eq. 1 to 8).

    Args:
        anomaly_map: float [S, S] in [0, 1].
        features: float [C, G, G] of SAM.
        frame_size: Height and width of the frame, px.
        content: Height and width of the frame in SAM's image, px.
        cell: Side of a cell of the features in SAM's image, px.
        k: Points of each sign.
        threshold: Above it a pixel is of the extreme region.

    Returns:
        float64 [n, 2] of (x, y) and int [n] of 1 and 0.
    """
    grid = anomaly_map.shape[0]
    region = anomaly_map > threshold
    positives = greedy(anomaly_map, region, k, 20.0)

    ring = dilate(region) & ~region
    similarity = similarity_map(features, region, content, cell)
    negatives = greedy(-similarity, ring, k, 20.0)

    points = np.array(positives + negatives, np.float64).reshape(-1, 2)
    height, width = frame_size
    in_frame = (points + 0.5) * [width / grid, height / grid] - 0.5
    labels = np.array([1] * len(positives) + [0] * len(negatives))
    return in_frame, labels


def greedy(score: Array, allowed: Array, k: int, spacing: float) -> list[tuple[int, int]]:
    """Take the best pixels in order, none nearer than `spacing` to one already taken."""
    ys, xs = np.nonzero(allowed)
    order = np.argsort(-score[ys, xs], kind="stable")
    taken: list[tuple[int, int]] = []
    for y, x in zip(ys[order].tolist(), xs[order].tolist(), strict=True):
        if all((x - a) ** 2 + (y - b) ** 2 >= spacing**2 for a, b in taken):
            taken.append((x, y))
            if len(taken) == k:
                break
    return taken


def dilate(region: Array) -> Array:
    """Mark every pixel that has a pixel of the region under the ellipse around it."""
    height, width = region.shape
    out = np.zeros_like(region)
    for dy, half in enumerate(ELLIPSE_25):
        for dx in range(-half, half + 1):
            shift = dy - 12
            to_y = slice(max(0, shift), height + min(0, shift))
            to_x = slice(max(0, dx), width + min(0, dx))
            from_y = slice(max(0, -shift), height + min(0, -shift))
            from_x = slice(max(0, -dx), width + min(0, -dx))
            out[to_y, to_x] |= region[from_y, from_x]
    return out


def similarity_map(features: Array, region: Array, content: tuple[int, int], cell: float) -> Array:
    """Compute the cosine to the area-weighted mean feature of the region, bilinear on the grid."""
    grid = region.shape[0]
    rows, columns = int(np.ceil(content[0] / cell)), int(np.ceil(content[1] / cell))
    features = features[:, :rows, :columns].astype(np.float64)

    def overlaps(cells: int, extent: int) -> Array:
        lengths = np.zeros((cells, grid))
        for i in range(cells):
            for j in range(grid):
                low = max(i * cell, j * extent / grid)
                high = min((i + 1) * cell, (j + 1) * extent / grid)
                lengths[i, j] = max(0.0, high - low)
        return lengths

    weight = overlaps(rows, content[0]) @ region @ overlaps(columns, content[1]).T
    prototype = np.einsum("chw,hw->c", features, weight)
    prototype /= np.linalg.norm(prototype)
    cosine = np.einsum("c,chw->hw", prototype, features) / np.linalg.norm(features, axis=0)

    out = np.zeros(region.shape)
    for y in range(grid):
        v = min(max((y + 0.5) * content[0] / grid / cell - 0.5, 0), rows - 1)
        y0 = int(v)
        y1 = min(y0 + 1, rows - 1)
        line = cosine[y0] * (1 - (v - y0)) + cosine[y1] * (v - y0)
        for x in range(grid):
            u = min(max((x + 0.5) * content[1] / grid / cell - 0.5, 0), columns - 1)
            x0 = int(u)
            x1 = min(x0 + 1, columns - 1)
            out[y, x] = line[x0] * (1 - (u - x0)) + line[x1] * (u - x0)
    return out
