"""Write drawn frames as a dataset in MVTec-AD's layout.

    python -m zeroflaw_export.drawn_frames.dataset DATASET --split test

Each surface is a class: `CLASS/train/good`, `CLASS/test/good`, `CLASS/test/DEFECT` and
`CLASS/ground_truth/DEFECT`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
import typer
from PIL import Image

from zeroflaw_engines.errors import DatasetError
from zeroflaw_engines.process.cores import usable_cores
from zeroflaw_engines.process.terminal import run_module
from zeroflaw_export.drawn_frames.draw import DEFECTS, SURFACES, DrawnFrame, Split, draw_frame


@dataclass(frozen=True, kw_only=True)
class DatasetOptions:
    """What to draw.

    Attributes:
        split: Which surfaces and defects.
        train_good: Good frames a class for calibration, in `train/good`.
        test_good: Good frames a class.
        test_defective: Frames for each defect of each class.
        size: Side of the frames, px.
        seed: Of the first frame.
    """

    split: Split = "test"
    train_good: int = 150
    test_good: int = 40
    test_defective: int = 16
    size: int = 512
    seed: int = 500_000


@dataclass(frozen=True)
class FrameJob:
    """A frame to draw, and its files.

    Attributes:
        surface: A name in `SURFACES`; the class of the frame.
        defect: Type of the defect, or `good`.
        seed: Of the frame.
        image: File of the frame.
        mask: File of its truth; None for a good one.
    """

    surface: str
    defect: str
    seed: int
    image: Path
    mask: Path | None


class Draw(Protocol):
    """Draws a frame; must cross to another process by pickling."""

    def __call__(self, surface: str, defect: str, /, *, seed: int) -> DrawnFrame:
        """Draw a frame of a surface with a defect, or a `good` one."""


def write_dataset(
    root: Path,
    options: DatasetOptions,
    *,
    processes: int = 1,
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Draw a dataset; frames that are there already are kept, so a killed run can go on.

    Args:
        report: Called with the number of frames that are done, and of all.

    Returns:
        Number of frames in the dataset.

    Raises:
        DatasetError: The directory cannot be written.
    """
    jobs = frame_jobs(
        root,
        options.split,
        train_good=options.train_good,
        test_good=options.test_good,
        defects=[d for d in DEFECTS[options.split] for _ in range(options.test_defective)],
        seed=options.seed,
    )
    draw = partial(draw_frame, options.split, size=options.size)
    return write_frames(root, jobs, draw, processes=processes, report=report)


def frame_jobs(
    root: Path,
    split: Split,
    *,
    train_good: int,
    test_good: int,
    defects: Sequence[str],
    seed: int,
) -> Iterator[FrameJob]:
    """List the frames of a dataset in MVTec-AD's layout, each with a seed of its own.

    Args:
        train_good: Good frames a class, in `train/good`.
        test_good: Good frames a class, in `test/good`.
        defects: Type of each defective frame of a class.
        seed: Of the first frame.
    """
    for surface in SURFACES[split]:
        folder = root / surface
        frames = [("train", "good")] * train_good + [("test", "good")] * test_good
        frames += [("test", defect) for defect in defects]
        numbers: Counter[tuple[str, str]] = Counter()
        for part, defect in frames:
            stem = f"{numbers[part, defect]:03d}"
            numbers[part, defect] += 1
            truth = folder / "ground_truth" / defect / f"{stem}_mask.png"
            mask = None if defect == "good" else truth
            yield FrameJob(surface, defect, seed, folder / part / defect / f"{stem}.png", mask)
            seed += 1


def write_frames(
    root: Path,
    jobs: Iterable[FrameJob],
    draw: Draw,
    *,
    processes: int = 1,
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Draw frames into their files; those that are there already are kept.

    Args:
        root: The dataset's directory.
        report: As `write_dataset` takes it.

    Returns:
        Number of the frames, those that were there among them.

    Raises:
        DatasetError: The directory cannot be written.
    """
    frames = list(jobs)
    write = partial(_write_frame, draw)
    try:
        for folder in {f.image.parent for f in frames} | {f.mask.parent for f in frames if f.mask}:
            folder.mkdir(parents=True, exist_ok=True)
        missing = [frame for frame in frames if not frame.image.exists()]
        report(len(frames) - len(missing), len(frames))
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            for done, _ in enumerate(pool.map(write, missing), start=1):
                report(len(frames) - len(missing) + done, len(frames))
    except OSError as error:
        raise DatasetError(
            f"{root} cannot be written: {error.strerror}", "check the path and the space there"
        ) from error
    return len(frames)


def _write_frame(draw: Draw, job: FrameJob) -> None:
    frame = draw(job.surface, job.defect, seed=job.seed)
    if job.mask is not None:
        Image.fromarray(frame.mask.astype(np.uint8) * 255).save(job.mask)
    # The image comes last and in one rename: where it is, the mask is too, and both are whole.
    partial_image = job.image.with_suffix(".partial")
    Image.fromarray(frame.image).save(partial_image, format="PNG", compress_level=1)
    partial_image.replace(job.image)


def main(
    root: Annotated[Path, typer.Argument(help="Directory to write.")],
    *,
    split: Annotated[Split, typer.Option(help="train or test: they share nothing.")] = "test",
    train_good: Annotated[int, typer.Option(min=0, help="Good frames a class to calibrate.")] = 150,
    test_good: Annotated[int, typer.Option(min=0, help="Good frames a class to test.")] = 40,
    test_defective: Annotated[int, typer.Option(min=0, help="Frames a defect and class.")] = 16,
    size: Annotated[int, typer.Option(min=128, max=4096, help="Side of the frames, px.")] = 512,
    seed: Annotated[int, typer.Option(min=0, help="Of the first frame.")] = 500_000,
    processes: Annotated[int, typer.Option(min=1, help="Processes.")] = usable_cores(),
) -> None:
    """Draw industrial-looking frames with exact masks, in MVTec-AD's layout."""
    options = DatasetOptions(
        split=split,
        train_good=train_good,
        test_good=test_good,
        test_defective=test_defective,
        size=size,
        seed=seed,
    )
    typer.echo(f"{write_dataset(root, options, processes=processes)} frames in {root}")


if __name__ == "__main__":
    run_module(main)
