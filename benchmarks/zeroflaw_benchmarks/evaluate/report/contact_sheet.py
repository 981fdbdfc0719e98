"""Contact sheets: image, truth, map and the stages of the cascade, for a few images a class."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from PIL import Image, ImageDraw

from zeroflaw.pictures.images import write_image
from zeroflaw.pictures.overlay import draw_map
from zeroflaw.pipeline.geometry import BoolArray, geometry_of
from zeroflaw.pipeline.masks.from_logits import logits_at, logits_at_sam
from zeroflaw_benchmarks.evaluate.cache import read_arrays, write_whole
from zeroflaw_benchmarks.evaluate.job import EvaluatedSample, EvaluationJob
from zeroflaw_benchmarks.evaluate.passes.decoding_pass import (
    StageMask,
    read_stage_mask,
    read_status,
)
from zeroflaw_benchmarks.evaluate.passes.encoding_pass import read_maps
from zeroflaw_benchmarks.evaluate.passes.inspecting_pass import read_inspection, read_scores
from zeroflaw_benchmarks.evaluate.passes.measuring_pass import CachedSample, cached_score
from zeroflaw_benchmarks.evaluate.passes.scorings import own_scoring
from zeroflaw_benchmarks.evaluate.report.files import writing
from zeroflaw_engines.image_files.frame import Frame
from zeroflaw_export.datasets import read_sample_image

CONTACT_SHEET_NAME: Final = "contact_sheet.html"

_CELL: Final = 220
_GAP: Final = 4
_CAPTION: Final = 16
_PAPER: Final = 255
_RED: Final = (255, 40, 40)
_GREEN: Final = (60, 220, 60)


def write_contact_sheets(job: EvaluationJob, rows: int, out_dir: Path) -> Path:
    """Write one PNG for each class, and a page with all of them; the passes must have run.

    Masks and truth are contours on the image; all cells show the square that CLIP sees.

    Returns:
        The page.

    Raises:
        EvaluationError: The cache cannot be read, or the page cannot be written.
        ImageFileError: A picture cannot be written.
    """
    folder = out_dir / "contact_sheets"
    page = out_dir / CONTACT_SHEET_NAME
    with writing(page):
        folder.mkdir(parents=True, exist_ok=True)
        sections = []
        for number, name in enumerate(job.class_names):
            # Class names are the dataset's: they need not be safe in a file name.
            file = folder / f"{number:02d}_{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.png"
            write_image(file, class_sheet(job, chosen_samples(job.samples_of(name), rows)))
            sections.append(
                f'<h2>{html.escape(name)}</h2>\n<img src="{folder.name}/{file.name}" '
                f'alt="contact sheet of {html.escape(name)}">\n'
            )
        title = f"{job.bundle.path.name} on {job.dataset.root.name}"
        write_whole(page, _page(title, "".join(sections)).encode())
    return page


def chosen_samples(samples: Sequence[EvaluatedSample], rows: int) -> list[EvaluatedSample]:
    """Choose what a sheet shows: spread evenly over the class, about a quarter of it good.

    The choice depends on the dataset alone, so sheets of two bundles show the same images.
    """
    good = [sample for sample in samples if not sample.sample.anomalous]
    defective = [sample for sample in samples if sample.sample.anomalous]
    wanted_good = min(len(good), max(rows // 4, rows - len(defective)))
    return _spread(defective, rows - wanted_good) + _spread(good, wanted_good)


def class_sheet(job: EvaluationJob, samples: Sequence[EvaluatedSample]) -> Frame:
    """Draw a row for each sample: image, truth, map, and the mask after each stage.

    Of a product with settings it is the score map in place of stages, and what is not judged is
    dark.

    Returns:
        uint8 RGB.
    """
    stages = range(1, job.parameters.cascade_stages + 1)
    last = [f"stage {stage}" for stage in stages]
    inspected = bool(samples) and samples[0].inspection is not None
    if inspected or job.parameters.refiner != "cascade":
        last = [f"score: {own_scoring(job.parameters)}"]
    titles = ["image", "truth", "map", *last]
    height = _CAPTION + len(samples) * (_CELL + _CAPTION + _GAP)
    sheet = np.full((height, len(titles) * (_CELL + _GAP), 3), _PAPER, np.uint8)
    texts = [(column * (_CELL + _GAP), 2, title) for column, title in enumerate(titles)]
    for row, sample in enumerate(samples):
        top = _CAPTION + row * (_CELL + _CAPTION + _GAP)
        if sample.inspection is None:
            cells, captions = _row(job, sample, stages)
        else:
            cells, captions = _inspected_row(job, sample, sample.inspection)
        for column, (cell, caption) in enumerate(zip(cells, captions, strict=True)):
            left = column * (_CELL + _GAP)
            sheet[top : top + _CELL, left : left + _CELL] = cell
            texts.append((left, top + _CELL + 2, caption))
    picture = Image.fromarray(sheet)
    draw = ImageDraw.Draw(picture)
    for x, y, text in texts:
        draw.text((x, y), text.encode("latin-1", "replace").decode("latin-1"), fill=(0, 0, 0))
    return np.asarray(picture)


def _row(
    job: EvaluationJob, sample: EvaluatedSample, stages: Sequence[int]
) -> tuple[list[Frame], list[str]]:
    size = (_CELL, _CELL)
    frame = read_sample_image(sample.sample)
    cell: Frame = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))
    (score,) = read_arrays(sample.encoding, "cls_score")
    anomaly_map = read_maps(sample.encoding, sample.reference, job.parameters).anomaly
    truth = cv2.resize(
        sample.truth.mask().view(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT
    )
    cells = [cell, _outlined(cell, truth > 0, _GREEN), draw_map(anomaly_map, size)]
    name = sample.sample.image.stem
    captions = [
        f"{sample.sample.defect}/{name}"[-36:],
        "defective" if sample.sample.anomalous else "good",
        f"peak {anomaly_map.max():.3f}, CLS {float(score):.3f}",
    ]
    file = job.decoding_file(sample, job.parameters)
    if job.parameters.refiner != "cascade":
        parameters = job.parameters.replace(scoring=own_scoring(job.parameters))
        cached = CachedSample(sample.truth, sample.encoding, file, sample.reference)
        score_map = cached_score(cached, parameters, job.bundle.manifest.sizes)
        return [*cells, draw_map(score_map, size)], [*captions, read_status(file, parameters)]
    for stage in stages:
        mask = read_stage_mask(file, stage)
        cells.append(_outlined(cell, _mask_of(job, mask, frame.shape[:2]), _RED))
        captions.append(f"IoU {mask.predicted_iou:.3f}" if mask.status == "ok" else mask.status)
    return cells, captions


def _inspected_row(
    job: EvaluationJob, sample: EvaluatedSample, inspection: Path
) -> tuple[list[Frame], list[str]]:
    size = (_CELL, _CELL)
    frame = read_sample_image(sample.sample)
    cell = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)).copy()
    found = read_inspection(inspection)
    anomaly_map, judged = read_scores(inspection, "map")
    score_map, _ = read_scores(inspection, own_scoring(job.parameters))

    def at_cell(pixels: BoolArray) -> BoolArray:
        return cv2.resize(pixels.view(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT) > 0

    cell[~at_cell(judged)] //= 3
    cells = [cell, _outlined(cell, at_cell(sample.truth.mask()), _GREEN)]
    cells += [draw_map(values, size) for values in (anomaly_map, score_map)]
    name = f"{sample.sample.defect}/{sample.sample.image.stem}"[-36:]
    truth = "defective" if found.anomalous else "good where it is judged"
    score = f"{found.decision}, score {found.decision_score:.3f}"
    return cells, [name, truth, f"peak {anomaly_map.max():.3f}", score]


def _mask_of(job: EvaluationJob, mask: StageMask, frame: tuple[int, ...]) -> BoolArray:
    size = (_CELL, _CELL)
    if mask.low_res_logits is None:
        return np.zeros(size, np.bool_)
    sizes = job.bundle.manifest.sizes
    geometry = geometry_of((frame[0], frame[1]), sizes, job.parameters)
    positive: BoolArray = logits_at(logits_at_sam(mask.low_res_logits, geometry), size) > 0
    return positive


def _outlined(cell: Frame, mask: BoolArray, colour: tuple[int, int, int]) -> Frame:
    picture = cell.copy()
    # A light tint and a contour: the defect below must still be seen.
    tinted = 0.75 * picture[mask] + 0.25 * np.array(colour)
    picture[mask] = tinted.astype(np.uint8)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, colour, 1)
    return picture


def _spread(samples: Sequence[EvaluatedSample], count: int) -> list[EvaluatedSample]:
    if count >= len(samples):
        return list(samples)
    return [samples[(2 * i + 1) * len(samples) // (2 * count)] for i in range(count)]


def _page(title: str, body: str) -> str:
    title = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        "<style>body{font:14px sans-serif;margin:1.5em}img{max-width:100%}</style></head>\n"
        f"<body><h1>{title}</h1>\n<p>Truth: green. Masks after each stage: red. Map: blue 0 to "
        f"red 1, never stretched.</p>\n{body}</body></html>\n"
    )
