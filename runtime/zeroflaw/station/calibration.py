"""Calibration: a product's decision threshold from good images alone; see `conformal`."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zeroflaw.pictures.images import Orientation, file_frame, read_image_file
from zeroflaw.station.conformal import (
    ConformalThreshold,
    conformal_threshold,
    quantile_of_beta,
    require_rate,
)
from zeroflaw.station.reference.scorer import photo_scorer, require_sight
from zeroflaw.station.reference.view_scorer import view_scorer
from zeroflaw_engines.backends import DEFAULT_BACKEND
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.manifest import Calibration, Statistic, parameters_record
from zeroflaw_engines.bundle.products.settings import ProductSettings
from zeroflaw_engines.bundle.products.writer import set_calibration
from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.bundle.reference_bank import ReferenceBank
from zeroflaw_engines.bundle.shipped import require_changeable
from zeroflaw_engines.errors import CalibrationError, FrameError, ImageFileError
from zeroflaw_engines.files import sha256_of_file
from zeroflaw_engines.image_files.frame import Frame
from zeroflaw_engines.parameters import MethodParameters

ImageScoring = Literal["cls", "map_max"]
Progress = Callable[[Path, FrameError | ImageFileError | None], None]


@dataclass(frozen=True, eq=False)
class GoodScores:
    """Image scores of good images, each content once.

    Attributes:
        scores: float64 [n], in the order of the files.
        digest: SHA-256 over the sorted SHA-256 of the n files, one a line.
        copies: Files whose content had been seen before; they do not count.
        failed: Files that could not be read or judged; they do not count.
        warnings: What is to be known of files that could be read, each with the file's name.
    """

    scores: NDArray[np.float64]
    digest: str
    copies: tuple[Path, ...]
    failed: tuple[Path, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ImageScorer:
    """Computes image scores; call it with a frame.

    Attributes:
        score: The image score of a frame, in [0, 1].
        backend: What runs the CLIP encoder, as its session describes itself.
        precision: What it computes in.
        parameters: The method parameters that the scores depend on.
    """

    score: Callable[[Frame], float]
    backend: str
    precision: str
    parameters: MethodParameters

    def __call__(self, frame: Frame) -> float:
        """Give the image score of a frame."""
        return self.score(frame)


@dataclass(frozen=True, eq=False)
class ProductCalibration:
    """What became of one calibration.

    Attributes:
        bundle: The bundle as it is now.
        good: The scores behind it.
        statistic: What was scored.
    """

    bundle: Bundle
    fit: ConformalThreshold
    good: GoodScores
    statistic: Statistic = "image_score"


def calibrate_product(
    bundle: Bundle,
    product: str,
    files: Iterable[Path],
    *,
    false_reject_rate: float = 0.01,
    image_scoring: ImageScoring | None = None,
    backend: str = DEFAULT_BACKEND,
    precision: str | None = None,
    threads: int = 0,
    device: int = 0,
    white_level: float | None = None,
    orientation: Orientation = "as_stored",
    progress: Progress | None = None,
) -> ProductCalibration:
    """Set a product's decision threshold from images of good parts, and store it in the bundle.

    A product with a reference bank is calibrated with it, on images that the bank has not: those
    match themselves. One with settings is calibrated with whole inspections, on what they decide
    on; images that they would hold are left out.

    Args:
        product: A product that it has.
        files: Images of good parts, as the line will see them: same station, light and camera.
        false_reject_rate: Share of good parts that may be rejected, inside (0, 1).
        image_scoring: The image score to calibrate; default: the bundle's.
        backend: What runs the CLIP encoder, and the reference matcher for a bank; other engines
            are needed of a product with settings alone.
        precision: What they compute in; default: that of the backend.
        threads: CPU threads; 0 takes every core.
        device: Number of the GPU, as CUDA counts; CPU backends take 0 alone.
        white_level: The value that is white, against what the files say.
        orientation: Whether pixels are turned as orientation tags say.
        progress: Called after each file, with the error of one that could not be read.

    Raises:
        CalibrationError: The rate is out of its range, no image can be read, one is in the
            product's bank, or the scores leave no room for a threshold.
        ProductError: The bundle does not know the product.
        MissingExtraError: SciPy is not installed.
        BundleError: The bundle cannot be changed, or was replaced by another meanwhile.
        EngineError: An engine failed.
    """
    # What can be refused is refused before hours of scoring.
    require_changeable(bundle.path)
    require_rate(false_reject_rate)
    quantile_of_beta()
    embeddings = bundle.text_embeddings(product)
    scoring = image_scoring or bundle.manifest.method_parameters.image_scoring
    bank, reference = bundle.reference_bank(product), bundle.reference_digest(product)
    settings = bundle.manifest.products[bundle.product_name(product) or product].settings
    files = tuple(files)
    require_not_in_bank(bundle, product, files)
    scorer = (
        image_scorer(
            bundle, embeddings, image_scoring=scoring, bank=bank, backend=backend,
            precision=precision, threads=threads, device=device,
        )
        if settings is None
        else decision_scorer(
            bundle, product, image_scoring=scoring, bank=bank, backend=backend,
            precision=precision, threads=threads, device=device,
        )
    )  # fmt: skip
    with scorer as score:
        good = score_good_images(
            files, score, white_level=white_level, orientation=orientation, progress=progress
        )
    fit = conformal_threshold(good.scores, false_reject_rate)
    calibration = calibration_record(
        fit,
        good.digest,
        score.parameters,
        backend=score.backend,
        precision=score.precision,
        statistic=statistic_of(settings),
    )
    changed = set_calibration(
        bundle,
        product,
        fit.threshold,
        calibration,
        embeddings=embeddings,
        reference=reference,
        settings=settings,
    )
    return ProductCalibration(changed, fit, good, statistic_of(settings))


def calibration_record(
    fit: ConformalThreshold,
    data_digest: str,
    parameters: MethodParameters,
    *,
    backend: str,
    precision: str,
    statistic: Statistic = "image_score",
) -> Calibration:
    """Record where a threshold comes from; whoever stores it adds the bank that it holds for.

    Args:
        data_digest: From `digest_of_contents`.
        parameters: Those that the scores were computed with.
        backend: What ran the CLIP encoder, as its session describes itself.
        precision: What it computed in.
        statistic: From `statistic_of`.
    """
    return Calibration(
        false_reject_rate=fit.false_reject_rate,
        images=fit.images,
        rank=fit.rank,
        interval=fit.interval,
        observed_rate=fit.observed_rate,
        image_scoring=parameters.image_scoring,
        data_digest=data_digest,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        backend=backend,
        precision=precision,
        parameters=parameters_record(parameters),
        parameters_digest=parameters.digest,
        scheme=fit.scheme,
        statistic=statistic,
    )


def statistic_of(settings: ProductSettings | None) -> Statistic:
    """Name what is compared with the threshold of a product."""
    return "decision_score" if settings is not None and settings.rules else "image_score"


def digest_of_contents(digests: Iterable[str]) -> str:
    """Name a set of files: SHA-256 over their sorted SHA-256, one a line."""
    lines = "".join(f"{digest}\n" for digest in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def require_not_in_bank(bundle: Bundle, product: str, files: Iterable[Path]) -> None:
    """Refuse images that a product's bank was learned from: they match themselves.

    Raises:
        CalibrationError: One is; the error names them.
    """
    name = bundle.product_name(product)
    reference = None if name is None else bundle.manifest.products[name].reference
    if reference is None:
        return
    known = {photo.sha256 for photo in reference.photos}
    inside = []
    for path in files:
        with suppress(OSError):  # one that cannot be read is reported when it is scored
            if sha256_of_file(path) in known:
                inside.append(path)
    if inside:
        raise CalibrationError(
            f"{len(inside)} of the images are in the reference bank of {product!r}, and match"
            f" themselves there: {named(inside)}",
            "leave them out: `zeroflaw products learn` has set a threshold with them already",
        )


def named(paths: Sequence[Path], most: int = 5) -> str:
    """Name the first few files."""
    return ", ".join(str(path) for path in paths[:most]) + (", ..." if len(paths) > most else "")


def score_good_images(
    files: Iterable[Path],
    score: Callable[[Frame], float],
    *,
    white_level: float | None = None,
    orientation: Orientation = "as_stored",
    progress: Progress | None = None,
) -> GoodScores:
    """Score image files, each content once.

    Args:
        files: Images of good parts.
        score: The image score of a frame, in [0, 1].
        white_level: The value that is white, against what the files say.
        orientation: Whether pixels are turned as orientation tags say.
        progress: Called after each file, with the error of one that could not be read.

    Raises:
        CalibrationError: No file could be read and judged.
    """
    scores: dict[str, float] = {}
    copies: list[Path] = []
    failed: list[Path] = []
    warnings: list[str] = []
    for path in files:
        error: FrameError | ImageFileError | None = None
        try:
            file = read_image_file(path, white_level=white_level, orientation=orientation)
            warnings += file.warnings
            frame = file_frame(file)
            digest = sha256_of_file(path)
            if digest in scores:
                copies.append(path)
            else:
                scores[digest] = score(frame)
        except (FrameError, ImageFileError) as caught:
            error = caught
            failed.append(path)
        if progress:
            progress(path, error)
    if not scores:
        raise CalibrationError(
            f"none of {len(failed)} files could be judged" if failed else "there is no image",
            "give images of good parts, 100 or more",
        )
    return GoodScores(
        scores=np.array(list(scores.values()), np.float64),
        digest=digest_of_contents(scores),
        copies=tuple(copies),
        failed=tuple(failed),
        warnings=tuple(warnings),
    )


@contextmanager
def image_scorer(
    bundle: Bundle,
    embeddings: TextEmbeddings,
    *,
    image_scoring: ImageScoring,
    bank: ReferenceBank | None = None,
    backend: str = DEFAULT_BACKEND,
    precision: str | None = None,
    threads: int = 0,
    device: int = 0,
) -> Iterator[ImageScorer]:
    """Give what computes image scores: those of `Inspector.inspect`; SAM has no part in them.

    Args:
        embeddings: float32 [2, embedding_size] of the product.
        bank: Its reference bank, if it has learned one.
        precision: What the engines compute in; default: that of the backend.
        threads: CPU threads; 0 takes every core.
        device: Number of the GPU, as CUDA counts; CPU backends take 0 alone.

    Raises:
        EngineError: An engine cannot be loaded.
    """
    parameters = bundle.manifest.method_parameters.replace(image_scoring=image_scoring)
    with photo_scorer(
        bundle,
        embeddings,
        parameters,
        with_bank=bank is not None,
        backend=backend,
        precision=precision,
        threads=threads,
        device=device,
    ) as scorer:
        loaded = None if bank is None else scorer.load(bank)

        def score(frame: Frame) -> float:
            require_sight(frame, parameters)
            return scorer.score(scorer.encode(frame), loaded).score

        yield ImageScorer(score, scorer.backend, scorer.precision, parameters)


@contextmanager
def decision_scorer(
    bundle: Bundle,
    product: str,
    *,
    image_scoring: ImageScoring,
    bank: ReferenceBank | None = None,
    backend: str = DEFAULT_BACKEND,
    precision: str | None = None,
    threads: int = 0,
    device: int = 0,
) -> Iterator[ImageScorer]:
    """Give what computes decision scores of a product with settings: those of inspections.

    Args:
        bank: Its reference bank, if it has learned one.
        precision: What the engines compute in; default: that of the backend.
        threads: CPU threads; 0 takes every core.
        device: Number of the GPU, as CUDA counts; CPU backends take 0 alone.

    Raises:
        EngineError: An engine cannot be loaded.
    """
    parameters = bundle.manifest.method_parameters.replace(image_scoring=image_scoring)
    with view_scorer(
        bundle,
        bundle.product_name(product) or product,
        parameters,
        with_bank=bank is not None,
        backend=backend,
        precision=precision,
        threads=threads,
        device=device,
    ) as scorer:
        loaded = None if bank is None else scorer.load(bank)

        def score(frame: Frame) -> float:
            return scorer.inspect(frame, loaded).decision_score

        yield ImageScorer(score, scorer.backend, scorer.precision, parameters)
