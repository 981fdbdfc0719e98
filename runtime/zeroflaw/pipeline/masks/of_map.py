"""Masks at the frame's size of where an anomaly map is high."""

from __future__ import annotations

import cv2
import numpy as np

from zeroflaw.pipeline.geometry import BoolArray, FloatArray


def map_above(anomaly_map: FloatArray, threshold: float, size: tuple[int, int]) -> BoolArray:
    """Return where an anomaly map is above a threshold, at the frame's size.

    The values are interpolated bilinearly between the centres of the map's pixels, then compared.
    What is above the threshold in the map never vanishes: along an axis on which the frame has
    fewer pixels than the map, every pixel counts in which one of those lies, and where nothing
    else is left, they are taken as they are.

    Args:
        anomaly_map: float32 [h, w] in [0, 1], covering the frame.
        size: Height and width of the frame, px.

    Returns:
        bool [H, W].
    """
    region = anomaly_map > threshold
    if not region.any():
        return np.zeros(size, np.bool_)
    values = cv2.resize(anomaly_map, size[::-1], interpolation=cv2.INTER_LINEAR)
    mask: BoolArray = np.asarray(values > threshold)
    shrinks = size[0] < region.shape[0] or size[1] < region.shape[1]
    if shrinks or not mask.any():
        mask |= region_at_frame(region, size)
    return mask


def region_at_frame(region: BoolArray, size: tuple[int, int]) -> BoolArray:
    """Resize a region of the map to the frame; a shrinking axis keeps every pixel it touches.

    Args:
        region: bool [h, w], covering the frame.
        size: Height and width of the frame, px.

    Returns:
        bool [H, W].
    """
    height, width = size
    rows, columns = region.shape
    resized = region.astype(np.float32)
    # Averages of an area are 0 only where nothing of the region lies, but OpenCV takes them only
    # where neither axis grows.
    shrunk = (min(width, columns), min(height, rows))
    if shrunk != (columns, rows):
        resized = np.asarray(cv2.resize(resized, shrunk, interpolation=cv2.INTER_AREA))
    if shrunk != (width, height):
        nearest = cv2.INTER_NEAREST_EXACT
        resized = np.asarray(cv2.resize(resized, (width, height), interpolation=nearest))
    at_frame: BoolArray = resized > 0
    return at_frame
