"""Measure large frames with small defects, as a whole and in tiles.

    python -m zeroflaw_export.drawn_frames.large DATASET
    python -m zeroflaw_benchmarks.evaluate.large_frames BUNDLE DATASET --smallest-defect 12

Writes `large_frames.md` and `.json`. The bundle is copied, and the copy gets the settings.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Final

import typer

from zeroflaw.pipeline.view.tiles import grid_for_defect
from zeroflaw_benchmarks.evaluate.large_frames.figures import (
    LargeFramesReport,
    markdown,
    report_json,
)
from zeroflaw_benchmarks.evaluate.large_frames.inspecting import (
    LargeFrame,
    ViewTask,
    measured_apart,
    views_of,
)
from zeroflaw_engines.backends import DEFAULT_BACKEND
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.errors import DatasetError, EvaluationError
from zeroflaw_engines.process.terminal import err, out, run_module
from zeroflaw_engines.version import __version__
from zeroflaw_export.datasets import Dataset, read_dataset, read_sample_image

_NAME: Final = "large_frames"


def frames_of(dataset: Dataset) -> tuple[tuple[LargeFrame, ...], tuple[int, int]]:
    """List the frames of a data set, and their height and width, px.

    Raises:
        DatasetError: There is none, one cannot be read, or they are of several sizes.
    """
    frames = tuple(LargeFrame(c.name, sample) for c in dataset.classes for sample in c.samples)
    first: tuple[int, int] | None = None
    for frame in frames:
        height, width = read_sample_image(frame.sample).shape[:2]
        first = first or (height, width)
        if (height, width) != first:
            raise DatasetError(
                f"{frame.sample.image} has {width} x {height} px, and the frames before it"
                f" {first[1]} x {first[0]} px",
                "measure frames of one size: settings are made for one",
            )
    if first is None:
        raise DatasetError(f"there is no frame in {dataset.root}", "check its layout")
    return frames, first


def main(
    bundle: Annotated[str, typer.Argument(help="A bundle's directory, or mini.")],
    dataset: Annotated[Path, typer.Argument(help="Directory of the frames, in MVTec-AD's layout.")],
    *,
    smallest_defect: Annotated[
        float | None, typer.Option(help="Chooses the grid: px that must cover a patch of the map.")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Of tiles, in place of that.")] = None,
    columns: Annotated[int | None, typer.Option(min=1, help="Of tiles, with --rows.")] = None,
    overlap: Annotated[float, typer.Option(min=0, max=0.5, help="Of neighbouring tiles.")] = 0.2,
    coarse_limit: Annotated[
        list[float] | None,
        typer.Option(help="Measure coarse_to_fine with this limit as well; repeatable."),
    ] = None,
    product: Annotated[str, typer.Option("--product", "-p", help="What they show.")] = "object",
    shrink: Annotated[
        int, typer.Option(min=1, help="Pixels of the frame a side of a pixel that is measured.")
    ] = 4,
    backend: Annotated[str, typer.Option(help="What runs the engines.")] = DEFAULT_BACKEND,
    threads: Annotated[int, typer.Option(min=0, help="Of each engine; 0: every core.")] = 0,
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="For the results.")] = Path(_NAME),
) -> None:
    """Inspect the same frames as a whole and in tiles, and say what tiles gain and cost."""
    opened = open_bundle(bundle)
    opened.text_embeddings(product)
    frames, frame = frames_of(read_dataset(dataset))
    if (smallest_defect is None) == (rows is None) or (rows is None) != (columns is None):
        raise EvaluationError(
            "the grid of the tiles is not clear",
            "give --smallest-defect, or --rows and --columns",
        )
    grid = (
        (rows or 1, columns or 1)
        if smallest_defect is None
        else grid_for_defect(smallest_defect, frame, opened.manifest.sizes, overlap)
    )
    with tempfile.TemporaryDirectory(prefix=f"zeroflaw_{_NAME}_") as directory:
        views = [
            measured_apart(
                ViewTask(
                    bundle=opened.path,
                    product=product,
                    view=view,
                    frames=frames,
                    frame=frame,
                    shrink=shrink,
                    backend=backend,
                    threads=threads,
                    directory=Path(directory),
                ),
                lambda what: err.print(what, markup=False),
            )
            for view in views_of(grid, overlap, coarse_limit or [])
        ]
    report = LargeFramesReport(
        zeroflaw_version=__version__,
        command=shlex.join(
            ["python", "-m", f"zeroflaw_benchmarks.evaluate.{_NAME}", *sys.argv[1:]]
        ),
        bundle=str(opened.path),
        bundle_identity=opened.identity,
        product=product,
        dataset=str(dataset),
        frame=frame,
        smallest_defect=smallest_defect,
        grid=grid,
        overlap=overlap,
        shrink=shrink,
        load_average=os.getloadavg()[0],
        views=tuple(views),
    )
    text = markdown(report)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        (out_dir / f"{_NAME}.md").write_text(text, encoding="utf-8")
        (out_dir / f"{_NAME}.json").write_bytes(report_json(report))
    except OSError as error:
        raise EvaluationError(
            f"{out_dir} cannot be written: {error.strerror}", "choose another --out"
        ) from error
    out.print(text, markup=False, soft_wrap=True)


if __name__ == "__main__":
    run_module(main)
