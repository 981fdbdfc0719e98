"""A camera: uneven light, vignetting, lens blur, exposure, shot and read noise, 8 bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw_benchmarks.frames.noise import FloatArray, Rng, as_floats, blurred

# Share of the light that is left in the deepest shade.
_DARKEST: Final = np.float32(0.18)


@dataclass(frozen=True)
class Camera:
    """One exposure; draw it once, so that a frame with and without a defect differ in it alone.

    Attributes:
        light: float32 [S, S, 1], brightness of the scene.
        blur: Standard deviation of the lens's blur, px.
        gamma: Of the tone curve.
        noise: float32 [S, S, 3], standard normal.
        shot: Standard deviation of the shot noise at full white.
        read: Standard deviation of the read noise.
        cast: float32 [3], colour of the light.
        veil: float32 [S, S, 1], stray light, or None.
        unsharp: float32 [S, S, 1], how far out of focus, in [0, 1], or None.
        unsharp_blur: Standard deviation of the blur where that is 1, px.
    """

    light: FloatArray
    blur: float
    gamma: float
    noise: FloatArray
    shot: float
    read: float
    cast: FloatArray | None = None
    veil: FloatArray | None = None
    unsharp: FloatArray | None = None
    unsharp_blur: float = 0.0

    def exposed(self, scene: FloatArray) -> NDArray[np.uint8]:
        """The photo of a scene, float32 [S, S, 3] in [0, 1]: uint8 [S, S, 3]."""
        seen = np.clip(scene, 0, 1.2) * self.light
        if self.cast is not None:
            seen = seen * self.cast
        if self.veil is not None:
            seen = seen + self.veil
        if self.blur > 0.2:
            seen = blurred(seen, self.blur)
        if self.unsharp is not None:
            seen = seen + self.unsharp * (blurred(seen, self.unsharp_blur) - seen)
        seen = np.clip(seen, 0, 1)
        seen = seen + self.noise * np.sqrt(self.shot**2 * seen + self.read**2)
        toned = np.clip(seen, 0, 1) ** np.float32(self.gamma)
        photo: NDArray[np.uint8] = np.round(toned * 255).astype(np.uint8)
        return photo


def draw_camera(rng: Rng, size: int) -> Camera:
    """A camera for frames of one size."""
    grid = np.linspace(-1, 1, size, dtype=np.float32)
    y, x = grid[:, None], grid[None]
    tilt = rng.normal(0, 0.08, 2).clip(-0.18, 0.18)
    vignette = 1 - np.float32(rng.uniform(0, 0.22)) * (x**2 + y**2) / 2
    light = (1 + np.float32(tilt[0]) * x + np.float32(tilt[1]) * y) * vignette
    return Camera(
        light=(light * np.float32(rng.uniform(0.85, 1.12)))[..., None].astype(np.float32),
        blur=float(rng.uniform(0, 1.1) * size / 512),
        gamma=float(rng.uniform(0.8, 1.2)),
        noise=rng.standard_normal((size, size, 3), dtype=np.float32),
        shot=float(rng.uniform(0.002, 0.02)),
        read=float(rng.uniform(0.001, 0.012)),
    )


def draw_harsh_camera(rng: Rng, size: int) -> Camera:
    """A camera in a bad place: half-lit, shaded, glaring, toned and out of focus at times."""
    camera = draw_camera(rng, size)
    light, veil, unsharp, blur = camera.light, None, None, camera.blur
    if rng.random() < 0.3:
        falls = np.abs(_along(rng, size)) ** np.float32(rng.uniform(1, 4))
        light = light * (1 - np.float32(rng.uniform(0.3, 0.9)) * np.clip(falls, 0, 1))
    if rng.random() < 0.3:
        width = np.exp(rng.uniform(np.log(0.01), np.log(0.6)))
        shade = 0.5 + 0.5 * np.tanh((_along(rng, size) - rng.uniform(-0.7, 0.7)) / width)
        light = light * (1 - np.float32(rng.uniform(0.2, 0.8)) * as_floats(shade))
    if rng.random() < 0.25:
        streak = (_along(rng, size) - rng.uniform(-0.9, 0.9)) / rng.uniform(0.03, 0.5)
        light = light * (1 + as_floats(rng.uniform(0.3, 2.0) * np.exp(-(streak**2))))
    if rng.random() < 0.15:
        veil = np.float32(rng.uniform(0.05, 0.3)) * (0.5 + 0.5 * _along(rng, size)).clip(0, 1)
    if rng.random() < 0.25:
        focus = (_along(rng, size) - rng.uniform(-0.6, 0.6)) * rng.uniform(0.8, 3)
        unsharp = as_floats(np.clip(np.abs(focus) - 0.3, 0, 1))
    if rng.random() < 0.25:
        blur = float(rng.uniform(0.8, 2.5) * size / 512)
    return replace(
        camera,
        light=as_floats(np.maximum(light, _DARKEST)),
        blur=blur,
        gamma=float(np.exp(rng.uniform(-0.55, 0.55))),
        cast=as_floats(rng.uniform(0.75, 1.2, 3)) if rng.random() < 0.4 else None,
        veil=veil,
        unsharp=unsharp,
        unsharp_blur=float(rng.uniform(1.5, 6.0) * size / 512),
    )


def _along(rng: Rng, size: int) -> FloatArray:
    """Place along a random direction, about [-1, 1]: float32 [S, S, 1]."""
    grid = np.linspace(-1, 1, size, dtype=np.float32)
    turn = rng.uniform(0, 2 * np.pi)
    place = np.float32(np.cos(turn)) * grid[None] + np.float32(np.sin(turn)) * grid[:, None]
    return as_floats(place[..., None])
