"""Defects drawn by rules that follow their physics, each with its exact mask.

Each takes a flawless frame, float32 [S, S, 3] in [0, 1], and the share of the frame to cover. It
gives the frame with the defect, and the opacity or depth of the defect, float32 [S, S] in
[0, 1]: the mask is where that is at least a half.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np

from zeroflaw_export.drawn_frames.noise import (
    FloatArray,
    Rng,
    as_floats,
    blob,
    blurred,
    fractal_noise,
    relief_shading,
    smooth_noise,
    soft_edge,
    turned,
)
from zeroflaw_export.drawn_frames.surfaces import colour

Defect = Callable[[Rng, FloatArray, float], tuple[FloatArray, FloatArray]]


def scratch(rng: Rng, image: FloatArray, area: float) -> tuple[FloatArray, FloatArray]:
    """Draw a tool's furrow: a smooth curve, one flank lit and the other in shadow."""
    size = image.shape[0]
    width = max(1.5, size * rng.uniform(0.003, 0.012))
    length = min(0.9, max(0.05, area * size / width))
    furrow = _curve(rng, size, length, width, bend=rng.uniform(0, 1.2))
    flank = relief_shading(blurred(furrow, width / 2), rng.uniform(0, 360))
    tone = rng.choice([-1.0, 1.0]) * rng.uniform(0.15, 0.5)
    marked = image + (tone * furrow + rng.uniform(0.5, 2.0) * flank)[..., None]
    return marked, furrow


def stain(rng: Rng, image: FloatArray, area: float) -> tuple[FloatArray, FloatArray]:
    """Draw a dried liquid, which tints what lies below and is darker at its border."""
    size = image.shape[0]
    level = blob(rng, size, area, rng.uniform(0.2, 0.6))
    alpha = soft_edge(level, rng.uniform(1, 6) * size / 512)
    tint = np.clip(colour(rng) * rng.uniform(0.7, 1.6), 0.15, 1.5)
    ring = np.exp(-0.5 * (level / (0.06 + 0.05 * rng.random())) ** 2) * rng.uniform(0, 0.35)
    strength = rng.uniform(0.35, 0.9) * (1 + 0.15 * fractal_noise(rng, size, 12, 3))
    film = image * (tint * (1 - ring[..., None]))
    weight = np.clip(alpha * strength, 0, 1)[..., None]
    return image * (1 - weight) + film * weight, alpha


def missing_part(rng: Rng, image: FloatArray, area: float) -> tuple[FloatArray, FloatArray]:
    """Break material out: what lies beneath shows, with a shaded edge."""
    size = image.shape[0]
    alpha = _polygon(rng, size, area)
    beneath = colour(rng) * np.float32(rng.uniform(0.15, 1.2))
    beneath = beneath * (1 + 0.05 * fractal_noise(rng, size, rng.uniform(10, 80), 3)[..., None])
    edge = relief_shading(blurred(alpha, size / 300), rng.uniform(0, 360))
    opened = image * (1 - alpha[..., None]) + beneath * alpha[..., None]
    return opened + rng.uniform(0.5, 2) * edge[..., None], alpha


def contamination(rng: Rng, image: FloatArray, area: float) -> tuple[FloatArray, FloatArray]:
    """Draw foreign bodies: crumbs or fibres that lie on the part and cast a shadow."""
    size = image.shape[0]
    alpha = np.zeros((size, size), np.float32)
    pieces = int(rng.integers(1, 6))
    fibres = rng.random() < 0.35 and area < 0.02
    for _ in range(pieces):
        share = area / pieces * rng.uniform(0.5, 1.5)
        if fibres:
            width = max(1.5, size * rng.uniform(0.003, 0.007))
            piece = _curve(rng, size, min(0.6, share * size / width), width, bend=3.0)
        else:
            piece = soft_edge(blob(rng, size, share, rng.uniform(0.1, 0.7)), 1.5)
        alpha = np.maximum(alpha, piece)
    grain = fractal_noise(rng, size, rng.uniform(30, 140), 3) * rng.uniform(0.05, 0.3)
    body = colour(rng) * np.float32(rng.uniform(0.2, 1.4)) * (1 + grain[..., None])
    shift = int(size * 0.006) + 1
    shadow = np.roll(blurred(alpha, shift), (shift, shift), (0, 1))
    below = image * (1 - rng.uniform(0.0, 0.5) * (shadow * (1 - alpha))[..., None])
    return as_floats(below * (1 - alpha[..., None]) + body * alpha[..., None]), alpha


def wrong_texture(rng: Rng, image: FloatArray, area: float) -> tuple[FloatArray, FloatArray]:
    """Draw a patch of the same surface that lies turned, magnified and shifted."""
    size = image.shape[0]
    alpha = soft_edge(blob(rng, size, area, rng.uniform(0.1, 0.5)), rng.uniform(1, 4))
    other = turned(image, rng.uniform(30, 150), rng.uniform(1.2, 2.5))
    other = np.roll(other, rng.integers(size // 8, size // 2, 2).tolist(), (0, 1))
    other = (other - other.mean()) * rng.uniform(0.6, 1.5) + other.mean() * rng.uniform(0.6, 1.4)
    return image * (1 - alpha[..., None]) + other * alpha[..., None], alpha


def smear(rng: Rng, image: FloatArray, area: float) -> tuple[FloatArray, FloatArray]:
    """Rub a surface along one direction: its texture is gone, its gloss changed."""
    size = image.shape[0]
    alpha = soft_edge(blob(rng, size, area, 0.3), rng.uniform(1, 5))
    length = max(5, int(size * rng.uniform(0.03, 0.1)))
    kernel = np.zeros((length, length), np.float32)
    cv2.line(kernel, (0, length // 2), (length - 1, length // 2), 1.0)
    kernel = turned(kernel, rng.uniform(0, 180))
    rubbed = cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)
    rubbed = rubbed * rng.choice([rng.uniform(0.6, 0.9), rng.uniform(1.1, 1.5)])
    return image * (1 - alpha[..., None]) + rubbed * alpha[..., None], alpha


def burn(rng: Rng, image: FloatArray, area: float) -> tuple[FloatArray, FloatArray]:
    """Draw a burn: dark in the middle, tempered colours towards the border."""
    size = image.shape[0]
    level = blob(rng, size, area, rng.uniform(0.1, 0.4))
    depth = np.clip(level / max(float(level.max()), 1e-3), 0, 1) ** rng.uniform(0.3, 1.0)
    alpha = soft_edge(level, rng.uniform(2, 8))
    warm = np.array([1.0, 0.75, 0.5], np.float32) ** np.float32(rng.uniform(0.5, 2.5))
    heat = warm * (1 - rng.uniform(0.5, 0.95) * depth[..., None])
    return image * (1 - alpha[..., None]) + image * heat * alpha[..., None], alpha


def dent(rng: Rng, image: FloatArray, area: float) -> tuple[FloatArray, FloatArray]:
    """Draw a dent: the ground sinks, so one flank is lit, the other dark, and the texture bends."""
    size = image.shape[0]
    level = blob(rng, size, area, rng.uniform(0.0, 0.15))
    alpha = soft_edge(level, 1.5)
    inside = np.clip(level / max(float(level.max()), 1e-3), 0, 1)
    depth = blurred(np.sqrt(inside), 1 + size * np.sqrt(area) / 40)
    shade = relief_shading(depth, rng.uniform(0, 360))
    shade = shade / (float(np.abs(shade).max()) + 1e-6)
    bend = np.float32(size * np.sqrt(area) * rng.uniform(0.05, 0.25))
    grid = np.arange(size, dtype=np.float32)
    map_x = grid[None] + bend * cv2.Sobel(depth, cv2.CV_32F, 1, 0) * size / 20
    map_y = grid[:, None] + bend * cv2.Sobel(depth, cv2.CV_32F, 0, 1) * size / 20
    bent = cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    bent = bent * (1 + rng.uniform(0.3, 0.8) * shade[..., None])
    bent = bent * (1 - rng.uniform(0.05, 0.3) * depth[..., None])
    return image * (1 - alpha[..., None]) + bent * alpha[..., None], alpha


def crack(rng: Rng, image: FloatArray, area: float) -> tuple[FloatArray, FloatArray]:
    """Draw a fracture: a jagged dark line that branches and thins out."""
    size = image.shape[0]
    gap = np.zeros((size, size), np.float32)
    width = max(2.0, size * rng.uniform(0.004, 0.012))
    reach = min(1.2, max(0.06, 1.6 * area * size / width))
    start = as_floats(rng.uniform(0.15, 0.85, 2) * size)
    heading = rng.uniform(0, 2 * np.pi)
    _fracture(rng, gap, start, heading, reach=reach * size, width=width)
    gap = blurred(gap, 0.6)
    lip = relief_shading(blurred(gap, width / 2), rng.uniform(0, 360))
    dark = image * (1 - rng.uniform(0.55, 0.95) * gap[..., None])
    return dark + rng.uniform(0.1, 0.8) * lip[..., None], gap


def print_error(rng: Rng, image: FloatArray, area: float) -> tuple[FloatArray, FloatArray]:
    """Draw ink where none belongs: a misplaced bar, or a patch printed twice and shifted."""
    size = image.shape[0]
    aspect = rng.uniform(0.15, 1.0)
    height = np.clip(np.sqrt(area * aspect), 0.01, 0.9)
    width = np.clip(area / height, 0.01, 0.95)
    alpha = np.zeros((size, size), np.float32)
    y, x = rng.uniform(0, 1 - height), rng.uniform(0, 1 - width)
    box = ((float((x + width / 2) * size), float((y + height / 2) * size)),
           (float(width * size), float(height * size)), float(rng.uniform(-15, 15)))  # fmt: skip
    cv2.fillPoly(alpha, [cv2.boxPoints(box).astype(np.int32)], 1.0, cv2.LINE_AA)
    ink = np.clip(colour(rng) * rng.choice([0.35, 1.6]), 0, 1)
    if rng.random() < 0.5:
        cover = np.float32(rng.uniform(0.45, 0.9)) * (1 + 0.1 * smooth_noise(rng, size, 60))
        printed = image * (1 - cover[..., None]) + ink * cover[..., None]
    else:
        shift = rng.integers(size // 40, size // 12, 2).tolist()
        printed = np.roll(image, shift, (0, 1)) * np.clip(ink * 1.6, 0.3, 1.3)
    return image * (1 - alpha[..., None]) + printed * alpha[..., None], alpha


def pinhole(rng: Rng, image: FloatArray, area: float) -> tuple[FloatArray, FloatArray]:
    """Draw gas pores: round dark holes with a bright rim, one or a nest of them."""
    size = image.shape[0]
    count = int(rng.integers(1, 8))
    holes = np.zeros((size, size), np.float32)
    centre = rng.uniform(0.12, 0.88, 2) * size
    spread = size * rng.uniform(0.02, 0.1)
    for _ in range(count):
        radius = max(1.6, size * np.sqrt(area / count / np.pi) * rng.uniform(0.7, 1.3))
        at = centre + rng.normal(0, spread, 2) * (count > 1)
        cv2.circle(holes, at.astype(int).tolist(), round(radius), 1.0, -1, cv2.LINE_AA)
    rim = blurred(holes, 1.5) * (1 - holes)
    dark = image * (1 - rng.uniform(0.6, 0.95) * holes[..., None])
    return dark + rng.uniform(0.1, 0.5) * rim[..., None], holes


def _curve(rng: Rng, size: int, length: float, width: float, *, bend: float) -> FloatArray:
    """Draw a smooth stroke, `length` in shares of the frame and `width` in px."""
    steps = 48
    turn = np.cumsum(rng.normal(0, bend / steps**0.5 / 3, steps)) + rng.uniform(0, 2 * np.pi)
    path = np.cumsum(np.stack([np.cos(turn), np.sin(turn)], 1), 0) * length / steps
    path += rng.uniform(0.15, 0.85, 2) - path.mean(0)
    stroke = np.zeros((size, size), np.float32)
    taper = np.sin(np.linspace(0.15, np.pi - 0.15, steps))
    points = (path * size * 8).astype(np.int32)
    for i in range(steps - 1):
        thick = max(1, round(width * (0.5 + 0.5 * taper[i])))
        cv2.line(stroke, points[i].tolist(), points[i + 1].tolist(), 1.0, thick, cv2.LINE_AA, 3)
    return stroke


def _fracture(
    rng: Rng, gap: FloatArray, at: FloatArray, heading: float, *, reach: float, width: float
) -> None:
    step = gap.shape[0] / 50
    while reach > 0 and width >= 1:
        heading += rng.normal(0, 0.35)
        to = at + step * as_floats([np.cos(heading), np.sin(heading)])
        cv2.line(
            gap, at.astype(int).tolist(), to.astype(int).tolist(), 1.0, round(width), cv2.LINE_AA
        )
        at, reach, width = to, reach - step, width * rng.uniform(0.94, 1.01)
        if rng.random() < 0.08:
            side = heading + rng.choice([-1, 1]) * rng.uniform(0.4, 1.1)
            _fracture(rng, gap, at, side, reach=reach * 0.5, width=width * 0.7)


def _polygon(rng: Rng, size: int, area: float) -> FloatArray:
    corners = int(rng.integers(4, 9))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners)) + rng.uniform(0, 6)
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False) + 0.6 * np.sin(angles)
    radius = np.sqrt(area / np.pi) * rng.uniform(0.6, 1.4, corners)
    centre = rng.uniform(0.1, 0.9, 2)
    outline = (centre + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)) * size
    alpha = np.zeros((size, size), np.float32)
    cv2.fillPoly(alpha, [outline.astype(np.int32)], 1.0, cv2.LINE_AA)
    return alpha


# Shares of the frame that each type covers; long thin things cannot cover much.
Areas = tuple[float, float]
TRAIN_DEFECTS: Final[dict[str, tuple[Defect, Areas]]] = {
    "scratch": (scratch, (0.0006, 0.01)),
    "stain": (stain, (0.0008, 0.2)),
    "missing_part": (missing_part, (0.0005, 0.15)),
    "contamination": (contamination, (0.0005, 0.05)),
    "wrong_texture": (wrong_texture, (0.004, 0.2)),
    "smear": (smear, (0.003, 0.2)),
    "burn": (burn, (0.0008, 0.2)),
}
TEST_DEFECTS: Final[dict[str, tuple[Defect, Areas]]] = {
    "dent": (dent, (0.002, 0.2)),
    "crack": (crack, (0.001, 0.03)),
    "print_error": (print_error, (0.001, 0.2)),
    "pinhole": (pinhole, (0.0005, 0.02)),
}
