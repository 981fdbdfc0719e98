"""Zones: what is judged of a frame, and how bad a defect there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zeroflaw.pipeline.geometry import BoolArray
from zeroflaw_engines.bundle.products.settings import Zone
from zeroflaw_engines.image_files.frame import Frame


@dataclass(frozen=True, eq=False)
class ZoneLayout:
    """The zones of frames of one size.

    Attributes:
        judged: bool [H, W], True where the frame is judged.
    """

    zones: tuple[Zone, ...]
    judged: BoolArray

    def blanked(self, frame: Frame) -> Frame:
        """Replace what is not judged by colours of what is: nothing outside can be seen."""
        raise NotImplementedError

    def at_map(self, shape: tuple[int, int]) -> BoolArray:
        """Return which pixels of a map that covers the frame hold anything that is judged."""
        raise NotImplementedError


def zone_layout(zones: Sequence[Zone], frame: tuple[int, int]) -> ZoneLayout | None:
    """Draw zones for frames of one size; None if there are none."""
    if not zones:
        return None
    raise NotImplementedError
