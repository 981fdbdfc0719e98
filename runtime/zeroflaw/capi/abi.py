"""The structs and numbers of `zeroflaw.h`, field by field; a test compares the two."""

from __future__ import annotations

import ctypes
from enum import IntEnum
from typing import Final

ABI_VERSION: Final = 1


class Status(IntEnum):
    """`zeroflaw_status`."""

    OK = 0
    INVALID_ARGUMENT = 1
    STRUCT_SIZE = 2
    INVALID_HANDLE = 3
    ENVIRONMENT = 4
    CONFIGURATION = 5
    BUNDLE = 6
    BACKEND = 7
    ENGINE = 8
    FRAME = 9
    PRODUCT = 10
    QUEUE_FULL = 11
    TIMEOUT = 12
    DEADLINE_MISSED = 13
    DROPPED = 14
    SHUTTING_DOWN = 15
    BUFFER_TOO_SMALL = 16
    INTERNAL = 17
    HELD = 18


class DecisionCode(IntEnum):
    """`zeroflaw_decision`."""

    INVALID = 0
    ACCEPT = 1
    REJECT = 2


class PixelFormat(IntEnum):
    """`zeroflaw_pixel_format`."""

    MONO8 = 1
    RGB8 = 2
    BGR8 = 3
    RGBA8 = 4
    BGRA8 = 5
    MONO16 = 6


class State(IntEnum):
    """`zeroflaw_state`."""

    INITIALIZED = 1
    READY = 2
    FAILING = 3


def has_field(struct: ctypes.Structure, name: str) -> bool:
    """Return whether a struct of the caller's reaches as far as a field.

    A program that was compiled against an older header gives shorter structs: what lies behind
    them is not ours to read or write.

    Args:
        struct: One of those below that begin with `struct_size`.
    """
    field = getattr(type(struct), name)
    return bool(field.offset + field.size <= struct.struct_size)


class Config(ctypes.Structure):
    """`zeroflaw_config`."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("python_home", ctypes.c_char_p),
        ("bundle", ctypes.c_char_p),
        ("backend", ctypes.c_char_p),
        ("precision", ctypes.c_char_p),
        ("model_cache", ctypes.c_char_p),
        ("encoder_schedule", ctypes.c_char_p),
        ("max_frame_pixels", ctypes.c_uint64),
        ("threads", ctypes.c_int32),
        ("queue_size", ctypes.c_int32),
        ("when_full", ctypes.c_char_p),
        ("device", ctypes.c_int32),
    )


class FrameStruct(ctypes.Structure):
    """`zeroflaw_frame`."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("pixels", ctypes.c_void_p),
        ("stride", ctypes.c_size_t),
        ("width", ctypes.c_uint32),
        ("height", ctypes.c_uint32),
        ("pixel_format", ctypes.c_int32),
        ("white_level", ctypes.c_float),
        ("product", ctypes.c_char_p),
        ("frame_id", ctypes.c_char_p),
        ("part_id", ctypes.c_char_p),
        ("deadline_ms", ctypes.c_double),
        ("camera_id", ctypes.c_char_p),
    )


class PolygonStruct(ctypes.Structure):
    """`zeroflaw_polygon`; its points are packed int32 pairs, as `zeroflaw_point` is."""

    _fields_ = (("points", ctypes.c_void_p), ("point_count", ctypes.c_size_t))


class TimingStruct(ctypes.Structure):
    """`zeroflaw_timing`."""

    _fields_ = (("stage", ctypes.c_char_p), ("milliseconds", ctypes.c_double))


class RegionStruct(ctypes.Structure):
    """`zeroflaw_region`."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("x", ctypes.c_int32),
        ("y", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("area", ctypes.c_int64),
        ("centroid_x", ctypes.c_double),
        ("centroid_y", ctypes.c_double),
        ("peak_score", ctypes.c_double),
        ("polygon", PolygonStruct),
        ("holes", ctypes.c_void_p),
        ("hole_count", ctypes.c_size_t),
        ("zones", ctypes.c_void_p),
        ("zone_count", ctypes.c_size_t),
        ("severity", ctypes.c_char_p),
        ("area_mm2", ctypes.c_double),
    )


class ViewStruct(ctypes.Structure):
    """`zeroflaw_inspection_view`."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("status", ctypes.c_int32),
        ("decision", ctypes.c_int32),
        ("deadline_missed", ctypes.c_int32),
        ("frame_width", ctypes.c_uint32),
        ("frame_height", ctypes.c_uint32),
        ("map_width", ctypes.c_uint32),
        ("map_height", ctypes.c_uint32),
        ("ticket", ctypes.c_uint64),
        ("error", ctypes.c_char_p),
        ("frame_id", ctypes.c_char_p),
        ("part_id", ctypes.c_char_p),
        ("product", ctypes.c_char_p),
        ("outcome", ctypes.c_char_p),
        ("bundle", ctypes.c_char_p),
        ("backend", ctypes.c_char_p),
        ("score", ctypes.c_double),
        ("threshold", ctypes.c_double),
        ("queue_ms", ctypes.c_double),
        ("mask", ctypes.c_void_p),
        ("mask_stride", ctypes.c_size_t),
        ("anomaly_map", ctypes.c_void_p),
        ("score_map", ctypes.c_void_p),
        ("regions", ctypes.c_void_p),
        ("region_count", ctypes.c_size_t),
        ("timings", ctypes.c_void_p),
        ("timing_count", ctypes.c_size_t),
        ("warnings", ctypes.c_void_p),
        ("warning_count", ctypes.c_size_t),
        ("reason", ctypes.c_char_p),
        ("reason_text", ctypes.c_char_p),
        ("id", ctypes.c_char_p),
        ("time", ctypes.c_char_p),
        ("monotonic_ns", ctypes.c_uint64),
        ("camera_id", ctypes.c_char_p),
        ("software", ctypes.c_char_p),
        ("text_embeddings", ctypes.c_char_p),
        ("calibration", ctypes.c_char_p),
        ("parameters", ctypes.c_char_p),
        ("reference", ctypes.c_char_p),
        ("decision_score", ctypes.c_double),
        ("rule", ctypes.c_char_p),
        ("settings", ctypes.c_char_p),
        ("tile_rows", ctypes.c_uint32),
        ("tile_columns", ctypes.c_uint32),
        ("tiles_run", ctypes.c_uint32),
        ("aligned", ctypes.c_int32),
        ("shift_x", ctypes.c_double),
        ("shift_y", ctypes.c_double),
        ("rotation", ctypes.c_double),
        ("correlation", ctypes.c_double),
    )


class HealthStruct(ctypes.Structure):
    """`zeroflaw_health_report`."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("state", ctypes.c_int32),
        ("queue_size", ctypes.c_int32),
        ("queued", ctypes.c_int32),
        ("running", ctypes.c_int32),
        ("results", ctypes.c_int32),
        ("heartbeat", ctypes.c_uint64),
        ("inspected", ctypes.c_uint64),
        ("failed", ctypes.c_uint64),
        ("late", ctypes.c_uint64),
        ("dropped", ctypes.c_uint64),
        ("last_error", ctypes.c_char * 512),
        ("held", ctypes.c_uint64),
    )


STRUCTS: Final = {
    "zeroflaw_config": Config,
    "zeroflaw_frame": FrameStruct,
    "zeroflaw_polygon": PolygonStruct,
    "zeroflaw_timing": TimingStruct,
    "zeroflaw_region": RegionStruct,
    "zeroflaw_inspection_view": ViewStruct,
    "zeroflaw_health_report": HealthStruct,
}
