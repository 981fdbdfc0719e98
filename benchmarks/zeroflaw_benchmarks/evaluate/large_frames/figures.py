"""What large frames gave as a whole and in tiles: tables, goals, Markdown and JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from zeroflaw_benchmarks.evaluate.large_frames.inspecting import (
    PIXEL_MAPS,
    SeenFrame,
    ViewFigures,
)
from zeroflaw_benchmarks.evaluate.metrics.metrics import ImageMetrics, PixelMetrics, image_metrics
from zeroflaw_benchmarks.evaluate.passes.scorings import IMAGE_SCORINGS
from zeroflaw_benchmarks.evaluate.report.markdown import listed, percent, table
from zeroflaw_benchmarks.evaluate.result import mean_of

AUROC_GAIN: Final = 0.10
F1_RATIO: Final = 2.0
TILES_SAVED: Final = 0.6
# Of image metrics: all frames against one scale of scores, which no mean over classes sees.
ALL_FRAMES: Final = "all frames"
MEAN: Final = "mean"


@dataclass(frozen=True)
class Goal:
    """What must be reached, and whether it is.

    Attributes:
        what: It is.
        limit: At least so much.
        value: What was measured.
    """

    what: str
    limit: float
    value: float

    @property
    def met(self) -> bool:
        """Whether it is reached; never where the figure is undefined."""
        return self.value >= self.limit


@dataclass(frozen=True)
class LargeFramesReport:
    """The same frames under several views.

    Attributes:
        zeroflaw_version: That measured.
        command: As it was typed.
        bundle_identity: Digest of its engines and weights.
        product: As which all frames were inspected.
        frame: Height and width of the frames, px.
        smallest_defect: That the grid was chosen for, px; None if it was given.
        grid: Rows and columns of the tiles.
        overlap: Of the tiles.
        shrink: Pixels of a frame along a side of a pixel of the grid that is measured on.
        load_average: Of the machine at the end; times are of a busy machine where it is high.
        views: What each view gave; the first is the whole frame, the second tiles.
    """

    zeroflaw_version: str
    command: str
    bundle: str
    bundle_identity: str
    product: str
    dataset: str
    frame: tuple[int, int]
    smallest_defect: float | None
    grid: tuple[int, int]
    overlap: float
    shrink: int
    load_average: float
    views: tuple[ViewFigures, ...]


def image_figures(view: ViewFigures, scoring: str) -> dict[str, ImageMetrics]:
    """Compute the image metrics of a view by class, their mean, and those of all frames."""
    by_class: dict[str, list[SeenFrame]] = {}
    for frame in view.frames:
        by_class.setdefault(frame.class_name, []).append(frame)
    found = {name: _image_metrics(frames, scoring) for name, frames in by_class.items()}
    return {
        **found,
        MEAN: mean_of(ImageMetrics, found),
        ALL_FRAMES: _image_metrics(view.frames, scoring),
    }


def pixel_figures(view: ViewFigures, of_map: str) -> dict[str, PixelMetrics]:
    """Return the pixel metrics of a view by class, and their mean."""
    found = view.pixels[of_map]
    return {**found, MEAN: mean_of(PixelMetrics, found)}


def saved_on_good(view: ViewFigures) -> float:
    """Return the share of tiles that CLIP was not run on, over all good frames."""
    good = [frame for frame in view.frames if not frame.defective]
    tiles = sum(frame.tiles for frame in good)
    return 1 - sum(frame.tiles_run for frame in good) / tiles if tiles else math.nan


def goals(report: LargeFramesReport) -> tuple[Goal, ...]:
    """Hold tiles against the whole frame, and coarse to fine against all tiles."""
    whole, tiles, *coarse = report.views
    scoring = whole.image_scoring
    auroc = [image_figures(view, scoring)[MEAN].auroc for view in (whole, tiles)]
    f1 = [pixel_figures(view, "score_map")[MEAN].f1_max for view in (whole, tiles)]
    return (
        Goal("image AUROC in tiles, above that as a whole", AUROC_GAIN, auroc[1] - auroc[0]),
        Goal("pixel F1-max in tiles, over that as a whole", F1_RATIO, f1[1] / f1[0]),
        *(
            Goal(f"share of tiles saved on good frames, {view.view}", TILES_SAVED, saved)
            for view, saved in ((view, saved_on_good(view)) for view in coarse)
        ),
    )


def markdown(report: LargeFramesReport) -> str:
    """Write everything but single frames in Markdown."""
    return "\n".join(_sections(report)) + "\n"


def report_json(report: LargeFramesReport) -> bytes:
    """Write everything as JSON; figures in [0, 1], null where undefined."""
    whole = {
        **dataclasses.asdict(report),
        "goals": [{**dataclasses.asdict(goal), "met": goal.met} for goal in goals(report)],
        "image": {
            view.view: {s: _plain(image_figures(view, s)) for s in IMAGE_SCORINGS}
            for view in report.views
        },
        "pixel": {
            view.view: {m: _plain(pixel_figures(view, m)) for m in PIXEL_MAPS}
            for view in report.views
        },
    }
    return msgspec.json.format(msgspec.json.encode(whole), indent=2) + b"\n"


def _plain(figures: dict[str, ImageMetrics] | dict[str, PixelMetrics]) -> dict[str, object]:
    return {name: dataclasses.asdict(metrics) for name, metrics in figures.items()}


def _sections(report: LargeFramesReport) -> Iterator[str]:
    height, width = report.frame
    rows, columns = report.grid
    first = report.views[0]
    defective = sum(frame.defective for frame in first.frames)
    why = (
        "as given"
        if report.smallest_defect is None
        else f"chosen for defects of {report.smallest_defect:g} px"
    )
    yield f"# Frames of {width} x {height} px as a whole and in {rows} x {columns} tiles\n"
    yield from listed(
        (
            f"command: `{report.command}`",
            (
                f"bundle: `{report.bundle}`, identity `{report.bundle_identity[:16]}`, product"
                f" `{report.product}`, on {first.backend}"
            ),
            (
                f"frames: {len(first.frames) - defective} good and {defective} defective of"
                f" `{report.dataset}`"
            ),
            f"tiles: {rows} x {columns}, {why}, with an overlap of {report.overlap:g}",
            f"load average of the machine: {report.load_average:.1f}",
            f"zeroflaw: {report.zeroflaw_version}",
        )
    )
    yield "## What must be reached\n"
    yield table(
        ["goal", "at least", "measured", "reached"],
        [
            [goal.what, f"{goal.limit:g}", f"{goal.value:.3f}", "yes" if goal.met else "no"]
            for goal in goals(report)
        ],
    )
    yield "## Means over the classes, %\n"
    yield _summary(report)
    yield "## Times, tiles and memory, a frame\n"
    yield _costs(report)
    names = list(dict.fromkeys(frame.class_name for frame in first.frames))
    yield "## Classes, image level, %\n"
    yield _class_table(report, [*names, MEAN, ALL_FRAMES], IMAGE_SCORINGS, image_figures)
    yield "## Classes, pixel level, %\n"
    yield _class_table(report, [*names, MEAN], PIXEL_MAPS, pixel_figures)
    yield "## How the figures are defined\n"
    yield from listed(
        (
            (
                f"Pixel metrics are over all pixels of all frames of a class on a grid of"
                f" {report.shrink} x {report.shrink} px of the frame a pixel. Finer maps are"
                " averaged by area, coarser ones interpolated bilinearly; a pixel of the grid is"
                " defective where any of its pixels is."
            ),
            (
                "Image scores: cls is CLIP's CLS softmax, in tiles the highest of them; map_max the"
                f" peak of the anomaly map. The bundle decides by {first.image_scoring}."
            ),
            f"`{MEAN}` is over classes, unweighted; `{ALL_FRAMES}` ranks all frames on one scale.",
            "AUROC, F1-max and AP are those of `zeroflaw evaluate`.",
            (
                "Times are means; the encoders run one after the other, and host time is the"
                " inspection without its engines. Tiles saved are those that CLIP was not run on;"
                " the whole frame, which it sees in addition, is not counted."
            ),
            "Memory is the largest resident memory of a process that inspects one frame at a time.",
        )
    )


def _summary(report: LargeFramesReport) -> str:
    lines = []
    for view in report.views:
        line = [view.view]
        for scoring in IMAGE_SCORINGS:
            mean = image_figures(view, scoring)[MEAN]
            line += [percent(mean.auroc), percent(mean.f1_max)]
        for of_map in PIXEL_MAPS:
            pixels = pixel_figures(view, of_map)[MEAN]
            line += [percent(v) for v in (pixels.auroc, pixels.f1_max, pixels.average_precision)]
        lines.append(line)
    header = ["view"]
    header += [f"image {f} ({s})" for s in IMAGE_SCORINGS for f in ("AUROC", "F1-max")]
    header += [f"pixel {f} ({m})" for m in PIXEL_MAPS for f in ("AUROC", "F1-max", "AP")]
    return table(header, lines)


def _costs(report: LargeFramesReport) -> str:
    lines = []
    for view in report.views:
        frames = view.frames

        def mean(figure: str, frames: Sequence[SeenFrame] = frames) -> float:
            return float(np.mean([getattr(frame, figure) for frame in frames]))

        run, tiles = mean("tiles_run"), mean("tiles")
        saved = percent(saved_on_good(view))
        lines.append(
            [
                view.view,
                f"{run:.1f} of {tiles:.0f}",
                saved,
                f"{mean('sam_runs'):.1f}",
                f"{mean('total_ms'):.0f}",
                f"{mean('host_ms'):.0f}",
                f"{view.peak_rss / 1e9:.2f}",
            ]
        )
    header = ["view", "tiles run", "saved on good frames, %", "SAM runs", "ms", "host ms", "GB"]
    return table(header, lines)


def _class_table(
    report: LargeFramesReport,
    names: Sequence[str],
    kinds: Sequence[str],
    figures_of: Callable[[ViewFigures, str], Mapping[str, ImageMetrics | PixelMetrics]],
) -> str:
    lines = []
    for kind in kinds:
        for view in report.views:
            found = figures_of(view, kind)
            for name in names:
                metrics = found[name]
                values = (metrics.auroc, metrics.f1_max, metrics.average_precision)
                lines.append([kind, view.view, name, *map(percent, values)])
    return table(["by", "view", "class", "AUROC", "F1-max", "AP"], lines)


def _image_metrics(frames: Sequence[SeenFrame], scoring: str) -> ImageMetrics:
    scores = np.array([frame.scores[scoring] for frame in frames], np.float32)
    return image_metrics(scores, np.array([frame.defective for frame in frames], np.bool_))
