"""Outlines of parts: what lies in a frame that a surface does not fill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from zeroflaw_export.drawn_frames.noise import FloatArray, Rng

Points = NDArray[np.float64]
Outline = Callable[[Rng], Points]


def draw_silhouette(rng: Rng, size: int) -> FloatArray:
    """Draw one part, or several alike, float32 [size, size]: 1 on a part, 0 beside it."""
    part = np.zeros((size, size), np.float32)
    outline = _OUTLINES[int(rng.integers(len(_OUTLINES)))]
    layout = rng.random()
    if layout < 0.55:
        _lay(part, rng, outline, rng.uniform(0.35, 0.65, 2), float(rng.uniform(0.22, 0.48)))
    elif layout < 0.75:
        _lay_grid(part, rng, outline)
    else:
        _lay_heap(part, rng)
    return part


def _lay_grid(part: FloatArray, rng: Rng, outline: Outline) -> None:
    """Lay parts alike in rows, as in a tray."""
    count = int(rng.integers(2, 5))
    state = int(rng.integers(2**31))
    radius = float(rng.uniform(0.28, 0.44)) / count
    for row in range(count):
        for column in range(count):
            at = (np.array([column, row]) + 0.5) / count + rng.normal(0, 0.006, 2)
            _lay(part, np.random.default_rng(state), outline, at, radius)


def _lay_heap(part: FloatArray, rng: Rng) -> None:
    """Lay a few different parts wherever they fall."""
    for _ in range(int(rng.integers(2, 6))):
        outline = _OUTLINES[int(rng.integers(len(_OUTLINES)))]
        _lay(part, rng, outline, rng.uniform(0.1, 0.9, 2), float(rng.uniform(0.08, 0.24)))


def _lay(
    part: FloatArray, rng: Rng, outline: Outline, centre: NDArray[np.float64], radius: float
) -> None:
    size = part.shape[0]
    turn = float(rng.uniform(0, 2 * np.pi))
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shape = outline(rng)
    _fill(part, (shape @ spin * radius + centre) * size, 1.0)
    for hole in _holes(rng):
        _fill(part, (hole @ spin * radius + centre) * size, 0.0)


def _fill(part: FloatArray, points: Points, value: float) -> None:
    fixed = np.round(points * 16).astype(np.int32)
    cv2.fillPoly(part, [fixed], value, cv2.LINE_AA, 4)


def _holes(rng: Rng) -> list[Points]:
    """Bore a part: nothing, a bore in the middle, or bores around it."""
    choice = rng.random()
    if choice < 0.5:
        return []
    holes = [_circle(float(rng.uniform(0.12, 0.45)))]
    if choice > 0.75:
        count, radius = int(rng.integers(3, 9)), float(rng.uniform(0.04, 0.1))
        angles = 2 * np.pi * np.arange(count) / count
        centres = 0.62 * np.stack([np.cos(angles), np.sin(angles)], 1)
        holes += [_circle(radius) + centre for centre in centres]
    return holes


def _circle(radius: float) -> Points:
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return np.asarray(radius * np.stack([np.cos(angles), np.sin(angles)], 1))


def _ellipse(rng: Rng) -> Points:
    return _circle(1.0) * (1.0, rng.uniform(0.45, 1.0))


def _rounded_rectangle(rng: Rng) -> Points:
    power = float(rng.uniform(3, 12))
    angles = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    cosine, sine = np.cos(angles), np.sin(angles)
    corner = np.stack(
        [
            np.sign(cosine) * np.abs(cosine) ** (2 / power),
            np.sign(sine) * np.abs(sine) ** (2 / power),
        ],
        1,
    )
    return corner * (0.9, rng.uniform(0.25, 0.9))


def _regular(rng: Rng) -> Points:
    corners = int(rng.integers(3, 9))
    angles = 2 * np.pi * np.arange(corners) / corners
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def _irregular(rng: Rng) -> Points:
    corners = int(rng.integers(5, 10))
    angles = 2 * np.pi * (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) / corners
    radius = rng.uniform(0.55, 1.0, corners)
    return np.asarray(radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1))


def _gear(rng: Rng) -> Points:
    teeth = int(rng.integers(8, 40))
    angles = np.linspace(0, 2 * np.pi, 16 * teeth, endpoint=False)
    wave = np.clip(np.sin(teeth * angles) * float(rng.uniform(1.2, 4)), -1, 1)
    radius = 1 - float(rng.uniform(0.03, 0.12)) * (1 - wave)
    return np.asarray(radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1))


def _bottle(rng: Rng) -> Points:
    """A turned part seen from its side: a profile and its mirror image."""
    steps = int(rng.integers(4, 9))
    width = np.repeat(rng.uniform(0.2, 0.6, steps), 2)
    along = np.repeat(np.linspace(-1, 1, steps + 1), 2)[1:-1]
    side = np.stack([along, width], 1)
    return np.concatenate([side, (side * (1, -1))[::-1]])


_OUTLINES: Final[tuple[Outline, ...]] = (
    _ellipse,
    _rounded_rectangle,
    _rounded_rectangle,
    _regular,
    _irregular,
    _gear,
    _bottle,
)
