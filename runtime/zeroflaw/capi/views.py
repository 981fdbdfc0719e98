"""Inspections as the C side sees them."""

from __future__ import annotations

import ctypes
import json
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroflaw.capi.abi import (
    PolygonStruct,
    RegionStruct,
    Status,
    TimingStruct,
    ViewStruct,
)
from zeroflaw.capi.outcome import Outcome
from zeroflaw.inspection import Inspection
from zeroflaw.pipeline.masks.regions import Polygon, Region
from zeroflaw_engines.version import __version__


class OutcomeView:
    """The struct that shows an outcome, with the memory that it points to."""

    def __init__(self, outcome: Outcome) -> None:
        """Fill the struct; arrays are shown where they are, without a copy."""
        self._kept: list[Any] = []
        self._outcome = outcome
        result, reason, stamp = outcome.result, outcome.result.reason, outcome.result.stamp
        view = self._view = ViewStruct()
        view.status = outcome.status
        view.decision = outcome.decision
        view.deadline_missed = outcome.status is Status.DEADLINE_MISSED
        view.ticket = result.ticket
        view.queue_ms = result.queue_ms
        view.error = _c_text(outcome.error)
        view.reason, view.reason_text = _c_text(reason.code), _c_text(reason.text)
        view.id, view.time = _c_text(stamp.id), _c_text(stamp.time)
        view.monotonic_ns = stamp.monotonic_ns
        view.frame_id = _c_text(stamp.frame_id)
        view.part_id = _c_text(stamp.part_id)
        view.camera_id = _c_text(stamp.camera_id)
        view.software = _c_text(__version__)
        view.product = view.outcome = view.bundle = view.backend = b""
        view.text_embeddings = view.calibration = view.parameters = view.reference = b""
        view.rule = view.settings = b""
        if outcome.inspection is not None:
            self._fill(view, outcome.inspection)

    def copy_to(self, address: int) -> None:
        """Copy as much of the struct to the caller's as that has room for.

        Args:
            address: Of the caller's struct, whose `struct_size` is set.
        """
        size = min(ctypes.c_size_t.from_address(address).value, ctypes.sizeof(ViewStruct))
        self._view.struct_size = size
        ctypes.memmove(address, ctypes.addressof(self._view), size)

    def to_json(self) -> bytes:
        """Return the frame's record; that of a frame without a decision says `hold`."""
        return self._outcome.result.to_json()

    @cached_property
    def frame_sha256(self) -> bytes:
        """The frame's digest as 64 hexadecimal digits; empty if it was not inspected."""
        inspection = self._outcome.inspection
        return b"" if inspection is None else inspection.frame_sha256.encode()

    def _fill(self, view: ViewStruct, inspection: Inspection) -> None:
        view.product = _c_text(inspection.product)
        view.outcome = _c_text(inspection.status)
        view.bundle = _c_text(inspection.bundle)
        view.backend = _c_text(inspection.backend)
        view.software = _c_text(inspection.software)
        view.text_embeddings = _c_text(inspection.text_embeddings)
        view.calibration = _c_text(inspection.calibration)
        view.parameters = _c_text(inspection.parameters)
        view.reference = _c_text(inspection.reference)
        view.settings = _c_text(inspection.settings)
        view.rule = _c_text(inspection.rule)
        view.score, view.decision_score = inspection.image_score, inspection.decision_score
        view.threshold = inspection.threshold
        view.frame_height, view.frame_width = inspection.frame_size
        view.map_height, view.map_width = inspection.anomaly_map.shape
        view.mask = self._address(inspection.mask, np.bool_)
        view.mask_stride = inspection.frame_size[1]
        view.anomaly_map = self._address(inspection.anomaly_map, np.float32)
        view.score_map = self._address(inspection.score_map, np.float32)
        if inspection.tiles is not None:
            tiles = inspection.tiles
            view.tile_rows, view.tile_columns, view.tiles_run = tiles.rows, tiles.columns, tiles.run
        if inspection.alignment is not None:
            found = inspection.alignment
            view.aligned, view.shift_x, view.shift_y = True, found.x, found.y
            view.rotation, view.correlation = found.rotation, found.correlation
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
        zones = (ctypes.c_char_p * len(region.zones))(*map(_c_text, region.zones))
        self._kept += [holes, zones]
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
            ctypes.addressof(zones),
            len(zones),
            _c_text(region.severity),
            region.area_mm2 or 0.0,
        )

    def _polygon(self, polygon: Polygon) -> PolygonStruct:
        # Thrice as fast as numpy.array: a large region has thousands of points.
        points = np.fromiter(chain.from_iterable(polygon), np.int32, 2 * len(polygon))
        return PolygonStruct(self._address(points, np.int32), len(polygon))

    def _address(self, array: NDArray[Any], dtype: type[np.generic]) -> int:
        packed = np.ascontiguousarray(array, dtype)
        self._kept.append(packed)
        return packed.ctypes.data


def _c_text(text: str | None) -> bytes:
    # A zero byte would end the text early on the C side.
    return (text or "").replace("\0", "").encode()


def json_of(document: object) -> bytes:
    """Return a document as UTF-8 JSON."""
    return json.dumps(document, ensure_ascii=False).encode()
