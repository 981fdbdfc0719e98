"""Zones in a picture: outlines of those to include, hatching of those to exclude, and names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.view.zones import filled
from zeroflaw_engines.bundle.products.settings import Severity, Zone
from zeroflaw_engines.image_files.frame import Frame

_COLOURS: Final[dict[Severity, tuple[int, int, int]]] = {
    "minor": (255, 255, 255),
    "major": (255, 150, 0),
    "critical": (255, 0, 255),
}
_EXCLUDED: Final = (150, 150, 150)
_OUTLINE: Final = (0, 0, 0)
_SHIFT: Final = 4  # OpenCV draws with 4 fractional bits
_HATCH: Final = 8  # lines of the hatching lie so many times their width apart


def draw_zones(frame: Frame, zones: Sequence[Zone], width: int) -> Frame:
    """Draw zones: white where a defect is minor, orange major, magenta critical; grey excluded.

    Args:
        frame: uint8 [H, W, 3], RGB.
        zones: With their corners in pixels of the frame.
        width: Of lines, px.

    Returns:
        uint8 [H, W, 3], a new array.
    """
    picture = frame.copy()
    for zone in zones:
        if zone.kind == "exclude":
            _hatch(picture, np.array(zone.polygon, np.float64), width)
    for zone in zones:
        colour = _EXCLUDED if zone.kind == "exclude" else _COLOURS[zone.severity]
        points = np.array(zone.polygon, np.float64)
        # Whole numbers are the centres of pixels here.
        outline = np.rint((points - 0.5) * 2**_SHIFT).astype(np.int32)
        for thickness, paint in ((width + 2, _OUTLINE), (width, colour)):
            cv2.polylines(picture, [outline], True, paint, thickness, cv2.LINE_AA, _SHIFT)
        _write(picture, zone.name, points, colour, width)
    return picture


def _hatch(picture: Frame, points: NDArray[np.float64], width: int) -> None:
    height, wide = picture.shape[:2]
    y, x = np.ogrid[:height, :wide]
    lines = (x + y) % (_HATCH * width) < width
    picture[filled(points, (0, 0), (height, wide)) & lines] = _EXCLUDED


def _write(
    picture: Frame, name: str, points: NDArray[np.float64], colour: tuple[int, int, int], width: int
) -> None:
    """Write a zone's name inside of it, at the corner nearest to the picture's top left one."""
    scale = 0.4 * width + 0.1
    # OpenCV's own letters are those of ASCII.
    text = name.encode("ascii", "replace").decode()
    (across, tall), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, width)
    left, top = points[np.argmin(points.sum(axis=1))]
    x = int(np.clip(left + 3 * width, 0, max(0, picture.shape[1] - across)))
    y = int(np.clip(top + 3 * width + tall, tall, max(tall, picture.shape[0] - 1)))
    for thickness, paint in ((width + 2, _OUTLINE), (width, colour)):
        cv2.putText(
            picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, paint, thickness, cv2.LINE_AA
        )
