"""What a few reference photos give, beside what others have published with as many."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Final

from zeroflaw_benchmarks.evaluate.metrics.metrics import ImageMetrics, PixelMetrics
from zeroflaw_benchmarks.evaluate.report.markdown import listed, percent, table
from zeroflaw_benchmarks.evaluate.report.published_shots import PUBLISHED_SHOTS
from zeroflaw_benchmarks.evaluate.result import Evaluation, ShotRun, spread_of

_HEADER: Final = (
    "photos", "method", "dataset", "image AUROC", "image F1-max", "image AP",
    "pixel AUROC", "pixel F1-max", "pixel AP", "PRO",
)  # fmt: skip
_IMAGE_FIGURES: Final = ("auroc", "f1_max", "average_precision")
_PIXEL_FIGURES: Final = (*_IMAGE_FIGURES, "pro")
_AFTER: Final = {"cascade": "the cascade", "mmr": "MMR"}


def shots_table(evaluation: Evaluation) -> str:
    """Write a row for each method and number of photos in Markdown, published and measured."""
    name = Path(evaluation.dataset).name
    lines = [
        ["0", f"**measured: {title}**", name, *_zero_shot(evaluation, scoring)]
        for scoring, title in _rows(evaluation).items()
    ]
    for shots, runs in _by_shots(evaluation).items():
        lines += [
            [str(shots), row.method, row.dataset, *_published(astuple(row)[3:])]
            for row in PUBLISHED_SHOTS
            if row.shots == shots
        ]
        image = spread_of(ImageMetrics, [run.image_mean for run in runs])
        for scoring, title in _rows(evaluation).items():
            pixel = spread_of(PixelMetrics, [run.pixel_mean(scoring) for run in runs])
            figures = [_figure(image, field) for field in _IMAGE_FIGURES]
            figures += [_figure(pixel, field) for field in _PIXEL_FIGURES]
            lines.append([str(shots), f"**measured: {title}**", name, *figures])
    return table(_HEADER, lines)


def shots_sections(evaluation: Evaluation) -> Iterator[str]:
    """Write the section on reference photos in Markdown."""
    draws = len(next(iter(_by_shots(evaluation).values())))
    parameters = evaluation.parameters
    yield "## Reference photos: image and pixel level, %, means over the classes\n"
    yield (
        f"Measured: means and standard deviations over {draws} draws from the train split. "
        "The anomaly map is the zero-shot map and the reference map by "
        f"`{parameters.reference_fusion}` (distance `{parameters.reference_distance}`); the image "
        f"score is `{parameters.image_scoring}` and the highest of the reference map by "
        f"`{parameters.reference_image_scoring}`. "
        "The published rows were measured by their authors on MVTec-AD and VisA; "
        "figures of different datasets cannot be compared.\n"
    )
    yield shots_table(evaluation)
    yield "### Photos of each draw\n"
    yield from listed(
        f"{_counted(run.shots)}, seed {run.seed}, {name}: {', '.join(photos)}"
        for run in evaluation.shot_runs
        for name, photos in run.photos.items()
    )


def shots_lines(
    evaluation: Evaluation,
) -> Iterator[tuple[str, str, str, PixelMetrics | ImageMetrics]]:
    """List the figures of every draw, and their means and deviations over the draws.

    Yields:
        The level, the row's name, the class or `mean` or `deviation`, and the figures.
    """
    for shots, runs in _by_shots(evaluation).items():
        for run in runs:
            row = f"{_counted(shots)}, seed {run.seed}"
            for scoring, classes in run.pixels.items():
                for name, pixels in (*classes.items(), ("mean", run.pixel_mean(scoring))):
                    yield "pixel", f"{row}, {scoring}", name, pixels
            for name, images in (*run.images.items(), ("mean", run.image_mean)):
                yield "image", row, name, images
        for scoring in _rows(evaluation):
            both = spread_of(PixelMetrics, [run.pixel_mean(scoring) for run in runs])
            for what, pixels in zip(("mean", "deviation"), both, strict=True):
                yield "pixel", f"{_counted(shots)}, {scoring}", what, pixels
        spread = spread_of(ImageMetrics, [run.image_mean for run in runs])
        for what, images in zip(("mean", "deviation"), spread, strict=True):
            yield "image", _counted(shots), what, images


def _rows(evaluation: Evaluation) -> dict[str, str]:
    """The scorings that draws were measured with, and what they are called."""
    after = _AFTER.get(evaluation.parameters.refiner, evaluation.parameters.refiner)
    titles = {"map": "map", "fused": f"fused, after {after}"}
    return {name: titles[name] for name in evaluation.shot_runs[0].pixels}


def _by_shots(evaluation: Evaluation) -> dict[int, list[ShotRun]]:
    found: dict[int, list[ShotRun]] = {}
    for run in evaluation.shot_runs:
        found.setdefault(run.shots, []).append(run)
    return found


def _zero_shot(evaluation: Evaluation, scoring: str) -> list[str]:
    """Figures without reference photos; none if products have banks of their own."""
    if evaluation.own_banks:
        return ["-"] * (len(_IMAGE_FIGURES) + len(_PIXEL_FIGURES))
    wanted = evaluation.parameters.image_scoring
    image = next(row.mean for row in evaluation.image_rows if row.name == wanted)
    pixel = next(row.mean for row in evaluation.table("scoring") if row.name == scoring)
    return [
        *(percent(getattr(image, field)) for field in _IMAGE_FIGURES),
        *(percent(getattr(pixel, field)) for field in _PIXEL_FIGURES),
    ]


def _published(figures: tuple[str | None, ...]) -> list[str]:
    texts = ["-" if figure is None else figure for figure in figures]
    return [*texts[:5], "-", texts[5]]


def _figure(
    both: tuple[PixelMetrics, PixelMetrics] | tuple[ImageMetrics, ImageMetrics], field: str
) -> str:
    mean, deviation = (getattr(metrics, field) for metrics in both)
    return percent(mean) if math.isnan(deviation) else f"{percent(mean)}±{percent(deviation)}"


def _counted(shots: int) -> str:
    return f"{shots} photo{'s' if shots > 1 else ''}"
