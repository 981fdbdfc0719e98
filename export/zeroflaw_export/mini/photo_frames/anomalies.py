"""Anomalies in the manner of published synthesis, drawn into a window of a scene.

Each takes the window and gives it changed, float32 [N, N, 3]. What it changes is the anomaly: the
mask is taken from the change that a camera sees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np

from zeroflaw_export.drawn_frames.defects import TRAIN_DEFECTS
from zeroflaw_export.drawn_frames.noise import (
    FloatArray,
    Rng,
    as_floats,
    blurred,
    fractal_noise,
    smooth_noise,
    soft_edge,
    turned,
)
from zeroflaw_export.drawn_frames.surfaces import colour
from zeroflaw_export.mini.photo_frames.windows import Window, island, island_opacity

Draw = Callable[[Rng, Window], FloatArray]


@dataclass(frozen=True)
class Anomaly:
    """A type of anomaly.

    Attributes:
        draw: Draws it into a window.
        areas: Least and largest share of the frame that it covers.
        place: On the part, where the part's outline cuts it off, or across that outline.
        weight: How often it is drawn, relative to the others.
    """

    draw: Draw
    areas: tuple[float, float]
    place: Literal["part", "edge"] = "part"
    weight: float = 1.0


def foreign_texture(rng: Rng, window: Window) -> FloatArray:
    """Lay another texture over a thresholded noise field, as DRAEM does (arXiv 2108.07610)."""
    level = island(rng, window.side, min(0.6, window.fill), rng.uniform(0.3, 1.0))
    alpha = soft_edge(level, rng.uniform(0.5, 2.5)) * np.float32(rng.uniform(0.3, 1.0))
    return _over(window.image, window.foreign(rng), alpha)


def cut_paste(rng: Rng, window: Window) -> FloatArray:
    """Paste a rectangle of the same scene, turned and toned, as CutPaste does (2104.04015)."""
    side = window.side
    height = np.sqrt(window.fill / rng.uniform(0.4, 2.5)) * side
    alpha = _rectangle(side, height, window.fill * side * side / max(height, 1), rng)
    patch = turned(window.elsewhere, float(rng.choice([0, 90, 180, rng.uniform(0, 360)])))
    return _over(window.image, _toned(rng, patch), alpha)


def scar(rng: Rng, window: Window) -> FloatArray:
    """Paste a long thin rectangle of the same scene, CutPaste's scar."""
    side = window.side
    width = float(rng.uniform(0.02, 0.09)) * side
    length = min(0.9 * side, window.fill * side * side / max(width, 1.5))
    alpha = _rectangle(side, max(width, 1.5), length, rng)
    return _over(window.image, _toned(rng, window.elsewhere), alpha)


def blended_patch(rng: Rng, window: Window) -> FloatArray:
    """Blend a patch of another photo in by its gradients, as NSA does (2109.15222)."""
    side = window.side
    level = island(rng, side, min(0.5, window.fill * 1.3), rng.uniform(0.1, 0.5))
    border = max(2, side // 16)
    mask = np.zeros((side, side), np.uint8)
    mask[border:-border, border:-border] = (level[border:-border, border:-border] >= 0) * np.uint8(
        255
    )
    x, y, width, height = cv2.boundingRect(mask)
    if min(width, height) < 3:
        return window.image
    source = window.foreign(rng) if rng.random() < 0.7 else _toned(rng, window.elsewhere)
    source = (source - source.mean()) * np.float32(rng.uniform(1, 2)) + source.mean()
    blended = cv2.seamlessClone(
        _bytes(source),
        _bytes(window.image),
        mask,
        (x + width // 2, y + height // 2),
        cv2.NORMAL_CLONE if rng.random() < 0.7 else cv2.MIXED_CLONE,
    )
    changed = as_floats(blended) / np.float32(255)
    # What the clone left alone keeps its floats: rounding to bytes is no change.
    return _over(window.image, changed, as_floats(mask > 0))


def warp(rng: Rng, window: Window) -> FloatArray:
    """Bend what is there: a swirl or a wavy displacement."""
    side = window.side
    grid = np.arange(side, dtype=np.float32)
    y, x = np.meshgrid(grid, grid, indexing="ij")
    if rng.random() < 0.5:
        middle = np.float32(side / 2)
        radius = np.float32(0.5 * side)
        distance = np.hypot(y - middle, x - middle) / radius
        turn = (
            np.float32(rng.choice([-1, 1]) * rng.uniform(1.5, 5)) * np.clip(1 - distance, 0, 1) ** 2
        )
        cosine, sine = np.cos(turn), np.sin(turn)
        map_x = middle + (x - middle) * cosine - (y - middle) * sine
        map_y = middle + (x - middle) * sine + (y - middle) * cosine
    else:
        bend = np.float32(side * rng.uniform(0.05, 0.15))
        cells = float(rng.uniform(3, 7))
        weight = bend * soft_edge(island(rng, side, min(0.6, 1.5 * window.fill), 0.3), side * 0.08)
        map_x = x + weight * smooth_noise(rng, side, cells)
        map_y = y + weight * smooth_noise(rng, side, cells)
    return as_floats(
        cv2.remap(
            window.image,
            as_floats(map_x),
            as_floats(map_y),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )
    )


def missing_pattern(rng: Rng, window: Window) -> FloatArray:
    """Fill a spot with the mean colour around it: the pattern is missing there."""
    alpha = island_opacity(rng, window, rng.uniform(0, 0.4), rng.uniform(0.5, 3))
    even = blurred(window.image, max(2.0, window.side * rng.uniform(0.15, 0.4)))
    grain = fractal_noise(rng, window.side, window.side / rng.uniform(2, 6), 2)
    even = even * (1 + np.float32(rng.uniform(0, 0.06)) * grain)[..., None]
    return _over(window.image, as_floats(even) * np.float32(rng.uniform(0.8, 1.25)), alpha)


def repeated_pattern(rng: Rng, window: Window) -> FloatArray:
    """Copy a spot's neighbourhood over it, as a stamp that jumped."""
    alpha = island_opacity(rng, window, rng.uniform(0, 0.4), rng.uniform(0.5, 3))
    shift = np.round(rng.uniform(0.1, 0.35, 2) * rng.choice([-1, 1], 2) * window.side)
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
    moved = cv2.warpAffine(
        window.image, matrix, (window.side, window.side), borderMode=cv2.BORDER_REFLECT_101
    )
    return _over(window.image, as_floats(moved) * np.float32(rng.uniform(0.75, 1.3)), alpha)


def pits(rng: Rng, window: Window) -> FloatArray:
    """Draw a spot or a group of them, irregular and with grain inside, dark, bright or rusty."""
    side = window.side
    alpha = np.zeros((side, side), np.float32)
    count = int(np.exp(rng.uniform(0, np.log(20))))
    radius = side * np.sqrt(window.fill / count / np.pi)
    spread = side * rng.uniform(0.08, 0.2)
    for _ in range(count):
        centre = side / 2 + rng.normal(0, spread, 2) * (count > 1)
        _irregular_spot(rng, alpha, centre, max(1.5, radius * rng.uniform(0.5, 1.4)))
    alpha = np.clip(blurred(alpha, rng.uniform(0.5, max(0.8, radius / 4))), 0, 1)
    grain = fractal_noise(rng, side, side / rng.uniform(2, 5), 2) * np.float32(
        rng.uniform(0.1, 0.4)
    )
    choice = rng.random()
    if choice < 0.55:
        inside = window.image * np.float32(rng.uniform(0.1, 0.6))
    elif choice < 0.75:
        inside = window.image * np.float32(0.4) + np.float32(rng.uniform(0.3, 0.6))
    else:
        rust = np.array([0.45, 0.24, 0.1], np.float32) * np.float32(rng.uniform(0.4, 1.4))
        inside = 0.3 * window.image + 0.7 * rust * window.light
    return _over(window.image, as_floats(inside * (1 + grain[..., None])), as_floats(alpha))


def corrosion(rng: Rng, window: Window) -> FloatArray:
    """Draw a patch eaten by corrosion: many fine spots whose density falls to the outside."""
    side = window.side
    envelope = island(rng, side, min(0.6, window.fill * 2.5), 0.4)
    envelope = np.clip(envelope / max(float(envelope.max()), 1e-3), -1, 1)
    eaten = fractal_noise(rng, side, side / rng.uniform(4, 14), 3, 0.7)
    alpha = np.clip((eaten * np.float32(0.5) + envelope - np.float32(0.35)) * 4, 0, 1)
    alpha = alpha * np.clip(envelope * 8, 0, 1) * np.float32(rng.uniform(0.5, 0.95))
    tone = np.array([0.4, 0.26, 0.16], np.float32) if rng.random() < 0.6 else colour(rng)
    layer = (
        tone
        * np.float32(rng.uniform(0.3, 1.3))
        * (1 + np.float32(0.25) * fractal_noise(rng, side, side / 3, 2)[..., None])
    )
    return _over(window.image, as_floats(layer * window.light), as_floats(alpha))


def tint(rng: Rng, window: Window) -> FloatArray:
    """Tint a spot by multiplying its colours: soaked, bleached or tempered."""
    softness = rng.uniform(1, max(2.0, window.side * 0.06))
    alpha = island_opacity(rng, window, rng.uniform(0.1, 0.8), softness)
    cast = np.float32(rng.choice([0.45, 0.6, 0.75, 1.35, 1.7])) * (1 + rng.uniform(-0.25, 0.25, 3))
    cloud = 1 + np.float32(0.1) * fractal_noise(rng, window.side, 6, 3)
    return _over(window.image, window.image * cast.astype(np.float32), as_floats(alpha * cloud))


def missing_piece(rng: Rng, window: Window) -> FloatArray:
    """Break a piece off the outline of a part: the ground shows."""
    alpha = island_opacity(rng, window, rng.uniform(0, 0.5), 1.0) * window.part
    return _over(window.image, window.ground * np.float32(rng.uniform(0.6, 1.0)), alpha)


def burr(rng: Rng, window: Window) -> FloatArray:
    """Let the material of a part stand out over its outline."""
    alpha = island_opacity(rng, window, rng.uniform(0.2, 0.7), 1.0) * (1 - window.part)
    weight = window.part[..., None] + np.float32(1e-4)
    tone = (window.image * weight).sum((0, 1)) / weight.sum()
    grain = fractal_noise(rng, window.side, window.side / 4, 2)
    body = tone * (1 + np.float32(0.15) * grain[..., None]) * np.float32(rng.uniform(0.8, 1.3))
    return _over(window.image, as_floats(body), alpha)


def sticking_dirt(rng: Rng, window: Window) -> FloatArray:
    """Lay a crumb across the outline of a part."""
    alpha = island_opacity(rng, window, rng.uniform(0.2, 0.8), 1.0)
    body = (
        window.foreign(rng)
        if rng.random() < 0.4
        else colour(rng) * np.float32(rng.uniform(0.2, 1.4))
    )
    grain = fractal_noise(rng, window.side, window.side / rng.uniform(3, 8), 3)
    return _over(window.image, as_floats(body * (1 + np.float32(0.2) * grain[..., None])), alpha)


def _drawn(name: str) -> Draw:
    """Make an anomaly of a training defect of the drawn frames."""
    defect, (low, high) = TRAIN_DEFECTS[name]

    def draw(rng: Rng, window: Window) -> FloatArray:
        marked, _ = defect(rng, window.image, float(np.clip(window.fill, low, high)))
        lit = np.clip(window.shade, 0.1, 1)[..., None]
        return as_floats(window.image + (marked - window.image) * lit)

    return draw


def _over(below: FloatArray, above: FloatArray, alpha: FloatArray) -> FloatArray:
    return as_floats(below + (above - below) * alpha[..., None])


def _toned(rng: Rng, patch: FloatArray) -> FloatArray:
    cast = (1 + rng.uniform(-0.12, 0.12, 3)) * rng.choice(
        [rng.uniform(0.6, 0.9), rng.uniform(1.1, 1.5)]
    )
    return as_floats(patch * cast.astype(np.float32))


def _bytes(image: FloatArray) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _rectangle(side: int, height: float, width: float, rng: Rng) -> FloatArray:
    """Draw a turned rectangle in the middle of a window; a side is at most 0.8 of it long."""
    alpha = np.zeros((side, side), np.float32)
    box = (
        (side / 2, side / 2),
        (min(width, 0.85 * side), min(height, 0.85 * side)),
        float(rng.uniform(0, 180)),
    )
    corners = np.round(cv2.boxPoints(box) * 16).astype(np.int32)
    cv2.fillPoly(alpha, [corners], 1.0, cv2.LINE_AA, 4)
    return alpha


def _irregular_spot(
    rng: Rng,
    alpha: FloatArray,
    centre: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    radius: float,
) -> None:
    corners = int(rng.integers(7, 14))
    angles = 2 * np.pi * (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) / corners
    stretch = rng.uniform(0.5, 1.0, 2)
    radii = radius * rng.uniform(0.6, 1.3, corners)
    outline = (
        np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None] * stretch / stretch.max()
    )
    cv2.fillPoly(alpha, [np.round((outline + centre) * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)


ANOMALIES: Final[dict[str, Anomaly]] = {
    "foreign_texture": Anomaly(foreign_texture, (0.0003, 0.2), weight=2.0),
    "cut_paste": Anomaly(cut_paste, (0.0005, 0.15), weight=0.8),
    "scar": Anomaly(scar, (0.0003, 0.02), weight=0.8),
    "blended_patch": Anomaly(blended_patch, (0.0005, 0.15), weight=1.2),
    "warp": Anomaly(warp, (0.002, 0.15), weight=0.6),
    "missing_pattern": Anomaly(missing_pattern, (0.0005, 0.15), weight=0.6),
    "repeated_pattern": Anomaly(repeated_pattern, (0.001, 0.1), weight=0.5),
    "pits": Anomaly(pits, (0.0003, 0.01), weight=2.0),
    "corrosion": Anomaly(corrosion, (0.001, 0.1), weight=1.0),
    "tint": Anomaly(tint, (0.0005, 0.2), weight=1.0),
    "missing_piece": Anomaly(missing_piece, (0.0005, 0.05), "edge", 1.0),
    "burr": Anomaly(burr, (0.0003, 0.01), "edge", 0.7),
    "sticking_dirt": Anomaly(sticking_dirt, (0.0003, 0.03), "edge", 0.7),
} | {
    name: Anomaly(_drawn(name), areas, weight=2.0 if name == "scratch" else 0.6)
    for name, (_, areas) in TRAIN_DEFECTS.items()
}
