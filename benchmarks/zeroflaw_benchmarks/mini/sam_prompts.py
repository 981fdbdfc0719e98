"""Simulated prompts for SAM's training: points as PPG gives them on a coarse map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from zeroflaw_benchmarks.frames.noise import Rng
from zeroflaw_engines.contract import (
    LABEL_NEGATIVE,
    LABEL_NOT_A_POINT,
    LABEL_POSITIVE,
    LABEL_UNUSED,
)

# Side of a cell of the low-res logits, px.
LOW_RES_CELL: Final = 4
MOST_POINTS: Final = 3
# Three positive and three negative points, and a box or a not-a-point row.
ROWS: Final = 2 * MOST_POINTS + 2


@dataclass(frozen=True)
class Prompt:
    """What the decoder is asked, and what it should answer.

    Attributes:
        coords: float32 [rows, 2], (x, y) px of the crop.
        labels: int32 [rows].
        wanted: float32 [L, L], share of each cell that is defective.
    """

    coords: NDArray[np.float32]
    labels: NDArray[np.int32]
    wanted: NDArray[np.float32]


def no_points() -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Rows of a prompt without points: coords, float32 [rows, 2], and labels, int32 [rows]."""
    labels = np.full(ROWS, LABEL_UNUSED, np.int32)
    labels[-2] = LABEL_NOT_A_POINT
    return np.zeros((ROWS, 2), np.float32), labels


def draw_prompt(rng: Rng, truth: NDArray[np.float32], misled: bool) -> Prompt:
    """Points in the manner of PPG on a coarse map.

    Args:
        rng: Source of randomness.
        truth: float32 [L, L], share of each cell that is defective.
        misled: Whether the points go where there is no defect.
    """
    coords, labels = no_points()
    defective = (truth > min(0.5, float(truth.max()) * 0.9)).astype(np.uint8)
    near = cv2.dilate(defective, np.ones((5, 5), np.uint8))
    far = cv2.dilate(defective, np.ones((13, 13), np.uint8))
    inside, clear = np.argwhere(defective), np.argwhere(far == 0)
    misled = misled and len(clear) > 0
    if misled:
        first = clear[rng.integers(len(clear))]
        positive = first + rng.integers(-4, 5, (int(rng.integers(1, MOST_POINTS + 1)), 2))
        ring = clear[np.abs(clear - first).max(axis=1) < 14]
    else:
        positive = inside[rng.integers(len(inside), size=int(rng.integers(1, MOST_POINTS + 1)))]
        ring = np.argwhere(far > near)
    astray = float(rng.choice([0.0, 0.8, 2.0])) * rng.standard_normal(positive.shape)
    points = [(point, LABEL_POSITIVE) for point in positive + astray]
    wrong = rng.random() < 0.08
    source = inside if wrong and not misled else ring
    if len(source):
        chosen = source[rng.integers(len(source), size=int(rng.integers(0, MOST_POINTS + 1)))]
        points += [(point, LABEL_NEGATIVE) for point in chosen]
    for row, (point, label) in enumerate(points):
        coords[row] = (np.clip(point[::-1], 0, truth.shape[0] - 1) + rng.random(2)) * LOW_RES_CELL
        labels[row] = label
    return Prompt(coords, labels, np.zeros_like(truth) if misled else truth)
