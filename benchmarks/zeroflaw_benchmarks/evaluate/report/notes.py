"""What a reader of an evaluation's figures must know of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from zeroflaw_benchmarks.evaluate.job import EvaluationJob
from zeroflaw_benchmarks.evaluate.metrics.metrics import ImageMetrics, PixelMetrics
from zeroflaw_benchmarks.evaluate.passes.inspecting_pass import InspectedSample, read_inspection
from zeroflaw_benchmarks.evaluate.products import settings_note
from zeroflaw_benchmarks.evaluate.result import ClassCount, ImageRow, Row


def notes_of(
    job: EvaluationJob,
    counts: Sequence[ClassCount],
    rows: Sequence[Row],
    image_rows: Sequence[ImageRow],
) -> tuple[str, ...]:
    """Say what a reader of the figures must know: classes without images, banks, settings."""
    notes = [
        f"The class {c.name} has no image left and is missing from all tables."
        for c in job.dataset.classes
        if c.name not in job.class_names
    ]
    for count in counts:
        if not count.good:
            notes.append(f"The class {count.name} has no good image.")
        if not count.defective:
            notes.append(f"The class {count.name} has no defective image.")
    notes += [
        f"The product {product} has a reference bank of its own: all rows are with it, but those"
        " of reference photos drawn here."
        for product in sorted(job.own_banks)
    ]
    refiner = job.parameters.refiner
    if refiner != "cascade":
        notes.append(f"Masks and score maps are of the refiner {refiner}, not of the cascade.")
    notes += [settings_note(product, settings) for product, settings in job.settings.items()]
    for count in counts:
        outside = sum(one.outside for one in inspected_images(job, count.name))
        if outside:
            notes.append(
                f"Of the class {count.name} {outside} images have defects outside of what the"
                f" product {count.product} judges alone: they count as good."
            )
    undefined: dict[str, list[str]] = {}
    measured: list[tuple[str, Mapping[str, PixelMetrics | ImageMetrics]]] = [
        *((f"of the pixels, {row.name}", row.classes) for row in rows),
        *((f"of the images, {row.name}", row.classes) for row in image_rows),
    ]
    for what, classes in measured:
        for name, metrics in classes.items():
            for figure, value in dataclasses.asdict(metrics).items():
                if math.isnan(value) and figure != "f1_threshold":
                    undefined.setdefault(f"{figure} {what}", []).append(name)
    notes += [
        f"Undefined and left out of the mean: {figure}, for {', '.join(dict.fromkeys(names))}."
        for figure, names in undefined.items()
    ]
    return tuple(notes)


def inspected_images(job: EvaluationJob, name: str) -> list[InspectedSample]:
    """List what the images of a class gave; none unless its product has settings."""
    files = [sample.inspection for sample in job.samples_of(name)]
    return [read_inspection(file) for file in files if file is not None]
