"""Alignment: a frame of a fixtured part brought onto a reference photo.

Both are compared in grey and reduced to the same size. Phase correlation finds the translation, at
several angles where the part may be turned; ECC (Evangelidis and Psarakis 2008) refines both. The
frame is warped once, at its full size.

Matrices map points (x, y, 1) whose whole numbers are the centres of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.geometry import BoolArray, FloatArray
from zeroflaw.pipeline.view.registration import (
    Motion,
    correlation_at,
    euclidean,
    motion_between,
    reduced,
    turn_between,
)
from zeroflaw.pipeline.view.zones import ZoneLayout
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.products.settings import Alignment
from zeroflaw_engines.errors import BundleDamagedError, FrameError
from zeroflaw_engines.image_files.frame import Frame

# A zone may reach over the frame's border by less than this, px: it was drawn up to the border.
_MARGIN: Final = 1.0
# Where no rotation is allowed, less than this is none, degrees: it is measured coarsely.
_UNTURNED: Final = 0.5
# Share of what is judged in a pixel of a map that is brought back, from which on its value is that
# of the judged part; of less, rounding is left.
_LEAST_SHARE: Final = 1e-3


@dataclass(frozen=True, eq=False)
class AlignedFrame:
    """A frame on a reference photo.

    Attributes:
        frame: uint8 [H, W, 3], RGB, in the reference photo's pixels; as it was given if it cannot
            be judged.
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
        height, width = self.frame.shape[:2]
        for zone in zones.moved(self.matrix):
            if zone.kind != "include":
                continue
            there = np.asarray(zone.polygon, np.float64)
            outside = float(np.maximum(-there, there - (width, height)).max())
            if outside > _MARGIN:
                return (
                    f"the zone {zone.name!r} reaches {outside:.1f} px outside the frame, in which"
                    f" the part is shifted by {self._where()}: put the part, or the camera, back"
                    " to where they were, or draw the zone further inside"
                )
        return None

    def mask_in_frame(self, mask: BoolArray) -> BoolArray:
        """Bring a mask, bool [H, W], back onto the frame as it was given; no region is lost."""
        height, width = mask.shape
        left, top, w, h = cv2.boundingRect(mask.view(np.uint8))
        if w == 0:
            return mask
        part = np.ascontiguousarray(mask[top : top + h, left : left + w]).view(np.uint8)
        _, labels, stats, _ = cv2.connectedComponentsWithStats(part, connectivity=8)
        matrix = self.matrix.copy()
        matrix[:, 2] += matrix[:, :2] @ (left, top)
        # Whole numbers below 2**24 are exact.
        warped = cv2.warpAffine(
            labels.astype(np.float32), matrix, (width, height), flags=cv2.INTER_NEAREST
        )
        found = warped > 0
        seen = np.zeros(len(stats), np.bool_)
        seen[warped[found].astype(np.intp)] = True
        for label in np.flatnonzero(~seen[1:]) + 1:
            # A thin region fell between the centres of pixels, or lies on the border.
            x, y, w, h, _ = stats[label]
            row, column = np.argwhere(labels[y : y + h, x : x + w] == label)[0]
            at = matrix @ (x + column, y + row, 1)
            column, row = np.rint(at).astype(int).clip(0, (width - 1, height - 1))
            found[row, column] = True
        return found

    def map_in_frame(self, values: FloatArray, judged: BoolArray | None = None) -> FloatArray:
        """Bring a map that covers the frame, float32 [h, w], back onto it as it was given.

        It is bilinear, and 0 where the reference photo shows nothing, and nothing is judged. What
        is beside that does not fade into it: a peak on the border of a zone stays as high.

        Args:
            judged: bool [h, w]; the map is 0 elsewhere. None: everywhere.
        """
        scale = np.divide(self.frame.shape[:2], values.shape)[::-1]
        way, size = _scaled(self.matrix, scale), values.shape[::-1]
        brought: FloatArray = np.asarray(cv2.warpAffine(values, way, size), np.float32)
        of = np.ones(values.shape, np.float32) if judged is None else judged.astype(np.float32)
        share = cv2.warpAffine(of, way, size)
        np.divide(brought, share, out=brought, where=share > _LEAST_SHARE)
        # Rounding may carry a mean past the highest of its values.
        np.minimum(brought, values.max(), out=brought)
        return brought

    def _where(self) -> str:
        x, y = self.shift
        turned = f" and turned by {self.rotation:.2f} degrees" if self.rotation else ""
        return f"({x:.1f}, {y:.1f}) px{turned}"


@dataclass(frozen=True, eq=False)
class Aligner:
    """Brings frames of one size onto a reference photo.

    Attributes:
        template: float32 [h, w], the reference photo in grey, reduced.
    """

    settings: Alignment
    template: FloatArray

    def align(self, frame: Frame) -> AlignedFrame:
        """Align a frame, uint8 [H, W, 3], RGB.

        The whole photo is compared, whatever zones there are.
        """
        settings = self.settings
        height, width = frame.shape[:2]
        grey = reduced(frame).astype(np.float32)
        rotates = settings.method == "ecc" and settings.max_rotation > 0
        motion = motion_between(
            self.template,
            grey,
            max_rotation=settings.max_rotation if rotates else 0,
            refine=settings.method == "ecc",
        )
        rotation = motion.rotation
        if settings.method == "ecc" and not rotates:
            turned = turn_between(self.template, grey, motion)
            rotation = turned if abs(turned) > _UNTURNED else 0.0
        scale = np.divide((width, height), grey.shape[::-1])
        shift = np.multiply(motion.shift, scale)
        matrix = euclidean(Motion((float(shift[0]), float(shift[1])), motion.rotation), frame.shape)
        known = AlignedFrame(
            frame=frame,
            matrix=matrix,
            shift=(float(shift[0]), float(shift[1])),
            rotation=rotation,
            correlation=correlation_at(self.template, grey, motion),
        )
        fault = self._fault(known)
        if fault is None:
            frame = np.asarray(
                cv2.warpAffine(
                    frame,
                    matrix,
                    (width, height),
                    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                    borderMode=cv2.BORDER_REPLICATE,
                ),
                np.uint8,
            )
        return AlignedFrame(frame, matrix, known.shift, known.rotation, known.correlation, fault)

    def _fault(self, found: AlignedFrame) -> str | None:
        """Say why a frame cannot be judged; None if it can."""
        settings = self.settings
        distance = float(np.hypot(*found.shift))
        # Of a part that is not found, the shift says nothing.
        if not found.correlation >= settings.min_correlation:
            return (
                f"the frame has a correlation of {found.correlation:.3f} with the reference photo,"
                f" and at least {settings.min_correlation:.3f} is asked for: see that the part is"
                " the one of the photo, within max_shift and max_rotation of it, and in its light"
            )
        if distance > settings.max_shift:
            return (
                f"the part is shifted by {distance:.1f} px against the reference photo, and at most"
                f" {settings.max_shift:g} px are allowed: put the part, or the camera, back to"
                " where they were, or edit the settings with a new photo"
            )
        if abs(found.rotation) > settings.max_rotation and found.rotation:
            return (
                f"the part is turned by {found.rotation:.2f} degrees against the reference photo,"
                f" and at most {settings.max_rotation:g} are allowed: put it in its fixture as in"
                " the photo, or edit the settings with a new photo"
            )
        return None


def reference_template(frame: Frame) -> bytes:
    """Make of a photo what frames are aligned with: a grey PNG of at most 1024 px a side.

    Args:
        frame: uint8 [H, W, 3], RGB.

    Raises:
        FrameError: It is of one grey, so that nothing can be aligned with it.
    """
    grey = reduced(frame)
    if grey.min() == grey.max():
        raise FrameError(
            "the reference photo is of one grey, and no frame can be aligned with it",
            "take a photo that shows the part",
        )
    done, data = cv2.imencode(".png", grey)
    if not done:
        raise FrameError("the reference photo could not be encoded as PNG", "try another photo")
    return data.tobytes()


def aligner_of(
    settings: Alignment | None, frame: tuple[int, int], bundle: Bundle
) -> Aligner | None:
    """Read a reference photo; None if frames are taken as they are.

    Args:
        frame: Height and width of the frames, px.

    Raises:
        BundleDamagedError: The file is missing, altered, or no such photo.
        BundleChangedError: It was replaced or removed since the bundle was opened.
    """
    if settings is None:
        return None
    name = settings.template
    data = bundle.product_file(name, f"the reference photo {name}")
    template: NDArray[Any] | None
    try:
        template = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:  # of an empty file
        template = None
    expected = reduced(np.zeros((*frame, 3), np.uint8)).shape
    if template is None or template.dtype != np.uint8 or template.shape != expected:
        is_there = "no picture" if template is None else f"{template.dtype}{list(template.shape)}"
        raise BundleDamagedError(
            f"the reference photo {bundle.path / name} is {is_there}, not"
            f" uint8{list(expected)} for frames of {frame[1]} x {frame[0]} px",
            "copy the bundle anew, or edit the product's settings with a new photo",
        )
    return Aligner(settings, template.astype(np.float32))


def _scaled(matrix: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring a matrix onto a grid whose pixels are larger, its corners being the frame's.

    Args:
        scale: Pixels of the frame to one of the grid, in x and in y.
    """
    # A point u of the grid is scale * (u + 1/2) - 1/2 of the frame.
    offset = scale / 2 - 0.5
    linear = matrix[:, :2] * scale / scale[:, None]
    moved = (matrix[:, :2] @ offset + matrix[:, 2] - offset) / scale
    return np.column_stack([linear, moved])
