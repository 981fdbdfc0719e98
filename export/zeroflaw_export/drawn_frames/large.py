"""Large frames with small defects, as a dataset in MVTec-AD's layout.

    python -m zeroflaw_export.drawn_frames.large DATASET --width 4096 --height 3000

Each surface is a class, as in `zeroflaw_export.drawn_frames.dataset`. A defective frame has one
defect, whose longer side is 8 to 30 px: what a camera of many pixels is bought for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from numpy.typing import NDArray

from zeroflaw_engines.errors import DatasetError
from zeroflaw_engines.process.terminal import run_module
from zeroflaw_export.drawn_frames.camera import Camera, draw_camera
from zeroflaw_export.drawn_frames.dataset import frame_jobs, write_frames
from zeroflaw_export.drawn_frames.defects import Defect
from zeroflaw_export.drawn_frames.draw import DEFECTS, SURFACES, VISIBLE, DrawnFrame, Split
from zeroflaw_export.drawn_frames.noise import FloatArray, Rng, as_floats

# Of the longer side of a defect's mask, px.
SMALLEST: Final = 8
LARGEST: Final = 30
# Side of the part of the scene that a defect is drawn into, px, and the border of it that the
# defect leaves alone: wider than the lens's blur reaches.
_WINDOW: Final = 128
_BORDER: Final = 8
# Defects cover about so much of a square around them.
_FILLING: Final = 0.6
# Places of a frame that are tried, and defects in each of them.
_PLACES: Final = 40
_TRIES: Final = 4
# Lenses do not blur more pixels because a sensor has more: `draw_camera` speaks of 512 px.
_BLUR_SIZE: Final = 512
_NEXT_SCENE: Final = 1_000_003


@dataclass(frozen=True, kw_only=True)
class LargeFrames:
    """What to draw.

    Attributes:
        split: Which surfaces and defects.
        train_good: Good frames a class for calibration, in `train/good`.
        good: Good frames a class to test.
        defective: Defective frames a class, of all types of defect by turns.
        frame: Height and width of the frames, px.
        seed: Of the first frame.
    """

    split: Split = "test"
    train_good: int = 0
    good: int = 8
    defective: int = 8
    frame: tuple[int, int] = (3000, 4096)
    seed: int = 700_000


def draw_large_frame(
    split: Split, surface: str, defect: str, *, seed: int, frame: tuple[int, int]
) -> DrawnFrame:
    """Draw a large frame with one small defect; the same arguments give the same frame.

    The surface is drawn at the longer side and cut. A defect is drawn anew until its longer side
    is 8 to 30 px and the camera can see it; the rest of the frame is that of the `good` frame of
    the same seed.

    Args:
        split: As `draw_frame` takes it.
        surface: A name in `SURFACES[split]`.
        defect: A name in `DEFECTS[split]`, or `good`.
        seed: Any whole number from 0.
        frame: Height and width, px; each at least 128.
    """
    height, width = frame
    size = max(frame)
    rng = np.random.default_rng([seed, *surface.encode(), *split.encode()])
    drawn = SURFACES[split][surface](rng, size)[:height, :width]
    scene = np.clip(drawn, 0.02, 1).astype(np.float32)
    camera = draw_camera(rng, size).of_window(slice(height), slice(width))
    camera = replace(camera, blur=camera.blur * _BLUR_SIZE / size)
    image = camera.exposed(scene)
    mask = np.zeros(frame, np.bool_)
    if defect == "good":
        return DrawnFrame(image, mask, surface, defect)
    spoiler = np.random.default_rng([seed, *defect.encode()])
    for _ in range(_PLACES):
        y, x = (int(spoiler.integers(0, side - _WINDOW + 1)) for side in frame)
        rows, columns = slice(y, y + _WINDOW), slice(x, x + _WINDOW)
        found = _small_defect(
            spoiler,
            DEFECTS[split][defect][0],
            scene[rows, columns],
            camera.of_window(rows, columns),
        )
        if found is not None:
            photo, truth = found
            inner = slice(_BORDER, _WINDOW - _BORDER)
            # Views of the frame: what is written there is written into it.
            image[rows, columns][inner, inner] = photo[inner, inner]
            mask[rows, columns] = truth
            return DrawnFrame(image, mask, surface, defect)
    # This scene hides every such defect: another one of the same family is drawn.
    return draw_large_frame(split, surface, defect, seed=seed + _NEXT_SCENE, frame=frame)


def write_large_frames(
    root: Path,
    options: LargeFrames,
    *,
    processes: int = 1,
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Draw a dataset of large frames, as `write_dataset` does one of small ones.

    Returns:
        Number of frames in the dataset.

    Raises:
        DatasetError: The directory cannot be written, or the frames are too small.
    """
    if min(options.frame) < _WINDOW:
        raise DatasetError(
            f"frames of {options.frame[1]} x {options.frame[0]} px are too small for defects of"
            f" {SMALLEST} to {LARGEST} px with their surroundings",
            f"draw at least {_WINDOW} px on both sides",
        )
    jobs = frame_jobs(
        root,
        options.split,
        train_good=options.train_good,
        test_good=options.good,
        defects=tuple(islice(cycle(DEFECTS[options.split]), options.defective)),
        seed=options.seed,
    )
    draw = partial(draw_large_frame, options.split, frame=options.frame)
    return write_frames(root, jobs, draw, processes=processes, report=report)


def _small_defect(
    spoiler: Rng, draw: Defect, scene: FloatArray, camera: Camera
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
    """Draw a defect into a window of a scene, and expose it.

    Args:
        scene: float32 [128, 128, 3].
        camera: Of the window.

    Returns:
        Photo of the window, uint8 [128, 128, 3], and mask, bool [128, 128]; None if no defect of
        the right size that the camera sees came about.
    """
    good = camera.exposed(scene).astype(np.float32)
    for _ in range(_TRIES):
        side = np.exp(spoiler.uniform(np.log(SMALLEST), np.log(LARGEST)))
        spoiled, depth = draw(spoiler, scene, float((side / _WINDOW) ** 2 * _FILLING))
        mask = depth >= 0.5
        changed = as_floats(spoiled) != scene
        changed[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
        if changed.any() or not SMALLEST <= longer_side(mask) <= LARGEST:
            continue
        photo = camera.exposed(as_floats(spoiled))
        if np.abs(photo[mask] - good[mask]).mean() >= VISIBLE:
            return photo, mask
    return None


def longer_side(mask: NDArray[np.bool_]) -> int:
    """Return the longer side of the box around a mask, bool [H, W], px; 0 if it is empty."""
    if not mask.any():
        return 0
    return max(int(np.ptp(np.flatnonzero(mask.any(axis=axis)))) + 1 for axis in (0, 1))


def main(
    root: Annotated[Path, typer.Argument(help="Directory to write.")],
    *,
    split: Annotated[Split, typer.Option(help="train or test: they share nothing.")] = "test",
    width: Annotated[int, typer.Option(min=1, max=8192, help="Of the frames, px.")] = 4096,
    height: Annotated[int, typer.Option(min=1, max=8192, help="Of the frames, px.")] = 3000,
    train_good: Annotated[int, typer.Option(min=0, help="Good frames a class to calibrate.")] = 0,
    good: Annotated[int, typer.Option(min=0, help="Good frames a class to test.")] = 8,
    defective: Annotated[int, typer.Option(min=0, help="Defective frames a class.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of the first frame.")] = 700_000,
    processes: Annotated[int, typer.Option(min=1, help="Processes, of up to 2 GB each.")] = 1,
) -> None:
    """Draw large frames with defects of 8 to 30 px and exact masks, in MVTec-AD's layout."""
    options = LargeFrames(
        split=split,
        train_good=train_good,
        good=good,
        defective=defective,
        frame=(height, width),
        seed=seed,
    )
    typer.echo(f"{write_large_frames(root, options, processes=processes)} frames in {root}")


if __name__ == "__main__":
    run_module(main)
