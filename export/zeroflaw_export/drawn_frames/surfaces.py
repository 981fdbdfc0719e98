"""Flawless surfaces: procedural families and real CC0 textures.

Every family draws float32 [S, S, 3] RGB in [0, 1] from a seeded generator. Lengths are shares of
the frame, so a frame of another size shows the same scene.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

import cv2
import numpy as np

from zeroflaw_export.drawn_frames.noise import (
    FloatArray,
    Rng,
    as_floats,
    blurred,
    cellular_noise,
    fractal_noise,
    relief_shading,
    smooth_noise,
    turned,
    widely_blurred,
)

Surface = Callable[[Rng, int], FloatArray]


def brushed_metal(rng: Rng, size: int) -> FloatArray:
    """Draw rolled or ground sheet: streaks along one direction."""
    streaks = smooth_noise(rng, size, size, rng.uniform(1, 5)) * rng.uniform(0.02, 0.07)
    bands = smooth_noise(rng, size, rng.uniform(8, 60), 2) * rng.uniform(0.0, 0.05)
    sheen = smooth_noise(rng, size, 3) * rng.uniform(0.02, 0.08)
    grey = (rng.uniform(0.35, 0.75) + streaks + bands + sheen).astype(np.float32)
    return tinted(turned(grey, _any_angle(rng), 1.45), rng, 0.06)


def turned_grooves(rng: Rng, size: int) -> FloatArray:
    """Draw turned or threaded steel: parallel glossy grooves, each with a highlight."""
    y = np.arange(size, dtype=np.float32)[:, None] / size
    warp = smooth_noise(rng, size, 2) * np.float32(rng.uniform(0, 0.01))
    phase = 2 * np.pi * rng.uniform(2, 22) * (y + warp) + rng.uniform(0, 6)
    profile = np.cos(phase) + rng.uniform(0, 0.5) * np.cos(2 * phase + rng.uniform(0, 6))
    highlight = np.clip(profile, 0, None) ** rng.integers(1, 9)
    fine = smooth_noise(rng, size, size / rng.uniform(1, 3), rng.uniform(1, 30))
    grey = (
        rng.uniform(0.15, 0.4) + rng.uniform(0.2, 0.6) * highlight + rng.uniform(0.01, 0.04) * fine
    )
    grey = grey + smooth_noise(rng, size, 3) * np.float32(0.03)
    return tinted(turned(grey.astype(np.float32), _any_angle(rng), 1.45), rng, 0.05)


def fabric(rng: Rng, size: int) -> FloatArray:
    """Draw a weave of two threads."""
    grid = np.arange(size, dtype=np.float32) / size
    threads = rng.uniform(18, 70)
    wobble = rng.uniform(0, 0.15) / threads
    x = grid[None] + smooth_noise(rng, size, 6) * np.float32(wobble)
    y = grid[:, None] + smooth_noise(rng, size, 6) * np.float32(wobble)
    warp, weft = np.sin(np.pi * threads * x) ** 2, np.sin(np.pi * threads * y) ** 2
    over = np.sin(np.pi * threads * x / rng.integers(1, 3)) * np.sin(np.pi * threads * y)
    share = 1 / (1 + np.exp(-6 * over))
    one, other = colour(rng), colour(rng)
    thread = share * (0.45 + 0.55 * warp)
    cross = (1 - share) * (0.45 + 0.55 * weft)
    image = thread[..., None] * one + cross[..., None] * other
    image = image + fractal_noise(rng, size, size / 6, 2)[..., None] * np.float32(0.02)
    return turned(image.astype(np.float32), _any_angle(rng), 1.45)


def wood(rng: Rng, size: int) -> FloatArray:
    """Draw planed wood: stretched rings and pores."""
    base = smooth_noise(rng, size, rng.uniform(2, 6), 1.5)
    rings = np.sin(2 * np.pi * rng.uniform(2, 7) * base)
    pores = smooth_noise(rng, size, size / 2, rng.uniform(6, 16))
    value = 0.09 * rings + 0.05 * pores + 0.03 * fractal_noise(rng, size, 8, 4)
    tone = np.array([0.62, 0.42, 0.24], np.float32) * np.float32(rng.uniform(0.6, 1.35))
    image = tone * (1 + rng.uniform(0.5, 1.3) * value[..., None])
    return turned(image.astype(np.float32), _any_angle(rng), 1.45)


def leather(rng: Rng, size: int) -> FloatArray:
    """Draw embossed leather or plastic: shaded cells."""
    distance, _ = cellular_noise(rng, size, int(rng.integers(18, 70)))
    height = -(distance**1.5) + 0.2 * fractal_noise(rng, size, 20, 3)
    shade = relief_shading(blurred(height, size / 400), rng.uniform(0, 360))
    value = 1 + rng.uniform(0.5, 1.6) * shade / (3 * float(shade.std()) + 1e-6)
    return as_floats(colour(rng) * value[..., None])


def painted(rng: Rng, size: int) -> FloatArray:
    """Draw lacquer with orange peel and a soft reflection."""
    peel = relief_shading(smooth_noise(rng, size, rng.uniform(30, 110)), rng.uniform(0, 360))
    glow = smooth_noise(rng, size, 2) * rng.uniform(0.02, 0.12)
    value = 1 + rng.uniform(0.01, 0.06) * peel / (float(peel.std()) + 1e-6) + glow
    flakes = rng.standard_normal((size, size)).astype(np.float32) * rng.uniform(0, 0.04)
    return as_floats(colour(rng) * (value + flakes)[..., None])


def perforated_plate(rng: Rng, size: int) -> FloatArray:
    """Draw a lattice of equal holes, studs or tiles in a plate."""
    count = int(rng.integers(4, 15))
    cell = np.zeros((64, 64), np.float32)
    corners = int(rng.integers(3, 9))
    turn, radius = rng.uniform(0, 6), rng.uniform(9, 24)
    angles = turn + np.arange(corners) * 2 * np.pi / corners
    outline = 32 + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if rng.random() < 0.5:
        cv2.circle(cell, (32, 32), int(radius), 1.0, -1, cv2.LINE_AA)
    else:
        cv2.fillPoly(cell, [outline.astype(np.int32)], 1.0, cv2.LINE_AA)
    if rng.random() < 0.4:
        cv2.circle(cell, (32, 32), int(radius * rng.uniform(0.3, 0.7)), 0.35, -1, cv2.LINE_AA)
    tiled = np.tile(cell, (count, count))
    if rng.random() < 0.4:
        tiled = np.concatenate(
            [np.roll(row, 32 * (i % 2), axis=1) for i, row in enumerate(np.split(tiled, count))]
        )
    holes = as_floats(cv2.resize(tiled, (size, size), interpolation=cv2.INTER_AREA))
    holes = turned(holes, float(rng.choice([0.0, 45.0, rng.uniform(0, 90)])), 1.45)
    plate, inside = _plain(rng, size), colour(rng) * np.float32(rng.uniform(0.1, 1.0))
    rim = relief_shading(blurred(holes, size / 250), rng.uniform(0, 360))
    image = plate * (1 - holes[..., None]) + inside * holes[..., None]
    return as_floats(image + rng.uniform(0.2, 1.5) * rim[..., None])


def printed_carton(rng: Rng, size: int) -> FloatArray:
    """Draw board with lines of print, frames and bars."""
    image = _plain(rng, size, 0.7)
    ink = np.zeros((size, size), np.float32)
    line = rng.uniform(0.03, 0.09) * size
    y = line * rng.uniform(0.3, 1.5)
    while y < size - line:
        if rng.random() < 0.8:
            _print_line(ink, rng, y, line)
        y += line * rng.uniform(1.0, 1.6)
    for _ in range(int(rng.integers(0, 4))):
        a, b = rng.integers(0, size, 2), rng.integers(0, size, 2)
        width = int(rng.choice([-1, 2, 4])) if rng.random() < 0.5 else 3
        shade = float(rng.uniform(0.3, 0.9))
        cv2.rectangle(ink, a.tolist(), b.tolist(), shade, width, cv2.LINE_AA)
    ink = turned(ink, float(rng.choice([0, 0, 90, rng.uniform(-8, 8)])), 1.05)[..., None]
    return (image * (1 - ink) + colour(rng) * np.float32(0.6) * ink).astype(np.float32)


def moulded_part(rng: Rng, size: int) -> FloatArray:
    """Draw a symmetric part with rings and bores before a plain background."""
    image, part = _plain(rng, size, 0.3), _plain(rng, size)
    mask = np.zeros((size, size), np.float32)
    shade = np.zeros((size, size), np.float32)
    centre = (int(size * rng.uniform(0.4, 0.6)), int(size * rng.uniform(0.4, 0.6)))
    radius = size * rng.uniform(0.28, 0.44)
    if rng.random() < 0.5:
        cv2.circle(mask, centre, int(radius), 1.0, -1, cv2.LINE_AA)
    else:
        box = cv2.boxPoints(
            ((centre), (radius * 2, radius * rng.uniform(1, 2)), rng.uniform(0, 90))
        )
        cv2.fillPoly(mask, [box.astype(np.int32)], 1.0, cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 4))):
        ring = int(radius * rng.uniform(0.15, 0.9))
        width = int(rng.integers(1, max(3, size // 60)))
        cv2.circle(shade, centre, ring, float(rng.uniform(-0.3, 0.3)), width, cv2.LINE_AA)
    bores, bore = int(rng.integers(0, 9)), radius * rng.uniform(0.05, 0.14)
    for i in range(bores):
        angle = 2 * np.pi * i / bores
        at = (
            int(centre[0] + 0.6 * radius * np.cos(angle)),
            int(centre[1] + 0.6 * radius * np.sin(angle)),
        )
        cv2.circle(mask, at, int(bore), 0.0, -1, cv2.LINE_AA)
    rim = relief_shading(blurred(mask, size / 150), rng.uniform(0, 360))
    part = part + (shade + rng.uniform(0.3, 1.5) * rim)[..., None]
    return (image * (1 - mask[..., None]) + part * mask[..., None]).astype(np.float32)


def casting(rng: Rng, size: int) -> FloatArray:
    """Draw sand-cast or blasted metal: rough at every scale, sometimes with a machined edge."""
    height = fractal_noise(rng, size, rng.uniform(4, 10), 7, rng.uniform(0.55, 0.8))
    shade = relief_shading(height, rng.uniform(0, 360))
    pits = np.clip(smooth_noise(rng, size, rng.uniform(60, 130)) - 1.2, 0, None)
    value = rng.uniform(0.3, 0.6) + 0.05 * shade / (float(shade.std()) + 1e-6) - 0.03 * pits
    value = value + 0.03 * smooth_noise(rng, size, 3)
    if rng.random() < 0.4:
        edge = (np.arange(size) > size * rng.uniform(0.15, 0.85)).astype(np.float32)[None]
        edge = np.broadcast_to(edge, (size, size)).astype(np.float32)
        edge = turned(blurred(edge, size / 120), float(rng.choice([0, 90, 180])))
        value = value + rng.uniform(-0.15, 0.15) * edge
    return tinted(value.astype(np.float32), rng, 0.05)


def printed_board(rng: Rng, size: int) -> FloatArray:
    """Draw a bare printed circuit board: rows of pads, traces between them, solder mask."""
    mask_tone = np.array([0.06, 0.32, 0.16], np.float32)
    mask_tone = np.roll(mask_tone, int(rng.choice([0, 0, 0, 1, 2]))) * np.float32(
        rng.uniform(0.8, 1.6)
    )
    copper = np.array([0.78, 0.68, 0.45], np.float32) * np.float32(rng.uniform(0.8, 1.15))
    traces = np.zeros((size, size), np.float32)
    pads = np.zeros((size, size), np.float32)
    pitch = int(size / rng.uniform(9, 18))
    rows, columns = size // pitch, size // pitch
    width = max(1, pitch // 7)
    for row in range(1, rows):
        at = (pitch // 2, row * pitch)
        for column in range(1, columns):
            to = (
                column * pitch + pitch // 2,
                int(row + rng.integers(-1, 2) * (rng.random() < 0.2)) * pitch,
            )
            if rng.random() < 0.75:
                cv2.line(traces, at, to, 1.0, width, cv2.LINE_AA)
            at = to
    for row in range(1, rows, int(rng.integers(2, 4))):
        for column in range(columns):
            if rng.random() < 0.85:
                cv2.circle(
                    pads,
                    (column * pitch + pitch // 2, row * pitch),
                    pitch // 4,
                    1.0,
                    -1,
                    cv2.LINE_AA,
                )
    weave = fractal_noise(rng, size, 90, 2)[..., None] * np.float32(0.012)
    image = mask_tone * (1 + np.float32(0.35) * traces[..., None]) + weave
    image = image * (1 - pads[..., None]) + copper * pads[..., None]
    return turned(image.astype(np.float32), float(rng.choice([0, 90])), 1.0)


def glass(rng: Rng, size: int) -> FloatArray:
    """Draw clear or tinted sheet: smooth, with soft reflections and a frame's shadow."""
    value = rng.uniform(0.35, 0.8) + smooth_noise(rng, size, 2) * rng.uniform(0.03, 0.1)
    for _ in range(int(rng.integers(1, 4))):
        bar = np.zeros((size, size), np.float32)
        x, width = rng.uniform(0, 1) * size, rng.uniform(0.02, 0.2) * size
        cv2.rectangle(bar, (int(x), 0), (int(x + width), size), 1.0, -1)
        bar = turned(bar, rng.uniform(-60, 60), 1.5)
        bar = widely_blurred(bar, size * rng.uniform(0.008, 0.05))
        value = value + bar * rng.uniform(-0.08, 0.15)
    value = value + smooth_noise(rng, size, size / 2) * rng.uniform(0.001, 0.006)
    return tinted(value.astype(np.float32), rng, 0.12)


def real_texture(name: str) -> Surface:
    """Make a family of crops of a CC0 texture of scikit-image, turned, magnified and tinted."""

    def draw(rng: Rng, size: int) -> FloatArray:
        photo = _photo(name)
        zoom = rng.uniform(1.0, 1.8) * size / photo.shape[0]
        side = max(2, min(photo.shape[0], round(size / zoom)))
        y, x = (
            rng.integers(0, photo.shape[0] - side + 1),
            rng.integers(0, photo.shape[1] - side + 1),
        )
        crop = cv2.resize(
            photo[y : y + side, x : x + side], (size, size), interpolation=cv2.INTER_CUBIC
        )
        crop = np.rot90(crop, int(rng.integers(4)))
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        value = (crop - crop.mean()) * rng.uniform(0.6, 1.1) + rng.uniform(0.35, 0.6)
        return tinted(np.ascontiguousarray(value, np.float32), rng, 0.12)

    return draw


@cache
def _photo(name: str) -> FloatArray:
    from skimage import data

    return as_floats(getattr(data, name)()) / np.float32(255)


def colour(rng: Rng) -> FloatArray:
    """Draw a muted colour, float32 [3] in [0.1, 0.9]."""
    grey = rng.uniform(0.2, 0.8)
    return np.clip(grey + rng.uniform(-0.18, 0.18, 3), 0.1, 0.9).astype(np.float32)


def tinted(grey: FloatArray, rng: Rng, strength: float) -> FloatArray:
    """Tint a grey field with a slight cast: float32 [S, S, 3]."""
    cast = (1 + rng.uniform(-strength, strength, 3)).astype(np.float32)
    return grey[..., None] * cast


def _plain(rng: Rng, size: int, roughness: float = 1.0) -> FloatArray:
    grain = fractal_noise(rng, size, rng.uniform(20, 120), 3) * np.float32(rng.uniform(0.005, 0.04))
    cloud = smooth_noise(rng, size, 3) * np.float32(rng.uniform(0, 0.03))
    value = 1 + np.float32(roughness) * (grain + cloud)
    return as_floats(colour(rng) * value[..., None])


def _print_line(ink: FloatArray, rng: Rng, y: float, line: float) -> None:
    """Draw strokes in the manner of letters, from left to right."""
    size, x = ink.shape[0], line * rng.uniform(0.2, 3)
    end = size - line * rng.uniform(0.2, 5)
    height, stroke = line * 0.6, max(1, int(line * 0.1))
    while x < end:
        width = height * rng.uniform(0.4, 0.8)
        corners = rng.uniform(0, 1, (int(rng.integers(3, 6)), 2)) * (width, height) + (x, y)
        cv2.polylines(
            ink, [corners.astype(np.int32)], bool(rng.random() < 0.4), 1.0, stroke, cv2.LINE_AA
        )
        x += width * (1.3 if rng.random() < 0.85 else 2.4)


def _any_angle(rng: Rng) -> float:
    return float(rng.choice([0.0, 90.0, rng.uniform(0, 180)]))


# Train and test share no family, so what is measured on the test set is zero-shot.
TRAIN_SURFACES: Final[dict[str, Surface]] = {
    "brushed_metal": brushed_metal,
    "turned_grooves": turned_grooves,
    "fabric": fabric,
    "wood": wood,
    "leather": leather,
    "painted": painted,
    "perforated_plate": perforated_plate,
    "printed_carton": printed_carton,
    "moulded_part": moulded_part,
    "brick": real_texture("brick"),
    "grass": real_texture("grass"),
}
TEST_SURFACES: Final[dict[str, Surface]] = {
    "casting": casting,
    "printed_board": printed_board,
    "glass": glass,
    "gravel": real_texture("gravel"),
}
