"""Annotators: pictures of an inspection, apart from the inspection itself."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from zeroflaw.inspection import Inspection
from zeroflaw.pictures.zone_outlines import draw_zones
from zeroflaw.pipeline.geometry import BoolArray, FloatArray
from zeroflaw_engines.contract import LABEL_POSITIVE
from zeroflaw_engines.image_files.frame import Frame

_CONTOUR: Final = (255, 40, 40)
_POSITIVE: Final = (60, 220, 60)
_NEGATIVE: Final = (40, 90, 255)
_BOX: Final = (255, 210, 0)
_TRUTH: Final = (0, 235, 255)
_OUTLINE: Final = (0, 0, 0)
_SHIFT: Final = 4  # OpenCV draws with 4 fractional bits


def draw_overlay(frame: Frame, inspection: Inspection) -> Frame:
    """Draw contours (red), points (green positive, blue negative) and boxes (yellow).

    Points and boxes are drawn if the inspection has a trace, zones if the product has some: white
    where a defect is minor, orange major, magenta critical; those to exclude are hatched in grey.

    Args:
        frame: uint8 [H, W, 3], RGB, the frame that was inspected.

    Returns:
        uint8 [H, W, 3], a new array.
    """
    width = _line_width(frame)
    picture = draw_zones(frame, inspection.zones, width)
    _outline_mask(picture, inspection, width)
    if inspection.trace:
        for stage in inspection.trace.stages:
            for x0, y0, x1, y1 in stage.boxes:
                cv2.rectangle(picture, (x0, y0), (x1, y1), _BOX, width)
        if inspection.trace.points:
            points = inspection.trace.points
            for (x, y), label in zip(points.coords, points.labels, strict=True):
                colour = _POSITIVE if label == LABEL_POSITIVE else _NEGATIVE
                _dot(picture, float(x), float(y), 2 + 2 * width, colour)
    return picture


def draw_truth(frame: Frame, inspection: Inspection, truth: BoolArray) -> Frame:
    """Draw where a part is defective (cyan, just outside) beside what was found (red).

    Args:
        frame: uint8 [H, W, 3], RGB, the frame that was inspected.
        truth: bool [H, W], True where it is defective.

    Returns:
        uint8 [H, W, 3], a new array.
    """
    picture = frame.copy()
    width = _line_width(frame)
    # So that neither line hides the other, nor a small defect.
    distance = 2 * width + 1
    around = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    widened = cv2.dilate(truth.astype(np.uint8), around)
    outlines, _ = cv2.findContours(widened, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, _OUTLINE, 2 * width, cv2.LINE_AA)
    cv2.drawContours(picture, outlines, -1, _TRUTH, width, cv2.LINE_AA)
    _outline_mask(picture, inspection, width)
    return picture


def draw_map(anomaly_map: FloatArray, size: tuple[int, int]) -> Frame:
    """Draw a map in [0, 1] in false colours, blue at 0 and red at 1, never stretched.

    Args:
        anomaly_map: float32 [S, S].
        size: Height and width of the picture, px.

    Returns:
        uint8 [H, W, 3], RGB.
    """
    grey = np.clip(anomaly_map * 255 + 0.5, 0, 255).astype(np.uint8)
    colours = cv2.applyColorMap(grey, cv2.COLORMAP_TURBO)
    resized = cv2.resize(colours, size[::-1], interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(resized[:, :, ::-1], np.uint8)


def draw_mask(inspection: Inspection) -> NDArray[np.uint8]:
    """Return the mask as an image: 255 where the frame is defective, else 0.

    Returns:
        uint8 [H, W].
    """
    return np.multiply(inspection.mask.view(np.uint8), 255, dtype=np.uint8)


def _line_width(frame: Frame) -> int:
    longest: int = max(frame.shape[:2])
    return max(1, round(longest / 400))


def _outline_mask(picture: Frame, inspection: Inspection, width: int) -> None:
    for region in inspection.regions:
        outlines = [np.array(p, np.int32) for p in (region.polygon, *region.holes)]
        cv2.polylines(picture, outlines, True, _CONTOUR, width, cv2.LINE_AA)


def _dot(picture: Frame, x: float, y: float, radius: int, colour: tuple[int, int, int]) -> None:
    centre = (round(x * 2**_SHIFT), round(y * 2**_SHIFT))
    for size, paint in ((radius + 1, _OUTLINE), (radius, colour)):
        cv2.circle(picture, centre, size << _SHIFT, paint, cv2.FILLED, cv2.LINE_AA, _SHIFT)
