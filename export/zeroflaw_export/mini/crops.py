"""Batches of augmented crops; each is a function of the seed and the step, so runs can resume."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from zeroflaw_export.drawn_frames.noise import FloatArray, Rng, as_floats, blurred
from zeroflaw_export.mini.training_frames import TrainingFrames

Crops = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.intp]]

_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def draw_crops(
    frames: TrainingFrames,
    rng: Rng,
    count: int,
    *,
    side: int,
    window: tuple[float, float],
    cell: int,
    defective: float,
) -> Crops:
    """Draw crops: another window, aspect, turn, colour and tone each time.

    Args:
        side: Of each crop, px.
        window: Smallest and largest side of what is cropped, px of the frame.
        cell: Side of a cell of the truth, px of the crop.
        defective: Share of the crops that are laid over a defect, in [0, 1].

    Returns:
        Images, uint8 [count, side, side, 3].
        Truth, float32 [count, side / cell, side / cell]: share of each cell that is defective.
        Index of each crop's frame, [count].
    """
    images = np.empty((count, side, side, 3), np.uint8)
    truth = np.empty((count, side // cell, side // cell), np.float32)
    chosen = np.empty(count, np.intp)
    for i in range(count):
        wanted = rng.random() < defective
        index, window_at = _window(frames, rng, window, wanted)
        y, x, height, width = window_at
        image = frames.images[index][y : y + height, x : x + width]
        mask = frames.masks[index][y : y + height, x : x + width]
        image = np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
        cells = (side // cell, side // cell)
        share = as_floats(cv2.resize(as_floats(mask), cells, interpolation=cv2.INTER_AREA))
        turns, flip = int(rng.integers(4)), rng.random() < 0.5
        image, share = np.rot90(image, turns), np.rot90(share, turns)
        if flip:
            image, share = image[:, ::-1], share[:, ::-1]
        images[i], truth[i], chosen[i] = _toned(image, rng), share, index
    return images, truth, chosen


def _window(
    frames: TrainingFrames, rng: Rng, window: tuple[float, float], defective: bool
) -> tuple[int, tuple[int, int, int, int]]:
    """Draw a frame and a window (y, x, height, width) in it, over a defect if that is wanted."""
    while True:
        index = int(rng.integers(len(frames)))
        mask = frames.masks[index]
        size = mask.shape[0]
        places = np.flatnonzero(mask) if defective else np.empty(0, np.intp)
        if defective and not places.size:
            continue
        # What fills its window is no anomaly there, so large defects get large windows.
        smallest = max(window[0], min(2.0 * np.sqrt(places.size), size))
        side = np.exp(rng.uniform(np.log(smallest), np.log(max(window[1], smallest))))
        sides = side * np.exp(rng.uniform(-0.3, 0.3, 2))
        height, width = np.clip(sides, 32, size).astype(int).tolist()
        y, x = int(rng.integers(size - height + 1)), int(rng.integers(size - width + 1))
        if defective:
            at_y, at_x = divmod(int(rng.choice(places)), size)
            y = int(np.clip(at_y - rng.integers(height), 0, size - height))
            x = int(np.clip(at_x - rng.integers(width), 0, size - width))
        return index, (y, x, height, width)


def _toned(image: NDArray[np.uint8], rng: Rng) -> NDArray[np.uint8]:
    value: FloatArray = as_floats(image[..., rng.permutation(3)]) / np.float32(255)
    if rng.random() < 0.25:
        value = as_floats(np.repeat((value @ _GREY)[..., None], 3, axis=-1))
    if rng.random() < 0.1:
        value = 1 - value
    value = value * as_floats(rng.uniform(0.8, 1.2, 3))
    value = as_floats(np.clip(value, 0, 1) ** np.float32(rng.uniform(0.7, 1.4)))
    if rng.random() < 0.2:
        value = blurred(value, rng.uniform(0.4, 1.0))
    if rng.random() < 0.3:
        value = value + rng.standard_normal(value.shape, dtype=np.float32) * np.float32(
            rng.uniform(0, 0.03)
        )
    toned: NDArray[np.uint8] = np.round(np.clip(value, 0, 1) * 255).astype(np.uint8)
    return toned
