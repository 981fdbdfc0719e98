"""An evaluation: a bundle measured on a dataset, as the paper measures its method."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from zeroflaw_benchmarks.evaluate.decoding_pass import (
    DecodingJob,
    decode_encoding,
    load_decoder,
    read_stage_mask,
)
from zeroflaw_benchmarks.evaluate.encoding_pass import EncodingJob, encode_sample, load_encoders
from zeroflaw_benchmarks.evaluate.measuring_pass import (
    CachedSample,
    MeasuringJob,
    measure_class,
    processes_within_memory,
    read_image_scores,
    sizes_of,
)
from zeroflaw_benchmarks.evaluate.metrics import ImageMetrics, PixelMetrics, image_metrics
from zeroflaw_benchmarks.evaluate.plan import (
    EvaluationPlan,
    Progress,
    RowPlan,
    plan_evaluation,
    require_samples,
)
from zeroflaw_benchmarks.evaluate.result import (
    CONVENTIONS,
    ClassCount,
    Evaluation,
    ImageRow,
    Row,
    mean_of,
)
from zeroflaw_benchmarks.evaluate.worker_pool import run_jobs
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.version import __version__
from zeroflaw_export.datasets import Dataset, Skipped, dataset_digest


def evaluate_bundle(
    bundle: str | Path,
    dataset: Dataset,
    *,
    cache: Path,
    progress: Progress | None = None,
    **options: Any,  # noqa: ANN401 - those of `plan_evaluation`, which names and checks them
) -> Evaluation:
    """Measures a bundle on a dataset.

    Whatever was done before with the same cache is not done again, so a run that was killed
    goes on where it was.

    Args:
        bundle: The bundle's directory.
        dataset: From `read_dataset`.
        cache: Directory for encodings and decodings.
        progress: Is told how far it is.
        options: The others of `plan_evaluation`.

    Raises:
        ZeroflawError: As `plan_evaluation`, `run_encoders`, `run_decoder` and `measure`.
    """
    plan = plan_evaluation(bundle, dataset, cache=cache, progress=progress, **options)
    plan = run_encoders(plan, progress)
    run_decoder(plan, progress)
    return measure(plan, progress)


def run_encoders(plan: EvaluationPlan, progress: Progress | None = None) -> EvaluationPlan:
    """Encodes every image that the cache does not hold.

    Returns:
        The plan without the images that turned out to be unreadable.

    Raises:
        EngineError: An engine cannot be loaded, or failed.
        EvaluationError: The cache cannot be written, a worker died, or no image is left.
    """
    missing = {s.encoding: s for s in plan.samples if not s.encoding.exists()}
    jobs = [EncodingJob(s.sample, s.product, path) for path, s in missing.items()]
    set_up = partial(
        load_encoders,
        plan.bundle,
        sorted({job.product for job in jobs}),
        plan.parameters,
        backend=plan.backend,
        threads=plan.threads,
    )
    unreadable: dict[Path, Skipped] = {}
    work = run_jobs(encode_sample, jobs, set_up=set_up, processes=plan.processes)
    for done, (index, skipped) in enumerate(work, 1):
        if skipped is not None:
            unreadable[jobs[index].target] = skipped
        if progress:
            progress("encoding images", done, len(jobs))
    if not unreadable:
        return plan
    left = tuple(s for s in plan.samples if s.encoding not in unreadable)
    # By sample and not by file: two copies of one broken image are two that are skipped.
    broken = tuple(
        Skipped(s.sample.image, unreadable[s.encoding].reason)
        for s in plan.samples
        if s.encoding in unreadable
    )
    skipped_now = plan.skipped + broken
    require_samples(left, plan.dataset, skipped_now)
    return dataclasses.replace(plan, samples=left, skipped=skipped_now)


def run_decoder(plan: EvaluationPlan, progress: Progress | None = None) -> None:
    """Decodes every encoding for all parameters that the cache does not hold.

    Raises:
        EngineError: The decoder cannot be loaded, or failed.
        EvaluationError: The cache cannot be read or written, or a worker died.
    """
    digests = {decoding: decoding.digest() for decoding in plan.decodings}
    jobs: list[DecodingJob] = []
    for encoding in dict.fromkeys(sample.encoding for sample in plan.samples):
        targets = tuple(
            (decoding, plan.cache.decoding(encoding, digest))
            for decoding, digest in digests.items()
        )
        missing = tuple(target for target in targets if not target[1].exists())
        if missing:
            jobs.append(DecodingJob(encoding, missing))
    set_up = partial(load_decoder, plan.bundle, backend=plan.backend, threads=plan.threads)
    work = run_jobs(decode_encoding, jobs, set_up=set_up, processes=plan.processes)
    for done, _ in enumerate(work, 1):
        if progress:
            progress("decoding", done, len(jobs))


def measure(plan: EvaluationPlan, progress: Progress | None = None) -> Evaluation:
    """Measures every row of the plan; encoders and decoder must have run.

    Raises:
        EvaluationError: The cache cannot be read, or a worker died.
        ScoreError: A score is not finite.
    """
    names = plan.class_names
    kept = {sample.sample for sample in plan.samples}
    classes = tuple(
        dataclasses.replace(c, samples=tuple(s for s in c.samples if s in kept))
        for c in plan.dataset.classes
        if c.name in names
    )
    rows = _measured_rows(plan, progress)
    image_rows = _image_rows(plan)
    counts = tuple(_count(plan, name) for name in names)
    manifest = plan.bundle.manifest
    return Evaluation(
        zeroflaw_version=__version__,
        bundle=str(plan.bundle.path),
        bundle_identity=plan.bundle.identity,
        models=f"{manifest.clip.architecture} at {manifest.clip.image_size} px, "
        f"{manifest.sam.architecture} at {manifest.sam.image_size} px",
        random_weights=manifest.random_weights,
        demonstration=manifest.demonstration,
        backend=plan.backend_version,
        dataset=str(plan.dataset.root),
        layout=plan.dataset.layout,
        split=plan.dataset.split,
        dataset_digest=dataset_digest(dataclasses.replace(plan.dataset, classes=classes)),
        size=plan.size,
        parameters=plan.parameters,
        classes=counts,
        statuses=_statuses(plan),
        rows=rows,
        image_rows=image_rows,
        skipped=tuple(sorted(plan.skipped, key=lambda skip: skip.path)),
        notes=_notes(plan, counts, rows, image_rows),
        conventions=tuple(text.format(size=plan.size) for text in CONVENTIONS),
    )


def _measured_rows(plan: EvaluationPlan, progress: Progress | None) -> tuple[Row, ...]:
    # Rows of two tables with the same parameters are measured once.
    wanted = list(dict.fromkeys(row.parameters for row in plan.rows))
    keys = [(parameters, name) for parameters in wanted for name in plan.class_names]
    jobs = [_measuring_job(plan, parameters, name) for parameters, name in keys]
    found: dict[tuple[MethodParameters, str], PixelMetrics] = {}
    work = run_jobs(
        measure_class,
        jobs,
        set_up=partial(sizes_of, plan.bundle),
        processes=min(
            plan.processes, processes_within_memory([len(j.samples) for j in jobs], plan.size)
        ),
    )
    for done, (index, metrics) in enumerate(work, 1):
        found[keys[index]] = metrics
        if progress:
            progress("measuring", done, len(jobs))

    def row(planned: RowPlan) -> Row:
        classes = {name: found[planned.parameters, name] for name in plan.class_names}
        return Row(
            planned.table, planned.name, planned.parameters, classes, mean_of(PixelMetrics, classes)
        )

    return tuple(row(planned) for planned in plan.rows)


def _measuring_job(plan: EvaluationPlan, parameters: MethodParameters, name: str) -> MeasuringJob:
    cached = tuple(
        CachedSample(s.truth, s.encoding, plan.decoding_file(s, parameters))
        for s in plan.samples_of(name)
    )
    return MeasuringJob(cached, parameters)


def _image_rows(plan: EvaluationPlan) -> tuple[ImageRow, ...]:
    rows: dict[str, dict[str, ImageMetrics]] = {}
    for name in plan.class_names:
        samples = plan.samples_of(name)
        anomalous = np.array([s.sample.anomalous for s in samples], np.bool_)
        for scoring, scores in read_image_scores([s.encoding for s in samples]).items():
            rows.setdefault(scoring, {})[name] = image_metrics(scores, anomalous)
    return tuple(
        ImageRow(scoring, classes, mean_of(ImageMetrics, classes))
        for scoring, classes in rows.items()
    )


def _statuses(plan: EvaluationPlan) -> dict[str, int]:
    stages = plan.parameters.cascade_stages
    found = Counter(
        read_stage_mask(plan.decoding_file(sample, plan.parameters), stages).status
        for sample in plan.samples
    )
    return dict(sorted(found.items()))


def _count(plan: EvaluationPlan, name: str) -> ClassCount:
    samples = plan.samples_of(name)
    defective = sum(sample.sample.anomalous for sample in samples)
    return ClassCount(name, samples[0].product, len(samples) - defective, defective)


def _notes(
    plan: EvaluationPlan,
    counts: Sequence[ClassCount],
    rows: Sequence[Row],
    image_rows: Sequence[ImageRow],
) -> tuple[str, ...]:
    notes = [
        f"The class {c.name} has no image left and is missing from all tables."
        for c in plan.dataset.classes
        if c.name not in plan.class_names
    ]
    for count in counts:
        if not count.good:
            notes.append(f"The class {count.name} has no good image.")
        if not count.defective:
            notes.append(f"The class {count.name} has no defective image.")
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
