"""Alignment: a frame of a fixtured part brought onto a reference photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.geometry import BoolArray, FloatArray
from zeroflaw.pipeline.view.zones import ZoneLayout
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.products.settings import Alignment
from zeroflaw_engines.image_files.frame import Frame


@dataclass(frozen=True, eq=False)
class AlignedFrame:
    """A frame on a reference photo.

    Attributes:
        frame: uint8 [H, W, 3], RGB, in the reference photo's pixels.
        matrix: float64 [2, 3]: a point (x, y, 1) of the reference photo to one of the frame as
            it was given, whole numbers being the centres of pixels.
        shift: Translation of the frame's middle, px.
        rotation: Degrees, counter-clockwise.
        correlation: With the reference photo, in [-1, 1].
        fault: Why it cannot be judged; None if it can.
    """

    frame: Frame
    matrix: NDArray[np.float64]
    shift: tuple[float, float]
    rotation: float
    correlation: float
    fault: str | None = None

    def lost_zone(self, zones: ZoneLayout) -> str | None:
        """Say which zone to include lies outside the frame in part; None if all are seen."""
        raise NotImplementedError

    def mask_in_frame(self, mask: BoolArray) -> BoolArray:
        """Bring a mask, bool [H, W], back onto the frame as it was given; no region is lost."""
        raise NotImplementedError

    def map_in_frame(self, values: FloatArray) -> FloatArray:
        """Bring a map that covers the frame, float32 [h, w], back onto it as it was given."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Aligner:
    """Brings frames of one size onto a reference photo."""

    settings: Alignment

    def align(self, frame: Frame) -> AlignedFrame:
        """Align a frame, uint8 [H, W, 3], RGB."""
        raise NotImplementedError


def aligner_of(
    settings: Alignment | None, frame: tuple[int, int], bundle: Bundle
) -> Aligner | None:
    """Read a reference photo; None if frames are taken as they are."""
    if settings is None:
        return None
    raise NotImplementedError
