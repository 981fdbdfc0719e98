"""Shards of training frames on disk: how they are named, drawn by several processes, and opened.

A shard is two files, `frames-SEED-NNNN.images.npy`, uint8 [N, S, S, 3] RGB, and
`frames-SEED-NNNN.masks.npy`, bool [N, S, S]. The masks are written last, so a shard whose masks
are there is whole.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines.files import replacing

FRAME_SIZE: Final = 512
FRAMES_PER_SHARD: Final = 100


class Frame(Protocol):
    """What a shard keeps of a frame."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """RGB, uint8 [S, S, 3]."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Where it is defective, bool [S, S]."""


# Draws the frame of a seed, a shard and an index in it, at FRAME_SIZE; it crosses to processes.
DrawFrame = Callable[[int, int, int], Frame]


@dataclass(frozen=True)
class Shards:
    """Frames of one seed, in order.

    Attributes:
        images: uint8 [S, S, 3] each, RGB, mapped from disk.
        masks: bool [S, S] each, mapped from disk.
    """

    images: list[NDArray[np.uint8]]
    masks: list[NDArray[np.bool_]]


def draw_shards(
    folder: Path,
    count: int,
    draw: DrawFrame,
    *,
    seed: int,
    first: int = 0,
    processes: int,
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> None:
    """Draw the shards that are not there yet.

    Args:
        folder: Directory of the shards; a killed run goes on where it was.
        count: Frames, rounded up to whole shards.
        first: Number of the first shard.
        report: Called with the number of shards that are done, and of all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = _numbers(count, first)
    missing = [i for i in wanted if not _paths(folder, seed, i)[1].exists()]
    report(len(wanted) - len(missing), len(wanted))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        pending = [pool.submit(_draw_shard, folder, seed, i, draw) for i in missing]
        for done, finished in enumerate(as_completed(pending), start=1):
            finished.result()
            report(len(wanted) - len(missing) + done, len(wanted))


def open_shards(folder: Path, count: int, *, seed: int, first: int = 0) -> Shards:
    """Map shards that are on disk.

    Args:
        count: Frames, rounded up to whole shards.
        first: Number of the first shard.
    """
    shards = Shards([], [])
    for shard in _numbers(count, first):
        images, masks = (np.load(path, mmap_mode="r") for path in _paths(folder, seed, shard))
        shards.images.extend(images)
        shards.masks.extend(masks)
    return shards


def _draw_shard(folder: Path, seed: int, shard: int, draw: DrawFrame) -> None:
    images = np.empty((FRAMES_PER_SHARD, FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
    masks = np.empty((FRAMES_PER_SHARD, FRAME_SIZE, FRAME_SIZE), np.bool_)
    for i in range(FRAMES_PER_SHARD):
        frame = draw(seed, shard, i)
        images[i], masks[i] = frame.image, frame.mask
    # The masks come last: their file says that the shard is whole.
    for path, array in zip(_paths(folder, seed, shard), (images, masks), strict=True):
        with (
            replacing(path, path.with_suffix(".partial")) as partial,
            partial.open("wb") as file,
        ):
            np.save(file, array)


def _numbers(count: int, first: int) -> range:
    return range(first, first - (-count // FRAMES_PER_SHARD))


def _paths(folder: Path, seed: int, shard: int) -> tuple[Path, Path]:
    stem = f"frames-{seed}-{shard:04d}"
    return folder / f"{stem}.images.npy", folder / f"{stem}.masks.npy"
