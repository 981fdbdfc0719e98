"""Inspections as the C side sees them."""

from __future__ import annotations

import ctypes
import json
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw.embedding.abi import (
    DecisionCode,
    PolygonStruct,
    RegionStruct,
    Status,
    TimingStruct,
    ViewStruct,
)
from zeroflaw.embedding.errors import EmbeddingError
from zeroflaw.inspection import Inspection
from zeroflaw.regions import Polygon, Region

_DECISIONS: Final = {"accept": DecisionCode.ACCEPT, "reject": DecisionCode.REJECT}


@dataclass(frozen=True)
class Outcome:
    """What became of one frame.

    Attributes:
        status: `OK`, or why there is no decision.
        error: Cause and remedy; empty if `OK`.
        frame_id: As given.
        part_id: As given.
        inspection: None if the frame was not inspected. With a status other than `OK` it is for
            records alone: it came too late.
        ticket: Of a submitted frame, else 0.
        queue_ms: How long it waited.
    """

    status: Status
    error: str
    frame_id: str
    part_id: str
    inspection: Inspection | None
    ticket: int = 0
    queue_ms: float = 0.0

    @property
    def decision(self) -> DecisionCode:
        """`INVALID` for every frame that was not inspected in time."""
        if self.status is not Status.OK or self.inspection is None:
            return DecisionCode.INVALID
        return _DECISIONS[self.inspection.decision]


class OutcomeView:
    """The struct that shows an outcome, with the memory that it points to."""

    def __init__(self, outcome: Outcome) -> None:
        """Fills the struct; arrays are shown where they are, without a copy."""
        self._kept: list[Any] = []
        self._outcome = outcome
        view = self._view = ViewStruct()
        view.struct_size = ctypes.sizeof(ViewStruct)
        view.status = outcome.status
        view.decision = outcome.decision
        view.deadline_missed = outcome.status is Status.DEADLINE_MISSED
        view.ticket = outcome.ticket
        view.queue_ms = outcome.queue_ms
        view.error = _c_text(outcome.error)
        view.frame_id = _c_text(outcome.frame_id)
        view.part_id = _c_text(outcome.part_id)
        view.product = view.outcome = view.bundle = view.backend = b""
        if outcome.inspection is not None:
            self._fill(view, outcome.inspection)

    def copy_to(self, address: int) -> None:
        """Copies the struct to the caller's."""
        ctypes.memmove(address, ctypes.addressof(self._view), ctypes.sizeof(ViewStruct))

    def to_json(self) -> bytes:
        """The inspection as `Inspection.to_json` gives it.

        Raises:
            EmbeddingError: The frame was not inspected in time; then there must be no document
                that says "accept".
        """
        if self._outcome.status is not Status.OK or self._outcome.inspection is None:
            raise EmbeddingError(
                f"there is no result to write: {self._outcome.error}",
                "look at the view's status",
                self._outcome.status,
            )
        return self._outcome.inspection.to_json()

    def _fill(self, view: ViewStruct, inspection: Inspection) -> None:
        view.product = _c_text(inspection.product)
        view.outcome = _c_text(inspection.status)
        view.bundle = _c_text(inspection.bundle)
        view.backend = _c_text(inspection.backend)
        view.score = inspection.image_score
        view.threshold = inspection.threshold
        view.frame_height, view.frame_width = inspection.frame_size
        view.map_height, view.map_width = inspection.anomaly_map.shape
        view.mask = self._address(inspection.mask, np.bool_)
        view.mask_stride = inspection.frame_size[1]
        view.anomaly_map = self._address(inspection.anomaly_map, np.float32)
        view.score_map = self._address(inspection.score_map, np.float32)
        regions = [self._region(region) for region in inspection.regions]
        addresses = (ctypes.c_void_p * len(regions))(*map(ctypes.addressof, regions))
        timings = (TimingStruct * len(inspection.timings_ms))()
        for timing, (stage, milliseconds) in zip(
            timings, inspection.timings_ms.items(), strict=True
        ):
            timing.stage, timing.milliseconds = stage.encode(), milliseconds
        warnings = (ctypes.c_char_p * len(inspection.warnings))(
            *(_c_text(warning) for warning in inspection.warnings)
        )
        self._kept += [regions, addresses, timings, warnings]
        view.regions, view.region_count = ctypes.addressof(addresses), len(regions)
        view.timings, view.timing_count = ctypes.addressof(timings), len(timings)
        view.warnings, view.warning_count = ctypes.addressof(warnings), len(warnings)

    def _region(self, region: Region) -> RegionStruct:
        holes = (PolygonStruct * len(region.holes))(*map(self._polygon, region.holes))
        self._kept.append(holes)
        return RegionStruct(
            ctypes.sizeof(RegionStruct),
            region.x,
            region.y,
            region.width,
            region.height,
            region.area,
            *region.centroid,
            region.peak_score,
            self._polygon(region.polygon),
            ctypes.addressof(holes),
            len(holes),
        )

    def _polygon(self, polygon: Polygon) -> PolygonStruct:
        # Thrice as fast as numpy.array: a large region has thousands of points.
        points = np.fromiter(chain.from_iterable(polygon), np.int32, 2 * len(polygon))
        return PolygonStruct(self._address(points, np.int32), len(polygon))

    def _address(self, array: NDArray[Any], dtype: type[np.generic]) -> int:
        packed = np.ascontiguousarray(array, dtype)
        self._kept.append(packed)
        return packed.ctypes.data


def _c_text(text: str) -> bytes:
    # A zero byte would end the text early on the C side.
    return text.replace("\0", "").encode()


def json_of(document: object) -> bytes:
    """A document as UTF-8 JSON."""
    return json.dumps(document, ensure_ascii=False).encode()
