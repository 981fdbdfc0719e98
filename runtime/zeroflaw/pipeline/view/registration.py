"""Registration: the translation and rotation between two small grey pictures of one size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.geometry import FloatArray
from zeroflaw_engines.image_files.frame import Frame

# Longer side of what is compared in the end, px, of what is searched, and of the step between.
_SIDE: Final = 1024
_SEARCHED: Final = 128
_REFINED: Final = 256
# Between two angles that are tried, degrees; of angles half as far off, phase correlation finds
# the translation.
_STEP: Final = 1.5
# Phase correlation sees the more of both pictures, the nearer they are.
_PASSES: Final = 3
_ECC: Final = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-6)
# Least share of a picture that has to be seen to compare it: less may be alike by chance.
_LEAST_SEEN: Final = 0.5


@dataclass(frozen=True)
class Motion:
    """Where a picture's content lies in another one.

    Attributes:
        shift: Of the picture's middle, px, in x and in y.
        rotation: About the middle, degrees, counter-clockwise.
    """

    shift: tuple[float, float] = (0.0, 0.0)
    rotation: float = 0.0


@dataclass(frozen=True)
class _Found:
    """A motion between two pictures of a shape."""

    motion: Motion
    shape: tuple[int, ...]

    def at(self, shape: tuple[int, ...]) -> Motion:
        """Return it between the same pictures at another shape."""
        x, y = np.multiply(self.motion.shift, np.divide(shape, self.shape)[::-1])
        return Motion((float(x), float(y)), self.motion.rotation)


def reduced(frame: Frame) -> Frame:
    """Return a frame in grey, reduced to at most 1024 px along its longer side.

    Args:
        frame: uint8 [H, W, 3], RGB.

    Returns:
        uint8 [h, w].
    """
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return np.asarray(_at_most(grey, _SIDE), np.uint8)


def euclidean(motion: Motion, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the matrix, float64 [2, 3], that maps the one picture to the other.

    Args:
        shape: Of the picture, [h, w, ...].
    """
    angle = np.deg2rad(motion.rotation)
    # y points down, so that a counter-clockwise turn is a negative one.
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    middle = _middle(shape)
    return np.column_stack([turn, middle + motion.shift - turn @ middle])


def mapped(points: NDArray[Any], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map points by a matrix such as that of `euclidean`.

    Args:
        points: [n, 2], (x, y); whole numbers are the centres of pixels.
        matrix: float64 [2, 3].

    Returns:
        float64 [n, 2].
    """
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float64)


def motion_between(
    template: FloatArray, picture: FloatArray, *, max_rotation: float, refine: bool
) -> Motion:
    """Find where the content of one picture lies in another one.

    Args:
        template: float32 [h, w] in [0, 255].
        picture: float32 [h, w] in [0, 255].
        max_rotation: Largest angle that is looked for, degrees; 0: translation alone.
        refine: Whether ECC refines what phase correlation found.
    """
    turns = max_rotation > 0
    known = _Found(Motion(), template.shape)
    for side in (_SEARCHED, _REFINED, _SIDE):
        one, other = _at_most(template, side), _at_most(picture, side)
        motion = known.at(one.shape)
        if side == _SEARCHED:
            motion = _searched(one, other, max_rotation)
        elif refine:
            motion = _refined(one, other, motion, turns=turns)
        else:
            motion = _translated(one, other, motion)
        known = _Found(motion, one.shape)
    return known.motion


def turn_between(template: FloatArray, picture: FloatArray, motion: Motion) -> float:
    """Measure how far a picture is turned where a translation was found, to a tenth of a degree.

    Args:
        template: float32 [h, w] in [0, 255].
        picture: float32 [h, w] in [0, 255].
        motion: The translation between them.

    Returns:
        Degrees, counter-clockwise; that of the motion if no other correlates better.
    """
    one, other = _at_most(template, _REFINED), _at_most(picture, _REFINED)
    start = _Found(motion, template.shape).at(one.shape)
    return _refined(one, other, start, turns=True).rotation


def correlation_at(template: FloatArray, picture: FloatArray, motion: Motion) -> float:
    """Return Pearson's correlation of two pictures where the one covers the other.

    Returns:
        In [-1, 1]; 0 where one of them is constant, or they hardly cover one another.
    """
    moved, seen = _on_template(picture, motion)
    if np.count_nonzero(seen) < _LEAST_SEEN * seen.size:
        return 0.0
    a, b = template[seen].astype(np.float64), moved[seen].astype(np.float64)
    a -= a.mean()
    b -= b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    # What rounding leaves of a constant picture is none.
    return float(np.clip(a @ b / size, -1, 1)) if size > 1e-6 * a.size else 0.0


def _searched(template: FloatArray, picture: FloatArray, max_rotation: float) -> Motion:
    """Find a motion from nothing: the translation at several angles, of which the best is taken."""
    steps = int(np.ceil(max_rotation / _STEP))
    angles = np.linspace(-max_rotation, max_rotation, 2 * steps + 1)
    tried = [_translated(template, picture, Motion(rotation=float(angle))) for angle in angles]
    return max(tried, key=lambda one: correlation_at(template, picture, one))


def _translated(template: FloatArray, picture: FloatArray, start: Motion) -> Motion:
    """Find the translation by phase correlation, from a motion that is nearly right."""
    window = cv2.createHanningWindow(template.shape[::-1], cv2.CV_32F)
    motion = start
    for _ in range(_PASSES):
        moved, _ = _on_template(picture, motion)
        # OpenCV multiplies its arguments by the window where they are.
        (x, y), _ = cv2.phaseCorrelate(template.copy(), moved, window)
        if not np.isfinite((x, y)).all():  # of constant pictures
            return motion
        # What is left is in the template's axes, and the picture's are turned against them.
        turn = euclidean(Motion(rotation=motion.rotation), (1, 1))[:, :2]
        by = turn @ (x, y)
        moved_on = Motion(
            (motion.shift[0] + float(by[0]), motion.shift[1] + float(by[1])), motion.rotation
        )
        if _gain(template, picture, moved_on, motion) <= 0:
            return motion
        motion = moved_on
    return motion


def _refined(template: FloatArray, picture: FloatArray, start: Motion, *, turns: bool) -> Motion:
    """Refine a motion by ECC; one that does not converge from there starts from none.

    Returns:
        The one that is found or the start, whichever correlates better.
    """
    kind = cv2.MOTION_EUCLIDEAN if turns else cv2.MOTION_TRANSLATION
    for begin in (start, Motion()):
        matrix = euclidean(begin, template.shape).astype(np.float32)
        try:
            _, ended = cv2.findTransformECC(template, picture, matrix, kind, _ECC)
        except cv2.error:  # it diverges, or there is no overlap
            continue
        found = _motion_of(np.asarray(ended, np.float64), template.shape)
        return found if _gain(template, picture, found, start) > 0 else start
    return start


def _gain(template: FloatArray, picture: FloatArray, one: Motion, other: Motion) -> float:
    return correlation_at(template, picture, one) - correlation_at(template, picture, other)


def _motion_of(matrix: NDArray[np.float64], shape: tuple[int, ...]) -> Motion:
    middle = _middle(shape)
    x, y = matrix[:, :2] @ middle + matrix[:, 2] - middle
    rotation = float(np.rad2deg(-np.arctan2(matrix[1, 0], matrix[0, 0])))
    return Motion((float(x), float(y)), rotation)


def _on_template(picture: FloatArray, motion: Motion) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Bring a picture onto the template, and say where it shows something."""
    matrix = euclidean(motion, picture.shape)
    size = picture.shape[::-1]
    moved = cv2.warpAffine(
        picture,
        matrix,
        size,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    seen = cv2.warpAffine(
        np.ones(picture.shape, np.uint8),
        matrix,
        size,
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
    )
    return np.asarray(moved, np.float32), seen > 0


def _middle(shape: tuple[int, ...]) -> NDArray[np.float64]:
    return (np.array(shape[1::-1], np.float64) - 1) / 2


def _at_most(picture: NDArray[Any], side: int) -> NDArray[Any]:
    """Reduce a picture, [h, w], so that its longer side has at most so many px."""
    height, width = picture.shape
    scale = side / max(height, width)
    if scale >= 1:
        return picture
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
