"""Photo frames on disk, in the shards that the drawn frames are kept in.

python -m zeroflaw_export.mini.photo_frames.shards PHOTOS FRAMES --count 6000
python -m zeroflaw_export.mini.photo_frames.shards PHOTOS HELD_OUT --count 300 --split validation
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from zeroflaw_engines.process.cores import usable_cores
from zeroflaw_engines.process.terminal import run_module
from zeroflaw_export.mini.frame_shards import (
    FRAME_SIZE,
    FRAMES_PER_SHARD,
    draw_shards,
    open_shards,
)
from zeroflaw_export.mini.photo_frames.draw import PhotoFrame, draw_photo_frame
from zeroflaw_export.mini.photo_frames.photos import Photos, PhotoSplit, find_photos
from zeroflaw_export.mini.photo_frames.scenes import kind_of_scene
from zeroflaw_export.mini.training_frames import TrainingFrames


@dataclass(frozen=True)
class _Draw:
    """Draws frames of photos; an object, since what crosses to a process cannot be a closure."""

    photos: Photos

    def __call__(self, seed: int, shard: int, index: int) -> PhotoFrame:
        return draw_photo_frame(self.photos, (seed, shard, index), FRAME_SIZE)


def draw_photo_frames(
    photos: Path,
    folder: Path,
    count: int,
    *,
    split: PhotoSplit,
    seed: int,
    first: int = 0,
    processes: int,
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> TrainingFrames:
    """Draw the photo frames that are not there yet, and open them all.

    Args:
        photos: Directory with a folder of photos for each source.
        folder: Directory of the shards; a killed run goes on where it was.
        count: Frames, rounded up to whole shards.
        first: Number of the first shard.
        report: Called with the number of shards that are done, and of all.

    Raises:
        DatasetError: There are no photos, or one cannot be read.
    """
    draw = _Draw(find_photos(photos, split))
    draw_shards(folder, count, draw, seed=seed, first=first, processes=processes, report=report)
    shards = open_shards(folder, count, seed=seed, first=first)
    kinds: list[str] = [
        kind_of_scene((seed, first + i // FRAMES_PER_SHARD, i % FRAMES_PER_SHARD))
        for i in range(len(shards.images))
    ]
    return TrainingFrames(shards.images, shards.masks, kinds)


def main(
    photos: Annotated[Path, typer.Argument(help="Directory with a folder for each source.")],
    folder: Annotated[Path, typer.Argument(help="Directory of the shards.")],
    *,
    count: Annotated[int, typer.Option(min=1, help="Frames, rounded up to whole shards.")] = 6000,
    split: Annotated[PhotoSplit, typer.Option(help="They share no photo.")] = "train",
    seed: Annotated[int, typer.Option(min=0, help="Of all frames.")] = 1,
    first: Annotated[int, typer.Option(min=0, help="Number of the first shard.")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="Processes.")] = usable_cores(),
) -> None:
    """Draw frames from real photos, with and without anomalies, into shards."""
    frames = draw_photo_frames(
        photos,
        folder,
        count,
        split=split,
        seed=seed,
        first=first,
        processes=processes,
        report=lambda done, total: typer.echo(f"{done} of {total} shards"),
    )
    typer.echo(f"{len(frames)} frames in {folder}")


if __name__ == "__main__":
    run_module(main)
