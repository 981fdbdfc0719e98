"""Drawn frames and photo frames together: what the models of `mini` are trained on."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from zeroflaw_engines.process.terminal import err
from zeroflaw_export.mini.photo_frames.shards import draw_photo_frames
from zeroflaw_export.mini.photos.fetch import fetch
from zeroflaw_export.mini.training_frames import TrainingFrames, draw_training_frames


def draw_both(
    work: Path, drawn: int, photos: int, *, prefix: str = "", seed: int, processes: int
) -> TrainingFrames:
    """Draw the frames that are not there yet, fetching the photos first: drawn, then of photos.

    Args:
        work: Directory of frames and photos.
        drawn: Number of drawn frames.
        photos: Number of photo frames.
        prefix: Of the folders of the frames.
        processes: That draw.

    Raises:
        DownloadError: A photo cannot be fetched.
    """

    def report(kind: str, done: int, total: int) -> None:
        err.print(f"{kind}: {done} of {total} shards")

    of_drawn = draw_training_frames(
        work / f"{prefix}frames", drawn, seed=seed, processes=processes,
        report=partial(report, "drawn frames"),
    )  # fmt: skip
    fetch(work, report=lambda name, count: err.print(f"photos of {name}: {count}"))
    of_photos = draw_photo_frames(
        work / "photos", work / f"{prefix}photo_frames", photos, split="train", seed=seed,
        processes=processes, report=partial(report, "photo frames"),
    )  # fmt: skip
    return TrainingFrames(
        of_drawn.images + of_photos.images,
        of_drawn.masks + of_photos.masks,
        # To a sentence, a photo frame shows an object.
        of_drawn.surfaces + ["object"] * len(of_photos),
    )
