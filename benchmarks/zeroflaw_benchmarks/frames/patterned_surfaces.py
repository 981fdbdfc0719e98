"""Flawless surfaces with a plan: weaves, lattices, channels, arrays of parts, shells.

Their edges, holes and gaps are meant, and teach that structure is not yet defective.
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
from zeroflaw_benchmarks.frames.surfaces import colour, tinted


def ceramic_tiles(rng: Rng, size: int) -> FloatArray:
    """Tiles in grout, each of its own shade."""
    rows, columns = rng.integers(3, 14, 2).tolist()
    shades = 1 + rng.uniform(0.0, 0.12) * rng.standard_normal((rows, columns))
    tone = as_floats(cv2.resize(as_floats(shades), (size, size), interpolation=cv2.INTER_NEAREST))
    y, x = (np.arange(size, dtype=np.float32) / size * n % 1 for n in (rows, columns))
    gap = rng.uniform(0.02, 0.06)
    joint = np.minimum(np.minimum(y, 1 - y)[:, None] / columns, np.minimum(x, 1 - x)[None] / rows)
    inside = np.clip((joint * (rows + columns) / 2 - gap) * size / (rows + columns) / 1.5, 0, 1)
    rim = relief_shading(blurred(inside, size / 250), rng.uniform(0, 360)) * rng.uniform(0.2, 1.2)
    glaze = 1 + 0.03 * fractal_noise(rng, size, rng.uniform(4, 60), 3)
    tile, grout = colour(rng) * (tone * glaze + rim)[..., None], colour(rng)
    grout = grout * (1 + 0.06 * smooth_noise(rng, size, size / 3))[..., None]
    image = grout * (1 - inside[..., None]) + tile * inside[..., None]
    return turned(as_floats(image), float(rng.choice([0, 45, rng.uniform(0, 90)])), 1.45)


def knurled_grip(rng: Rng, size: int) -> FloatArray:
    """Knurled steel: two sets of crossed grooves."""
    grid = np.arange(size, dtype=np.float32) / size
    pitch, lean = rng.uniform(8, 45), rng.uniform(0.4, 1.0)
    along, across = grid[None] + lean * grid[:, None], grid[None] - lean * grid[:, None]
    height = np.abs(np.sin(np.pi * pitch * along)) + np.abs(np.sin(np.pi * pitch * across))
    shade = relief_shading(blurred(as_floats(height), 0.8), rng.uniform(0, 360))
    value = rng.uniform(0.3, 0.6) + rng.uniform(0.06, 0.2) * shade / (float(shade.std()) + 1e-6)
    value = value + 0.02 * smooth_noise(rng, size, size / 2) + 0.04 * smooth_noise(rng, size, 3)
    return tinted(turned(as_floats(value), rng.uniform(0, 180), 1.45), rng, 0.06)


def carbon_twill(rng: Rng, size: int) -> FloatArray:
    """Carbon fibre under resin: tows of a twill that gleam by direction."""
    tows = rng.uniform(8, 36)
    grid = np.arange(size, dtype=np.float32) / size * tows
    row, column = np.floor(grid)[:, None], np.floor(grid)[None]
    over = ((row + column) % 4 < 2).astype(np.float32)
    round_y, round_x = (np.sin(np.pi * (grid % 1)) for _ in range(2))
    fine = smooth_noise(rng, size, size / 2, 6)
    weft = rng.uniform(0.25, 0.5) * round_y[:, None] * (1 + 0.15 * fine)
    warp = rng.uniform(0.08, 0.25) * round_x[None] * (1 + 0.15 * fine.T)
    value = 0.06 + over * weft + (1 - over) * warp + 0.02 * smooth_noise(rng, size, 3)
    return tinted(turned(as_floats(value), rng.uniform(0, 180), 1.45), rng, 0.1)


def corrugated_sheet(rng: Rng, size: int) -> FloatArray:
    """Corrugated or ribbed sheet: wide waves, or ribs with sharp flanks."""
    x = np.arange(size, dtype=np.float32)[None] / size
    wave = np.sin(2 * np.pi * rng.uniform(3, 16) * x + rng.uniform(0, 6))
    steep = rng.uniform(1, 12)
    height = np.broadcast_to(np.tanh(steep * wave) / np.tanh(steep), (size, size))
    slope = as_floats(np.gradient(height, axis=1))
    slope = slope / (float(np.abs(slope).max()) + 1e-6)
    value = 1 + rng.uniform(0.1, 0.4) * slope + rng.uniform(0, 0.15) * height
    value = value + rng.uniform(0.005, 0.03) * fractal_noise(rng, size, 60, 3)
    return turned(as_floats(colour(rng) * value[..., None]), rng.uniform(0, 180), 1.45)


def wire_mesh(rng: Rng, size: int) -> FloatArray:
    """Woven or welded wire before a plain ground."""
    count, thick = rng.uniform(6, 30), rng.uniform(0.12, 0.4)
    grid = np.arange(size, dtype=np.float32) / size * count
    y = np.abs((grid + 0.04 * smooth_noise(rng, size, 5)[0]) % 1 - 0.5)[:, None]
    x = np.abs((grid * rng.uniform(0.6, 1.6)) % 1 - 0.5)[None]
    wires = [np.sqrt(np.clip(1 - (line / (thick / 2)) ** 2, 0, 1)) for line in (y, x)]
    weave = np.where((np.floor(grid)[:, None] + np.floor(grid)[None]) % 2 > 0, 1.0, 0.8)
    height = np.maximum(wires[0] * weave, wires[1] * (1.8 - weave))
    alpha = np.clip(height * 6, 0, 1)[..., None]
    metal = colour(rng) * (0.4 + 0.8 * height)[..., None]
    ground = (
        colour(rng)
        * rng.uniform(0.2, 1.0)
        * (1 + 0.04 * fractal_noise(rng, size, 12, 3))[..., None]
    )
    image = as_floats(ground * (1 - alpha) + metal * alpha)
    return turned(image, float(rng.choice([0, 45, rng.uniform(0, 90)])), 1.45)


def keypad(rng: Rng, size: int) -> FloatArray:
    """An array of keys with legends; some places have none by design."""
    rows, columns = rng.integers(3, 10, 2).tolist()
    height, width = size / rows, size / columns
    margin = min(height, width) * rng.uniform(0.06, 0.2)
    keys, ink = np.zeros((size, size), np.float32), np.zeros((size, size), np.float32)
    for row in range(rows):
        for column in range(columns):
            if rng.random() < 0.1:
                continue
            top, left = row * height + margin, column * width + margin
            bottom, right = (row + 1) * height - margin, (column + 1) * width - margin
            first, last = (int(left), int(top)), (int(right), int(bottom))
            shade = float(rng.choice([1.0, 1.0, 1.0, 0.8]))
            cv2.rectangle(keys, first, last, shade, -1, cv2.LINE_AA)
            span = np.array([right - left, bottom - top]) * 0.3
            strokes = rng.uniform(-1, 1, (int(rng.integers(2, 5)), 2)) * span
            path = strokes + np.array([left + right, top + bottom]) / 2
            thick = max(1, int(margin * 0.3))
            cv2.polylines(ink, [path.astype(np.int32)], rng.random() < 0.5, 1.0, thick, cv2.LINE_AA)
    keys, ink = blurred(keys, size / 350), (ink * rng.uniform(0.5, 1.0))[..., None]
    rim = relief_shading(keys, rng.uniform(0, 360)) * rng.uniform(0.3, 1.5)
    grain = 1 + 0.02 * fractal_noise(rng, size, 90, 2)
    image = colour(rng) * 0.6 * (1 - keys[..., None]) + colour(rng) * (keys * grain)[..., None]
    image = (image + rim[..., None]) * (1 - ink) + colour(rng) * ink
    return turned(as_floats(image), float(rng.choice([0, 0, 90, rng.uniform(-10, 10)])), 1.1)


def milled_channels(rng: Rng, size: int) -> FloatArray:
    """A cold plate: channels milled along straight lines that turn at right angles."""
    channels = np.zeros((size, size), np.float32)
    pitch = size / rng.uniform(6, 20)
    width = max(2, int(pitch * rng.uniform(0.2, 0.6)))
    for _ in range(int(rng.integers(3, 14))):
        at = np.round(rng.uniform(0, 1, 2) * size / pitch) * pitch
        for step in range(int(rng.integers(2, 9))):
            to = at.copy()
            to[step % 2] += pitch * rng.integers(-5, 6)
            cv2.line(channels, at.astype(int).tolist(), to.astype(int).tolist(), 1.0, width)
            at = to
    channels = blurred(channels, size / rng.uniform(250, 500))
    rim = relief_shading(channels, rng.uniform(0, 360)) * rng.uniform(0.5, 2.5)
    marks = 1 + rng.uniform(0.01, 0.05) * smooth_noise(rng, size, size / 2, 8)
    ground = colour(rng) * (marks * (1 - rng.uniform(0.1, 0.6) * channels) + rim)[..., None]
    return turned(as_floats(ground), float(rng.choice([0, 90, 30])), 1.45)


def glossy_shell(rng: Rng, size: int) -> FloatArray:
    """A curved housing of shiny plastic: a shading gradient, round highlights, a parting line."""
    grid = np.linspace(-1, 1, size, dtype=np.float32)
    y, x = grid[:, None], grid[None]
    bend = rng.uniform(-0.4, 0.4, 4)
    value = 1 + bend[0] * x + bend[1] * y + 0.5 * bend[2] * x**2 + 0.5 * bend[3] * y**2
    for _ in range(int(rng.integers(1, 5))):
        at, wide = rng.uniform(-1, 1, 2), rng.uniform(0.05, 0.5, 2)
        spot = np.exp(-(((x - at[0]) / wide[0]) ** 2) - ((y - at[1]) / wide[1]) ** 2)
        value = value + rng.uniform(0.05, 0.5) * spot ** rng.choice([1, 4])
    if rng.random() < 0.5:
        line = np.abs(y - rng.uniform(-0.8, 0.8) - rng.uniform(-0.2, 0.2) * x**2)
        value = value - rng.uniform(0.1, 0.4) * np.exp(-((line * size / 4) ** 2))
    grain = rng.uniform(0, 0.02) * smooth_noise(rng, size, size / rng.uniform(1, 4))
    image = colour(rng) * (np.broadcast_to(value, (size, size)) + grain)[..., None]
    return turned(as_floats(image), float(rng.choice([0, 90, rng.uniform(0, 180)])), 1.45)
