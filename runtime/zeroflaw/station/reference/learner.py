"""Encoding and scoring the photos of one learning, each once, whatever interrupted it before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.geometry import FloatArray
from zeroflaw.station.reference.photos import (
    Arrays,
    Photo,
    PhotoReader,
    PhotoStore,
    Progress,
    require_disk_space,
)
from zeroflaw.station.reference.plan import LearningPlan
from zeroflaw.station.reference.scorer import PhotoEncoding, PhotoScore, PhotoScorer
from zeroflaw.station.thinning import bank_of_photos, thinned
from zeroflaw_engines.bundle.manifest import Augmentation
from zeroflaw_engines.bundle.reference_bank import (
    ReferenceBank,
    digest_of_bank,
    encode_reference_bank,
)
from zeroflaw_engines.contract import ReferenceSizes

_Pixels = TypeVar("_Pixels", bound=NDArray[Any])

# Photos are thinned to more rows than they need, so that they serve a bank of fewer photos too.
SPARE: Final = 2
# Rows of each photo that tell which one another photo is nearest to.
ROWS_COMPARED: Final = 16


@dataclass(frozen=True)
class JudgedPhotos:
    """Photos that were scored without their own rows, in one order.

    Attributes:
        photos: All of the bank, if it has several; then those that only calibrate.
        scores: What is compared with the threshold: their image scores, or what rules make of them.
        image_scores: Their image scores; rules may say 0 of all but a few good photos.
        highest: The highest values of their reference maps.
        mean: The means of these.
        nearest: The photos in the bank that they are nearest to.
        apart: How far they are from these; see `nearest_photo`.
    """

    photos: tuple[Photo, ...]
    scores: NDArray[np.float64]
    image_scores: NDArray[np.float64]
    highest: NDArray[np.float64]
    mean: NDArray[np.float64]
    nearest: tuple[Path, ...]
    apart: NDArray[np.float64]


@dataclass(frozen=True)
class PhotoLearner:
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

    def judge(self, bank: ReferenceBank) -> JudgedPhotos:
        """Score every photo without its own rows: those of the bank, then the others."""
        found: list[tuple[Photo, PhotoScore, int, float]] = []
        # A photo that is alone in the bank has nothing to be scored against.
        for number, photo in enumerate(self.plan.bank if len(self.plan.bank) > 1 else ()):
            stored = self._stored(photo) or self._encoded(photo)
            seen = PhotoEncoding(float(stored["zero_shot"][0]), stored["tokens"])
            others = bank.without_photo(number)
            score = self.scorer.score(seen, self.scorer.load(others))
            found.append((photo, score, *nearest_photo(stored["tokens"], others)))
        if self.plan.scheme == "split":
            found += self._judge_others(bank)
        photos, scores, nearest, apart = zip(*found, strict=True)
        image_scores = np.array([score.score for score in scores])
        return JudgedPhotos(
            photos=photos,
            scores=image_scores,
            image_scores=image_scores,
            highest=np.array([score.highest for score in scores]),
            mean=np.array([score.mean for score in scores]),
            nearest=tuple(self.plan.bank[number].path for number in nearest),
            apart=np.array(apart),
        )

    def _judge_others(self, bank: ReferenceBank) -> Iterator[tuple[Photo, PhotoScore, int, float]]:
        """Score the photos that calibrate against the whole bank, and keep the scores."""
        loaded = self.scorer.load(bank)
        settings = digest_of(self.store.settings, digest_of_bank(encode_reference_bank(bank)))
        kept = PhotoStore(self.store.directory, self.store.bundle, settings)
        for photo in self.plan.calibrating:
            stored = kept.read(photo)
            if stored is None:
                seen = self.scorer.encode(self.reader.frame(photo))
                near = (0, 1.0) if seen.tokens is None else nearest_photo(seen.tokens, bank)
                values = [*self.scorer.score(seen, loaded), *near]
                stored = {"judged": np.array(values, np.float64)}
                kept.write(photo, stored)
            *score, number, apart = stored["judged"].tolist()
            self._done(photo)
            yield photo, PhotoScore(*score), int(number), apart

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
            "thinned": thinned(np.concatenate(tokens, axis=1), SPARE * self.plan.rows_of_a_photo),
            "zero_shot": np.array([seen.zero_shot]),
        }
        self.store.write(photo, computed)
        return computed

    def _done(self, photo: Photo) -> None:
        if self.progress:
            self.progress(photo.path, None)


def view_of(frame: _Pixels, view: Augmentation) -> _Pixels:
    """Turn or mirror a frame; angles are counter-clockwise.

    Args:
        frame: uint8 [H, W, 3], or a mask of one, bool [H, W].
    """
    if view == "flip_horizontal":
        turned: NDArray[Any] = frame[:, ::-1]
    elif view == "flip_vertical":
        turned = frame[::-1]
    else:
        turned = np.rot90(frame, {"rotate_90": 1, "rotate_180": 2, "rotate_270": 3}[view])
    return np.ascontiguousarray(turned)  # type: ignore[return-value]


def nearest_photo(tokens: FloatArray, bank: ReferenceBank) -> tuple[int, float]:
    """Find the photo in a bank that a photo is nearest to.

    Rows of the bank are looked for among all tokens of the photo, not the other way round: of a
    copy each is there, whatever thinning took away.

    Args:
        tokens: float32 [blocks, N, width], L2-normalised.

    Returns:
        Its number, and the mean distance of its rows from the photo, in [0, 2].
    """
    starts = np.flatnonzero(np.diff(bank.photos, prepend=-1))
    each = min(ROWS_COMPARED, int(np.diff([*starts, bank.rows]).min()))
    rows = (starts[:, None] + np.arange(each)).ravel()
    highest = (bank.tokens[0, rows].astype(np.float32) @ tokens[0].T).max(axis=1)
    apart = 1 - highest.reshape(-1, each).mean(axis=1)
    nearest = int(apart.argmin())
    return int(bank.photos[starts[nearest]]), float(apart[nearest])


def require_space(sizes: ReferenceSizes, plan: LearningPlan, store: PhotoStore) -> None:
    """Refuse to begin a learning that the disk of the bundle has no room for.

    Raises:
        BundleError: There is not enough.
    """
    thin = 2 * sizes.blocks * sizes.width * SPARE * plan.rows_of_a_photo
    whole = 4 * sizes.blocks * sizes.tokens * sizes.width
    missing = sum(not store.has(photo) for photo in plan.bank)
    require_disk_space(store.bundle, missing * (whole + thin) + 2 * sizes.bank_bytes)


def digest_of(*values: Any) -> str:  # noqa: ANN401 - what msgspec encodes
    """Return the SHA-256 of values as JSON."""
    return hashlib.sha256(msgspec.json.encode(values)).hexdigest()
