"""Regions: the connected components of a mask, as a line's software wants them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.geometry import BoolArray, FloatArray, inclusive_box

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

    @property
    def xyxy(self) -> tuple[int, int, int, int]:
        """Bounding box (x_min, y_min, x_max, y_max), px; the maxima lie just outside of it.

        So `frame[y_min:y_max, x_min:x_max]` cuts the region out, as supervision cuts and measures
        its boxes. The boxes of a trace have their last pixels as maxima.
        """
        return self.x, self.y, self.x + self.width, self.y + self.height


def regions_of(mask: BoolArray, score: FloatArray) -> tuple[Region, ...]:
    """Return the regions of a mask, largest first.

    Args:
        mask: bool [H, W] at the frame's size.
        score: float32 [S, S], the score map, covering the same frame.

    Returns:
        One region for each component.
    """
    box = inclusive_box(mask)
    if box is None:
        return ()
    x0, y0, x1, y1 = box
    part = mask[y0 : y1 + 1, x0 : x1 + 1].view(np.uint8)
    count, *components = cv2.connectedComponentsWithStats(part)
    labels, stats = (np.asarray(component, np.int32) for component in components[:2])
    centroids = np.asarray(components[2], np.float64)
    polygons, holes = _polygons(part, labels, (x0, y0), count)
    peaks = _peaks(labels, centroids, score, origin=(x0, y0), frame=mask.shape)
    found = [
        Region(
            x=x0 + int(stats[i, cv2.CC_STAT_LEFT]),
            y=y0 + int(stats[i, cv2.CC_STAT_TOP]),
            width=int(stats[i, cv2.CC_STAT_WIDTH]),
            height=int(stats[i, cv2.CC_STAT_HEIGHT]),
            area=int(stats[i, cv2.CC_STAT_AREA]),
            centroid=(x0 + float(centroids[i, 0]), y0 + float(centroids[i, 1])),
            peak_score=float(peaks[i]),
            polygon=polygons[i],
            holes=tuple(holes[i]),
        )
        for i in range(1, count)
    ]
    return tuple(sorted(found, key=lambda region: -region.area))


def _polygons(
    part: NDArray[np.uint8], labels: NDArray[np.int32], origin: tuple[int, int], count: int
) -> tuple[list[Polygon], list[list[Polygon]]]:
    contours, hierarchy = cv2.findContours(part, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outer: list[Polygon] = [()] * count
    holes: list[list[Polygon]] = [[] for _ in range(count)]
    for contour, (_, _, _, parent) in zip(contours, hierarchy[0], strict=True):
        x, y = contour[0, 0]
        label = int(labels[y, x])
        shifted = (contour[:, 0] + origin).tolist()
        polygon = tuple((int(px), int(py)) for px, py in shifted)
        if parent < 0:
            outer[label] = polygon
        else:
            holes[label].append(polygon)
    return outer, holes


def _peaks(
    labels: NDArray[np.int32],
    centroids: NDArray[np.float64],
    score: FloatArray,
    *,
    origin: tuple[int, int],
    frame: tuple[int, ...],
) -> FloatArray:
    """Return each component's peak of the score, read at the centres of the score map's pixels."""
    height, width = score.shape
    rows = ((np.arange(height) + 0.5) * (frame[0] / height)).astype(int) - origin[1]
    columns = ((np.arange(width) + 0.5) * (frame[1] / width)).astype(int) - origin[0]
    in_rows = np.flatnonzero((rows >= 0) & (rows < labels.shape[0]))
    in_columns = np.flatnonzero((columns >= 0) & (columns < labels.shape[1]))
    # A component between the centres takes the score at its own middle.
    at_y = (centroids[:, 1] + origin[1] + 0.5) * height / frame[0]
    at_x = (centroids[:, 0] + origin[0] + 0.5) * width / frame[1]
    inside = (
        np.nan_to_num(at_y).astype(int).clip(0, height - 1),
        np.nan_to_num(at_x).astype(int).clip(0, width - 1),
    )
    peaks: FloatArray = score[inside].astype(np.float32)
    if len(in_rows) and len(in_columns):
        sampled = labels[np.ix_(rows[in_rows], columns[in_columns])]
        values = score[np.ix_(in_rows, in_columns)]
        seen = np.flatnonzero(np.bincount(sampled.ravel(), minlength=len(peaks)))
        peaks[seen] = -np.inf
        np.maximum.at(peaks, sampled.ravel(), values.ravel())
    return peaks
