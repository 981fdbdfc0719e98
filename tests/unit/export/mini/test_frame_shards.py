"""Shards of frames: whole, in order, and drawn once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zeroflaw_export.mini.frame_shards import FRAME_SIZE, FRAMES_PER_SHARD, draw_shards, open_shards


@dataclass(frozen=True)
class Numbered:
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def draw_numbered(seed: int, shard: int, index: int) -> Numbered:
    image = np.zeros((FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
    image[0, 0] = seed, shard, index
    mask = np.zeros((FRAME_SIZE, FRAME_SIZE), np.bool_)
    mask[index, 0] = True
    return Numbered(image, mask)


def test_shards_hold_the_frames_in_order_and_are_drawn_once(tmp_path):
    reports: list[tuple[int, int]] = []

    def draw(count: int, first: int) -> None:
        draw_shards(
            tmp_path, count, draw_numbered, seed=3, first=first, processes=1,
            report=lambda done, total: reports.append((done, total)),
        )  # fmt: skip

    draw(FRAMES_PER_SHARD, 7)
    assert reports == [(0, 1), (1, 1)]
    whole = tmp_path / "frames-3-0007.masks.npy"
    stamp = whole.stat().st_mtime_ns
    # A shard without its masks was killed while it was written.
    (tmp_path / "frames-3-0008.images.npy").write_bytes(b"")
    draw(FRAMES_PER_SHARD + 1, 7)
    assert reports[2:] == [(1, 2), (2, 2)]
    assert whole.stat().st_mtime_ns == stamp
    shards = open_shards(tmp_path, 2 * FRAMES_PER_SHARD, seed=3, first=7)
    assert len(shards.images) == len(shards.masks) == 2 * FRAMES_PER_SHARD
    for i in (0, 1, 99, 100, 199):
        assert shards.images[i][0, 0].tolist() == [3, 7 + i // 100, i % 100]
        assert shards.masks[i][i % 100, 0]
    assert not list(tmp_path.glob("*.partial"))
