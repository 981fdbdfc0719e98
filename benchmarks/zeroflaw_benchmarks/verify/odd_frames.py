"""Odd frames: what a camera gives that sees nothing, or that is set up wrongly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines.image_files.frame import Frame

Oddity = Callable[[Frame, np.random.Generator], Any]


def _flat(frame: Frame, colour: Any) -> Frame:  # noqa: ANN401 - one level, or one a channel
    return np.full_like(frame, colour)


def _noise(frame: Frame, level: float, sigma: float, rng: np.random.Generator) -> Frame:
    noisy = level + sigma * rng.standard_normal(frame.shape)
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8)


def _hot_pixels(frame: Frame, rng: np.random.Generator) -> Frame:
    dark = _noise(frame, 2, 1, rng)
    for _ in range(5):
        dark[int(rng.integers(frame.shape[0])), int(rng.integers(frame.shape[1]))] = 255
    return dark


def _blurred(frame: Frame, rng: np.random.Generator) -> Frame:
    """A picture far out of focus: one colour, with a breath of shading."""
    mean = frame.mean(axis=(0, 1))
    blurred: Frame = np.clip(mean + 2 * rng.random(3) + 0 * frame, 0, 255).astype(np.uint8)
    return blurred


def _bits(frame: Frame, bits: int) -> NDArray[np.uint16]:
    """Values of a camera of 10 or 12 bits in 16, whose white level nobody gave."""
    return (frame.astype(np.uint16) << 8 >> (16 - bits)).astype(np.uint16)


def _not_finite(frame: Frame, rng: np.random.Generator) -> NDArray[np.float32]:
    values = np.asarray(frame / 255, np.float32)
    values.flat[int(rng.integers(values.size))] = rng.choice([np.nan, np.inf, -np.inf])
    return values


# What each makes of a frame, uint8 [H, W, 3].
ODDITIES: Final[dict[str, Oddity]] = {
    "black": lambda f, _: _flat(f, 0),
    "white": lambda f, _: _flat(f, 255),
    "grey": lambda f, rng: _flat(f, rng.integers(1, 255)),
    "one colour": lambda f, rng: _flat(f, rng.integers(0, 256, 3)),
    "grey with noise": lambda f, rng: _noise(f, rng.uniform(60, 200), rng.uniform(1, 8), rng),
    "lens cap": lambda f, rng: _noise(f, rng.uniform(0, 4), rng.uniform(0.5, 2), rng),
    "lens cap with hot pixels": _hot_pixels,
    "underexposed": lambda f, rng: (f // rng.integers(17, 64)).astype(np.uint8),
    "overexposed": lambda f, rng: np.clip(f.astype(int) * rng.integers(40, 200) + 200, 0, 255)
    .astype(np.uint8),
    "out of focus": _blurred,
    "1 x 1": lambda f, rng: f[:1, :1] if rng.random() < 0.5 else np.zeros((1, 1), np.uint8),
    "10 bits in 16": lambda f, _: _bits(f, 10),
    "12 bits in 16": lambda f, _: _bits(f, 12),
    "not finite": _not_finite,
    "floats to 255": lambda f, _: f.astype(np.float32),
    "whole numbers of 64 bits": lambda f, _: f.astype(np.int64),
    "truth values": lambda f, _: f > 127,
    "no pixels": lambda f, _: f[:0],
    "five channels": lambda f, _: np.dstack([f, f[..., :2]]),
    "one row of one colour": lambda f, _: cv2.resize(f, (f.shape[1], 1))[:, :1].repeat(9, 1),
}  # fmt: skip
