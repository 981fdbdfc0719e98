"""What an evaluation will do, before it does it: images, rows of the tables, files, disk space."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from zeroflaw.sessions import engines_of_refiner
from zeroflaw_benchmarks.evaluate.cache import EvaluationCache, open_cache, require_space
from zeroflaw_benchmarks.evaluate.passes.decoding_pass import (
    DecodingOptions,
    DecodingTarget,
    decoded_parameters,
    decoding_bytes,
)
from zeroflaw_benchmarks.evaluate.passes.encoding_pass import (
    Truth,
    encoding_bytes,
    encoding_variant,
    read_truth,
)
from zeroflaw_benchmarks.evaluate.passes.inspecting_pass import (
    inspection_bytes,
    inspection_variant,
)
from zeroflaw_benchmarks.evaluate.passes.reference_pass import BankSource, map_bytes, photo_bytes
from zeroflaw_benchmarks.evaluate.passes.rows import (
    Ablation,
    TableRow,
    required_decodings,
    table_rows,
)
from zeroflaw_benchmarks.evaluate.passes.scorings import INSPECTED_REFINERS, kept_scorings
from zeroflaw_benchmarks.evaluate.products import (
    product_of_class,
    refuse_what_takes_whole_frames,
    settings_of,
)
from zeroflaw_benchmarks.evaluate.shots.drawing import ShotBank, photo_files, shot_banks
from zeroflaw_engines.backends import DEFAULT_BACKEND, load_session
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle
from zeroflaw_engines.bundle.products.settings import ProductSettings
from zeroflaw_engines.contract import CLIP_ENCODER, SAM_DECODER, SAM_ENCODER
from zeroflaw_engines.errors import EvaluationError
from zeroflaw_engines.files import sha256_of_file
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.process.cores import usable_cores
from zeroflaw_export.datasets import Dataset, Sample, Skipped

# Name of what is being done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]

EVALUATION_SIZE: Final = 518


def no_progress(what: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """How a bundle is measured.

    Attributes:
        cache: Directory for encodings and decodings; made if needed.
        parameters: The method's parameters; None takes those that the bundle records.
        product: As which every class is inspected; None: see `product_of_class`.
        ablations: Tables of the paper to measure as well.
        size: Side at which scores are measured, px.
        backend: What runs the engines.
        device: Number of the GPU that runs them, as CUDA counts.
        processes: At most so many; 0 takes one for each core.
        threads: Of each engine in each process.
        shots: Numbers of reference photos to measure with as well.
        seeds: Draws of the photos for each number of them.
        keep_features: Encode SAM's features also where the refiner runs without them: then the
            encodings serve the bundle's other refiners too.
    """

    cache: Path
    parameters: MethodParameters | None = None
    product: str | None = None
    ablations: tuple[Ablation, ...] = ()
    size: int = EVALUATION_SIZE
    backend: str = DEFAULT_BACKEND
    device: int = 0
    processes: int = 0
    threads: int = 1
    shots: tuple[int, ...] = ()
    seeds: int = 5
    keep_features: bool = False


@dataclass(frozen=True)
class EvaluatedSample:
    """One image that is evaluated.

    Attributes:
        sample: As the dataset lists it.
        product: As which it is inspected.
        truth: At the evaluation's size.
        encoding: File of its encoding.
        reference: File of its reference map; None if the product has no reference bank.
        inspection: File of its inspection, in place of both; None if the product has no settings.
    """

    sample: Sample
    class_name: str
    product: str
    truth: Truth
    encoding: Path
    reference: Path | None
    inspection: Path | None = None


@dataclass(frozen=True)
class EvaluationJob:
    """What an evaluation does.

    Attributes:
        bundle: The bundle, verified.
        dataset: As it was read.
        options: How it is measured.
        parameters: The method's parameters.
        backend_version: `Session.backend`.
        processes: At most so many, at least 1.
        cache: Where encodings and decodings are kept.
        samples: What is evaluated.
        rows: Of all tables.
        decodings: What the decoder is run for.
        settings: Of the products that have some.
        own_banks: Reference banks that the bundle has, by product.
        shot_banks: Reference banks that are measured as well, of photos of the dataset.
        skipped: Files that were left out so far.
        with_features: Whether SAM's features are in the encodings.
        bytes_needed: What the cache will grow by, at most.
        bytes_free: On the cache's disk.
    """

    bundle: Bundle
    dataset: Dataset
    options: EvaluationOptions
    parameters: MethodParameters
    backend_version: str
    processes: int
    cache: EvaluationCache
    samples: tuple[EvaluatedSample, ...]
    rows: tuple[TableRow, ...]
    decodings: tuple[DecodingOptions, ...]
    settings: Mapping[str, ProductSettings]
    own_banks: Mapping[str, BankSource]
    shot_banks: tuple[ShotBank, ...]
    skipped: tuple[Skipped, ...]
    with_features: bool = True
    bytes_needed: int = 0
    bytes_free: int = 0

    def decoding_file(self, sample: EvaluatedSample, parameters: MethodParameters) -> Path:
        """Return the file of a sample's decoding with some parameters."""
        wanted = decoded_parameters(parameters)
        decoding = next(
            one
            for one in self.decodings
            if one.parameters == wanted and parameters.cascade_stages in one.stages
        )
        return self.cache.decoding(sample.encoding, decoding.digest(), sample.reference)

    def shot_reference(self, sample: EvaluatedSample, bank: ShotBank) -> Path:
        """Return the file of a sample's reference map with a bank of photos of its class."""
        return self.cache.reference(sample.encoding, bank.source.key)

    def shot_decoding(self, sample: EvaluatedSample, bank: ShotBank) -> DecodingTarget:
        """Return what a sample is decoded for with a bank: the whole cascade, and no ablation."""
        stages = (self.parameters.cascade_stages,)
        options = DecodingOptions(
            decoded_parameters(self.parameters),
            stages,
            self.options.size,
            kept_scorings(self.parameters, of_draws=True),
        )
        reference = self.shot_reference(sample, bank)
        file = self.cache.decoding(sample.encoding, options.digest(), reference)
        return DecodingTarget(options, reference, file)

    def references_of(self, sample: EvaluatedSample) -> list[tuple[BankSource, Path]]:
        """List the banks that a sample is matched with, and the files of its reference maps."""
        if sample.inspection is not None:
            return []
        own = self.own_banks.get(sample.product)
        found = [] if own is None or sample.reference is None else [(own, sample.reference)]
        return found + [
            (bank.source, self.shot_reference(sample, bank))
            for bank in self.shot_banks
            if bank.class_name == sample.class_name
        ]

    def decodings_of(self, sample: EvaluatedSample) -> list[DecodingTarget]:
        """List all that a sample is decoded for."""
        if sample.inspection is not None:
            return []
        own = [
            DecodingTarget(
                options,
                sample.reference,
                self.cache.decoding(sample.encoding, options.digest(), sample.reference),
            )
            for options in self.decodings
        ]
        return own + [
            self.shot_decoding(sample, bank)
            for bank in self.shot_banks
            if bank.class_name == sample.class_name
        ]

    def samples_of(self, class_name: str) -> tuple[EvaluatedSample, ...]:
        """Return the samples of one class."""
        return tuple(sample for sample in self.samples if sample.class_name == class_name)

    @property
    def class_names(self) -> tuple[str, ...]:
        """List the classes that have a sample, in the dataset's order."""
        with_samples = {sample.class_name for sample in self.samples}
        return tuple(c.name for c in self.dataset.classes if c.name in with_samples)


def prepare_evaluation(
    bundle: str | Path,
    dataset: Dataset,
    options: EvaluationOptions,
    progress: Progress = no_progress,
) -> EvaluationJob:
    """Read all truths, look what the cache holds already, and check that the rest fits.

    Raises:
        BundleError: The bundle is missing or damaged.
        ProductError: The bundle has no product for a class.
        EvaluationError: The cache is of another bundle, its disk is too small, no image of the
            dataset can be used, reference photos cannot be drawn as asked for, or whole frames are
            to be measured of a product with settings, or of a refiner that takes the frame itself;
            or an ablation is of another refiner.
        EngineError: An engine cannot be loaded, or the bundle has none of the refiner's.
    """
    opened = open_bundle(bundle)
    parameters = options.parameters or opened.manifest.method_parameters
    refiner = parameters.refiner
    rows = table_rows(parameters, options.ablations)
    runs_sam = SAM_ENCODER in engines_of_refiner(opened, refiner)
    with_features = runs_sam or (options.keep_features and SAM_ENCODER in opened.manifest.engines)
    products = {c.name: product_of_class(opened, c.name, options.product) for c in dataset.classes}
    settings = settings_of(opened, set(products.values()))
    refuse_what_takes_whole_frames(
        settings, refiner, ablations=options.ablations, shots=options.shots
    )
    # The smaller of the two says as well what runs all of them.
    engine = load_session(
        opened,
        SAM_DECODER if runs_sam else CLIP_ENCODER,
        backend=options.backend,
        threads=1,
        device=options.device,
    )
    version = engine.backend
    engine.close()
    variants = {
        name: encoding_variant(
            version, parameters, opened.text_embeddings(name), with_features=with_features
        )
        for name in set(products.values())
    }
    of_inspection = partial(inspection_variant, opened, version, parameters, options.size)
    whole = products.values() if refiner in INSPECTED_REFINERS else settings
    inspected = {name: of_inspection(name) for name in set(whole)}
    cache = open_cache(options.cache, opened.identity)
    banks: tuple[ShotBank, ...] = ()
    if options.shots:
        banks = shot_banks(
            opened, dataset, options.shots, options.seeds, cache=cache, backend=version
        )
    own = _own_banks(opened, set(products.values()))
    processes = options.processes or usable_cores()
    listed = [(c.name, sample) for c in dataset.classes for sample in c.samples]
    truths = _read_truths([sample for _, sample in listed], options.size, processes, progress)

    def evaluated(name: str, sample: Sample, truth: Truth) -> EvaluatedSample:
        product = products[name]
        encoding = cache.encoding(truth.image_digest, variants[product])
        bank = own.get(product)
        reference = cache.reference(encoding, bank.key) if bank else None
        inspection = None
        if product in inspected:
            mask = "" if sample.mask is None else sha256_of_file(sample.mask)
            inspection = cache.inspection(truth.image_digest, mask, inspected[product])
        return EvaluatedSample(sample, name, product, truth, encoding, reference, inspection)

    samples = tuple(
        evaluated(name, sample, truth)
        for (name, sample), truth in zip(listed, truths, strict=True)
        if isinstance(truth, Truth)
    )
    skipped = dataset.skipped + tuple(t for t in truths if isinstance(t, Skipped))
    require_samples(samples, dataset, skipped)
    job = EvaluationJob(
        bundle=opened,
        dataset=dataset,
        options=options,
        parameters=parameters,
        backend_version=version,
        processes=processes,
        cache=cache,
        samples=samples,
        rows=rows,
        decodings=required_decodings(parameters, rows, options.size),
        settings=settings,
        own_banks=own,
        shot_banks=banks,
        skipped=skipped,
        with_features=with_features,
    )
    needed = _bytes_needed(job)
    free = require_space(options.cache, needed)
    return dataclasses.replace(job, bytes_needed=needed, bytes_free=free)


def require_samples(
    samples: Sequence[EvaluatedSample], dataset: Dataset, skipped: Sequence[Skipped]
) -> None:
    """Refuse an evaluation of nothing.

    Raises:
        EvaluationError: There is no sample.
    """
    if samples:
        return
    first = f", the first because {skipped[0].reason}" if skipped else ""
    raise EvaluationError(
        f"no image of {dataset.root} can be evaluated: {len(skipped)} were skipped{first}",
        "check the dataset's images and masks",
    )


def _read_truths(
    samples: Sequence[Sample], size: int, processes: int, progress: Progress
) -> list[Truth | Skipped]:
    truths: list[Truth | Skipped] = []
    # Threads do: decoding, resizing and hashing release the interpreter's lock.
    with ThreadPoolExecutor(processes) as pool:
        for truth in pool.map(partial(read_truth, size), samples):
            truths.append(truth)
            progress("reading masks", len(truths), len(samples))
    return truths


def _own_banks(bundle: Bundle, products: Iterable[str]) -> dict[str, BankSource]:
    digests = {name: bundle.reference_digest(name) for name in products}
    return {name: BankSource(digest, name) for name, digest in digests.items() if digest}


def _bytes_needed(job: EvaluationJob) -> int:
    sizes = job.bundle.manifest.sizes
    files: dict[Path, int] = {}
    for sample in job.samples:
        if sample.inspection is not None:
            files[sample.inspection] = inspection_bytes(job.options.size, job.parameters.refiner)
            continue
        files[sample.encoding] = encoding_bytes(sizes, with_features=job.with_features)
        files |= {file: map_bytes(sizes) for _, file in job.references_of(sample)}
        for target in job.decodings_of(sample):
            files[target.file] = decoding_bytes(sizes, target.options)
    if sizes.reference is not None:
        files |= dict.fromkeys(photo_files(job.shot_banks), photo_bytes(sizes.reference))
    return sum(size for file, size in files.items() if not file.exists())
