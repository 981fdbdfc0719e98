"""An evaluation: a bundle measured on a dataset, as the paper measures its method."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from zeroflaw_benchmarks.evaluate.decisions import (
    SETTINGS_CONVENTIONS,
    DecisionFigures,
    decision_figures,
)
from zeroflaw_benchmarks.evaluate.job import (
    EvaluatedSample,
    EvaluationJob,
    EvaluationOptions,
    Progress,
    no_progress,
    prepare_evaluation,
    require_samples,
)
from zeroflaw_benchmarks.evaluate.metrics.metrics import ImageMetrics, PixelMetrics, image_metrics
from zeroflaw_benchmarks.evaluate.passes.decoding_pass import (
    DecodingJob,
    DecodingTarget,
    decode_encoding,
    load_decoder,
    read_status,
)
from zeroflaw_benchmarks.evaluate.passes.encoding_pass import (
    EncodingJob,
    encode_sample,
    load_encoders,
)
from zeroflaw_benchmarks.evaluate.passes.inspecting_pass import (
    InspectionJob,
    inspect_sample,
    load_inspectors,
    read_inspection,
)
from zeroflaw_benchmarks.evaluate.passes.measuring_pass import (
    CachedSample,
    MeasuringJob,
    measure_class,
    processes_within_memory,
    read_image_scores,
    sizes_of,
)
from zeroflaw_benchmarks.evaluate.passes.reference_pass import (
    BankSource,
    PhotoJob,
    encode_photo,
    load_photo_encoder,
)
from zeroflaw_benchmarks.evaluate.passes.rows import TableRow
from zeroflaw_benchmarks.evaluate.report.notes import inspected_images, notes_of
from zeroflaw_benchmarks.evaluate.result import (
    CONVENTIONS,
    ClassCount,
    Evaluation,
    ImageRow,
    Row,
    mean_of,
)
from zeroflaw_benchmarks.evaluate.shots.drawing import photo_files
from zeroflaw_benchmarks.evaluate.shots.measuring import measure_shots
from zeroflaw_benchmarks.evaluate.worker_pool import run_jobs
from zeroflaw_engines.bundle.manifest import Manifest, sam_text
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.version import __version__
from zeroflaw_export.datasets import Dataset, Skipped, dataset_digest


def evaluate_bundle(
    bundle: str | Path,
    dataset: Dataset,
    options: EvaluationOptions,
    *,
    progress: Progress = no_progress,
    begin: Callable[[EvaluationJob], None] = lambda _: None,
) -> tuple[EvaluationJob, Evaluation]:
    """Measure a bundle on a dataset.

    Whatever was done before with the same cache is not done again, so a run that was killed
    goes on where it was.

    Args:
        bundle: As `open_bundle` takes it.
        dataset: From `read_dataset`.
        progress: Called with what is being done, how much of it is done, and how much there is.
        begin: Called with the job once all truths are read, before any engine runs.

    Returns:
        The job without images that turned out to be unreadable, and what was measured.

    Raises:
        BundleError: The bundle is missing or damaged.
        ProductError: The bundle has no product for a class.
        EngineError: An engine cannot be loaded, or failed.
        EvaluationError: The cache is of another bundle, cannot be read or written, or its disk is
            too small; no image can be used; reference photos cannot be drawn as asked for, or
            one cannot be read; or a worker died.
        ScoreError: A score is not finite.
    """
    job = prepare_evaluation(bundle, dataset, options, progress)
    begin(job)
    job = run_passes(job, progress)
    return job, _measure(job, progress)


def run_passes(job: EvaluationJob, progress: Progress) -> EvaluationJob:
    """Compute all that the cache does not hold.

    Returns:
        The job without images that turned out to be unreadable.

    Raises:
        EngineError: An engine cannot be loaded, or failed.
        EvaluationError: The cache cannot be written, a photo cannot be read, or a worker died.
    """
    _encode_photos(job, progress)
    job = _run_inspections(job, progress)
    job = _run_encoders(job, progress)
    _run_decoder(job, progress)
    return job


def _encode_photos(job: EvaluationJob, progress: Progress) -> None:
    """Take the tokens of every reference photo that the cache does not hold."""
    missing = {
        file: photo for file, photo in photo_files(job.shot_banks).items() if not file.exists()
    }
    jobs = [PhotoJob(photo, file) for file, photo in missing.items()]
    set_up = partial(
        load_photo_encoder,
        job.bundle,
        job.samples[0].product,
        backend=job.options.backend,
        threads=job.options.threads,
        device=job.options.device,
    )
    work = run_jobs(encode_photo, jobs, set_up=set_up, processes=job.processes)
    for done, _ in enumerate(work, 1):
        progress("encoding reference photos", done, len(jobs))


def _run_encoders(job: EvaluationJob, progress: Progress) -> EvaluationJob:
    """Encode every image that the cache does not hold; images that cannot be read leave the job."""
    missing: dict[Path, dict[Path, BankSource]] = {}
    first: dict[Path, EvaluatedSample] = {}
    for sample in job.samples:
        if sample.inspection is not None:
            continue
        maps = {path: bank for bank, path in job.references_of(sample) if not path.exists()}
        if maps or not sample.encoding.exists():
            first.setdefault(sample.encoding, sample)
            missing.setdefault(sample.encoding, {}).update(maps)
    jobs = [
        EncodingJob(
            first[encoding].sample,
            first[encoding].product,
            encoding,
            tuple((bank, path) for path, bank in maps.items()),
        )
        for encoding, maps in missing.items()
    ]
    set_up = partial(
        load_encoders,
        job.bundle,
        sorted({one.product for one in jobs}),
        job.parameters,
        backend=job.options.backend,
        threads=job.options.threads,
        device=job.options.device,
        with_features=job.with_features,
        with_banks=any(one.references for one in jobs),
    )
    unreadable: dict[Path, Skipped] = {}
    work = run_jobs(encode_sample, jobs, set_up=set_up, processes=job.processes)
    for done, (index, skipped) in enumerate(work, 1):
        if skipped is not None:
            unreadable[jobs[index].encoding] = skipped
        progress("encoding images", done, len(jobs))
    return _without(job, unreadable)


def _run_inspections(job: EvaluationJob, progress: Progress) -> EvaluationJob:
    """Inspect every image of a product with settings that the cache does not hold."""
    missing = {
        sample.inspection: InspectionJob(sample.sample, sample.product, sample.inspection)
        for sample in job.samples
        if sample.inspection is not None and not sample.inspection.exists()
    }
    jobs = list(missing.values())
    set_up = partial(
        load_inspectors,
        job.bundle,
        job.parameters,
        job.options.size,
        backend=job.options.backend,
        threads=job.options.threads,
        device=job.options.device,
    )
    left_out: dict[Path, Skipped] = {}
    work = run_jobs(inspect_sample, jobs, set_up=set_up, processes=job.processes)
    for done, (index, skipped) in enumerate(work, 1):
        if skipped is not None:
            left_out[jobs[index].file] = skipped
        progress("inspecting images", done, len(jobs))
    return _without(job, left_out)


def _without(job: EvaluationJob, left_out: Mapping[Path, Skipped]) -> EvaluationJob:
    """Return the job without the samples of some files of the cache."""
    if not left_out:
        return job
    left = tuple(s for s in job.samples if (s.inspection or s.encoding) not in left_out)
    # By sample and not by file: two copies of one broken image are two that are skipped.
    broken = tuple(
        Skipped(s.sample.image, left_out[s.inspection or s.encoding].reason)
        for s in job.samples
        if (s.inspection or s.encoding) in left_out
    )
    skipped_now = job.skipped + broken
    require_samples(left, job.dataset, skipped_now)
    return dataclasses.replace(job, samples=left, skipped=skipped_now)


def _run_decoder(job: EvaluationJob, progress: Progress) -> None:
    """Decode every encoding for all parameters that the cache does not hold."""
    missing: dict[Path, dict[Path, DecodingTarget]] = {}
    for sample in job.samples:
        for target in job.decodings_of(sample):
            if not target.file.exists():
                missing.setdefault(sample.encoding, {})[target.file] = target
    jobs = [DecodingJob(encoding, tuple(targets.values())) for encoding, targets in missing.items()]
    set_up = partial(
        load_decoder,
        job.bundle,
        job.parameters.refiner,
        backend=job.options.backend,
        threads=job.options.threads,
        device=job.options.device,
    )
    work = run_jobs(decode_encoding, jobs, set_up=set_up, processes=job.processes)
    for done, _ in enumerate(work, 1):
        progress("decoding", done, len(jobs))


def _measure(job: EvaluationJob, progress: Progress) -> Evaluation:
    names = job.class_names
    kept = {sample.sample for sample in job.samples}
    classes = tuple(
        dataclasses.replace(c, samples=tuple(s for s in c.samples if s in kept))
        for c in job.dataset.classes
        if c.name in names
    )
    rows = _measured_rows(job, progress)
    image_rows = _image_rows(job)
    counts = tuple(_count(job, name) for name in names)
    manifest = job.bundle.manifest
    return Evaluation(
        zeroflaw_version=__version__,
        bundle=str(job.bundle.path),
        bundle_identity=job.bundle.identity,
        models=models_of(manifest),
        random_weights=manifest.random_weights,
        demonstration=manifest.demonstration,
        backend=job.backend_version,
        dataset=str(job.dataset.root),
        layout=job.dataset.layout,
        split=job.dataset.split,
        dataset_digest=dataset_digest(dataclasses.replace(job.dataset, classes=classes)),
        size=job.options.size,
        parameters=job.parameters,
        classes=counts,
        statuses=_statuses(job),
        rows=rows,
        image_rows=image_rows,
        own_banks={name: bank.key for name, bank in sorted(job.own_banks.items())},
        shot_runs=measure_shots(job, progress),
        settings={name: settings.digest for name, settings in job.settings.items()},
        decisions=_decisions(job),
        skipped=tuple(sorted(job.skipped, key=lambda skip: skip.path)),
        notes=notes_of(job, counts, rows, image_rows),
        conventions=tuple(
            text.format(size=job.options.size)
            for text in CONVENTIONS + (SETTINGS_CONVENTIONS if job.settings else ())
        ),
    )


def models_of(manifest: Manifest) -> str:
    """Name the models of a bundle, and the localizer if it is not APRIL-GAN's."""
    clip = manifest.clip
    names = [f"{clip.architecture} at {clip.image_size} px", sam_text(manifest)]
    if manifest.localizer is not None:
        names.append(f"localizer {manifest.localizer.name}")
    return ", ".join(names)


def _measured_rows(job: EvaluationJob, progress: Progress) -> tuple[Row, ...]:
    # Rows of two tables with the same parameters are measured once.
    wanted = list(dict.fromkeys(row.parameters for row in job.rows))
    keys = [(parameters, name) for parameters in wanted for name in job.class_names]
    jobs = [_measuring_job(job, parameters, name) for parameters, name in keys]
    found: dict[tuple[MethodParameters, str], PixelMetrics] = {}
    work = run_jobs(
        measure_class,
        jobs,
        set_up=partial(sizes_of, job.bundle),
        processes=min(
            job.processes, processes_within_memory([len(j.samples) for j in jobs], job.options.size)
        ),
    )
    for done, (index, metrics) in enumerate(work, 1):
        found[keys[index]] = metrics
        progress("measuring", done, len(jobs))

    def measured(row: TableRow) -> Row:
        classes = {name: found[row.parameters, name] for name in job.class_names}
        return Row(row.table, row.name, row.parameters, classes, mean_of(PixelMetrics, classes))

    return tuple(map(measured, job.rows))


def _measuring_job(job: EvaluationJob, parameters: MethodParameters, name: str) -> MeasuringJob:
    cached = tuple(
        CachedSample(
            s.truth, s.encoding, job.decoding_file(s, parameters), s.reference, s.inspection
        )
        for s in job.samples_of(name)
    )
    return MeasuringJob(cached, parameters)


def _image_rows(job: EvaluationJob) -> tuple[ImageRow, ...]:
    rows: dict[str, dict[str, ImageMetrics]] = {}
    for name in job.class_names:
        samples = job.samples_of(name)
        anomalous = np.array([_anomalous(s) for s in samples], np.bool_)
        cached = _measuring_job(job, job.parameters, name).samples
        for scoring, scores in read_image_scores(cached, job.parameters).items():
            rows.setdefault(scoring, {})[name] = image_metrics(scores, anomalous)
    return tuple(
        ImageRow(scoring, classes, mean_of(ImageMetrics, classes))
        for scoring, classes in rows.items()
    )


def _statuses(job: EvaluationJob) -> dict[str, int]:
    found = Counter(
        read_status(job.decoding_file(sample, job.parameters), job.parameters)
        if sample.inspection is None
        else read_inspection(sample.inspection).status
        for sample in job.samples
    )
    return dict(sorted(found.items()))


def _count(job: EvaluationJob, name: str) -> ClassCount:
    samples = job.samples_of(name)
    defective = sum(map(_anomalous, samples))
    return ClassCount(name, samples[0].product, len(samples) - defective, defective)


def _anomalous(sample: EvaluatedSample) -> bool:
    """Whether an image has a defect, for a product with settings one where it is judged."""
    if sample.inspection is None:
        return sample.sample.anomalous
    return read_inspection(sample.inspection).anomalous


def _decisions(job: EvaluationJob) -> dict[str, DecisionFigures]:
    found = {}
    for name in job.class_names:
        product = job.samples_of(name)[0].product
        if product in job.settings:
            settings = job.settings[product]
            found[name] = decision_figures(product, settings, inspected_images(job, name))
    return found
