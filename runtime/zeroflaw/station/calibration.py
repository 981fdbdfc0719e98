"""Calibration: a product's decision threshold from good images alone.

Split conformal prediction: if a new good part is exchangeable with the n good images, its score
is equally likely to take any of the n + 1 ranks among theirs. A threshold just above their k-th
smallest score therefore rejects it with a probability of at most 1 - k / (n + 1), whatever the
scores' distribution is, and the true rate at that threshold follows Beta(n - k + 1, k).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zeroflaw.pictures.images import Orientation, file_frame, read_image_file
from zeroflaw.pipeline.encoding import encode_clip
from zeroflaw.pipeline.scoring import image_score
from zeroflaw.records.decision import blind_reason
from zeroflaw.records.threshold import NEAR_ONE, is_near_one
from zeroflaw_engines.backends import DEFAULT_BACKEND, choose_backend, load_session
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.manifest import Calibration, parameters_record
from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.bundle.shipped import require_changeable
from zeroflaw_engines.bundle.writer import set_calibration
from zeroflaw_engines.contract import CLIP_ENCODER
from zeroflaw_engines.errors import (
    CalibrationError,
    FrameError,
    ImageFileError,
    MissingExtraError,
)
from zeroflaw_engines.files import sha256_of_file
from zeroflaw_engines.image_files.frame import Frame
from zeroflaw_engines.parameters import MethodParameters

CONFIDENCE: Final = 0.95

ImageScoring = Literal["cls", "map_max"]
Progress = Callable[[Path, FrameError | ImageFileError | None], None]


@dataclass(frozen=True)
class ConformalThreshold:
    """A threshold, and what is known of the false-reject rate at it.

    Attributes:
        threshold: Scores at and above it are rejected; in (0, 1].
        false_reject_rate: The rate that was aimed at.
        images: n, the number of good images.
        rank: k; the threshold lies just above their k-th smallest score.
        interval: 95 % interval of the true rate. Where scores tie at the threshold, the true
            rate may lie below it, never above.
        observed_rate: Share of the images themselves that the threshold rejects.
        warnings: What the user must know, such as that the images are too few.
    """

    threshold: float
    false_reject_rate: float
    images: int
    rank: int
    interval: tuple[float, float]
    observed_rate: float
    warnings: tuple[str, ...]

    @property
    def expected_rate(self) -> float:
        """Upper bound of the rate that is expected over all draws of the good images."""
        return 1 - self.rank / (self.images + 1)


@dataclass(frozen=True, eq=False)
class GoodScores:
    """Image scores of good images, each content once.

    Attributes:
        scores: float64 [n], in the order of the files.
        digest: SHA-256 over the sorted SHA-256 of the n files, one a line.
        copies: Files whose content had been seen before; they do not count.
        failed: Files that could not be read; they do not count.
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
    """

    bundle: Bundle
    fit: ConformalThreshold
    good: GoodScores


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
    white_level: float | None = None,
    orientation: Orientation = "as_stored",
    progress: Progress | None = None,
) -> ProductCalibration:
    """Set a product's decision threshold from images of good parts, and store it in the bundle.

    Args:
        product: A product that it has.
        files: Images of good parts, as the line will see them: same station, light and camera.
        false_reject_rate: Share of good parts that may be rejected, inside (0, 1).
        image_scoring: The image score to calibrate; default: the bundle's.
        backend: What runs the CLIP encoder, the only engine that is needed.
        precision: What it computes in; default: that of the backend.
        threads: CPU threads; 0 takes every core.
        white_level: The value that is white, against what the files say.
        orientation: Whether pixels are turned as orientation tags say.
        progress: Called after each file, with the error of one that could not be read.

    Raises:
        CalibrationError: The rate is out of its range, no image can be read, or the scores
            leave no room for a threshold.
        ProductError: The bundle does not know the product.
        MissingExtraError: SciPy is not installed.
        BundleError: The bundle cannot be changed, or was replaced by another meanwhile.
        EngineError: The CLIP encoder failed.
    """
    # What can be refused is refused before hours of scoring.
    require_changeable(bundle.path)
    _require_rate(false_reject_rate)
    _quantile_of_beta()
    embeddings = bundle.text_embeddings(product)
    scoring = image_scoring or bundle.manifest.method_parameters.image_scoring
    with image_scorer(
        bundle,
        embeddings,
        image_scoring=scoring,
        backend=backend,
        precision=precision,
        threads=threads,
    ) as score:
        good = score_good_images(
            files, score, white_level=white_level, orientation=orientation, progress=progress
        )
    fit = conformal_threshold(good.scores, false_reject_rate)
    calibration = Calibration(
        false_reject_rate=fit.false_reject_rate,
        images=fit.images,
        rank=fit.rank,
        interval=fit.interval,
        observed_rate=fit.observed_rate,
        image_scoring=scoring,
        data_digest=good.digest,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        backend=score.backend,
        precision=score.precision,
        parameters=parameters_record(score.parameters),
        parameters_digest=score.parameters.digest,
    )
    changed = set_calibration(bundle, product, fit.threshold, calibration, embeddings=embeddings)
    return ProductCalibration(changed, fit, good)


def conformal_threshold(scores: ArrayLike, false_reject_rate: float) -> ConformalThreshold:
    """Return the threshold that rejects at most the given share of good parts, in expectation.

    k = ceil((n + 1) (1 - a)), and the threshold is the next number above the k-th smallest
    score. Where k > n there is no such score: the largest is taken, and a warning says how many
    images it takes and what can be claimed.

    Args:
        scores: [n], image scores of good parts in [0, 1].
        false_reject_rate: a, inside (0, 1).

    Raises:
        CalibrationError: There is no score, one is not in [0, 1], the rate is out of its range,
            or the k-th smallest score is 1, above which no threshold is.
        MissingExtraError: SciPy is not installed.
    """
    _require_rate(false_reject_rate)
    ordered = np.sort(np.asarray(scores, np.float64))
    n = ordered.size
    if n == 0:
        raise CalibrationError(
            "there is no score to calibrate with", "give images of good parts, 100 or more"
        )
    # Sorting puts NaN last, and NaN compares as False.
    if not (ordered[0] >= 0 and ordered[-1] <= 1):
        raise CalibrationError(
            f"the scores reach from {ordered[0]} to {ordered[-1]}, outside [0, 1]",
            "check the bundle with `zeroflaw bundle verify`",
        )
    # A Fraction of the decimal text: (n + 1)(1 - a) must not be rounded across a whole number.
    rate = Fraction(str(false_reject_rate))
    wanted = math.ceil((n + 1) * (1 - rate))
    rank = min(wanted, n)
    highest_accepted = ordered[rank - 1]
    if highest_accepted >= 1:
        raise CalibrationError(
            f"{int((ordered >= 1).sum())} of {n} good images have the highest score there is, 1:"
            " a threshold that accepts them would accept every part",
            "check that the images show good parts of this product; if they do, this model does"
            " not know it well enough: choose another product name or --image-scoring",
        )
    warnings = []
    if wanted > n:
        warnings.append(
            f"{n} good images are too few for a false-reject rate of {false_reject_rate:.4g}: it"
            f" takes {math.ceil(1 / rate - 1)}. The threshold lies just above the highest score;"
            f" with {n} images, no rate below {1 / (n + 1):.2g} can be claimed"
        )
    accepted = int((ordered <= highest_accepted).sum())
    if accepted > rank:
        warnings.append(
            f"{int((ordered == highest_accepted).sum())} good images share the score at the"
            " threshold: the true false-reject rate may lie below the interval"
        )
    threshold = float(np.nextafter(highest_accepted, np.inf))
    if is_near_one(threshold):
        warnings.append(
            f"the threshold {threshold:.9g} is within {NEAR_ONE:g} of 1, the highest score there"
            " is: nearly every part will be accepted. This model hardly tells these good parts"
            " from defects: try another product name or --image-scoring, and check with defects"
        )
    tail = (1 - CONFIDENCE) / 2
    quantile = _quantile_of_beta()
    low, high = (quantile(n - rank + 1, rank, p) for p in (tail, 1 - tail))
    return ConformalThreshold(
        threshold=threshold,
        false_reject_rate=false_reject_rate,
        images=n,
        rank=rank,
        interval=(low, high),
        observed_rate=(n - accepted) / n,
        warnings=tuple(warnings),
    )


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
        CalibrationError: No file could be read.
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
            f"none of {len(failed)} files could be read" if failed else "there is no image",
            "give images of good parts, 100 or more",
        )
    lines = "".join(f"{digest}\n" for digest in sorted(scores))
    return GoodScores(
        scores=np.array(list(scores.values()), np.float64),
        digest=hashlib.sha256(lines.encode()).hexdigest(),
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
    backend: str = DEFAULT_BACKEND,
    precision: str | None = None,
    threads: int = 0,
) -> Iterator[ImageScorer]:
    """Give what computes image scores, with the CLIP encoder alone.

    The scores are those of `Inspector.inspect`; SAM has no part in them.

    Args:
        embeddings: float32 [2, embedding_size] of the product.
        precision: What it computes in; default: that of the backend.
        threads: CPU threads; 0 takes every core.

    Raises:
        EngineError: The engine cannot be loaded.
    """
    parameters = bundle.manifest.method_parameters.replace(image_scoring=image_scoring)
    size = bundle.manifest.sizes.clip_image_size
    choice = choose_backend(backend, precision, bundle=bundle, engines=(CLIP_ENCODER,))
    session = load_session(
        bundle, CLIP_ENCODER, backend=choice.backend, precision=precision, threads=threads
    )

    def score(frame: Frame) -> float:
        seen = encode_clip(frame, size, embeddings, session)
        blind = blind_reason(seen.information, parameters)
        if blind is not None:
            raise FrameError(f"it shows nothing that could be judged: {blind.text}", "leave it out")
        return image_score(seen.cls_score, seen.anomaly_map, parameters)

    try:
        yield ImageScorer(score, session.backend, choice.precision, parameters)
    finally:
        session.close()


def _require_rate(rate: float) -> None:
    if not 0 < rate < 1:
        raise CalibrationError(
            f"the false-reject rate {rate} is not inside (0, 1)", "give a share, as 0.01 for 1 %"
        )


def _quantile_of_beta() -> Callable[[float, float, float], float]:
    """Return the quantile function of the Beta distribution: of a, b and a probability."""
    try:
        # Not scipy.stats.beta.ppf, which is the same and takes far longer to import.
        from scipy.special import betaincinv
    except ImportError as error:
        raise MissingExtraError(
            "calibration needs SciPy, which is not installed", "install zeroflaw[evaluate]"
        ) from error
    return lambda a, b, probability: float(betaincinv(a, b, probability))
