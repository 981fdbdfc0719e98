"""The frames that `mini` is trained on: drawn once, kept on disk in shards."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines.files import replacing
from zeroflaw_export.drawn_frames.draw import DEFECTS, SURFACES, draw_frame

FRAME_SIZE: Final = 512
_SHARD: Final = 100
_GOOD_SHARE: Final = 0.3


@dataclass(frozen=True)
class TrainingFrames:
    """Frames of the training split.

    Attributes:
        images: uint8 [N, S, S, 3], RGB, mapped from disk.
        masks: bool [N, S, S], mapped from disk.
        surfaces: Family of each frame.
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
    folder.mkdir(parents=True, exist_ok=True)
    shards = -(-count // _SHARD)
    missing = [i for i in range(shards) if not _paths(folder, seed, i)[1].exists()]
    report(shards - len(missing), shards)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        pending = [pool.submit(_draw_shard, folder, seed, i) for i in missing]
        for done, finished in enumerate(as_completed(pending), start=1):
            finished.result()
            report(shards - len(missing) + done, shards)
    frames = TrainingFrames([], [], [])
    for shard in range(shards):
        images, masks = (np.load(path, mmap_mode="r") for path in _paths(folder, seed, shard))
        frames.images.extend(images)
        frames.masks.extend(masks)
        frames.surfaces.extend(_surface_and_defect(seed, shard, i)[0] for i in range(_SHARD))
    return frames


def _draw_shard(folder: Path, seed: int, shard: int) -> None:
    images = np.empty((_SHARD, FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
    masks = np.empty((_SHARD, FRAME_SIZE, FRAME_SIZE), np.bool_)
    for i in range(_SHARD):
        surface, defect = _surface_and_defect(seed, shard, i)
        frame = draw_frame(
            "train", surface, defect, seed=seed + shard * _SHARD + i, size=FRAME_SIZE
        )
        images[i], masks[i] = frame.image, frame.mask
    # The masks come last: their file says that the shard is whole.
    for path, array in zip(_paths(folder, seed, shard), (images, masks), strict=True):
        with (
            replacing(path, path.with_suffix(".partial")) as partial,
            partial.open("wb") as file,
        ):
            np.save(file, array)


def _surface_and_defect(seed: int, shard: int, index: int) -> tuple[str, str]:
    rng = np.random.default_rng([seed, shard, index])
    surface = str(rng.choice(sorted(SURFACES["train"])))
    good = rng.random() < _GOOD_SHARE
    return surface, "good" if good else str(rng.choice(sorted(DEFECTS["train"])))


def _paths(folder: Path, seed: int, shard: int) -> tuple[Path, Path]:
    stem = f"frames-{seed}-{shard:04d}"
    return folder / f"{stem}.images.npy", folder / f"{stem}.masks.npy"
