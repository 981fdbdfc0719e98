"""Frames of the C side as NumPy arrays, without a copy."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw.capi.abi import FrameStruct, PixelFormat, has_field
from zeroflaw.capi.configuration import decoded
from zeroflaw.capi.errors import EmbeddingError
from zeroflaw_engines.errors import FrameError
from zeroflaw_engines.image_files.frame import ChannelOrder


@dataclass(frozen=True)
class _Layout:
    channels: int
    channel_order: ChannelOrder = "rgb"
    dtype: type[np.uint8 | np.uint16] = np.uint8


_LAYOUTS: Final = {
    PixelFormat.MONO8: _Layout(1),
    PixelFormat.RGB8: _Layout(3),
    PixelFormat.BGR8: _Layout(3, "bgr"),
    PixelFormat.RGBA8: _Layout(4),
    PixelFormat.BGRA8: _Layout(4, "bgr"),
    PixelFormat.MONO16: _Layout(1, dtype=np.uint16),
}


@dataclass(frozen=True)
class Request:
    """A frame, and how it is to be inspected.

    Attributes:
        image: [H, W] or [H, W, C], a view of the caller's memory; valid during the call alone.
        channel_order: Of the image.
        white_level: Value that counts as white; None: the dtype's largest.
        product: Name; None: the only one.
        frame_id: Echoed; None if there is none.
        part_id: The same of the part.
        camera_id: The same of the camera.
        deadline_ms: From the call; None: no deadline.
    """

    image: NDArray[Any]
    channel_order: ChannelOrder
    white_level: float | None
    product: str | None
    frame_id: str | None
    part_id: str | None
    camera_id: str | None
    deadline_ms: float | None


def request_of(frame: FrameStruct) -> Request:
    """Return the request that a C struct makes.

    Raises:
        EmbeddingError: The pixels are a null pointer, a text is not UTF-8, or the deadline is
            not a time.
        FrameError: Format, size, stride or white level are none of a frame.
    """
    if not frame.pixels:
        raise EmbeddingError("frame->pixels is a null pointer", "give the frame's address")
    deadline = float(frame.deadline_ms)
    if not 0 <= deadline < float("inf"):
        raise EmbeddingError(
            f"frame->deadline_ms is {deadline:g}", "give milliseconds, or 0 for no deadline"
        )
    white = float(frame.white_level)
    if not 0 <= white < float("inf"):
        raise FrameError(
            f"frame->white_level is {white:g}", "give a positive number, or 0 for the default"
        )
    layout = _layout(frame.pixel_format)
    camera = frame.camera_id if has_field(frame, "camera_id") else None
    return Request(
        image=_image(frame, layout),
        channel_order=layout.channel_order,
        white_level=white or None,
        product=None if frame.product is None else decoded(frame.product, "frame->product"),
        frame_id=decoded(frame.frame_id, "frame->frame_id") or None,
        part_id=decoded(frame.part_id, "frame->part_id") or None,
        camera_id=decoded(camera, "frame->camera_id") or None,
        deadline_ms=deadline or None,
    )


def _layout(pixel_format: int) -> _Layout:
    try:
        return _LAYOUTS[PixelFormat(pixel_format)]
    except ValueError as error:
        known = ", ".join(f"{known.name} ({known.value})" for known in PixelFormat)
        raise FrameError(
            f"unknown pixel format {pixel_format}",
            f"convert the frame to one of: {known}",
        ) from error


def _image(frame: FrameStruct, layout: _Layout) -> NDArray[Any]:
    height, width, stride = frame.height, frame.width, frame.stride
    if not (height and width):
        raise FrameError(f"a frame of {width}x{height} px is empty", "check the camera")
    item = np.dtype(layout.dtype).itemsize
    row = width * layout.channels * item
    if stride < row:
        raise FrameError(
            f"a stride of {stride} bytes is less than a row of {width} px, {row} bytes",
            "give the bytes from one row to the next, padding included",
        )
    if stride % item or frame.pixels % item:
        raise FrameError(
            f"pixels of {item} bytes at address {frame.pixels:#x} with a stride of {stride} are"
            " not aligned",
            f"align rows to {item} bytes",
        )
    size = stride * (height - 1) + row
    if size > _LARGEST:
        raise FrameError(f"a frame of {size} bytes does not fit in memory", "check the stride")
    # The last row ends with its last pixel: what follows may not be ours to read.
    memory = (ctypes.c_uint8 * size).from_address(frame.pixels)
    shape = (height, width) if layout.channels == 1 else (height, width, layout.channels)
    strides = (stride, layout.channels * item, item)[: len(shape)]
    if layout.channels == 1:
        strides = (stride, item)
    return np.ndarray(shape, layout.dtype, memory, strides=strides)


_LARGEST: Final = 2**47  # a process's addresses end there
