"""Regions: the connected components of a mask, as a line's software wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.geometry import BoolArray, FloatArray
from zeroflaw.pipeline.masks.from_logits import Box, inclusive_box
from zeroflaw.pipeline.view.zones import zones_of_labels
from zeroflaw_engines.bundle.products.settings import Severity, Zone

Polygon = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Region:
    """One 8-connected component of the mask, in frame pixels.

    Attributes:
        x: Left column of the bounding box.
        y: Top row of the bounding box.
        width: Columns of the bounding box.
        height: Rows of the bounding box.
        area: Pixels of the region.
        centroid: Mean (x, y) of its pixels.
        peak_score: Highest value of the score map in it.
        polygon: Outer boundary, (x, y) of boundary pixels; straight runs keep their ends only.
        holes: Boundaries of its holes: (x, y) of the region's pixels around each.
        zones: Names of the product's zones to include that it touches.
        severity: The worst of theirs; None if there are none.
        area_mm2: Of the part; None if the product's settings have no scale.

    `regions_of` leaves `polygon` and `holes` to whoever asks for them first.
    """

    x: int
    y: int
    width: int
    height: int
    area: int
    centroid: tuple[float, float]
    peak_score: float
    polygon: Polygon
    holes: tuple[Polygon, ...]
    zones: tuple[str, ...] = ()
    severity: Severity | None = None
    area_mm2: float | None = None

    @property
    def xyxy(self) -> tuple[int, int, int, int]:
        """Bounding box (x_min, y_min, x_max, y_max), px; the maxima lie just outside of it.

        So `frame[y_min:y_max, x_min:x_max]` cuts the region out, as supervision cuts and measures
        its boxes. The boxes of a trace have their last pixels as maxima.
        """
        return self.x, self.y, self.x + self.width, self.y + self.height

    if not TYPE_CHECKING:  # type checkers know all attributes without it

        def __getattr__(self, name: str) -> Polygon | tuple[Polygon, ...]:
            """Trace the boundaries; Python asks here only for what is not there yet."""
            outline = self.__dict__.get("_outline")
            if outline is None or name not in ("polygon", "holes"):
                raise AttributeError(f"a Region has no attribute {name!r}")
            boundaries, label = outline
            polygon, holes = boundaries.by_label[label]
            self.__dict__.update(polygon=polygon, holes=holes)
            return self.__dict__[name]

    def __getstate__(self) -> dict[str, object]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def regions_of(
    mask: BoolArray,
    score: FloatArray,
    box: Box | None = None,
    *,
    zones: Sequence[Zone] = (),
    mm_per_pixel: float | None = None,
) -> tuple[Region, ...]:
    """Return the regions of a mask, largest first.

    Args:
        mask: bool [H, W] at the frame's size.
        score: float32 [S, S], the score map, covering the same frame.
        box: `inclusive_box` of the mask, if it is known.
        zones: With their corners in pixels of the frame.
        mm_per_pixel: Side of a pixel on the part, mm.

    Returns:
        One region for each component.
    """
    box = box or inclusive_box(mask)
    if box is None:
        return ()
    x0, y0, x1, y1 = box
    # A copy: boundaries may be traced when somebody has written into the mask.
    part = mask[y0 : y1 + 1, x0 : x1 + 1].copy().view(np.uint8)
    found = _measure(part)
    peaks = _peaks(found, score, origin=(x0, y0), frame=mask.shape)
    boundaries = _Boundaries(part, (x0, y0))
    # Largest first; equal ones as they were labelled.
    order = np.argsort(-found.area, kind="stable")
    columns = (
        found.left + x0,
        found.top + y0,
        found.right - found.left + 1,
        found.bottom - found.top + 1,
        found.area,
        found.centroids[:, 0] + x0,
        found.centroids[:, 1] + y0,
        peaks,
        np.arange(1, len(order) + 1),
    )
    regions = []
    for x, y, width, height, area, centre_x, centre_y, peak, label in zip(
        *(column[order].tolist() for column in columns), strict=True
    ):
        # Without `__init__`, for which a frozen dataclass takes longer than all of the rest.
        region = object.__new__(Region)
        region.__dict__.update(
            x=x,
            y=y,
            width=width,
            height=height,
            area=area,
            centroid=(centre_x, centre_y),
            peak_score=peak,
            _outline=(boundaries, label),
        )
        regions.append(region)
    if zones:
        named = zones_of_labels(found.labels, (x0, y0), found.centroids, zones)
        for region, label in zip(regions, order.tolist(), strict=True):
            touched, severity = named[label]
            region.__dict__.update(zones=touched, severity=severity)
    if mm_per_pixel is not None:
        for region in regions:
            region.__dict__["area_mm2"] = region.area * mm_per_pixel**2
    return tuple(regions)


class _Boundaries:
    """Boundaries of all components of a mask, traced when the first is asked for.

    A mask of thousands of specks has a hundred thousand boundary pixels. Tracing them and making
    tuples of them takes longer than the rest of an inspection, and no decision waits for it.

    Args:
        part: uint8 [h, w], 0 or 1; nobody else writes to it.
        origin: (x, y) of its first pixel in the frame.
    """

    def __init__(self, part: NDArray[np.uint8], origin: tuple[int, int]) -> None:
        self._part = part
        self._origin = origin

    @cached_property
    def by_label(self) -> list[tuple[Polygon, tuple[Polygon, ...]]]:
        """Polygon and holes of every label; of label 0, the background, there are none."""
        count, labels = _components(self._part)
        contours, hierarchy = cv2.findContours(self._part, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        points = np.concatenate(contours)[:, 0]
        ends = np.cumsum([len(contour) for contour in contours])
        starts = np.concatenate(([0], ends[:-1]))
        owners = labels[points[starts, 1], points[starts, 0]]
        pairs = list(zip(*(points + self._origin).T.tolist(), strict=True))
        outer: list[Polygon] = [()] * count
        holes: list[list[Polygon]] = [[] for _ in range(count)]
        for start, end, owner, parent in zip(
            starts.tolist(),
            ends.tolist(),
            owners.tolist(),
            hierarchy[0, :, 3].tolist(),
            strict=True,
        ):
            if parent < 0:
                outer[owner] = tuple(pairs[start:end])
            else:
                holes[owner].append(tuple(pairs[start:end]))
        return list(zip(outer, map(tuple, holes), strict=True))


@dataclass(frozen=True, eq=False)
class _Components:
    """Components of a part of the mask by their labels, from 1 on, in pixels of the part.

    Attributes:
        labels: int32 [h, w], 0 where there is none.
        left: int64 [n], first column of each.
        top: int64 [n], first row.
        right: int64 [n], last column.
        bottom: int64 [n], last row.
        area: int64 [n], pixels.
        centroids: float64 [n, 2], mean (x, y).
    """

    labels: NDArray[np.int32]
    left: NDArray[np.int64]
    top: NDArray[np.int64]
    right: NDArray[np.int64]
    bottom: NDArray[np.int64]
    area: NDArray[np.int64]
    centroids: NDArray[np.float64]


def _components(part: NDArray[np.uint8]) -> tuple[int, NDArray[np.int32]]:
    count, labels = cv2.connectedComponents(part)
    return count, np.asarray(labels, np.int32)


def _measure(part: NDArray[np.uint8]) -> _Components:
    """Measure components by the runs of their pixels in rows, of which there are few."""
    count, labels = _components(part)
    height, width = part.shape
    # A zero before every row and after the last one ends all runs.
    padded = np.zeros(height * (width + 1) + 1, np.uint8)
    padded[:-1].reshape(height, width + 1)[:, 1:] = part
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    lengths = edges[1::2] - edges[::2]
    rows = edges[::2] // (width + 1)
    first = edges[::2] - rows * (width + 1)
    owners = labels.ravel()[rows * width + first] - 1

    def total(of_runs: NDArray[np.int64]) -> NDArray[np.float64]:
        # Whole numbers below 2**53: exact.
        return np.asarray(np.bincount(owners, of_runs, count - 1), np.float64)

    left = np.full(count - 1, width)
    right = np.zeros(count - 1, np.int64)
    np.minimum.at(left, owners, first)
    np.maximum.at(right, owners, first + lengths - 1)
    top = np.empty(count - 1, np.int64)
    bottom = np.empty(count - 1, np.int64)
    # Runs come row by row, and of several values for one place the last one stays.
    top[owners[::-1]] = rows[::-1]
    bottom[owners] = rows
    area = total(lengths)
    sums = total(lengths * first + lengths * (lengths - 1) // 2), total(lengths * rows)
    return _Components(
        labels,
        left,
        top,
        right,
        bottom,
        area.astype(np.int64),
        np.stack(sums, axis=1) / area[:, None],
    )


def _peaks(
    found: _Components, score: FloatArray, *, origin: tuple[int, int], frame: tuple[int, ...]
) -> FloatArray:
    """Return each component's peak of the score, read at the centres of the score map's pixels."""
    height, width = score.shape
    rows = ((np.arange(height) + 0.5) * (frame[0] / height)).astype(int) - origin[1]
    columns = ((np.arange(width) + 0.5) * (frame[1] / width)).astype(int) - origin[0]
    in_rows = np.flatnonzero((rows >= 0) & (rows < found.labels.shape[0]))
    in_columns = np.flatnonzero((columns >= 0) & (columns < found.labels.shape[1]))
    peaks = np.full(len(found.area) + 1, -np.inf, np.float32)  # of the background too, as label 0
    if len(in_rows) and len(in_columns):
        sampled = found.labels[rows[in_rows]].take(columns[in_columns], axis=1)
        values = score[in_rows[0] : in_rows[-1] + 1, in_columns[0] : in_columns[-1] + 1]
        np.maximum.at(peaks, sampled.ravel(), values.ravel())
    # A component between the centres takes the score at its own middle.
    at_y = (found.centroids[:, 1] + origin[1] + 0.5) * height / frame[0]
    at_x = (found.centroids[:, 0] + origin[0] + 0.5) * width / frame[1]
    middle = score[at_y.astype(int).clip(0, height - 1), at_x.astype(int).clip(0, width - 1)]
    return np.where(peaks[1:] == -np.inf, middle, peaks[1:])
