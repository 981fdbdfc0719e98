"""How much there is to see in a frame: whether a camera looks at a part at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from zeroflaw.frame import Frame

_HALVINGS: Final = 3
_SAMPLES: Final = 128
_BLACK: Final = 1
_WHITE: Final = 254


@dataclass(frozen=True)
class FrameInformation:
    """What there is to see in a frame.

    Attributes:
        contrast: Difference between the brightest and the darkest part of the frame in the
            channel where it is largest, in [0, 1] of white. Parts are means over 8 x 8 pixels of
            the frame squashed for CLIP, so that the noise of a sensor does not count.
        clipped: Share of pixels, in [0, 1], that are black or white in every channel, to one
            level of 255. It is taken from a regular grid of up to 128 x 128 pixels.
        peak: Highest value of any pixel and channel, in [0, 1] of white.
    """

    contrast: float
    clipped: float
    peak: float


def frame_information(frame: Frame, squashed: Frame) -> FrameInformation:
    """Measure how much there is to see in a frame.

    Args:
        frame: uint8 [H, W, 3], RGB.
        squashed: uint8 [S, S, 3], the same frame as CLIP sees it.
    """
    parts = _means(squashed).reshape(-1, 3).T
    contrast = int((parts.max(axis=1).astype(int) - parts.min(axis=1)).max()) / 255
    height, width = frame.shape[:2]
    grid = (min(width, _SAMPLES), min(height, _SAMPLES))
    sample = cv2.resize(frame, grid, interpolation=cv2.INTER_NEAREST_EXACT)
    black = cv2.countNonZero(cv2.inRange(sample, (0, 0, 0), (_BLACK,) * 3))
    white = cv2.countNonZero(cv2.inRange(sample, (_WHITE,) * 3, (255, 255, 255)))
    return FrameInformation(
        contrast=contrast,
        clipped=(black + white) / (grid[0] * grid[1]),
        peak=int(frame.max()) / 255,
    )


def _means(image: Frame) -> Frame:
    """Means over 8 x 8 pixels, or over as many as a smaller image has.

    Halving is the one scale at which OpenCV averages areas at full speed; an odd last row or
    column is left out for it.
    """
    for _ in range(_HALVINGS):
        height, width = image.shape[0] // 2, image.shape[1] // 2
        if not (height and width):
            break
        even = image[: 2 * height, : 2 * width]
        image = np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA))
    return image
