"""Flawless scenes of photos: surfaces that fill the frame, parts on a ground, turned shafts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np

from zeroflaw_export.drawn_frames.noise import (
    FloatArray,
    Rng,
    as_floats,
    blurred,
    relief_shading,
    smooth_noise,
)
from zeroflaw_export.drawn_frames.surfaces import colour
from zeroflaw_export.mini.photo_frames.photos import Photos
from zeroflaw_export.mini.photo_frames.silhouettes import draw_silhouette

SceneKind = Literal["surface", "object"]
_SURFACES: Final = 0.5
# A texture is even if its means over so many squares a side differ by less than that.
_PATCHES: Final = 12
_EVEN: Final = 0.035


@dataclass(frozen=True)
class Scene:
    """A scene without a defect.

    Attributes:
        kind: Whether a surface fills it or a part lies in it.
        image: float32 [S, S, 3] in [0, 1].
        part: float32 [S, S] in [0, 1], 1 where an anomaly may lie.
        shade: float32 [S, S], the light that falls on the part; about 1 where it is well lit.
        ground: float32 [S, S, 3] in [0, 1], what lies behind the part.
    """

    kind: SceneKind
    image: FloatArray
    part: FloatArray
    shade: FloatArray
    ground: FloatArray


def kind_of_scene(seed: Sequence[int]) -> SceneKind:
    """Tell what `draw_scene` draws first with a generator of that seed, without drawing it."""
    return "surface" if np.random.default_rng(seed).random() < _SURFACES else "object"


def draw_scene(rng: Rng, photos: Photos, size: int) -> Scene:
    """Draw a scene.

    Args:
        size: Side, px.
    """
    choice = rng.random()
    if choice < 0.4:
        return _surface(_lit(rng, photos.texture(rng, size)))
    if choice < _SURFACES:
        return _surface(photos.whole(rng, size))
    if choice < 0.78:
        return _part_on_ground(rng, photos, size)
    return _shaft(rng, photos, size)


def _surface(image: FloatArray) -> Scene:
    ones = np.ones(image.shape[:2], np.float32)
    return Scene("surface", image, ones, ones, image)


def _lit(rng: Rng, image: FloatArray) -> FloatArray:
    """Light a surface anew: many textures of games are darker than a camera would show them."""
    if rng.random() < 0.5:
        return image
    gain = rng.uniform(0.25, 0.6) / max(float(image.mean()), 1e-3)
    return as_floats(np.clip(image * np.float32(np.clip(gain, 0.7, 2.5)), 0, 1))


def _part_on_ground(rng: Rng, photos: Photos, size: int) -> Scene:
    part = draw_silhouette(rng, size)
    ground = _ground(rng, photos, size)
    shift = int(size * rng.uniform(0.0, 0.03))
    soft = blurred(part, size * rng.uniform(0.005, 0.04))
    matrix = np.array([[1, 0, shift * rng.choice([-1, 1])], [0, 1, shift]], np.float32)
    shadow = as_floats(cv2.warpAffine(soft, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE))
    ground = ground * (1 - np.float32(rng.uniform(0, 0.7)) * shadow)[..., None]
    shade = _relief(rng, part) * _sheen(rng, size)
    body = np.clip(_body(rng, photos, size) * shade[..., None], 0, 1)
    image = ground + (body - ground) * part[..., None]
    return Scene("object", as_floats(image), part, as_floats(shade), as_floats(ground))


def _body(rng: Rng, photos: Photos, size: int) -> FloatArray:
    """Draw what a part is made of: a texture without its large patches, of one even colour.

    A good part has no patches of different colour; those of a photo would look like anomalies.
    """
    texture = photos.texture(rng, size)
    coarse = cv2.resize(texture, (_PATCHES, _PATCHES), interpolation=cv2.INTER_AREA)
    mean = coarse.mean((0, 1))
    kept = np.float32(rng.uniform(0.15, 1.0))
    tone = colour(rng) if rng.random() < 0.3 else np.clip(mean, 0.2, 0.8).astype(np.float32)
    if float(coarse.std((0, 1)).max()) > _EVEN:
        smooth = as_floats(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC))
        texture = tone + kept * (texture - smooth)
    else:
        texture = tone + kept * (texture - mean)
    return as_floats(texture * np.float32(rng.uniform(0.8, 1.3)))


def _ground(rng: Rng, photos: Photos, size: int) -> FloatArray:
    choice = rng.random()
    if choice < 0.35:
        texture = photos.texture(rng, size)
        return blurred(texture, rng.uniform(1, 6) * size / 512) if rng.random() < 0.5 else texture
    tone = colour(rng) * np.float32(rng.choice([0.15, 0.6, 1.0, 1.1]))
    if choice < 0.65:
        return as_floats(np.broadcast_to(np.clip(tone, 0, 1), (size, size, 3)))
    slope = _ramp(rng, size) * np.float32(rng.uniform(0.05, 0.4))
    return as_floats(np.clip(tone * (1 + slope[..., None]), 0, 1))


def _ramp(rng: Rng, size: int) -> FloatArray:
    """Draw a coordinate along a random direction, about -1 to 1."""
    angle = rng.uniform(0, 2 * np.pi)
    grid = np.linspace(-1, 1, size, dtype=np.float32)
    return as_floats(
        grid[None] * np.float32(np.cos(angle)) + grid[:, None] * np.float32(np.sin(angle))
    )


def _relief(rng: Rng, part: FloatArray) -> FloatArray:
    """Shade the rim of a part: a bevel or a rounding under oblique light."""
    size = part.shape[0]
    inside = cv2.distanceTransform((part >= 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    rim = size * float(rng.choice([rng.uniform(0.005, 0.02), rng.uniform(0.02, 0.12)]))
    height = np.sqrt(1 - (1 - np.clip(inside / np.float32(rim), 0, 1)) ** 2) * np.float32(rim)
    slope = relief_shading(blurred(as_floats(height), max(1.0, rim / 6)), rng.uniform(0, 360))
    return as_floats(np.clip(1 + np.float32(rng.uniform(0.15, 0.7)) * slope, 0.15, 1.8))


def _sheen(rng: Rng, size: int) -> FloatArray:
    """Draw the light on a part: even, or with a specular band across it."""
    level = np.ones((size, size), np.float32) + _ramp(rng, size) * np.float32(rng.uniform(0, 0.2))
    if rng.random() < 0.5:
        across = _ramp(rng, size) - np.float32(rng.uniform(-0.5, 0.5))
        width = np.float32(rng.uniform(0.05, 0.3))
        level += np.float32(rng.uniform(0.1, 0.8)) * np.exp(-((across / width) ** 2))
    return level


def _shaft(rng: Rng, photos: Photos, size: int) -> Scene:
    """Draw a shaft, thread or ribbed part: strong reflections, sides dark and out of focus."""
    angle = np.deg2rad(float(rng.choice([0, 90, rng.uniform(0, 180)])))
    grid = np.linspace(-1, 1, size, dtype=np.float32)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along = grid[None] * cosine + grid[:, None] * sine
    half_width = np.float32(rng.uniform(0.35, 1.5))
    offset = np.float32(rng.normal(0, 0.15))
    across = (grid[:, None] * cosine - grid[None] * sine - offset) / half_width
    ribs, edge = _ribs(rng, along, across, float(half_width))
    inside = np.clip((edge - np.abs(across)) * np.float32(size / 3), 0, 1)
    shade = _round_light(rng, across) * ribs * (1 + np.float32(0.05) * smooth_noise(rng, size, 4))
    texture = _body(rng, photos, size)
    grey = texture.mean(-1, keepdims=True)
    metal = grey + np.float32(rng.uniform(0, 1)) * (texture - grey)
    metal = np.float32(rng.uniform(0.3, 0.6)) + np.float32(rng.uniform(0.2, 0.9)) * (
        metal - np.float32(metal.mean())
    )
    ground = _ground(rng, photos, size) * np.float32(rng.choice([0.1, 0.3, 0.8]))
    image = ground + (np.clip(metal * shade[..., None] * 1.2, 0, 1) - ground) * inside[..., None]
    soft = blurred(as_floats(image), size * rng.uniform(0.004, 0.02))
    focus = np.clip((np.abs(across) - np.float32(rng.uniform(0.2, 0.7))) * 2, 0, 1)[..., None]
    image = image + (soft - image) * focus
    lit = as_floats(inside * (shade > 0.2))
    return Scene(
        "object", as_floats(image), lit, as_floats(np.clip(shade, 0, 1.5)), as_floats(ground)
    )


def _round_light(rng: Rng, across: FloatArray) -> FloatArray:
    """Light a cylinder: dark at its sides, with one to three lines of glare along it.

    Args:
        across: float32 [S, S], -1 and 1 at its sides.
    """
    at = np.linspace(-2, 2, 1025, dtype=np.float32)
    facing = np.sqrt(np.clip(1 - at**2, 0, 1))
    light = rng.uniform(0.05, 0.3) + rng.uniform(0.4, 0.9) * facing ** rng.uniform(0.5, 2.5)
    for _ in range(int(rng.integers(1, 4))):
        place, width = rng.uniform(-0.7, 0.7), rng.uniform(0.03, 0.2)
        light = light + rng.uniform(0.1, 1.2) * np.exp(-(((at - place) / width) ** 2))
    index = np.clip((across + 2) * 256, 0, 1024).astype(np.int16)
    return as_floats(light.astype(np.float32)[index])


def _ribs(
    rng: Rng, along: FloatArray, across: FloatArray, half_width: float
) -> tuple[FloatArray, FloatArray]:
    """Draw the shade of a thread or of ribs, and where the outline of the shaft lies."""
    edge = np.ones_like(along)
    if rng.random() < 0.25:
        return edge, edge
    lead = np.float32(rng.uniform(-0.25, 0.25) * half_width)
    phase = np.float32(2 * np.pi * rng.uniform(1.5, 14)) * (along + lead * across) + np.float32(
        rng.uniform(0, 6)
    )
    wave = np.cos(phase)
    sharp = np.clip(wave * np.float32(rng.uniform(1, 4)), -1, 1)
    depth = np.float32(rng.uniform(0.15, 0.5))
    ribs = 1 - depth * (1 - sharp)
    if rng.random() < 0.5:
        crest = np.clip(np.cos(phase + np.float32(rng.uniform(0, 6))), 0, 1)
        ribs = ribs + np.float32(rng.uniform(0.1, 0.6)) * crest ** int(rng.integers(2, 20))
    edge = edge - np.float32(rng.uniform(0, 0.08)) * (1 - sharp)
    return as_floats(np.clip(ribs, 0.05, 2)), as_floats(edge)
