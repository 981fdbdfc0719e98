"""The frames that `mini` is trained on: drawn once, kept on disk in shards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw_export.drawn_frames.draw import DEFECTS, SURFACES, DrawnFrame, draw_frame
from zeroflaw_export.mini.frame_shards import (
    FRAME_SIZE,
    FRAMES_PER_SHARD,
    draw_shards,
    open_shards,
)

_GOOD_SHARE: Final = 0.3


@dataclass(frozen=True)
class TrainingFrames:
    """Frames of the training split.

    Attributes:
        images: uint8 [N, S, S, 3], RGB, mapped from disk.
        masks: bool [N, S, S], mapped from disk.
        surfaces: Family of each frame; of a photo frame, the kind of its scene.
    """

    images: list[NDArray[np.uint8]]
    masks: list[NDArray[np.bool_]]
    surfaces: list[str]

    def __len__(self) -> int:
        return len(self.surfaces)


def draw_training_frames(
    folder: Path,
    count: int,
    *,
    seed: int,
    processes: int,
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> TrainingFrames:
    """Draw the training frames that are not there yet, and open them all.

    Args:
        folder: Directory of the shards; a killed run goes on where it was.
        count: Frames, rounded up to whole shards.
        report: Called with the number of shards that are done, and of all.
    """
    draw_shards(folder, count, _draw_frame, seed=seed, processes=processes, report=report)
    shards = open_shards(folder, count, seed=seed)
    surfaces = [
        _surface_and_defect(seed, i // FRAMES_PER_SHARD, i % FRAMES_PER_SHARD)[0]
        for i in range(len(shards.images))
    ]
    return TrainingFrames(shards.images, shards.masks, surfaces)


def _draw_frame(seed: int, shard: int, index: int) -> DrawnFrame:
    surface, defect = _surface_and_defect(seed, shard, index)
    number = seed + shard * FRAMES_PER_SHARD + index
    return draw_frame("train", surface, defect, seed=number, size=FRAME_SIZE)


def _surface_and_defect(seed: int, shard: int, index: int) -> tuple[str, str]:
    rng = np.random.default_rng([seed, shard, index])
    surface = str(rng.choice(sorted(SURFACES["train"])))
    good = rng.random() < _GOOD_SHARE
    return surface, "good" if good else str(rng.choice(sorted(DEFECTS["train"])))
