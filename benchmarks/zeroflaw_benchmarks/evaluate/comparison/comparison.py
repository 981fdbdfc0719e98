"""A comparison: methods measured on the same images, and timed in turns."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from zeroflaw_benchmarks.evaluate.comparison.accuracy import (
    Accuracy,
    measured_accuracy,
    only_common,
)
from zeroflaw_benchmarks.evaluate.comparison.columns import Column
from zeroflaw_benchmarks.evaluate.comparison.cost import Cost, measured_costs
from zeroflaw_benchmarks.evaluate.comparison.methods import Method
from zeroflaw_benchmarks.evaluate.comparison.verdict import Verdict, verdict_of
from zeroflaw_benchmarks.evaluate.evaluation import models_of, run_passes
from zeroflaw_benchmarks.evaluate.job import (
    EvaluationJob,
    EvaluationOptions,
    Progress,
    no_progress,
    prepare_evaluation,
    require_samples,
)
from zeroflaw_benchmarks.evaluate.result import CONVENTIONS
from zeroflaw_engines.contract import ENGINES_OF_REFINER, SAM_ENCODER
from zeroflaw_engines.machine import this_machine
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.version import __version__
from zeroflaw_export.datasets import Dataset, Skipped


@dataclass(frozen=True)
class ComparedRow:
    """One row: a method with so many reference photos.

    Attributes:
        name: Of the method.
        shots: Reference photos of each class; 0: none.
        identity: Digest of its engines and weights.
        models: Names of its networks.
        localizer: Name in the registry of the export.
        refiner: What makes mask and score map.
        parameters: The method's.
        random_weights: Seed, if any part of the weights is random.
        figures: Each in [0, 1], means over the classes and the draws of the photos.
        deviations: Over the draws of the photos; NaN for one draw.
        interval: 2.5 % and 97.5 % of the resampled images, of each figure.
        classes: Figures by class.
        cost: On this machine.
    """

    name: str
    shots: int
    bundle: str
    identity: str
    models: str
    localizer: str
    refiner: str
    parameters: MethodParameters
    random_weights: int | None
    figures: dict[Column, float]
    deviations: dict[Column, float]
    interval: dict[Column, tuple[float, float]]
    classes: dict[str, dict[Column, float]]
    cost: Cost

    @property
    def title(self) -> str:
        """Name the row with its photos."""
        return title_of(self.name, self.shots)


@dataclass(frozen=True)
class Comparison:
    """What was compared, on what, and which is best.

    Attributes:
        zeroflaw_version: Version that measured.
        dataset: The data set's directory.
        layout: How it is laid out.
        split: Which part of it.
        images: Good and defective ones of each class.
        size: Side at which scores were measured, px.
        seeds: Draws of the reference photos.
        backend: What ran the engines.
        machine: Where they were timed.
        load_average: Processes that wanted to run when the timing began.
        rows: Measured, those without reference photos first.
        verdict: Which is best.
        notes: What a reader must know.
        conventions: How the figures are defined.
        skipped: Files that were left out, and why.
    """

    zeroflaw_version: str
    dataset: str
    layout: str
    split: str
    images: dict[str, tuple[int, int]]
    size: int
    seeds: int
    backend: str
    machine: str
    load_average: float
    rows: tuple[ComparedRow, ...]
    verdict: Verdict
    notes: tuple[str, ...]
    conventions: tuple[str, ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class ComparisonOptions:
    """How methods are compared.

    Attributes:
        best_by: The column that says which is best.
        within_ms: Longest inspection that the best may take, ms; None: any.
        runs: Inspections of each row that are timed.
    """

    best_by: Column = "ap"
    within_ms: float | None = None
    runs: int = 36


def compare_methods(
    methods: Sequence[Method],
    dataset: Dataset,
    options: EvaluationOptions,
    how: ComparisonOptions,
    *,
    progress: Progress = no_progress,
    begin: Callable[[Sequence[EvaluationJob]], None] = lambda _: None,
) -> Comparison:
    """Measure every method on the same images, then time them in turns.

    Args:
        options: Of every method, but for `parameters`; each model has a cache of its own below
            `cache`.
        begin: Called with the jobs once all truths are read, before any engine runs.

    Raises:
        BundleError: A bundle is missing or damaged.
        ProductError: A bundle has no product for a class.
        EngineError: An engine cannot be loaded, or failed.
        EvaluationError: As `evaluate_bundle`, for any method.
        ScoreError: A score is not finite.
    """
    jobs = [_prepared(method, methods, dataset, options, progress) for method in methods]
    begin(jobs)
    jobs = only_common([run_passes(job, progress) for job in jobs])
    skipped = tuple(sorted({s for job in jobs for s in job.skipped}, key=lambda skip: skip.path))
    require_samples(jobs[0].samples, dataset, skipped)
    accuracies = [measured_accuracy(job, progress) for job in jobs]
    load_average = _load_average()
    costs = measured_costs(jobs, how.runs, progress)
    rows: list[ComparedRow] = []
    found: list[Accuracy] = []
    for place in range(len(accuracies[0])):
        for method, job, accuracy, cost in zip(methods, jobs, accuracies, costs, strict=True):
            rows.append(_row(method, job, accuracy[place], cost[accuracy[place].shots]))
            found.append(accuracy[place])
    job = jobs[0]
    images = {name: _count(job, name) for name in job.class_names}
    return Comparison(
        zeroflaw_version=__version__,
        dataset=str(dataset.root),
        layout=dataset.layout,
        split=dataset.split,
        images=images,
        size=options.size,
        seeds=options.seeds,
        backend=job.backend_version,
        machine=f"{this_machine().processor}, {this_machine().cores} cores",
        load_average=load_average,
        rows=tuple(rows),
        verdict=verdict_of(
            [row.title for row in rows],
            [row.figures[how.best_by] for row in rows],
            [row.cost.milliseconds for row in rows],
            [accuracy.resampled[how.best_by] for accuracy in found],
            best_by=how.best_by,
            within_ms=how.within_ms,
            dataset=dataset.root.name,
            varied=_varied(images, how.best_by),
        ),
        notes=tuple(_notes(jobs, load_average)),
        conventions=tuple(text.format(size=options.size) for text in (*CONVENTIONS, *_CONVENTIONS)),
        skipped=skipped,
    )


def title_of(name: str, shots: int) -> str:
    """Name a method with its reference photos."""
    return name if not shots else f"{name}, {shots} photo{'s' if shots > 1 else ''}"


_CONVENTIONS = (
    (
        "A row's pixels are scored by what its inspection gives: the score map of its refiner,"
        " and of the refiner none the anomaly map."
    ),
    (
        "Within-image AUROC is of the pixels of one defective image, mean over these: how well a"
        " defect stands out of its own surroundings, whatever other images score."
    ),
    (
        "ms: median of Inspector.inspect on frames of the data set, every core, the rows in turns"
        " after all accuracies were measured. GMAC: of the engines' calls in these inspections."
        " MB: graphs and weights that the row loads."
    ),
    (
        "95 % intervals and shares of resamplings: 1000 draws of the images with replacement,"
        " good and defective ones of a class apart, the same for every row. They speak of images"
        " like these and of nothing else."
    ),
)


def _prepared(
    method: Method,
    methods: Sequence[Method],
    dataset: Dataset,
    options: EvaluationOptions,
    progress: Progress,
) -> EvaluationJob:
    shared = any(
        SAM_ENCODER in ENGINES_OF_REFINER[other.parameters.refiner]
        for other in methods
        if other.identity == method.identity
    )
    own = replace(
        options,
        cache=options.cache / method.identity[:16],
        parameters=method.parameters,
        keep_features=shared,
    )
    return prepare_evaluation(method.bundle, dataset, own, progress)


def _row(method: Method, job: EvaluationJob, accuracy: Accuracy, cost: Cost) -> ComparedRow:
    return ComparedRow(
        name=method.name,
        shots=accuracy.shots,
        bundle=str(job.bundle.path),
        identity=method.identity,
        models=models_of(job.bundle.manifest),
        localizer=method.localizer,
        refiner=job.parameters.refiner,
        parameters=job.parameters,
        random_weights=job.bundle.manifest.random_weights,
        figures=accuracy.figures,
        deviations=accuracy.deviations,
        interval=accuracy.interval,
        classes=accuracy.classes,
        cost=cost,
    )


def _count(job: EvaluationJob, name: str) -> tuple[int, int]:
    bad = [sample.sample.anomalous for sample in job.samples_of(name)]
    return len(bad) - sum(bad), sum(bad)


def _varied(images: Mapping[str, tuple[int, int]], best_by: Column) -> int:
    """Count the images that a draw may replace: defective ones, of image columns good ones too."""
    of_images = best_by.startswith("image-")
    deciding = (min(good, bad) if of_images else bad for good, bad in images.values())
    return sum(max(number - 1, 0) for number in deciding)


def _notes(jobs: Sequence[EvaluationJob], load_average: float) -> list[str]:
    notes = []
    for job in jobs:
        name = job.bundle.path.name
        manifest = job.bundle.manifest
        if manifest.random_weights is not None:
            notes.append(f"{name} has random weights: its figures mean nothing.")
        if manifest.demonstration is not None:
            notes.append(f"{name} is a demonstration model: {manifest.demonstration}")
        notes += [
            f"The product {product} of {name} has a reference bank of its own: its rows without"
            " photos are with that bank."
            for product in sorted(job.own_banks)
        ]
        notes += [
            f"The product {product} of {name} has settings: its frames are seen as these say."
            for product in sorted(job.settings)
        ]
    cores = this_machine().cores
    if load_average > cores / 2:
        notes.append(
            f"The machine was busy when timing began (load average {load_average:.1f} of {cores}"
            " cores): milliseconds are those of a busy machine."
        )
    if len({frozenset(skip.path for skip in job.skipped) for job in jobs}) > 1:
        notes.append("Images that one method cannot judge are left out for all.")
    return list(dict.fromkeys(notes))


def _load_average() -> float:
    try:
        return os.getloadavg()[0]
    except OSError:
        return math.nan
