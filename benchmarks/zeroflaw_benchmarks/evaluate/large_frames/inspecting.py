"""Large frames through one Inspector, in a process of its own: scores, times and memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from zeroflaw import Inspector
from zeroflaw.pipeline.geometry import BoolArray
from zeroflaw.pipeline.scoring import image_score
from zeroflaw_benchmarks.bench.process.child_process import peak_rss
from zeroflaw_benchmarks.evaluate.cache import read_arrays, write_arrays
from zeroflaw_benchmarks.evaluate.metrics.metrics import PixelMetrics, PixelScores
from zeroflaw_benchmarks.evaluate.passes.inspecting_pass import at_grid
from zeroflaw_benchmarks.evaluate.passes.scorings import IMAGE_SCORINGS
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.products.settings import ProductSettings, Tiles
from zeroflaw_engines.bundle.products.writer import set_settings
from zeroflaw_engines.bundle.writer import copy_bundle
from zeroflaw_engines.contract import EngineName
from zeroflaw_export.datasets import Sample, read_sample_image, read_sample_mask

# What is measured pixel by pixel: the map before SAM, and the score map after it.
PIXEL_MAPS: Final = ("anomaly_map", "score_map")


@dataclass(frozen=True)
class LargeFrame:
    """A frame of the data set.

    Attributes:
        class_name: Of the data set.
    """

    class_name: str
    sample: Sample


@dataclass(frozen=True)
class View:
    """One way to look at the frames.

    Attributes:
        name: Of it.
        tiles: None: as a whole.
    """

    name: str
    tiles: Tiles | None


@dataclass(frozen=True)
class ViewTask:
    """All frames under one view.

    Attributes:
        bundle: Directory of the bundle.
        product: As which all frames are inspected.
        frames: All of one size.
        frame: Their height and width, px.
        shrink: Pixels of the frame along a side of a pixel of the grid that is measured on.
        backend: What runs the engines.
        threads: Of each engine; 0: every core.
        directory: For the bundle's copy and for score maps.
    """

    bundle: Path
    product: str
    view: View
    frames: tuple[LargeFrame, ...]
    frame: tuple[int, int]
    shrink: int
    backend: str
    threads: int
    directory: Path


@dataclass(frozen=True)
class SeenFrame:
    """What one frame gave.

    Attributes:
        image: File of the frame, relative to the data set.
        scores: Image score under each `image_scoring`.
        tiles: Of the view; 1 as a whole.
        tiles_run: That CLIP was run on, the whole frame of `coarse_to_fine` not among them.
        sam_runs: Calls of the SAM encoder.
        total_ms: Of the inspection.
        host_ms: Of that without the engines; they run one after the other.
    """

    image: str
    class_name: str
    defective: bool
    scores: dict[str, float]
    tiles: int
    tiles_run: int
    sam_runs: int
    total_ms: float
    host_ms: float


@dataclass(frozen=True)
class ViewFigures:
    """What a view gave.

    Attributes:
        view: As `View.name`.
        pixels: Pixel metrics by map of `PIXEL_MAPS` and class.
        peak_rss: Largest resident memory of the process while it inspected, bytes.
        backend: What ran the engines.
        image_scoring: By which the bundle decides.
    """

    view: str
    frames: tuple[SeenFrame, ...]
    pixels: dict[str, dict[str, PixelMetrics]]
    peak_rss: int
    backend: str
    image_scoring: str


def measured_apart(task: ViewTask, report: Callable[[str], None]) -> ViewFigures:
    """Measure a view in a process of its own, whose memory is that of one frame in flight.

    Raises:
        ZeroflawError: The bundle, a frame or an engine is not as it should be.
    """
    report(f"{len(task.frames)} frames: {task.view.name}")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measured, task).result()


def measured(task: ViewTask) -> ViewFigures:
    """Inspect all frames under a view, one at a time, and measure.

    Maps wait on disk, so that memory is that of inspections alone; then they are pooled, the
    classes one after the other.
    """
    bundle = copy_bundle(open_bundle(task.bundle), task.directory / f"bundle {task.view.name}")
    if task.view.tiles is not None:
        height, width = task.frame
        settings = ProductSettings(frame_width=width, frame_height=height, tiles=task.view.tiles)
        bundle = set_settings(bundle, task.product, settings)
    with Inspector.load(
        bundle.path, task.backend, threads=task.threads, encoder_schedule="clip_first"
    ) as inspector:
        # The first inspection of an engine takes longer, and is not one that is measured.
        inspector.inspect(read_sample_image(task.frames[0].sample), product=task.product)
        seen = tuple(
            _inspected(inspector, task, number, frame) for number, frame in enumerate(task.frames)
        )
        backend, scoring = inspector.backend, inspector.parameters.image_scoring
    largest = peak_rss()
    return ViewFigures(task.view.name, seen, _pooled(task), largest, backend, scoring)


def truth_at_grid(mask: BoolArray, shrink: int) -> NDArray[np.bool_]:
    """Reduce a truth: a pixel of the grid is defective where any of its pixels is.

    A defect of a few pixels must not vanish.

    Args:
        mask: bool [H, W].

    Returns:
        bool of `grid_size`.
    """
    rows, columns = grid_size((mask.shape[0], mask.shape[1]), shrink)
    padded = np.zeros((rows * shrink, columns * shrink), np.bool_)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    blocks = padded.reshape(rows, shrink, columns, shrink)
    return np.asarray(blocks.any(axis=(1, 3)))


def grid_size(frame: tuple[int, int], shrink: int) -> tuple[int, int]:
    """Return height and width of the grid that frames are measured on."""
    return -(-frame[0] // shrink), -(-frame[1] // shrink)


def _inspected(inspector: Inspector, task: ViewTask, number: int, frame: LargeFrame) -> SeenFrame:
    encoded = inspector.encode_frame(read_sample_image(frame.sample), product=task.product)
    inspection = inspector.decode_frame(encoded)
    encoding, watch = encoded.encoding, encoded.watch
    engines = sum(
        milliseconds
        for stage, milliseconds in watch.milliseconds.items()
        if stage.startswith(get_args(EngineName))
    )
    total = watch.milliseconds["total"]
    grid = grid_size(task.frame, task.shrink)
    write_arrays(
        _file(task, number),
        anomaly_map=at_grid(inspection.anomaly_map, grid),
        score_map=at_grid(inspection.score_map, grid),
    )
    tiles = task.view.tiles
    return SeenFrame(
        image=frame.sample.image.name,
        class_name=frame.class_name,
        defective=frame.sample.anomalous,
        scores={
            name: image_score(
                encoding.cls_score,
                encoding.zero_shot_map,
                inspector.parameters.replace(image_scoring=name),
                encoding.reference_map,
            )
            for name in IMAGE_SCORINGS
        },
        tiles=1 if tiles is None else tiles.rows * tiles.columns,
        tiles_run=1 if encoding.tiles is None else encoding.tiles.run,
        sam_runs=sum(span.stage == "sam_encoder" for span in watch.spans),
        total_ms=total,
        host_ms=total - engines,
    )


def _pooled(task: ViewTask) -> dict[str, dict[str, PixelMetrics]]:
    by_map: dict[str, dict[str, PixelMetrics]] = {name: {} for name in PIXEL_MAPS}
    for class_name in dict.fromkeys(frame.class_name for frame in task.frames):
        pooled = {name: PixelScores() for name in PIXEL_MAPS}
        for number, frame in enumerate(task.frames):
            if frame.class_name != class_name:
                continue
            truth = truth_at_grid(read_sample_mask(frame.sample, task.frame), task.shrink)
            for name, values in zip(
                PIXEL_MAPS, read_arrays(_file(task, number), *PIXEL_MAPS), strict=True
            ):
                pooled[name].add(values, truth)
            _file(task, number).unlink()
        for name in PIXEL_MAPS:
            by_map[name][class_name] = pooled[name].metrics()
    return by_map


def _file(task: ViewTask, number: int) -> Path:
    return task.directory / f"{task.view.name} {number}.npz"


def views_of(
    grid: tuple[int, int], overlap: float, coarse_limits: Sequence[float]
) -> tuple[View, ...]:
    """List the views that are compared: as a whole, in tiles, and coarse to fine.

    Args:
        grid: Rows and columns.
        coarse_limits: Each makes a view of its own.
    """
    tiles = Tiles(rows=grid[0], columns=grid[1], overlap=overlap)
    coarse = [
        View(f"coarse_to_fine {limit:g}", _coarse_to_fine(tiles, limit)) for limit in coarse_limits
    ]
    return (View("whole", None), View("tiles", tiles), *coarse)


def _coarse_to_fine(tiles: Tiles, limit: float) -> Tiles:
    return msgspec.structs.replace(tiles, coarse_to_fine=True, coarse_limit=limit)
