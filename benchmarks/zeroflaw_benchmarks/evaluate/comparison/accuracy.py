"""What one method finds on a data set: figures of its classes, exact, and of resampled images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from zeroflaw_benchmarks.evaluate.comparison.columns import Column, figures_of
from zeroflaw_benchmarks.evaluate.comparison.resampling import (
    Figures,
    counted,
    counted_images,
    figures_of_draws,
    mean_of_draws,
    mean_over_classes,
    resampling_weights,
)
from zeroflaw_benchmarks.evaluate.job import EvaluationJob, Progress
from zeroflaw_benchmarks.evaluate.metrics.metrics import (
    PixelScores,
    image_metrics,
    within_image_auroc,
)
from zeroflaw_benchmarks.evaluate.passes.inspecting_pass import read_inspection
from zeroflaw_benchmarks.evaluate.passes.measuring_pass import (
    CachedSample,
    processes_within_memory,
    read_image_scores,
    scored,
    sizes_of,
)
from zeroflaw_benchmarks.evaluate.passes.scorings import own_scoring
from zeroflaw_benchmarks.evaluate.worker_pool import run_jobs
from zeroflaw_engines.contract import EngineSizes
from zeroflaw_engines.parameters import MethodParameters


@dataclass(frozen=True)
class ClassJob:
    """One class of one method, with one bank or none.

    Attributes:
        anomalous: Of each sample, as the data set lists it.
    """

    name: str
    samples: tuple[CachedSample, ...]
    anomalous: tuple[bool, ...]
    parameters: MethodParameters


@dataclass(frozen=True, eq=False)
class ClassFigures:
    """What was measured of one class.

    Attributes:
        figures: Each in [0, 1], NaN where undefined.
        resampled: The same of every draw of the images, float64 [draws].
    """

    figures: dict[Column, float]
    resampled: dict[Column, Figures]


@dataclass(frozen=True, eq=False)
class Accuracy:
    """What a method finds, with so many reference photos.

    Attributes:
        shots: Reference photos of each class; 0: none.
        classes: Figures by class, means over the draws of the photos.
        figures: Means over the classes, unweighted, without NaN.
        deviations: Of the means over the draws of the photos (n - 1); NaN for one draw.
        resampled: The means of every draw of the images, float64 [draws].
    """

    shots: int
    classes: dict[str, dict[Column, float]]
    figures: dict[Column, float]
    deviations: dict[Column, float]
    resampled: dict[Column, Figures]

    @property
    def interval(self) -> dict[Column, tuple[float, float]]:
        """2.5 % and 97.5 % of the resampled figures; NaN where a figure is undefined."""
        return {name: _interval(values) for name, values in self.resampled.items()}


def measured_accuracy(job: EvaluationJob, progress: Progress) -> list[Accuracy]:
    """Measure what the passes have computed: without photos, then with each number of them.

    Raises:
        EvaluationError: A file of the cache cannot be read.
        ScoreError: A score is not finite.
    """
    own = job.parameters.replace(scoring=own_scoring(job.parameters))
    keys: list[tuple[int, int, str]] = []
    jobs: list[ClassJob] = []

    def add(shots: int, seed: int, name: str, samples: Sequence[CachedSample]) -> None:
        anomalous = tuple(s.sample.anomalous for s in job.samples_of(name))
        keys.append((shots, seed, name))
        jobs.append(ClassJob(name, tuple(samples), anomalous, own))

    for name in job.class_names:
        add(0, 0, name, [
            CachedSample(s.truth, s.encoding, job.decoding_file(s, own), s.reference, s.inspection)
            for s in job.samples_of(name)
        ])  # fmt: skip
    for bank in job.shot_banks:
        if bank.class_name in job.class_names:
            name = bank.class_name
            targets = [(s, job.shot_decoding(s, bank)) for s in job.samples_of(name)]
            add(bank.shots, bank.seed, name, [
                CachedSample(s.truth, s.encoding, target.file, target.reference)
                for s, target in targets
            ])  # fmt: skip
    # All scores of a class are at hand twice, and its histograms.
    largest = [2 * len(one.samples) for one in jobs]
    processes = min(job.processes, processes_within_memory(largest, job.options.size))
    found: dict[tuple[int, int, str], ClassFigures] = {}
    work = run_jobs(measure_images, jobs, set_up=partial(sizes_of, job.bundle), processes=processes)
    for done, (index, figures) in enumerate(work, 1):
        found[keys[index]] = figures
        progress("measuring", done, len(jobs))
    return [
        _accuracy(shots, {key[1:]: one for key, one in found.items() if key[0] == shots})
        for shots in (0, *job.options.shots)
    ]


def measure_images(sizes: EngineSizes, job: ClassJob) -> ClassFigures:
    """Compute the figures of a class, and of every draw of its images.

    Raises:
        EvaluationError: A file of the cache cannot be read.
        ScoreError: A score is not finite.
    """
    seen = [scored(sample, job.parameters, sizes) for sample in job.samples]
    scores, truths, judged = zip(*seen, strict=True)
    pixels = PixelScores()
    for one in seen:
        pixels.add(*one)
    within = np.array([_within(*one) for one in seen])
    images = read_image_scores(job.samples, job.parameters)[job.parameters.image_scoring]
    anomalous = np.array(
        [
            bad if sample.inspection is None else read_inspection(sample.inspection).anomalous
            for bad, sample in zip(job.anomalous, job.samples, strict=True)
        ],
        np.bool_,
    )
    weights = resampling_weights(job.name, np.array(job.anomalous, np.bool_))
    drawn = figures_of_draws(counted(scores, truths, judged), weights)
    of_images = figures_of_draws(counted_images(images, anomalous), weights)
    mean = float(np.nanmean(within)) if not np.isnan(within).all() else float("nan")
    return ClassFigures(
        figures_of(pixels.metrics(), image_metrics(images, anomalous), mean),
        {
            "auroc": drawn["auroc"],
            "f1-max": drawn["f1-max"],
            "ap": drawn["ap"],
            "pro": drawn["pro"],
            "within-image": mean_of_draws(weights, within),
            "image-auroc": of_images["auroc"],
            "image-f1-max": of_images["f1-max"],
            "image-ap": of_images["ap"],
        },
    )


def _within(score: np.ndarray, truth: np.ndarray, judged: np.ndarray | None) -> float:
    """The within-image AUROC; NaN of an image without a defective pixel, or without a good one."""
    if not truth.any():
        return float("nan")
    if judged is None:
        return within_image_auroc(score, truth)
    pixels = PixelScores()
    pixels.add(score, truth, judged)
    return pixels.metrics().auroc


def _accuracy(shots: int, found: dict[tuple[int, str], ClassFigures]) -> Accuracy:
    """Average over the draws of the photos, and over the classes."""
    seeds = sorted({seed for seed, _ in found})
    names = list(dict.fromkeys(name for _, name in found))
    columns = next(iter(found.values())).figures
    classes = {
        name: {
            column: float(np.mean([found[seed, name].figures[column] for seed in seeds]))
            for column in columns
        }
        for name in names
    }
    by_seed = [
        {column: _mean([found[seed, name].figures[column] for name in names]) for column in columns}
        for seed in seeds
    ]
    resampled = [
        mean_over_classes([found[seed, name].resampled for name in names]) for seed in seeds
    ]
    return Accuracy(
        shots,
        classes,
        {column: float(np.mean([one[column] for one in by_seed])) for column in columns},
        {
            column: float(np.std([one[column] for one in by_seed], ddof=1))
            if len(seeds) > 1
            else float("nan")
            for column in columns
        },
        {column: np.mean([one[column] for one in resampled], axis=0) for column in resampled[0]},
    )


def _interval(values: Figures) -> tuple[float, float]:
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, (0.025, 0.975))
    return float(low), float(high)


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def only_common(jobs: Sequence[EvaluationJob]) -> list[EvaluationJob]:
    """Leave out of every job the images that another has skipped: all are measured on the same."""
    images = [{sample.sample.image for sample in job.samples} for job in jobs]
    common = set.intersection(*images)
    return [
        dataclasses.replace(job, samples=tuple(s for s in job.samples if s.sample.image in common))
        for job in jobs
    ]
