"""Resizing on the device: a frame goes up once, and both encoders take what `frame_resizer` gives.

What it gives is Pillow's to the last bit: where a frame is resized changes no result.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np

from zeroflaw.pipeline.geometry import FrameGeometry, resized_for_encoders
from zeroflaw.pipeline.resizing.weights import (
    AxisResizing,
    Filter,
    axis_weights,
    columns_come_first,
)
from zeroflaw_engines.contract import MAX_FRAME_EXTENT, MAX_RESIZED_EXTENT
from zeroflaw_engines.image_files.frame import Frame
from zeroflaw_engines.sessions.device_tensor import DeviceTensor, Tensor, on_host
from zeroflaw_engines.sessions.session import Session

# Of a frame of 12 megapixels, those for CLIP and for SAM take 48 MB.
_WEIGHT_BYTES: Final = 128 << 20
_FP16_BYTES: Final = 2
_MAX_SIZES: Final = 256
_WHY: Final = (
    f"frame_resizer takes at most {MAX_FRAME_EXTENT} px a side, gives at most"
    f" {MAX_RESIZED_EXTENT}, and must be able to sum exactly"
)

Resized = Tensor | DeviceTensor

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Pass:
    """One call of the engine, which resizes the width first, then the height."""

    height: AxisResizing
    width: AxisResizing


@dataclass(frozen=True, eq=False)
class _Weights:
    """What one call of the engine is given beside the picture, on the device."""

    row_weights: Resized
    column_weights: Resized


@dataclass(frozen=True, eq=False)
class DeviceFrame:
    """A frame on the device, and how it is resized for the encoders of one bundle.

    Attributes:
        session: Of `frame_resizer`.
        pixels: uint8 [H, W, 3], where `DeviceResizer.upload` put it.
        squash_weights: Of the calls that make CLIP's square of it; none where it is that already.
        fit_weights: The same of SAM's.
    """

    session: Session
    pixels: Resized
    geometry: FrameGeometry
    squash_weights: tuple[_Weights, ...]
    fit_weights: tuple[_Weights, ...]

    def squash(self) -> Resized:
        """Resize it to CLIP's square; see `geometry.squash`.

        Returns:
            uint8 [1, S, S, 3].

        Raises:
            EngineError: The engine failed.
        """
        return self._resized(self.pixels, self.squash_weights)

    def fit(self) -> Resized:
        """Resize what SAM is given into the top left of its square; see `geometry.fit`.

        Returns:
            uint8 [1, sam_size, sam_size, 3], zero outside the content.

        Raises:
            EngineError: The engine failed.
        """
        source = self.pixels
        if self.geometry.sam_source != self.geometry.frame:
            source = _reshaped(self.squash(), (*self.geometry.sam_source, 3))
        return self._resized(source, self.fit_weights)

    def _resized(self, picture: Resized, calls: tuple[_Weights, ...]) -> Resized:
        image = _reshaped(picture, (1, *picture.shape))
        for weights in calls:
            given = {
                "frame": _reshaped(image, image.shape[1:]),
                "row_weights": weights.row_weights,
                "column_weights": weights.column_weights,
            }
            image = self.session.execute(given, keep=("image",))["image"]
        return image


class DeviceResizer:
    """`frame_resizer`, and the weights of the latest sizes, which stay on the device.

    The first frame of every size is resized on the host as well. A device whose values are not
    the same resizes no more: a wrong kernel would be seen by nobody. It may be used by several
    threads at once.

    Args:
        session: Of `frame_resizer`, on the backend of the encoders.
        checks: Whether first frames are compared.
    """

    def __init__(self, session: Session, *, checks: bool = True) -> None:
        self._session = session
        self._checks = checks
        self._checked: set[FrameGeometry] = set()
        self._is_wrong = False
        self._weights: OrderedDict[AxisResizing, Resized | None] = OrderedDict()
        self._has_refused = False
        self._lock = threading.Lock()

    @property
    def is_wrong(self) -> bool:
        """Whether the device gave other values than Pillow once: the host resizes since then."""
        return self._is_wrong

    def takes(self, geometry: FrameGeometry) -> bool:
        """Return whether frames are resized on the device, and not by the host.

        Raises:
            EngineError: There is not enough memory for the weights of their size.
        """
        return not self._is_wrong and self._weights_for_encoders(geometry) is not None

    def upload(self, frame: Frame, geometry: FrameGeometry) -> DeviceFrame | None:
        """Put a frame on the device.

        Args:
            frame: uint8 [H, W, 3], RGB.

        Returns:
            None where the host has to resize it, which the log says the first time, or where the
            device was found to be wrong, which is an error in the log.

        Raises:
            EngineError: There is not enough memory.
        """
        if self._is_wrong:
            return None
        weights = self._weights_for_encoders(geometry)
        if weights is None:
            level = logging.DEBUG if self._has_refused else logging.WARNING
            self._has_refused = True
            width, height = geometry.frame[::-1]
            _log.log(level, "frames of %d x %d px are resized on the host: %s", width, height, _WHY)
            return None
        pixels = self._session.upload("frame", np.ascontiguousarray(frame))
        up = DeviceFrame(self._session, pixels, geometry, *weights)
        return up if self._is_right(up, frame) else None

    def _is_right(self, up: DeviceFrame, frame: Frame) -> bool:
        """Compare what the device makes of the first frame of a size with what the host makes."""
        geometry = up.geometry
        if not self._checks or geometry in self._checked:
            return True
        square, fitted = resized_for_encoders(frame, geometry)
        pairs = [(up.squash(), square)]
        if geometry.sam_size:
            pairs.append((up.fit(), fitted))
        if all(np.array_equal(on_host(got)[0], want) for got, want in pairs):
            if square.min() < square.max():  # one colour says nothing of a kernel
                with self._lock:
                    if len(self._checked) >= _MAX_SIZES:
                        self._checked.clear()
                    self._checked.add(geometry)
            return True
        self._is_wrong = True
        _log.error(
            "frame_resizer on %s gives other values than Pillow for frames of %d x %d px: frames"
            " are resized on the host from now on; please report this with `zeroflaw doctor`",
            self._session.backend,
            *geometry.frame[::-1],
        )
        return False

    def _weights_for_encoders(
        self, geometry: FrameGeometry
    ) -> tuple[tuple[_Weights, ...], tuple[_Weights, ...]] | None:
        """Return the weights of the calls for CLIP and of those for SAM; see `_weights_of`."""
        for_clip, for_sam = (
            self._weights_of(passes) for passes in (_squash_passes(geometry), _fit_passes(geometry))
        )
        return None if for_clip is None or for_sam is None else (for_clip, for_sam)

    def _weights_of(self, passes: tuple[_Pass, ...]) -> tuple[_Weights, ...] | None:
        """Return the weights of some calls; None where the engine cannot resize so."""
        found = []
        for one in passes:
            rows, columns = self._axis_weights(one.height), self._axis_weights(one.width)
            if rows is None or columns is None:
                return None
            found.append(_Weights(rows, columns))
        return tuple(found)

    def _axis_weights(self, axis: AxisResizing) -> Resized | None:
        """Return the weights of one axis on the device."""
        if axis.source > MAX_FRAME_EXTENT or axis.extent > MAX_RESIZED_EXTENT:
            return None
        with self._lock:
            if axis in self._weights:
                self._weights.move_to_end(axis)
                return self._weights[axis]
        weights = axis_weights(axis)
        uploaded = None if weights is None else self._session.upload("row_weights", weights)
        with self._lock:
            self._weights[axis] = uploaded
            while len(self._weights) > 1 and sum(map(_bytes, self._weights)) > _WEIGHT_BYTES:
                self._weights.popitem(last=False)
        return uploaded


def _squash_passes(geometry: FrameGeometry) -> tuple[_Pass, ...]:
    size = (geometry.map_size, geometry.map_size)
    return _passes(geometry.frame, size, size, "bicubic")


def _fit_passes(geometry: FrameGeometry) -> tuple[_Pass, ...]:
    if not geometry.sam_size:
        return ()
    size = (geometry.sam_size, geometry.sam_size)
    return _passes(geometry.sam_source, geometry.sam_content, size, "bilinear")


def _passes(
    source: tuple[int, int], content: tuple[int, int], extent: tuple[int, int], resample: Filter
) -> tuple[_Pass, ...]:
    """Return the calls that resize a picture as Pillow does.

    The engine filters rows first. Where Pillow filters columns first, one call leaves the width
    as it is, and a second one the height.
    """
    if source == content == extent:
        return ()
    height = AxisResizing(source[0], content[0], extent[0], resample)
    width = AxisResizing(source[1], content[1], extent[1], resample)
    if not columns_come_first(source, content):
        return (_Pass(height, width),)
    same_width = AxisResizing(source[1], source[1], source[1], resample)
    same_height = AxisResizing(extent[0], extent[0], extent[0], resample)
    return (_Pass(height, same_width), _Pass(same_height, width))


def _reshaped(tensor: Resized, shape: tuple[int, ...]) -> Resized:
    """Return a tensor in another shape, without a copy."""
    return tensor.reshape(shape) if isinstance(tensor, np.ndarray) else tensor.view((), shape)


def _bytes(axis: AxisResizing) -> int:
    return 2 * _FP16_BYTES * axis.source * axis.extent
