"""Co-Feature Point Prompt Generation, PPG (Hou et al., section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.geometry import (
    BoolArray,
    FloatArray,
    FrameGeometry,
    cell_coverage,
    cell_interpolation,
    grid_to_frame,
    real_cells,
)
from zeroflaw_engines.contract import LABEL_NEGATIVE, LABEL_POSITIVE
from zeroflaw_engines.parameters import MethodParameters

_KERNELS: Final = {
    "ellipse": cv2.MORPH_ELLIPSE,
    "rectangle": cv2.MORPH_RECT,
    "cross": cv2.MORPH_CROSS,
}
_SMALLEST_NORM: Final = 1e-12

Roi = tuple[slice, slice]


@dataclass(frozen=True)
class PointPrompts:
    """Points for SAM.

    Attributes:
        coords: float32 [N, 2], (x, y) in frame pixels, positives first, each sign by rank.
        labels: int32 [N], 1 positive, 0 negative.
        extreme_region: bool, S_a on the prompt grid.
        from_region: False if S_a was empty and was seeded at the map's peak.
    """

    coords: FloatArray
    labels: NDArray[np.int32]
    extreme_region: BoolArray
    from_region: bool


def point_prompts(
    anomaly_map: FloatArray,
    features: FloatArray,
    geometry: FrameGeometry,
    parameters: MethodParameters,
) -> PointPrompts | None:
    """Return positive and negative points from CLIP's map and SAM's features (Eq. 1 to 8).

    Args:
        anomaly_map: float32 [S, S] in [0, 1].
        features: float32 [C, G, G] from the SAM encoder.

    Returns:
        The points, or None if no pixel is extreme and `no_region` is `skip`.
    """
    if parameters.prompt_grid == "sam":
        size = geometry.sam_content[::-1]
        anomaly_map = cv2.resize(anomaly_map, size, interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    region = anomaly_map > parameters.extreme_threshold
    from_region = bool(region.any())
    if not from_region:
        if parameters.no_region == "skip":
            return None
        region.flat[int(anomaly_map.argmax())] = True
    inner = _bounding_roi(region)
    positives = spaced_best(
        anomaly_map[inner], region[inner], parameters.positive_points, parameters
    ) + _origin(inner)

    negatives = np.zeros((0, 2), np.int64)
    if parameters.negative_points:
        outer = _grow(inner, parameters.dilation_size // 2 + 1, region.shape)
        ring = surrounding_ring(region[outer], parameters)
        if ring.any():
            similarity = feature_similarity(
                features, region, geometry, parameters, inner=inner, outer=outer
            )
            negatives = spaced_best(
                -similarity, ring, parameters.negative_points, parameters
            ) + _origin(outer)

    labels = [LABEL_POSITIVE] * len(positives) + [LABEL_NEGATIVE] * len(negatives)
    return PointPrompts(
        coords=grid_to_frame(np.concatenate([positives, negatives]), region.shape, geometry),
        labels=np.array(labels, np.int32),
        extreme_region=region,
        from_region=from_region,
    )


def surrounding_ring(region: BoolArray, parameters: MethodParameters) -> BoolArray:
    """Return N_a = dilate(S_a) - S_a (Eq. 3), clipped to the grid.

    Args:
        region: bool [h, w], S_a.
        parameters: Kernel shape and size.

    Returns:
        bool [h, w].
    """
    size = parameters.dilation_size
    kernel = cv2.getStructuringElement(_KERNELS[parameters.dilation_kernel], (size, size))
    dilated = cv2.dilate(region.view(np.uint8), kernel)
    ring: BoolArray = dilated.view(np.bool_) & ~region
    return ring


def feature_similarity(
    features: FloatArray,
    region: BoolArray,
    geometry: FrameGeometry,
    parameters: MethodParameters,
    *,
    inner: Roi,
    outer: Roi,
) -> FloatArray:
    """Return Map_s, the cosine between features of S_a and those around it (Eq. 4 to 6).

    Args:
        features: float32 [C, G, G].
        region: bool, S_a on the prompt grid.
        parameters: `similarity` chooses the mean feature of S_a or the best pair.
        inner: Rows and columns that hold all of S_a.
        outer: Rows and columns for which Map_s is wanted.

    Returns:
        float32, of the shape of `outer`, in [-1, 1].
    """
    grid_height, grid_width = region.shape
    (height, width), cell, cells = geometry.sam_content, geometry.cell, geometry.feature_size
    rows, columns = real_cells(height, cell), real_cells(width, cell)
    cover_y = cell_coverage(grid_height, height, cell, cells)[:rows, inner[0]]
    cover_x = cell_coverage(grid_width, width, cell, cells)[:columns, inner[1]]
    at_y = cell_interpolation(grid_height, height, cell, cells)[outer[0], :rows]
    at_x = cell_interpolation(grid_width, width, cell, cells)[outer[1], :columns]
    used_y, used_x = _used_cells(cover_y, at_y), _used_cells(cover_x, at_x)
    weights = cover_y[used_y] @ region[inner].astype(np.float32) @ cover_x[used_x].T

    vectors = features[:, used_y, used_x].reshape(len(features), -1)
    norms = np.maximum(np.sqrt(np.einsum("cn,cn->n", vectors, vectors)), _SMALLEST_NORM)
    if parameters.similarity == "prototype":
        prototype = vectors @ weights.ravel()
        prototype /= max(float(np.linalg.norm(prototype)), _SMALLEST_NORM)
        cosine = (prototype @ vectors) / norms
    else:
        unit = vectors / norms
        cosine = (unit[:, weights.ravel() > 0].T @ unit).max(axis=0)

    cosine = cosine.reshape(used_y.stop - used_y.start, used_x.stop - used_x.start)
    similarity: FloatArray = at_y[:, used_y] @ cosine @ at_x[:, used_x].T
    return similarity


def spaced_best(
    score: FloatArray, allowed: BoolArray, count: int, parameters: MethodParameters
) -> NDArray[np.int64]:
    """Return the best-scored pixels of a region, spaced (Eq. 2; sign turned, Eq. 7).

    Equal scores are taken in row-major order.

    Args:
        score: float32 [h, w].
        allowed: bool [h, w], not empty.
        count: Most points wanted.
        parameters: `point_spacing` and `spacing_pixels`.

    Returns:
        int64 [n, 2], (x, y), best first, 1 <= n <= count.
    """
    if parameters.point_spacing == "rank_stride":
        candidates = np.flatnonzero(allowed)
        ranked = candidates[np.argsort(-score.ravel()[candidates], kind="stable")]
        chosen = ranked[:: parameters.spacing_pixels][:count]
        return np.stack([chosen % score.shape[1], chosen // score.shape[1]], axis=1)

    spacing = float(parameters.spacing_pixels)
    squared = spacing if parameters.point_spacing == "cell" else spacing**2
    reach = int(np.ceil(np.sqrt(squared)))
    left = np.where(allowed, score, np.float32(-np.inf))
    points: list[tuple[int, int]] = []
    while len(points) < count:
        y, x = divmod(int(left.argmax()), left.shape[1])
        if left[y, x] == -np.inf:
            break
        points.append((x, y))
        top, start = max(0, y - reach), max(0, x - reach)
        window = left[top : y + reach + 1, start : x + reach + 1]
        dy = np.arange(top, top + window.shape[0])[:, None] - y
        dx = np.arange(start, start + window.shape[1])[None, :] - x
        window[dy * dy + dx * dx < squared] = -np.inf
    return np.array(points, np.int64).reshape(-1, 2)


def _used_cells(coverage: FloatArray, interpolation: FloatArray) -> slice:
    """Return the feature cells, along one axis, that either matrix takes anything of."""
    used = np.flatnonzero(coverage.any(axis=1) | interpolation.any(axis=0))
    return slice(int(used[0]), int(used[-1]) + 1)


def _bounding_roi(region: BoolArray) -> Roi:
    x, y, width, height = cv2.boundingRect(region.view(np.uint8))
    return slice(y, y + height), slice(x, x + width)


def _grow(roi: Roi, margin: int, shape: tuple[int, ...]) -> Roi:
    rows, columns = roi
    return (
        slice(max(0, rows.start - margin), min(shape[0], rows.stop + margin)),
        slice(max(0, columns.start - margin), min(shape[1], columns.stop + margin)),
    )


def _origin(roi: Roi) -> NDArray[np.int64]:
    return np.array([roi[1].start, roi[0].start], np.int64)
