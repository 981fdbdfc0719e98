"""Learning a product from photos of good parts: its reference bank and its decision threshold."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from zeroflaw.pictures.images import Orientation
from zeroflaw.pipeline.geometry import FloatArray
from zeroflaw.station.conformal import ConformalThreshold, conformal_threshold
from zeroflaw.station.reference.plan import CalibrationChoice, LearningPlan, plan_learning
from zeroflaw.station.reference.judgement import near_copies, require_usual
from zeroflaw.station.reference.scorer import PhotoEncoding, PhotoScorer, photo_scorer
from zeroflaw.station.products import embeddings_by_name
from zeroflaw.station.reference.photos import (
    Arrays,
    Photo,
    PhotoReader,
    PhotoStore,
    Progress,
    disk_errors,
    learning_directory,
    require_disk_space,
    survey_photos,
)
from zeroflaw.station.thinning import bank_of_photos, thinned
from zeroflaw_engines import arguments
from zeroflaw_engines.backends import DEFAULT_BACKEND
from zeroflaw_engines.bundle.bundle import Bundle, open_bundle, require_same_models
from zeroflaw_engines.bundle.manifest import (
    Augmentation,
    Calibration,
    Product,
    Reference,
    ReferencePhoto,
    parameters_record,
)
from zeroflaw_engines.bundle.product_names import normal_name
from zeroflaw_engines.bundle.prompt_bank import TextEmbeddings
from zeroflaw_engines.bundle.reference_bank import (
    ReferenceBank,
    digest_of_bank,
    encode_reference_bank,
)
from zeroflaw_engines.bundle.shipped import require_changeable
from zeroflaw_engines.bundle.reference_writer import set_reference
from zeroflaw_engines.bundle.writer import add_products
from zeroflaw_engines.contract import ReferenceSizes
from zeroflaw_engines.errors import CalibrationError, ReferenceBankError
from zeroflaw_engines.image_files.frame import Frame

ADVISED_PHOTOS: Final = 8
# Photos are thinned to more rows than they need, so that they serve a bank of fewer photos too.
_SPARE: Final = 2
# Patches of a photo that tell which other photo it is nearest to.
_PATCHES_COMPARED: Final = 64


@dataclass(frozen=True, eq=False)
class LearnedProduct:
    """What became of one learning.

    Attributes:
        bundle: The bundle as it is now.
        product: The product's name in it.
        reference: Where the bank comes from, as the manifest has it.
        digest: SHA-256 of the bank's file.
        bank_bytes: Its tokens.
        fit: The threshold, and what is known of it.
        photos: Files that were learned from; the first `bank_photos` are in the bank.
        bank_photos: Number of photos in the bank.
        copies: Files whose content had been seen before; they do not count.
        failed: Files that could not be read, or show nothing; they do not count.
        warnings: What is to be known of photos and threshold.
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


@dataclass(frozen=True)
class _Judged:
    """Photos that were scored without their own rows, in one order.

    Attributes:
        photos: All of the bank, if it has several; then those that only calibrate.
        scores: Their image scores.
        highest: The highest values of their reference maps.
        nearest: The photos in the bank that they are nearest to.
    """

    photos: tuple[Photo, ...]
    scores: NDArray[np.float64]
    highest: NDArray[np.float64]
    nearest: tuple[Path, ...]


def learn_product(
    bundle: Bundle,
    product: str,
    files: Iterable[Path],
    *,
    false_reject_rate: float = 0.01,
    calibration: CalibrationChoice = "auto",
    augmentations: Sequence[Augmentation] = (),
    bank_bytes: int | None = None,
    shots: int | None = None,
    seed: int = 0,
    keep_unusual: bool = False,
    backend: str = DEFAULT_BACKEND,
    precision: str | None = None,
    threads: int = 0,
    white_level: float | None = None,
    orientation: Orientation = "as_stored",
    progress: Progress | None = None,
) -> LearnedProduct:
    """Learn a product from photos of good parts, and store bank and threshold in the bundle.

    A product that the bundle lacks is added with its text engine. What is computed is kept in the
    bundle until the learning succeeds, so that one that was interrupted goes on where it ended;
    the product itself changes in one step at the end.

    Args:
        product: The name of the product; it goes into sentences verbatim if it is new.
        files: Photos of good parts, as the line will see them: same station, light and camera.
        false_reject_rate: Share of good parts that may be rejected, inside (0, 1).
        calibration: `split` keeps photos out of the bank to calibrate with, `leave_one_out`
            scores each without its own rows; `auto` splits if there are enough photos.
        augmentations: Other views of each photo that join its rows.
        bank_bytes: Budget of the bank; default and most: what the bundle takes.
        shots: Photos in the bank, drawn by the seed; without a split no others are used.
        seed: Of the draw of photos.
        keep_unusual: Whether photos that look unlike the others are learned all the same.
        backend: What runs the CLIP encoder and the reference matcher.
        precision: What they compute in; default: that of the backend.
        threads: CPU threads; 0 takes every core.
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
    rows = _rows(bundle.manifest.sizes.reference, bank_bytes)
    for view in augmentations:
        arguments.choice("augmentations", view, get_args(Augmentation))
    views = tuple(dict.fromkeys(augmentations))
    reader = PhotoReader(white_level, orientation)
    name = bundle.product_name(product) or normal_name(product)
    parameters = bundle.manifest.method_parameters
    with learning_directory(bundle, name) as directory:
        current = open_bundle(bundle.path, verify_digests=False)
        require_same_models(bundle, current)
        embeddings, entry = _embeddings(current, name)
        before = None if entry else current.reference_digest(name)
        survey = survey_photos(files, reader, parameters, progress)
        plan = plan_learning(
            survey.photos,
            false_reject_rate,
            calibration,
            rows=rows,
            shots=shots,
            seed=seed,
            failed=len(survey.failed),
        )
        with photo_scorer(
            current,
            embeddings,
            parameters,
            with_bank=True,
            backend=backend,
            precision=precision,
            threads=threads,
        ) as scorer:
            settings = _digest(
                current.tower, scorer.backend, scorer.precision, parameters.digest,
                embeddings.tobytes(), views, white_level, orientation,
            )  # fmt: skip
            store = PhotoStore(directory, current.path, settings)
            _require_space(current, plan, store)
            learner = _Learner(scorer, reader, store, plan, views, progress)
            bank = learner.bank(current.tower)
            judged = learner.judge(bank)
        if not keep_unusual:
            require_usual([photo.path for photo in judged.photos], judged.scores)
        calibrating = slice(-len(plan.calibrating), None)
        fit = conformal_threshold(judged.scores[calibrating], false_reject_rate, plan.scheme)
        created = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
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
            created=created,
            augmentations=views,
        )
        digest = digest_of_bank(encode_reference_bank(bank))
        record = Calibration(
            false_reject_rate=fit.false_reject_rate,
            images=fit.images,
            rank=fit.rank,
            interval=fit.interval,
            observed_rate=fit.observed_rate,
            image_scoring=parameters.image_scoring,
            data_digest=_digest_of_photos(plan.calibrating),
            created=created,
            backend=scorer.backend,
            precision=scorer.precision,
            parameters=parameters_record(parameters),
            parameters_digest=parameters.digest,
            scheme=plan.scheme,
            reference=digest,
        )
        with disk_errors(current.path):
            if entry is not None:
                current = add_products(current, {name: embeddings}, {name: entry})
            changed = set_reference(
                current, name, bank, reference, fit.threshold, record,
                embeddings=embeddings, before=before,
            )  # fmt: skip
    paths = [photo.path for photo in judged.photos]
    return LearnedProduct(
        bundle=changed,
        product=name,
        reference=changed.manifest.products[name].reference or reference,
        digest=digest,
        bank_bytes=bank.tokens.nbytes,
        fit=fit,
        photos=tuple(dict.fromkeys(p.path for p in (*plan.bank, *plan.calibrating))),
        bank_photos=len(plan.bank),
        copies=survey.copies,
        failed=survey.failed,
        warnings=(
            *survey.warnings,
            *_few(fit.images, len(plan.bank)),
            *near_copies(paths, judged.highest, judged.nearest),
            *fit.warnings,
        ),
    )


@dataclass(frozen=True)
class _Learner:
    """One learning under way: what its steps share."""

    scorer: PhotoScorer
    reader: PhotoReader
    store: PhotoStore
    plan: LearningPlan
    views: tuple[Augmentation, ...]
    progress: Progress | None

    def bank(self, tower: str) -> ReferenceBank:
        """Encode the photos of the bank, and thin each alone."""
        rows = self.plan.rows_of_a_photo
        parts = []
        for photo in self.plan.bank:
            stored = self._stored(photo) or self._encoded(photo)
            parts.append(stored["thinned"][:, :rows])
            self._done(photo)
        return bank_of_photos(parts, tower)

    def judge(self, bank: ReferenceBank) -> _Judged:
        """Score every photo without its own rows: those of the bank, then the others."""
        found: list[tuple[Photo, float, float, int]] = []
        for number, photo in enumerate(self.plan.bank if len(self.plan.bank) > 1 else ()):
            stored = self._stored(photo) or self._encoded(photo)
            seen = PhotoEncoding(float(stored["zero_shot"][0]), stored["tokens"])
            others = bank.without_photo(number)
            found.append((photo, *self.scorer.score(seen, self.scorer.load(others)),
                          nearest_photo(stored["tokens"], others)))  # fmt: skip
        others = [photo for photo in self.plan.calibrating if photo not in set(self.plan.bank)]
        digest = digest_of_bank(encode_reference_bank(bank))
        whole = self.scorer.load(bank) if others else None
        scored = PhotoStore(
            self.store.directory, self.store.bundle, _digest(self.store.settings, digest)
        )
        for photo in others:
            stored = scored.read(photo)
            if stored is None or "judged" not in stored:
                seen = self.scorer.encode(self.reader.frame(photo))
                near = -1 if seen.tokens is None else nearest_photo(seen.tokens, bank)
                stored = {"judged": np.array([*self.scorer.score(seen, whole), near], np.float64)}
                scored.write(photo, stored)
            score, highest, near = stored["judged"].tolist()
            found.append((photo, score, highest, int(near)))
            self._done(photo)
        return _Judged(
            tuple(photo for photo, *_ in found),
            np.array([score for _, score, _, _ in found]),
            np.array([highest for *_, highest, _ in found]),
            tuple(self.plan.bank[near].path for *_, near in found),
        )

    def _stored(self, photo: Photo) -> Arrays | None:
        """Return what an earlier learning computed of a photo, if it serves this one."""
        stored = self.store.read(photo)
        if stored is None or stored.keys() != {"tokens", "thinned", "zero_shot"}:
            return None
        every = stored["tokens"].shape[1] * (1 + len(self.views))
        enough = min(self.plan.rows_of_a_photo, every)
        return stored if stored["thinned"].shape[1] >= enough else None

    def _encoded(self, photo: Photo) -> Arrays:
        """Encode a photo and its other views, and keep what comes of it."""
        frame = self.reader.frame(photo)
        seen = self.scorer.encode(frame)
        others = [self.scorer.encode(view_of(frame, view)).tokens for view in self.views]
        tokens = [one for one in (seen.tokens, *others) if one is not None]
        computed: Arrays = {
            "tokens": tokens[0],
            "thinned": thinned(np.concatenate(tokens, axis=1), _SPARE * self.plan.rows_of_a_photo),
            "zero_shot": np.array([seen.zero_shot]),
        }
        self.store.write(photo, computed)
        return computed

    def _done(self, photo: Photo) -> None:
        if self.progress:
            self.progress(photo.path, None)


def view_of(frame: Frame, view: Augmentation) -> Frame:
    """Turn or mirror a frame; angles are counter-clockwise.

    Args:
        frame: uint8 [H, W, 3].
    """
    turned = {
        "rotate_90": partial(np.rot90, k=1),
        "rotate_180": partial(np.rot90, k=2),
        "rotate_270": partial(np.rot90, k=3),
        "flip_horizontal": np.fliplr,
        "flip_vertical": np.flipud,
    }[view]
    return np.ascontiguousarray(turned(frame))


def nearest_photo(tokens: FloatArray, bank: ReferenceBank) -> int:
    """Return the number of the photo in a bank that most patches of a photo are like.

    Args:
        tokens: float32 [blocks, N, width], L2-normalised.
    """
    some = tokens[0, :: max(1, tokens.shape[1] // _PATCHES_COMPARED)]
    cosines = some @ bank.tokens[0].astype(np.float32).T
    starts = np.flatnonzero(np.diff(bank.photos, prepend=-1))
    likeness = np.maximum.reduceat(cosines, starts, axis=1).mean(axis=0)
    return int(bank.photos[starts[likeness.argmax()]])


def _rows(sizes: ReferenceSizes | None, bank_bytes: int | None) -> int:
    """Return the rows that a bank may have for each block."""
    if sizes is None:
        raise ReferenceBankError(
            "this bundle cannot learn products: it has no reference_matcher",
            "export the bundle again with this version of zeroflaw",
        )
    if bank_bytes is None:
        return sizes.rows
    arguments.whole_number("bank_bytes", bank_bytes, minimum=1)
    row = sizes.bank_bytes // sizes.rows
    if not row <= bank_bytes <= sizes.bank_bytes:
        raise ReferenceBankError(
            f"a bank of {bank_bytes} bytes was asked for; this bundle takes banks of {row} to"
            f" {sizes.bank_bytes} bytes",
            "choose another budget, or leave it out for the largest bank",
        )
    return bank_bytes // row


def _embeddings(bundle: Bundle, name: str) -> tuple[TextEmbeddings, Product | None]:
    """Return a product's text embeddings, and its entry if the bundle lacks it."""
    if name in bundle.manifest.products:
        return bundle.text_embeddings(name), None
    embeddings, entry = embeddings_by_name(bundle, [name])
    return embeddings[name], entry


def _require_space(bundle: Bundle, plan: LearningPlan, store: PhotoStore) -> None:
    sizes = bundle.manifest.sizes.reference
    if sizes is None:
        return
    thin = 2 * sizes.blocks * sizes.width * _SPARE * plan.rows_of_a_photo
    photo = 4 * sizes.blocks * sizes.tokens * sizes.width + thin
    missing = sum(not store.has(photo) for photo in plan.bank)
    require_disk_space(bundle.path, missing * photo + 2 * sizes.bank_bytes)


def _few(images: int, photos: int) -> tuple[str, ...]:
    if photos >= ADVISED_PHOTOS:
        return ()
    return (
        f"{photos} photos in the bank are few: {ADVISED_PHOTOS} or more show better what is usual."
        f" With {images} to calibrate, no false-reject rate below {1 / (images + 1):.2g} can be"
        " claimed",
    )


def _digest_of_photos(photos: Iterable[Photo]) -> str:
    lines = "".join(f"{digest}\n" for digest in sorted(photo.sha256 for photo in photos))
    return hashlib.sha256(lines.encode()).hexdigest()


def _digest(*values: Any) -> str:  # noqa: ANN401 - what msgspec encodes
    return hashlib.sha256(msgspec.json.encode(values)).hexdigest()


def _text(name: str) -> str:
    """Return a file's name as text that UTF-8 can encode."""
    return name.encode("utf-8", "backslashreplace").decode()
