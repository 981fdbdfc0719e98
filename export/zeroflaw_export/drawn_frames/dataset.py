"""Write drawn frames as a dataset in MVTec-AD's layout.

    python -m zeroflaw_export.drawn_frames.dataset DATASET --split test

Each surface is a class: `CLASS/train/good`, `CLASS/test/good`, `CLASS/test/DEFECT` and
`CLASS/ground_truth/DEFECT`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from zeroflaw_engines.errors import DatasetError
from zeroflaw_engines.process.cores import usable_cores
from zeroflaw_engines.process.terminal import run_module
from zeroflaw_export.drawn_frames.draw import DEFECTS, SURFACES, Split, draw_frame


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
class _Job:
    surface: str
    defect: str
    seed: int
    image: Path
    mask: Path | None


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
    jobs = list(_jobs(root, options))
    draw = partial(_write_frame, split=options.split, size=options.size)
    try:
        for folder in {job.image.parent for job in jobs} | {j.mask.parent for j in jobs if j.mask}:
            folder.mkdir(parents=True, exist_ok=True)
        missing = [job for job in jobs if not job.image.exists()]
        report(len(jobs) - len(missing), len(jobs))
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            for done, _ in enumerate(pool.map(draw, missing, chunksize=8), start=1):
                report(len(jobs) - len(missing) + done, len(jobs))
    except OSError as error:
        raise DatasetError(
            f"{root} cannot be written: {error.strerror}", "check the path and the space there"
        ) from error
    return len(jobs)


def _jobs(root: Path, options: DatasetOptions) -> Iterator[_Job]:
    seed = options.seed
    for surface in SURFACES[options.split]:
        folder = root / surface
        groups = [(folder / "train" / "good", "good", options.train_good)]
        groups += [(folder / "test" / "good", "good", options.test_good)]
        groups += [
            (folder / "test" / defect, defect, options.test_defective)
            for defect in DEFECTS[options.split]
        ]
        for images, defect, count in groups:
            for number in range(count):
                stem, truth = f"{number:03d}", folder / "ground_truth" / defect
                mask = None if defect == "good" else truth / f"{stem}_mask.png"
                yield _Job(surface, defect, seed, images / f"{stem}.png", mask)
                seed += 1


def _write_frame(job: _Job, *, split: Split, size: int) -> None:
    frame = draw_frame(split, job.surface, job.defect, seed=job.seed, size=size)
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
