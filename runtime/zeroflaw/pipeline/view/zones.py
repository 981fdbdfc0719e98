"""Zones: what is judged of a frame, and how bad a defect there is.

Corners are (x, y) from the frame's top left corner, so the pixel in column 0 reaches from 0 to 1.
A pixel belongs to a zone if its centre lies in the polygon; of two zones that share a side, each
pixel belongs to one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.geometry import BoolArray
from zeroflaw.pipeline.view.blanking import Blanking
from zeroflaw.pipeline.view.registration import mapped
from zeroflaw_engines.bundle.products.settings import SEVERITIES, Severity, Zone
from zeroflaw_engines.bundle.products.settings_checks import corners
from zeroflaw_engines.errors import SettingsError
from zeroflaw_engines.image_files.frame import Frame


@dataclass(frozen=True, eq=False)
class ZoneLayout:
    """The zones of frames of one size.

    Attributes:
        judged: bool [H, W], True where the frame is judged: inside of a zone to include, if there
            are any, and of none to exclude.
    """

    zones: tuple[Zone, ...]
    judged: BoolArray
    _at_maps: dict[tuple[int, int], BoolArray] = field(default_factory=dict, repr=False)

    @cached_property
    def judged_pixels(self) -> int:
        """How many pixels of the frame are judged."""
        return int(np.count_nonzero(self.judged))

    def prepare(self) -> None:
        """Compute how frames are blanked, which takes a second at 25 MP, before the first comes."""
        _ = self._blanking

    @cached_property
    def _blanking(self) -> Blanking:
        excluded = _included(self.zones, self._size) & ~self.judged
        # Where little is left beside them, copies of a defect would be what is usual there.
        if np.count_nonzero(excluded) > self.judged_pixels:
            return Blanking(self.judged)
        return Blanking(self.judged, excluded)

    def blanked(self, frame: Frame) -> Frame:
        """Replace what is not judged by colours of what is: nothing outside can be seen.

        Args:
            frame: uint8 [H, W, 3]; it stays as it is.

        Returns:
            uint8 [H, W, 3], a new array: the frame where it is judged, elsewhere smooth colours
            that are computed from judged pixels alone; within what is excluded, a mirror image of
            them, where there is more to judge than is excluded.
        """
        return self._blanking.blanked(frame)

    def at_map(self, shape: tuple[int, ...]) -> BoolArray:
        """Return which pixels of a map that covers the frame hold anything that is judged.

        Args:
            shape: Height and width of the map.

        Returns:
            bool [h, w], shared: nobody may write to it.
        """
        height, width = shape
        known = self._at_maps.get((height, width))
        if known is None:
            rows = _any_of_cells(self.judged, height)
            known = np.ascontiguousarray(_any_of_cells(np.ascontiguousarray(rows.T), width).T)
            known.flags.writeable = False
            self._at_maps[height, width] = known
        return known

    @cached_property
    def in_pixels(self) -> tuple[Zone, ...]:
        """The zones with their corners in pixels of the frame."""
        return tuple(_with_corners(zone, corners(zone, self._size)) for zone in self.zones)

    def moved(self, matrix: NDArray[np.float64]) -> tuple[Zone, ...]:
        """Return the zones moved, with their corners in pixels of where they come to lie.

        Args:
            matrix: float64 [2, 3], applied to points (x, y, 1) that are whole at the centres of
                pixels, as that of an `AlignedFrame` is.
        """
        return tuple(
            _with_corners(zone, mapped(corners(zone, self._size) - 0.5, matrix) + 0.5)
            for zone in self.zones
        )

    @property
    def _size(self) -> tuple[int, int]:
        return self.judged.shape[0], self.judged.shape[1]


def zone_layout(zones: Sequence[Zone], frame: tuple[int, int]) -> ZoneLayout | None:
    """Draw zones for frames of one size; None if there are none.

    Args:
        frame: Height and width, px.

    Raises:
        SettingsError: Of the frame, or of a zone to include, nothing is left to judge.
    """
    if not zones:
        return None
    included = [zone for zone in zones if zone.kind == "include"]
    excluded = [zone for zone in zones if zone.kind == "exclude"]
    judged = _included(zones, frame)
    for zone in excluded:
        judged &= ~_drawn(zone, frame)
    # A zone that nothing is left of could never reject.
    lost = [zone for zone in included if not (_drawn(zone, frame) & judged).any()]
    if lost or not judged.any():
        of_what = f"the zone {_listed(lost)}" if lost else "the frame"
        by_what = f" outside of {_listed(excluded)}" if excluded else ""
        raise SettingsError(
            f"no area of {of_what} is left to judge: there is no pixel whose centre lies in it"
            f"{by_what}",
            "draw the zones to include larger, or those to exclude smaller",
        )
    return ZoneLayout(tuple(zones), judged)


def filled(
    points: NDArray[np.float64], origin: tuple[int, int], size: tuple[int, int]
) -> BoolArray:
    """Fill a polygon by the even-odd rule, in a part of a frame.

    OpenCV's and Pillow's own filling paints every pixel that a side passes through as well, so
    that zones of neighbours would have pixels in common.

    Args:
        points: float64 [n, 2], corners (x, y) in pixels of the frame.
        origin: (x, y) of the part's first pixel.
        size: Height and width of the part, px.

    Returns:
        bool [h, w], True where a pixel's centre lies inside; a centre on the left or upper side
        does, on the right or lower one does not.
    """
    height, width = size
    inside = np.zeros(size, np.bool_)
    # Of the centres, whose coordinates are whole numbers now.
    at = points - origin - 0.5
    x0, y0 = np.maximum(np.ceil(at.min(axis=0)), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(at.max(axis=0)), (width, height)).astype(int)
    if x0 >= x1 or y0 >= y1:
        return inside
    # Along a row, each side that is crossed turns inside into outside.
    turns = np.zeros((y1 - y0, x1 - x0 + 1), np.uint8)
    for (ax, ay), (bx, by) in zip(at, np.roll(at, -1, axis=0), strict=True):
        if ay > by:
            ax, ay, bx, by = bx, by, ax, ay  # noqa: PLW2901 - the same side for either neighbour
        rows = np.arange(max(int(np.ceil(ay)), y0), min(int(np.ceil(by)), y1))
        if len(rows):
            crossed = np.ceil(ax + (rows - ay) * ((bx - ax) / (by - ay))).astype(int)
            turns[rows - y0, np.clip(crossed, x0, x1) - x0] ^= 1
    np.bitwise_xor.accumulate(turns, axis=1, out=turns)
    inside[y0:y1, x0:x1] = turns[:, :-1].view(np.bool_)
    return inside


def zones_of_labels(
    labels: NDArray[np.int32],
    origin: tuple[int, int],
    centroids: NDArray[np.float64],
    zones: Sequence[Zone],
) -> list[tuple[tuple[str, ...], Severity | None]]:
    """Find the zones to include that each component of a mask touches.

    A component that touches none, as a frame's alignment may leave one beside its zone by the
    rounding of a pixel, belongs to the nearest.

    Args:
        labels: int32 [h, w], from 1 on; 0 where there is none.
        origin: (x, y) of the first pixel in the frame.
        centroids: float64 [n, 2], mean (x, y) of each component in pixels of the part.
        zones: With their corners in pixels of the frame.

    Returns:
        Of label 1 and on: the zones' names in their order, and the worst of their severities;
        none and None where there is no zone to include.
    """
    included = [zone for zone in zones if zone.kind == "include"]
    count = len(centroids)
    if not included or not count:
        return [((), None)] * count
    pixels = np.flatnonzero(labels)
    owners = labels.ravel()[pixels] - 1
    size = (labels.shape[0], labels.shape[1])
    polygons = [np.asarray(zone.polygon, np.float64) for zone in included]
    touched = np.stack(
        [
            np.bincount(owners[filled(polygon, origin, size).ravel()[pixels]], minlength=count) > 0
            for polygon in polygons
        ]
    )
    (beside,) = np.nonzero(~touched.any(axis=0))
    at = centroids[beside] + origin + 0.5
    nearest = np.argmin([_distances(at, polygon) for polygon in polygons], axis=0)
    touched[nearest, beside] = True
    kinds, of_label = np.unique(touched, axis=1, return_inverse=True)
    found: list[tuple[tuple[str, ...], Severity | None]] = []
    for kind in kinds.T:
        chosen = [zone for zone, touches in zip(included, kind, strict=True) if touches]
        found.append((tuple(zone.name for zone in chosen), worst_severity(chosen)))
    return [found[kind] for kind in of_label.ravel().tolist()]


class _Severe(Protocol):
    @property
    def severity(self) -> Severity | None: ...


def worst_severity(of: Iterable[_Severe]) -> Severity | None:
    """Return the worst severity of zones or regions; None if none has one."""
    known = [one.severity for one in of if one.severity is not None]
    return max(known, key=SEVERITIES.index, default=None)


def _distances(points: NDArray[np.float64], polygon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far points [n, 2] outside of a polygon lie from its nearest side, px [n]."""
    least = np.full(len(points), np.inf)
    for corner, along in zip(polygon, np.roll(polygon, -1, axis=0) - polygon, strict=True):
        length = max(float(along @ along), np.finfo(float).tiny)
        share = np.clip((points - corner) @ along / length, 0, 1)
        apart = points - corner - share[:, None] * along
        least = np.minimum(least, np.hypot(apart[:, 0], apart[:, 1]))
    return least


def _any_of_cells(judged: BoolArray, cells: int) -> BoolArray:
    """Return for each of so many equal parts of the rows whether any row that it overlaps is."""
    rows = judged.shape[0]
    at = np.arange(cells)
    first, end = at * rows // cells, -(-(at + 1) * rows // cells)
    # Of [first, end, first, end, ...] every other result is that of a part.
    padded = np.concatenate([judged, np.zeros((1, judged.shape[1]), np.bool_)])
    return np.logical_or.reduceat(padded, np.stack([first, end], axis=1).ravel(), axis=0)[::2]


def _included(zones: Sequence[Zone], frame: tuple[int, int]) -> BoolArray:
    """Draw all zones to include; without one, the whole frame is."""
    included = [zone for zone in zones if zone.kind == "include"]
    drawn = np.full(frame, not included)
    for zone in included:
        drawn |= _drawn(zone, frame)
    return drawn


def _drawn(zone: Zone, frame: tuple[int, int]) -> BoolArray:
    return filled(corners(zone, frame), (0, 0), frame)


def _with_corners(zone: Zone, points: NDArray[np.float64]) -> Zone:
    polygon = tuple((float(x), float(y)) for x, y in points)
    return msgspec.structs.replace(zone, polygon=polygon, units="px")


def _listed(zones: Sequence[Zone]) -> str:
    return ", ".join(repr(zone.name) for zone in zones)
