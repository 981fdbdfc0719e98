"""Flawless surfaces without a lattice: fibres, strands, chips, grains, folds and foils.

What is irregular by nature teaches that irregular is not yet defective.
"""

from __future__ import annotations

import cv2
import numpy as np

from zeroflaw_benchmarks.frames.noise import (
    FloatArray,
    Rng,
    as_floats,
    blurred,
    cellular_noise,
    fractal_noise,
    relief_shading,
    smooth_noise,
    turned,
)
from zeroflaw_benchmarks.frames.surfaces import colour, tinted


def chipboard(rng: Rng, size: int) -> FloatArray:
    """Pressed strands of wood that lie over each other at all angles."""
    tone = np.array([0.66, 0.5, 0.32], np.float32) * np.float32(rng.uniform(0.7, 1.3))
    board = np.full((size, size), 0.8, np.float32)
    length, count = size * rng.uniform(0.06, 0.25), int(rng.integers(150, 700))
    for _ in range(count):
        centre = rng.uniform(-0.05, 1.05, 2) * size
        sides = (length * rng.uniform(0.5, 1.5), length * rng.uniform(0.08, 0.35))
        corners = cv2.boxPoints((centre.tolist(), sides, rng.uniform(0, 180)))
        cv2.fillPoly(board, [corners.astype(np.int32)], float(rng.uniform(0.55, 1.15)), cv2.LINE_AA)
    grain = turned(smooth_noise(rng, size, size / 3, 12), rng.uniform(0, 180), 1.45)
    value = blurred(board, rng.uniform(0.5, 1.5)) + rng.uniform(0.02, 0.07) * grain
    return as_floats(tone * value[..., None])


def felt(rng: Rng, size: int) -> FloatArray:
    """Matted fibres of one or two colours."""
    mat = 0.15 * fractal_noise(rng, size, rng.uniform(4, 20), 4)
    width, length = int(rng.integers(1, 3)), size * rng.uniform(0.03, 0.12)
    for _ in range(int(rng.integers(600, 1800))):
        at, heading = rng.uniform(0, 1, 2) * size, rng.uniform(0, 2 * np.pi)
        bend = heading + rng.normal(0, 0.5)
        middle = at + length / 2 * np.array([np.cos(heading), np.sin(heading)])
        end = middle + length / 2 * np.array([np.cos(bend), np.sin(bend)])
        path = np.stack([at, middle, end]).astype(np.int32)
        cv2.polylines(mat, [path], False, float(rng.normal(0, 0.5)), width, cv2.LINE_AA)
    share = np.clip(0.5 + blurred(mat, rng.uniform(0.4, 1.2)), 0, 1)[..., None]
    one = colour(rng)
    return as_floats(one * (1 - share) + np.clip(one * rng.uniform(1.2, 2.2), 0, 1) * share)


def foam(rng: Rng, size: int) -> FloatArray:
    """Open-cell foam: a web of struts around dark cells of many sizes."""
    distance, depth = cellular_noise(rng, size, int(rng.integers(14, 48)))
    cells = np.clip(distance / rng.uniform(0.35, 0.6), 0, 1) ** rng.uniform(1.0, 3.0)
    shade = relief_shading(blurred(cells, size / 350), rng.uniform(0, 360))
    hollow = 1 - rng.uniform(0.3, 0.7) * depth
    value = hollow + (1 - hollow) * cells + rng.uniform(0.2, 1.2) * shade
    return as_floats(colour(rng) * 1.3 * (value + 0.04 * smooth_noise(rng, size, 4))[..., None])


def terrazzo(rng: Rng, size: int) -> FloatArray:
    """Stone chips of a few colours, ground flat in cement."""
    image = np.empty((size, size, 3), np.float32)
    image[:] = colour(rng)
    palette = np.stack([colour(rng) for _ in range(int(rng.integers(2, 5)))])
    for cells in rng.uniform(6, 50, 2):
        distance, value = cellular_noise(rng, size, int(cells))
        chip = np.clip((0.25 + 0.25 * value - distance) * size / cells / 1.5, 0, 1)
        chip = chip * (value > rng.uniform(0.2, 0.6))
        tone = palette[(value * 997).astype(int) % len(palette)]
        image = image * (1 - chip[..., None]) + tone * chip[..., None]
    return as_floats(image * (1 + 0.03 * fractal_noise(rng, size, size / 8, 2))[..., None])


def sandpaper(rng: Rng, size: int) -> FloatArray:
    """Abrasive grains glued on paper."""
    fine = rng.uniform(1.5, 5)
    grains = smooth_noise(rng, size, size / fine)
    grit = np.clip(grains - rng.uniform(-0.3, 0.6), 0, None)
    shade = relief_shading(grit, rng.uniform(0, 360))
    value = 1 + rng.uniform(0.08, 0.3) * shade / (float(shade.std()) + 1e-6)
    value = value + rng.uniform(0, 0.1) * smooth_noise(rng, size, 3)
    sparkle = (rng.random((size, size), dtype=np.float32) > 0.995) * np.float32(rng.uniform(0, 0.4))
    return as_floats(colour(rng) * (value + blurred(as_floats(sparkle), 0.6))[..., None])


def wrinkled_film(rng: Rng, size: int) -> FloatArray:
    """Wrinkle lacquer or crumpled film: ridges that wander and fork."""
    field = fractal_noise(rng, size, rng.uniform(6, 40), int(rng.integers(1, 4)))
    height = -(np.abs(field) ** rng.uniform(0.6, 1.2))
    shade = relief_shading(blurred(as_floats(height), size / 400), rng.uniform(0, 360))
    value = 1 + rng.uniform(0.08, 0.35) * shade / (float(shade.std()) + 1e-6)
    glint = np.clip(shade / (float(shade.std()) + 1e-6) - 1.5, 0, None) * rng.uniform(0, 0.3)
    return as_floats(colour(rng) * (value + glint)[..., None])


def printed_foil(rng: Rng, size: int) -> FloatArray:
    """Foil printed with flat irregular fields of a few colours."""
    field = fractal_noise(rng, size, rng.uniform(3, 25), int(rng.integers(1, 5)))
    levels = np.sort(rng.uniform(-1.2, 1.2, int(rng.integers(1, 4))))
    tones = [colour(rng) for _ in range(len(levels) + 1)]
    image = np.empty((size, size, 3), np.float32)
    image[:] = tones[0]
    for level, tone in zip(levels, tones[1:], strict=True):
        share = np.clip(0.5 + (field - level) * rng.uniform(5, 40), 0, 1)[..., None]
        image = image * (1 - share) + tone * share
    return as_floats(image * (1 + 0.015 * smooth_noise(rng, size, size / 2))[..., None])


def plaster(rng: Rng, size: int) -> FloatArray:
    """Trowelled plaster: overlapping strokes, each a relief with a rim."""
    height = 0.3 * fractal_noise(rng, size, rng.uniform(20, 60), 3)
    for _ in range(int(rng.integers(20, 80))):
        stroke = np.zeros((size, size), np.float32)
        axes = (size * rng.uniform(0.05, 0.2, 2)).astype(int).tolist()
        centre = (rng.uniform(0, 1, 2) * size).astype(int).tolist()
        start = rng.uniform(0, 360)
        cv2.ellipse(
            stroke, centre, axes, rng.uniform(0, 180), start, start + rng.uniform(40, 160),
            float(rng.uniform(-1, 1)), int(size * rng.uniform(0.01, 0.05)), cv2.LINE_AA,
        )  # fmt: skip
        height = height + stroke
    shade = relief_shading(blurred(height, size / rng.uniform(150, 400)), rng.uniform(0, 360))
    value = 1 + rng.uniform(0.05, 0.2) * shade / (float(shade.std()) + 1e-6)
    return tinted(as_floats(rng.uniform(0.4, 0.75) * value), rng, 0.1)
