"""The frames of an acceptance: those that are named, a checkout's examples, or drawn ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from zeroflaw.cli.left_out import search_and_report
from zeroflaw.pictures.images import read_image
from zeroflaw_engines.image_files.frame import Frame, rgb_frame

_EXAMPLES: Final = Path("examples/frames")
_DRAWN: Final = (
    ("casting", "dent"),
    ("printed_board", "pinhole"),
    ("glass", "crack"),
    ("gravel", "print_error"),
    ("casting", "good"),
)
_DRAWN_SIZE: Final = 512
_SEED: Final = 500_000


def acceptance_frames(images: Sequence[Path]) -> tuple[tuple[Frame, ...], str]:
    """Read the frames to be inspected.

    Args:
        images: Image files, and folders of them. None: `examples/frames` of the working
            directory, and where that is no checkout of zeroflaw, frames drawn from fixed seeds.

    Returns:
        The frames, uint8 [H, W, 3] each, and where they are from.

    Raises:
        ImageFileError: A path does not exist, or holds no image.
    """
    if not images and not _EXAMPLES.is_dir():
        return drawn_frames(), f"{len(_DRAWN)} drawn frames"
    chosen = list(images) or [_EXAMPLES]
    search = search_and_report(chosen)
    frames = tuple(rgb_frame(read_image(picture.path)) for picture in search.pictures)
    return frames, ", ".join(map(str, chosen))


def drawn_frames() -> tuple[Frame, ...]:
    """Draw frames with and without defects, uint8 [512, 512, 3], the same ones each time."""
    from zeroflaw_export.drawn_frames.draw import draw_frame

    return tuple(
        draw_frame("test", surface, defect, seed=_SEED + number, size=_DRAWN_SIZE).image
        for number, (surface, defect) in enumerate(_DRAWN)
    )
