"""Flawless bodies with strong shading: shafts, coils, balls, blocks, faced discs, unsharp scenes.

A curved shiny body in a real photo is dark on one side, glares on the other and is out of focus
at its borders. These teach that none of this is a defect.
"""

from __future__ import annotations

import cv2
import numpy as np

from zeroflaw_benchmarks.frames.noise import (
    FloatArray,
    Rng,
    as_floats,
    blurred,
    fractal_noise,
    relief_shading,
    smooth_noise,
    turned,
)
from zeroflaw_benchmarks.frames.surfaces import colour

# Steel, blued steel, brass, bronze, blackened.
_METALS = np.array(
    [
        [0.62, 0.62, 0.63],
        [0.42, 0.46, 0.55],
        [0.75, 0.62, 0.34],
        [0.6, 0.45, 0.3],
        [0.25, 0.24, 0.24],
    ],
    np.float32,
)


def shaft(rng: Rng, size: int) -> FloatArray:
    """A turned shaft before an unsharp ground, with shoulders, grooves or a thread."""
    image = _unsharp_ground(rng, size)
    x = np.linspace(0, 1, size, dtype=np.float32)[None]
    y = np.linspace(-1, 1, size, dtype=np.float32)[:, None]
    radius = np.full(size, rng.uniform(0.45, 1.3), np.float32)
    for _ in range(int(rng.integers(0, 4))):
        radius[int(rng.uniform(0.1, 0.9) * size) :] *= np.float32(rng.uniform(0.8, 1.15))
    across = (y - np.float32(rng.uniform(-0.4, 0.4))) / radius[None]
    inside = np.clip((1 - np.abs(across)) * size * 0.2, 0, 1)
    angle = np.arcsin(np.clip(across, -1, 1))
    if rng.random() < 0.7:
        turns, slant = rng.uniform(2, 45), rng.uniform(-0.12, 0.12) * (rng.random() < 0.7)
        phase = 2 * np.pi * turns * (x + slant * angle)
        profile = as_floats(np.tanh(rng.uniform(0.5, 5) * np.sin(phase)))
    else:
        profile = as_floats(0.1 * np.sin(2 * np.pi * 3 * x) + 0 * angle)
    flank = as_floats(np.gradient(profile, axis=1) * size / 40)
    value = _lit(rng, angle, flank)
    lines = smooth_noise(rng, size, rng.uniform(2, 12), size / rng.uniform(1, 4))
    value = value * (1 + rng.uniform(0.0, 0.12) * lines + rng.uniform(0, 0.25) * profile)
    body = _metal(rng) * value[..., None]
    image = image * (1 - inside[..., None]) + body * inside[..., None]
    return turned(as_floats(image), float(rng.choice([0, 90, rng.uniform(0, 180)])), 1.2)


def spring_coil(rng: Rng, size: int) -> FloatArray:
    """Round wires side by side: a coil, a cable or a stack of tubes, dark between them."""
    count = rng.uniform(2, 16)
    x = np.linspace(0, 1, size, dtype=np.float32)
    bow = rng.uniform(-0.2, 0.2) * (x[None] - 0.5) ** 2 + rng.uniform(-0.3, 0.3) * x[None]
    place = (x[:, None] + bow) * np.float32(count)
    angle = np.arcsin(np.clip(2 * (place % 1) - 1, -1, 1) * np.float32(rng.uniform(0.85, 1.0)))
    value = _lit(rng, as_floats(angle), as_floats(np.zeros((size, size))))
    drawn = smooth_noise(rng, size, size / 2, rng.uniform(1, 8)) * rng.uniform(0.0, 0.06)
    image = _metal(rng) * (value * (1 + drawn))[..., None]
    return turned(as_floats(image), rng.uniform(0, 180), 1.45)


def steel_balls(rng: Rng, size: int) -> FloatArray:
    """Balls or domed studs in rows, each with a lamp's reflection and a dark flank."""
    count, nearness = rng.uniform(2, 9), rng.uniform(0.8, 1.05)
    grid = np.linspace(0, 1, size, dtype=np.float32) * np.float32(count)
    row = np.floor(grid)[:, None]
    v = 2 * (grid % 1)[:, None] - 1
    u = 2 * ((grid[None] + 0.5 * (row % 2) * (rng.random() < 0.5)) % 1) - 1
    u, v = u / np.float32(nearness), v / np.float32(nearness)
    far = np.sqrt(u**2 + v**2)
    inside = np.clip((1 - far) * size / count / 3, 0, 1)
    depth = np.sqrt(np.clip(1 - far**2, 0, 1))
    lamp = rng.normal(0, 0.5, 2)
    facing = np.clip(lamp[0] * u + lamp[1] * v + depth, 0, None) / np.hypot(1, np.hypot(*lamp))
    value = rng.uniform(0.05, 0.3) + rng.uniform(0.4, 0.9) * facing
    value = value + rng.uniform(0.2, 1.0) * facing ** rng.uniform(8, 60)
    ground = _unsharp_ground(rng, size)
    body = _metal(rng) * as_floats(value)[..., None]
    image = ground * (1 - inside[..., None]) + body * inside[..., None]
    return turned(as_floats(image), rng.uniform(0, 90), 1.45)


def rounded_block(rng: Rng, size: int) -> FloatArray:
    """A machined block with rounded edges and pockets, before an unsharp ground."""
    plan = np.zeros((size, size), np.float32)
    half = rng.uniform(0.5, 0.95, 2) * size
    middle = rng.uniform(0.35, 0.65, 2) * size
    outline = cv2.boxPoints((middle.tolist(), half.tolist(), float(rng.uniform(-20, 20))))
    cv2.fillPoly(plan, [outline.astype(np.int32)], 1.0, cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 4))):
        at = (middle + rng.uniform(-0.3, 0.3, 2) * half).astype(int).tolist()
        axes = (rng.uniform(0.03, 0.2, 2) * size + 1).astype(int).tolist()
        cv2.ellipse(plan, at, axes, rng.uniform(0, 180), 0, 360, 0.3, -1, cv2.LINE_AA)
    height = blurred(plan, size * rng.uniform(0.005, 0.05))
    slope = relief_shading(height, rng.uniform(0, 360))
    slope = slope / (float(np.abs(slope).max()) + 1e-6)
    value = rng.uniform(0.4, 0.8) * (1 + rng.uniform(0.3, 0.9) * slope)
    value = value + rng.uniform(0.1, 0.8) * np.clip(slope, 0, None) ** rng.uniform(2, 8)
    marks = smooth_noise(rng, size, size / rng.uniform(1, 4), rng.uniform(2, 30))
    body = _metal(rng) * as_floats(value + rng.uniform(0, 0.05) * marks)[..., None]
    alpha = np.clip(4 * blurred(plan, 1.0), 0, 1)[..., None]
    return as_floats(_unsharp_ground(rng, size) * (1 - alpha) + body * alpha)


def faced_disc(rng: Rng, size: int) -> FloatArray:
    """A face turned on a lathe: fine rings that glare in two opposite sectors."""
    centre = rng.uniform(-0.2, 1.2, 2)
    grid = np.linspace(0, 1, size, dtype=np.float32)
    y, x = grid[:, None] - np.float32(centre[0]), grid[None] - np.float32(centre[1])
    far, angle = np.hypot(y, x), np.arctan2(y, x)
    rings = smooth_noise(rng, size, size / rng.uniform(1, 6))[0]
    fine = rings[np.clip(far / 1.8 * size, 0, size - 1).astype(int)]
    glare = np.abs(np.cos(angle - rng.uniform(0, np.pi))) ** rng.uniform(2, 40)
    value = rng.uniform(0.15, 0.5) + rng.uniform(0.3, 0.9) * glare + rng.uniform(0.01, 0.08) * fine
    for _ in range(int(rng.integers(0, 4))):
        step = np.tanh((far - rng.uniform(0.1, 1.0)) * rng.uniform(20, 200))
        value = value * (1 + rng.uniform(0.05, 0.4) * step)
    return as_floats(_metal(rng) * as_floats(value)[..., None])


def unsharp_scene(rng: Rng, size: int) -> FloatArray:
    """Parts one behind the other, each sharper and nearer than the last, some in the dark."""
    image = _unsharp_ground(rng, size)
    count = int(rng.integers(2, 7))
    for number in range(count):
        shape = np.zeros((size, size), np.float32)
        sides = (rng.uniform(0.15, 1.1, 2) * size).tolist()
        centre = (rng.uniform(0, 1, 2) * size).tolist()
        if rng.random() < 0.5:
            corners = cv2.boxPoints((centre, sides, float(rng.uniform(0, 180))))
            cv2.fillPoly(shape, [corners.astype(np.int32)], 1.0, cv2.LINE_AA)
        else:
            cv2.ellipse(shape, ((centre), sides, float(rng.uniform(0, 180))), 1.0, -1, cv2.LINE_AA)
        unsharp = size * 0.03 * (1 - number / count) ** 2 + 0.7
        alpha = blurred(shape, unsharp)[..., None]
        edge = relief_shading(blurred(shape, unsharp * 2 + 3), rng.uniform(0, 360))
        edge = edge / (float(np.abs(edge).max()) + 1e-6) * rng.uniform(0.0, 0.7)
        grain = fractal_noise(rng, size, rng.uniform(8, 120), 3) * rng.uniform(0, 0.08)
        cloud = smooth_noise(rng, size, 2) * rng.uniform(0, 0.4)
        tone = colour(rng) * np.float32(rng.uniform(0.1, 1.3))
        part = (
            tone * (1 + blurred(as_floats(grain), max(0.3, unsharp / 2)) + cloud + edge)[..., None]
        )
        image = image * (1 - alpha) + part * alpha
    return as_floats(image)


def _metal(rng: Rng) -> FloatArray:
    tone = _METALS[rng.integers(len(_METALS))] * np.float32(rng.uniform(0.7, 1.4))
    return as_floats(tone * rng.uniform(0.9, 1.1, 3))


def _unsharp_ground(rng: Rng, size: int) -> FloatArray:
    """What lies behind, out of focus."""
    cloud = fractal_noise(rng, size, rng.uniform(2, 12), 2) * rng.uniform(0.02, 0.3)
    ground = colour(rng) * np.float32(rng.uniform(0.1, 1.3)) * (1 + cloud)[..., None]
    return blurred(as_floats(ground), size * rng.uniform(0.005, 0.03))


def _lit(rng: Rng, angle: FloatArray, flank: FloatArray) -> FloatArray:
    """Brightness of a cylinder: a dark side, a lit side, and lamps that mirror as streaks.

    Args:
        rng: Source of randomness.
        angle: float32 [S, S], of the surface about the axis, rad; 0 faces the camera.
        flank: float32 [S, S], slope along the axis.
    """
    towards = rng.uniform(-1.2, 1.2)
    value = rng.uniform(0.03, 0.3) + rng.uniform(0.3, 0.9) * np.clip(np.cos(angle - towards), 0, 1)
    value = value * (1 + rng.uniform(-0.5, 0.5) * np.clip(flank, -1.5, 1.5))
    for _ in range(int(rng.integers(1, 4))):
        bent = angle + rng.uniform(0, 0.4) * flank - rng.uniform(-1.2, 1.2)
        value = value + rng.uniform(0.1, 0.9) * np.exp(-((bent / rng.uniform(0.03, 0.3)) ** 2))
    return as_floats(np.clip(value, 0, 1.3))
