"""More defects for training alone: what flies on, lifts off, flakes, wears, fades, rusts and folds.

Of the same form as those of `defects`.
"""

from __future__ import annotations

import cv2
import numpy as np

from zeroflaw_benchmarks.frames.defects import curve, polygon
from zeroflaw_benchmarks.frames.noise import (
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
from zeroflaw_benchmarks.frames.surfaces import colour


def spatter(rng: Rng, image: FloatArray, area: float) -> tuple[FloatArray, FloatArray]:
    """Drops that flew on and set: raised, of a colour of their own, each with a highlight."""
    size = image.shape[0]
    count = int(rng.integers(2, 16))
    drops = np.zeros((size, size), np.float32)
    centre, spread = rng.uniform(0.1, 0.9, 2) * size, size * rng.uniform(0.04, 0.2)
    for _ in range(count):
        radius = max(1.5, size * np.sqrt(area / count / np.pi) * rng.uniform(0.4, 1.6))
        at = (centre + rng.normal(0, spread, 2)).astype(int).tolist()
        axes = (int(radius * rng.uniform(1, 1.8)) + 1, int(radius) + 1)
        cv2.ellipse(drops, at, axes, rng.uniform(0, 180), 0, 360, 1.0, -1, cv2.LINE_AA)
    dome = relief_shading(blurred(drops, 1 + size * np.sqrt(area / count) / 6), rng.uniform(0, 360))
    shine = rng.uniform(0.2, 0.7) * dome / (float(np.abs(dome).max()) + 1e-6)
    body = colour(rng) * np.float32(rng.uniform(0.4, 1.5)) + shine[..., None]
    cover = (drops * np.float32(rng.uniform(0.6, 1.0)))[..., None]
    return as_floats(image * (1 - cover) + body * cover), drops


def blister(rng: Rng, image: FloatArray, area: float) -> tuple[FloatArray, FloatArray]:
    """A coat lifted from its ground by gas: a dome, lit on one side, with a bright crown."""
    size = image.shape[0]
    level = blob(rng, size, area, rng.uniform(0.05, 0.3))
    alpha = soft_edge(level, 1.5)
    height = np.clip(level / max(float(level.max()), 1e-3), 0, 1) ** rng.uniform(0.3, 0.6)
    slope = relief_shading(blurred(height, 1 + size * np.sqrt(area) / 30), rng.uniform(0, 360))
    slope = slope / (float(np.abs(slope).max()) + 1e-6)
    crown = np.clip(slope, 0, None) ** rng.uniform(2, 6) * rng.uniform(0.2, 0.8)
    calm = blurred(image, 1 + size * rng.uniform(0.0, 0.01))
    lifted = calm * (1 + rng.uniform(0.2, 0.6) * slope + crown)[..., None]
    return image * (1 - alpha[..., None]) + lifted * alpha[..., None], alpha


def spalling(rng: Rng, image: FloatArray, area: float) -> tuple[FloatArray, FloatArray]:
    """Flakes that broke out of a hardened skin: torn, rough grounds, mostly darker than it."""
    size = image.shape[0]
    pieces = int(rng.choice([1, 1, 2, 4]))
    alpha = np.zeros((size, size), np.float32)
    for _ in range(pieces):
        torn = blob(rng, size, area / pieces * rng.uniform(0.6, 1.4), rng.uniform(0.3, 0.9))
        alpha = np.maximum(alpha, soft_edge(torn, rng.uniform(0.8, 3)))
    rough = blurred(fractal_noise(rng, size, rng.uniform(15, 80), 3), rng.uniform(0.5, 2))
    lamp = rng.uniform(0, 360)
    relief = relief_shading(rough, lamp)
    relief = relief / (float(relief.std()) + 1e-6)
    wall = relief_shading(blurred(1 - alpha, size / 250), lamp) * rng.uniform(0.3, 2.0)
    dull = blurred(image, 1 + size * rng.uniform(0.002, 0.02))
    ground = dull * np.float32(rng.choice([rng.uniform(0.25, 0.85), rng.uniform(1.15, 1.6)]))
    ground = ground * (1 + rng.uniform(0.05, 0.3) * relief + wall)[..., None]
    return as_floats(image * (1 - alpha[..., None]) + ground * alpha[..., None]), alpha


def abrasion(rng: Rng, image: FloatArray, area: float) -> tuple[FloatArray, FloatArray]:
    """A worn place: many fine parallel scores that bare a lighter or darker ground."""
    size = image.shape[0]
    alpha = soft_edge(blob(rng, size, area, rng.uniform(0.2, 0.6)), rng.uniform(1, 4))
    scores = turned(
        smooth_noise(rng, size, size / 2, rng.uniform(3, 20)), rng.uniform(0, 180), 1.45
    )
    worn = np.clip(0.5 + rng.uniform(0.3, 1.0) * scores, 0, 1) * rng.uniform(0.5, 1.0)
    ground = np.clip(image.mean(axis=(0, 1)) * rng.choice([0.35, 1.9]), 0, 1)
    weight = (alpha * worn)[..., None]
    return as_floats(image * (1 - weight) + ground * weight), alpha


def foreign_piece(rng: Rng, image: FloatArray, area: float) -> tuple[FloatArray, FloatArray]:
    """A flake or scrap of another material that lies on the part, with a shadow."""
    size = image.shape[0]
    if rng.random() < 0.5:
        alpha = polygon(rng, size, area)
    else:
        alpha = soft_edge(blob(rng, size, area, rng.uniform(0.1, 0.8)), 1.0)
    own = rng.uniform(4, 60)
    texture = rng.choice([0.05, 0.15, 0.3]) * fractal_noise(rng, size, own, int(rng.integers(1, 4)))
    if rng.random() < 0.4:
        stripes = np.sin(2 * np.pi * rng.uniform(10, 80) * np.arange(size) / size)[None]
        wide = np.broadcast_to(as_floats(0.2 * stripes), (size, size)).copy()
        texture = texture + turned(wide, rng.uniform(0, 180), 1.45)
    piece = colour(rng) * np.float32(rng.uniform(0.4, 1.5)) * (1 + texture)[..., None]
    shift = int(size * rng.uniform(0.002, 0.008)) + 1
    shadow = np.roll(blurred(alpha, shift), rng.integers(-shift, shift + 1, 2).tolist(), (0, 1))
    below = image * (1 - rng.uniform(0, 0.5) * (shadow * (1 - alpha))[..., None])
    return as_floats(below * (1 - alpha[..., None]) + piece * alpha[..., None]), alpha


def fading(rng: Rng, image: FloatArray, area: float) -> tuple[FloatArray, FloatArray]:
    """Bleached or oxidised: lighter or duller, with less contrast and hardly an edge."""
    size = image.shape[0]
    alpha = soft_edge(blob(rng, size, area, rng.uniform(0.1, 0.5)), rng.uniform(2, 10))
    grey = image.mean(axis=-1, keepdims=True)
    pale = image + (grey - image) * np.float32(rng.uniform(0.2, 1.0))
    target = np.float32(rng.choice([rng.uniform(0.75, 1.0), rng.uniform(0.05, 0.25)]))
    pale = pale + (target - pale) * np.float32(rng.uniform(0.25, 0.7))
    return image * (1 - alpha[..., None]) + pale * alpha[..., None], alpha


def corrosion(rng: Rng, image: FloatArray, area: float) -> tuple[FloatArray, FloatArray]:
    """Rust or verdigris: crumbly islands of warm or green tones, with a rough relief."""
    size = image.shape[0]
    near = blob(rng, size, min(0.5, area * rng.uniform(1.5, 3)), 0.5)
    rough = fractal_noise(rng, size, rng.uniform(20, 60), 4)
    level = np.where(near >= 0, rough, -9.0)
    wanted = max(1, round(area * size * size))
    level = as_floats(level - np.partition(level, -wanted, axis=None)[-wanted])
    alpha = soft_edge(blurred(level.clip(-3, 3), 1.2), 1.0)
    tone = np.array([[0.5, 0.26, 0.12], [0.3, 0.5, 0.42], [0.22, 0.16, 0.12]], np.float32)
    crust = tone[rng.integers(3)] * np.float32(rng.uniform(0.7, 1.5))
    relief = relief_shading(blurred(rough, 1.0), rng.uniform(0, 360))
    crust = crust * (1 + rng.uniform(0.1, 0.3) * relief / (float(relief.std()) + 1e-6))[..., None]
    weight = (alpha * np.float32(rng.uniform(0.6, 1.0)))[..., None]
    return as_floats(image * (1 - weight) + crust * weight), alpha


def crease(rng: Rng, image: FloatArray, area: float) -> tuple[FloatArray, FloatArray]:
    """A fold that stayed: a nearly straight line, bright on one side and dark on the other."""
    size = image.shape[0]
    width = max(2.0, size * rng.uniform(0.006, 0.02))
    length = min(0.9, max(0.06, area * size / width))
    fold = curve(rng, size, length, width, bend=rng.uniform(0, 0.5))
    soft = blurred(fold, width / 2.5)
    flank = relief_shading(soft, rng.uniform(0, 360))
    flank = flank / (float(np.abs(flank).max()) + 1e-6)
    tone = rng.uniform(0.25, 0.7) * flank + rng.choice([-1, 1]) * rng.uniform(0.05, 0.3) * soft
    return as_floats(image * (1 + tone)[..., None]), fold
