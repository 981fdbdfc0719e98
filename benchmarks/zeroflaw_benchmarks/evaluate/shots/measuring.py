"""What reference photos give: pixel and image metrics of every draw."""

from __future__ import annotations

from functools import partial
from itertools import groupby
from typing import Final

import numpy as np

from zeroflaw_benchmarks.evaluate.job import EvaluationJob, Progress
from zeroflaw_benchmarks.evaluate.metrics.metrics import ImageMetrics, PixelMetrics, image_metrics
from zeroflaw_benchmarks.evaluate.passes.measuring_pass import (
    CachedSample,
    MeasuringJob,
    measure_class,
    processes_within_memory,
    read_image_scores,
    sizes_of,
)
from zeroflaw_benchmarks.evaluate.passes.scorings import SCORINGS_OF_REFINER
from zeroflaw_benchmarks.evaluate.result import ShotRun
from zeroflaw_benchmarks.evaluate.shots.drawing import ShotBank
from zeroflaw_benchmarks.evaluate.worker_pool import run_jobs
from zeroflaw_engines.parameters import Refiner

_SHOT_SCORINGS: Final = ("map", "fused")


def shot_scorings(refiner: Refiner) -> tuple[str, ...]:
    """List the scorings that draws are measured with."""
    return tuple(name for name in _SHOT_SCORINGS if name in SCORINGS_OF_REFINER[refiner])


def measure_shots(job: EvaluationJob, progress: Progress) -> tuple[ShotRun, ...]:
    """Measure every draw of reference photos; the passes must have run.

    Raises:
        EvaluationError: A file of the cache cannot be read.
        ScoreError: A score is not finite.
    """
    banks = sorted(
        (bank for bank in job.shot_banks if bank.class_name in job.class_names),
        key=lambda bank: (bank.shots, bank.seed, bank.class_name),
    )
    scorings = shot_scorings(job.parameters.refiner)
    cached = [_cached(job, bank) for bank in banks]
    jobs = [
        MeasuringJob(samples, job.parameters.replace(scoring=scoring))
        for samples in cached
        for scoring in scorings
    ]
    largest = [len(one.samples) for one in jobs]
    processes = min(job.processes, processes_within_memory(largest, job.options.size))
    found: dict[int, PixelMetrics] = {}
    work = run_jobs(measure_class, jobs, set_up=partial(sizes_of, job.bundle), processes=processes)
    for done, (index, metrics) in enumerate(work, 1):
        found[index] = metrics
        progress("measuring draws of reference photos", done, len(jobs))
    runs = []
    by_draw = groupby(range(len(banks)), key=lambda place: (banks[place].shots, banks[place].seed))
    for (shots, seed), places in by_draw:
        drawn = {banks[place].class_name: place for place in places}
        runs.append(
            ShotRun(
                shots=shots,
                seed=seed,
                photos={name: _photo_names(job, banks[place]) for name, place in drawn.items()},
                pixels={
                    scoring: {
                        name: found[len(scorings) * place + column] for name, place in drawn.items()
                    }
                    for column, scoring in enumerate(scorings)
                },
                images={
                    name: _image_metrics(job, name, cached[place]) for name, place in drawn.items()
                },
            )
        )
    return tuple(runs)


def _cached(job: EvaluationJob, bank: ShotBank) -> tuple[CachedSample, ...]:
    decoded = [(s, job.shot_decoding(s, bank)) for s in job.samples_of(bank.class_name)]
    return tuple(
        CachedSample(s.truth, s.encoding, target.file, target.reference) for s, target in decoded
    )


def _image_metrics(job: EvaluationJob, name: str, cached: tuple[CachedSample, ...]) -> ImageMetrics:
    scores = read_image_scores(cached, job.parameters)[job.parameters.image_scoring]
    anomalous = np.array([s.sample.anomalous for s in job.samples_of(name)], np.bool_)
    return image_metrics(scores, anomalous)


def _photo_names(job: EvaluationJob, bank: ShotBank) -> tuple[str, ...]:
    return tuple(p.image.relative_to(job.dataset.root).as_posix() for p in bank.photos)
