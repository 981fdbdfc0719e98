"""A camera: uneven light, vignetting, lens blur, exposure, shot and read noise, 8 bits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from zeroflaw_export.drawn_frames.noise import FloatArray, Rng, blurred


@dataclass(frozen=True)
class Camera:
    """One exposure; draw it once, so that a frame with and without a defect differ in it alone.

    Attributes:
        light: float32 [H, W, 1], brightness of the scene.
        blur: Standard deviation of the lens's blur, px.
        gamma: Of the tone curve.
        noise: float32 [H, W, 3], standard normal.
        shot: Standard deviation of the shot noise at full white.
        read: Standard deviation of the read noise.
    """

    light: FloatArray
    blur: float
    gamma: float
    noise: FloatArray
    shot: float
    read: float

    def exposed(self, scene: FloatArray) -> NDArray[np.uint8]:
        """Expose a scene, float32 [H, W, 3] in [0, 1], to a photo, uint8 [H, W, 3]."""
        seen = np.clip(scene, 0, 1.2) * self.light
        if self.blur > 0.2:
            seen = blurred(seen, self.blur)
        seen = np.clip(seen, 0, 1)
        seen = seen + self.noise * np.sqrt(self.shot**2 * seen + self.read**2)
        toned = np.clip(seen, 0, 1) ** np.float32(self.gamma)
        photo: NDArray[np.uint8] = np.round(toned * 255).astype(np.uint8)
        return photo

    def of_window(self, rows: slice, columns: slice) -> Camera:
        """Return the camera of a window of the frame alone."""
        return replace(self, light=self.light[rows, columns], noise=self.noise[rows, columns])


def draw_camera(rng: Rng, size: int) -> Camera:
    """Draw a camera for frames of one size."""
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
