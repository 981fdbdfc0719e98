"""Where an anomaly is drawn: a square window of a scene, and what may be put into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from zeroflaw_export.drawn_frames.noise import FloatArray, Rng, as_floats, fractal_noise, soft_edge
from zeroflaw_export.mini.photo_frames.photos import Photos
from zeroflaw_export.mini.photo_frames.scenes import Scene

_SMALLEST: Final = 32
# Share of its side over which a window fades into the scene.
_FADE: Final = 0.06


@dataclass(frozen=True)
class Window:
    """A square piece of a scene, N px a side.

    Attributes:
        y: First row in the scene.
        x: First column in the scene.
        fill: Share of the window that the anomaly should cover.
        image: float32 [N, N, 3] in [0, 1].
        part: float32 [N, N], 1 where the part is.
        shade: float32 [N, N], the light on the part.
        ground: float32 [N, N, 3], what lies behind the part.
        elsewhere: float32 [N, N, 3], the same scene at another place.
        photos: Where a foreign texture comes from.
    """

    y: int
    x: int
    fill: float
    image: FloatArray
    part: FloatArray
    shade: FloatArray
    ground: FloatArray
    elsewhere: FloatArray
    photos: Photos

    @property
    def side(self) -> int:
        """Side, px."""
        return int(self.image.shape[0])

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns of the scene that the window shows."""
        return slice(self.y, self.y + self.side), slice(self.x, self.x + self.side)

    @property
    def light(self) -> FloatArray:
        """The light on what is laid into the window, float32 [N, N, 1] in [0.1, 1.3]."""
        return as_floats(np.clip(self.shade, 0.1, 1.3)[..., None])

    def foreign(self, rng: Rng) -> FloatArray:
        """Draw a texture of another photo in the light of this window, float32 [N, N, 3]."""
        return as_floats(self.photos.texture(rng, self.side) * self.light)


def open_window(
    rng: Rng, scene: Scene, photos: Photos, area: float, *, at_the_edge: bool
) -> Window | None:
    """Choose a window on the part of a scene.

    Args:
        area: Share of the scene that the anomaly should cover.
        at_the_edge: Whether it lies across the outline of the part.

    Returns:
        Nothing if the scene has no such place.
    """
    size = scene.image.shape[0]
    side = min(
        size, max(_SMALLEST * size // 512, round(size * np.sqrt(area / rng.uniform(0.08, 0.28))))
    )
    centre = _centre(rng, scene.part, at_the_edge=at_the_edge)
    if centre is None:
        return None
    y, x = (int(np.clip(c - side // 2, 0, size - side)) for c in centre)
    far = rng.integers(0, size - side + 1, 2)
    here = np.s_[y : y + side, x : x + side]
    there = np.s_[far[0] : far[0] + side, far[1] : far[1] + side]
    return Window(
        y=y,
        x=x,
        fill=float(area * (size / side) ** 2),
        image=scene.image[here],
        part=scene.part[here],
        shade=scene.shade[here],
        ground=scene.ground[here],
        elsewhere=scene.image[there],
        photos=photos,
    )


def _centre(rng: Rng, part: FloatArray, *, at_the_edge: bool) -> tuple[int, int] | None:
    small = cv2.resize(part, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    inside = (small >= 0.5).astype(np.uint8)
    if at_the_edge:
        wanted = cv2.dilate(inside, np.ones((3, 3), np.uint8)) > inside
        # The border of the frame is not the outline of a part.
        wanted[[0, -1]], wanted[:, [0, -1]] = False, False
    else:
        wanted = inside > 0
    places = np.flatnonzero(wanted)
    if places.size == 0:
        return None
    row, column = divmod(int(places[int(rng.integers(places.size))]), wanted.shape[1])
    return row * 4 + 2, column * 4 + 2


def island(rng: Rng, side: int, fill: float, roughness: float) -> FloatArray:
    """Draw the level set of an irregular spot about the middle of a window.

    Args:
        side: Side of the window, px.
        fill: Share of the window that it covers.
        roughness: 0 is an ellipse, 1 is torn to pieces.

    Returns:
        float32 [side, side], at least 0 inside.
    """
    grid = np.linspace(-1, 1, side, dtype=np.float32)
    angle, aspect = rng.uniform(0, np.pi), rng.uniform(1.0, 2.0) if fill < 0.3 else 1.0
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    y, x = grid[:, None], grid[None]
    along, across = x * cosine + y * sine, y * cosine - x * sine
    distance = np.sqrt((along / np.float32(aspect)) ** 2 + (across * np.float32(aspect)) ** 2)
    torn = fractal_noise(rng, side, min(side / 3, float(rng.uniform(2, 7))), 3)
    level = np.float32(0.6 * roughness) * torn - distance
    wanted = max(1, round(fill * side * side))
    cut = np.partition(level, -wanted, axis=None)[-wanted]
    return as_floats(level - cut)


def island_opacity(rng: Rng, window: Window, roughness: float, softness: float) -> FloatArray:
    """Draw the opacity of a spot: float32 [N, N] in [0, 1], with an edge `softness` px wide."""
    return soft_edge(island(rng, window.side, min(0.6, window.fill), roughness), softness)


def faded(side: int) -> FloatArray:
    """Return 1 in the middle of a window and 0 at its border, float32 [side, side]."""
    ramp = np.clip(
        np.minimum(np.arange(side), np.arange(side)[::-1]) / max(1.0, _FADE * side), 0, 1
    )
    return as_floats(ramp[:, None] * ramp[None])
