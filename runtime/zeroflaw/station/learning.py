"""Learning a product from photos of good parts: its reference bank and its decision threshold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

from zeroflaw.pictures.images import Orientation
from zeroflaw.pipeline.view.product_view import ProductView, product_view
from zeroflaw.station.calibration import calibration_record, digest_of_contents, statistic_of
from zeroflaw.station.conformal import ConformalThreshold, conformal_threshold
from zeroflaw.station.products.adding import embeddings_by_name
from zeroflaw.station.reference.judgement import near_copies, require_usual
from zeroflaw.station.reference.learner import PhotoLearner, digest_of, require_space
from zeroflaw.station.reference.photos import (
    PhotoReader,
    PhotoStore,
    Progress,
    disk_errors,
    learning_directory,
    survey_photos,
)
from zeroflaw.station.reference.plan import (
    CalibrationChoice,
    plan_learning,
    reference_sizes,
    rows_of_budget,
)
from zeroflaw.station.reference.scorer import PhotoScorer, photo_scorer
from zeroflaw.station.reference.view_learner import ViewLearner
from zeroflaw.station.reference.view_scorer import ViewScorer, tiles_of_banks, view_scorer
from zeroflaw_engines import arguments
from zeroflaw_engines.backends import DEFAULT_BACKEND
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle, require_same_models
from zeroflaw_engines.bundle.manifest import (
    Augmentation,
    CalibrationScheme,
    Product,
    Reference,
    ReferencePhoto,
    Statistic,
)
from zeroflaw_engines.bundle.products.names import check_product_name, normal_name, require_distinct
from zeroflaw_engines.bundle.products.settings import ProductSettings
from zeroflaw_engines.bundle.products.writer import forget_reference, set_reference
from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.bundle.shipped import require_changeable
from zeroflaw_engines.parameters import MethodParameters

ADVISED_PHOTOS: Final = 8


@dataclass(frozen=True, eq=False)
class LearnedProduct:
    """What became of one learning.

    Attributes:
        bundle: The bundle as it is now.
        product: The product's name in it.
        reference: Where the bank comes from, as the manifest has it.
        digest: SHA-256 of the bank's file.
        bank_bytes: Of that file.
        fit: The threshold, and what is known of it.
        photos: Files that were learned from; the first `bank_photos` are in the bank.
        bank_photos: Number of photos in the bank.
        copies: Files whose content had been seen before; they do not count.
        failed: Files that could not be read, or show nothing; they do not count.
        warnings: What is to be known of photos and threshold.
        statistic: What was scored.
    """

    bundle: Bundle
    product: str
    reference: Reference
    digest: str
    bank_bytes: int
    fit: ConformalThreshold
    photos: tuple[Path, ...]
    bank_photos: int
    copies: tuple[Path, ...]
    failed: tuple[Path, ...]
    warnings: tuple[str, ...]
    statistic: Statistic = "image_score"


@dataclass(frozen=True)
class Engines:
    """What runs the engines of a learning; `learn_product` says more."""

    backend: str
    precision: str | None
    threads: int
    device: int


def learn_product(
    bundle: Bundle,
    product: str,
    files: Iterable[Path],
    *,
    false_reject_rate: float = 0.01,
    calibration: CalibrationChoice = "auto",
    augmentations: Sequence[str] = (),
    bank_bytes: int | None = None,
    shots: int | None = None,
    seed: int = 0,
    keep_unusual: bool = False,
    texts_of: str | None = None,
    backend: str = DEFAULT_BACKEND,
    precision: str | None = None,
    threads: int = 0,
    device: int = 0,
    white_level: float | None = None,
    orientation: Orientation = "as_stored",
    progress: Progress | None = None,
) -> LearnedProduct:
    """Learn a product from photos of good parts, and store bank and threshold in the bundle.

    A product that the bundle lacks is added with its text engine, with the texts of another
    product, or by its name alone where the localizer takes no texts. What is computed is kept in
    the bundle until the learning succeeds, so that one that was interrupted goes on where it
    ended; the product itself changes in one step at the end.

    A product with settings is learned as its view shows the photos: aligned, cut to its zones and
    in its tiles; what is scored are whole inspections. Photos that these would hold are left out.

    Args:
        product: The name of the product; it goes into sentences verbatim if it is new.
        files: Photos of good parts, as the line will see them: same station, light and camera.
        false_reject_rate: Share of good parts that may be rejected, inside (0, 1).
        calibration: `split` keeps photos out of the bank to calibrate with, `leave_one_out`
            scores each without its own rows; `auto` splits if there are enough photos.
        augmentations: Other views of each photo that join its rows; names in `Augmentation`.
        bank_bytes: Budget of the bank; default and most: what the bundle takes.
        shots: Photos in the bank, drawn by the seed; without a split no others are used.
        seed: Of the draw of photos.
        keep_unusual: Whether photos that look unlike the others are learned all the same.
        texts_of: A product of the bundle whose text embeddings a new product takes, so that no
            text engine is needed; one that is there already keeps its own.
        backend: What runs the CLIP encoder and the reference matcher.
        precision: What they compute in; default: that of the backend.
        threads: CPU threads; 0 takes every core.
        device: Number of the GPU, as CUDA counts; CPU backends take 0 alone.
        white_level: The value that is white, against what the files say.
        orientation: Whether pixels are turned as orientation tags say.
        progress: Called once for each file, with the error of one that is left out.

    Raises:
        ReferenceBankError: The bundle takes no banks; there are too few photos, or more than the
            bank has rows; some look unlike the others; another process is learning the product.
        CalibrationError: The rate is out of its range, or the scores leave no room for a threshold.
        ProductError: The product is unknown and cannot be added, or was changed meanwhile.
        MissingExtraError: SciPy is not installed and the calibration is a split.
        BundleError: The bundle cannot be written, or was replaced by another meanwhile.
        EngineError: An engine failed.
    """
    # What can be refused is refused before hours of encoding.
    require_changeable(bundle.path)
    sizes = reference_sizes(bundle)
    rows = rows_of_budget(sizes, bank_bytes)
    for view in augmentations:
        arguments.choice("augmentations", view, get_args(Augmentation))
    views: tuple[Augmentation, ...] = tuple(
        view for view in get_args(Augmentation) if view in augmentations
    )
    reader = PhotoReader(white_level, orientation)
    name = bundle.product_name(product) or normal_name(product)
    parameters = bundle.manifest.method_parameters
    with learning_directory(bundle, name) as directory:
        current = open_bundle(bundle.path, verify_digests=False)
        require_same_models(bundle, current)
        embeddings, entry = _embeddings(current, name, texts_of)
        before = None if entry else current.reference_digest(name)
        shown_by = None if entry else current.manifest.products[name].settings
        shown = product_view(shown_by, current)
        tiles = () if shown is None else tiles_of_banks(shown)
        survey = survey_photos(files, reader, parameters, progress, shown)
        plan = plan_learning(
            survey.photos,
            false_reject_rate,
            calibration,
            rows=rows,
            tiles=max(1, len(tiles)),
            shots=shots,
            seed=seed,
            failed=len(survey.failed),
        )
        engines = Engines(backend, precision, threads, device)
        with _scorer(current, name, embeddings, parameters, engines, shown) as scorer:
            settings = digest_of(
                current.tower, scorer.backend, scorer.precision, parameters.digest,
                embeddings.tobytes(), views, white_level, orientation,
                *([] if shown_by is None else [shown_by.digest, _photo_of(current, shown_by)]),
            )  # fmt: skip
            store = PhotoStore(directory, current.path, settings)
            learner: PhotoLearner | ViewLearner
            if isinstance(scorer, PhotoScorer):
                require_space(sizes, plan, store)
                learner = PhotoLearner(scorer, reader, store, plan, views, progress)
            else:
                learner = ViewLearner(scorer, reader, store, plan, views, tiles, sizes, progress)
                learner.require_space()
            bank = learner.bank(current.tower)
            judged = learner.judge(bank)
        paths = [photo.path for photo in judged.photos]
        if not keep_unusual:
            require_usual(paths, judged.image_scores, judged.highest, judged.mean)
        calibrating = slice(-len(plan.calibrating), None)
        fit = conformal_threshold(judged.scores[calibrating], false_reject_rate, plan.scheme)
        record = calibration_record(
            fit,
            digest_of_contents(photo.sha256 for photo in plan.calibrating),
            parameters,
            backend=scorer.backend,
            precision=scorer.precision,
            statistic=statistic_of(shown_by),
        )
        reference = Reference(
            bank="",
            rows=bank.rows,
            photos=tuple(
                ReferencePhoto(name=_text(photo.path.name), sha256=photo.sha256)
                for photo in plan.bank
            ),
            tower=current.tower,
            backend=scorer.backend,
            precision=scorer.precision,
            created=record.created,
            augmentations=views,
            tiles=tiles,
        )
        with disk_errors(current.path):
            changed = set_reference(
                current, name, bank, reference, fit.threshold, record,
                embeddings=embeddings, before=before, added=entry, settings=shown_by,
            )  # fmt: skip
    reference = changed.manifest.products[name].reference or reference
    file = changed.manifest.files[reference.bank]
    return LearnedProduct(
        bundle=changed,
        product=name,
        reference=reference,
        digest=file.sha256,
        bank_bytes=file.bytes,
        fit=fit,
        photos=tuple(dict.fromkeys(p.path for p in (*plan.bank, *plan.calibrating))),
        bank_photos=len(plan.bank),
        copies=survey.copies,
        failed=survey.failed,
        warnings=(
            *survey.warnings,
            *_few(fit.images, len(plan.bank)),
            *near_copies(paths, judged.nearest, judged.apart),
            *fit.warnings,
            *_not_proven(shown_by, plan.scheme),
        ),
        statistic=statistic_of(shown_by),
    )


def forget_product(bundle: Bundle, product: str) -> Bundle:
    """Take a product's bank and threshold out of a bundle, and what a learning of it left there.

    Returns:
        The bundle as it is now.

    Raises:
        ProductError: The product is unknown, or has no bank.
        ReferenceBankError: A process is learning it.
        BundleError: The bundle cannot be written.
    """
    require_changeable(bundle.path)
    name = bundle.product_name(product) or normal_name(product)
    with learning_directory(bundle, name):
        return forget_reference(bundle, name)


@contextmanager
def _scorer(  # noqa: PLR0917 - all of it is needed to score a photo
    bundle: Bundle,
    name: str,
    embeddings: TextEmbeddings,
    parameters: MethodParameters,
    engines: Engines,
    view: ProductView | None,
) -> Iterator[PhotoScorer | ViewScorer]:
    """Load what scores photos: of products with settings, all that an inspection takes."""
    if view is None:
        with photo_scorer(
            bundle, embeddings, parameters, with_bank=True, **vars(engines)
        ) as of_photos:
            yield of_photos
    else:
        with view_scorer(bundle, name, parameters, with_bank=True, **vars(engines)) as of_views:
            yield of_views


def _photo_of(bundle: Bundle, settings: ProductSettings) -> str | None:
    """Return the digest of the reference photo as it was read and stored."""
    alignment = settings.alignment
    return None if alignment is None else bundle.manifest.files[alignment.template].sha256


def _not_proven(settings: ProductSettings | None, scheme: CalibrationScheme) -> tuple[str, ...]:
    by_regions = settings is not None and any(rule.by == "regions" for rule in settings.rules)
    if not by_regions or scheme != "leave_one_out":
        return ()
    text = (
        "the rules look at regions, and whether leaving out a photo's own rows never lowers a"
        " region's peak is not proven: the rate that is expected is no bound then. Calibrate with"
        " other good photos (`zeroflaw calibrate`), or learn with --calibration split"
    )
    return (text,)


def _embeddings(
    bundle: Bundle, name: str, texts_of: str | None
) -> tuple[TextEmbeddings, Product | None]:
    """Return a product's text embeddings, and its entry if the bundle lacks it."""
    if name in bundle.manifest.products:
        return bundle.text_embeddings(name), None
    if texts_of is not None:
        embeddings_of_other = bundle.text_embeddings(texts_of)
        check_product_name(name)
        require_distinct([name], bundle.manifest.products)
        other = bundle.manifest.products[bundle.product_name(texts_of) or texts_of]
        return embeddings_of_other, Product(sentences=other.sentences)
    embeddings, entry = embeddings_by_name(bundle, [name])
    return embeddings[name], entry


def _few(images: int, photos: int) -> tuple[str, ...]:
    if photos >= ADVISED_PHOTOS:
        return ()
    text = (
        f"{photos} photos in the bank are few: {ADVISED_PHOTOS} or more show better what is usual."
        f" With {images} to calibrate, no false-reject rate below {1 / (images + 1):.2g} can be"
        " claimed"
    )
    return (text,)


def _text(name: str) -> str:
    """Return a file's name as text that UTF-8 can encode."""
    return name.encode("utf-8", "backslashreplace").decode()
