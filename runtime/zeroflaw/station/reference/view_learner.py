"""Learning a product that has settings: banks of what its view shows CLIP, and whole inspections.

The patches of every tile that counts are thinned, tile by tile and then together for one bank of
all tiles, each photo alone: the bank without a photo's rows is the one that the others would give.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.geometry import FloatArray
from zeroflaw.station.reference.learner import JudgedPhotos, digest_of, view_of
from zeroflaw.station.reference.photos import (
    Arrays,
    Photo,
    PhotoReader,
    PhotoStore,
    Progress,
    require_disk_space,
)
from zeroflaw.station.reference.plan import LearningPlan
from zeroflaw.station.reference.view_scorer import ViewScorer, banked_tiles
from zeroflaw.station.thinning import bank_of_photos, bank_of_tiles, thinned
from zeroflaw_engines.bundle.manifest import Augmentation
from zeroflaw_engines.bundle.reference_bank import (
    ReferenceBank,
    digest_of_bank,
    encode_reference_bank,
)
from zeroflaw_engines.contract import ReferenceSizes
from zeroflaw_engines.image_files.frame import Frame

# Photos are thinned to more rows than they need, so that they serve a bank of fewer photos too.
_SPARE: Final = 2
# Rows of each photo that tell which one another photo is nearest to.
_ROWS_COMPARED: Final = 16


@dataclass(frozen=True)
class ViewLearner:
    """One learning under way of a product that has settings: what its steps share.

    Attributes:
        tiles: Numbers of the tiles that get a bank each; none: one bank for all.
    """

    scorer: ViewScorer
    reader: PhotoReader
    store: PhotoStore
    plan: LearningPlan
    views: tuple[Augmentation, ...]
    tiles: tuple[int, ...]
    sizes: ReferenceSizes
    progress: Progress | None

    def require_space(self) -> None:
        """Refuse to begin a learning that the disk of the bundle has no room for.

        Raises:
            BundleError: There is not enough.
        """
        sizes = self.sizes
        rows = max(1, len(self.tiles)) * _SPARE * self.plan.rows_of_a_photo
        a_photo = 2 * sizes.blocks * sizes.width * rows + 4 * sizes.tokens * sizes.width
        missing = sum(not self.store.has(photo) for photo in self.plan.bank)
        require_disk_space(self.store.bundle, missing * a_photo + 2 * sizes.bank_bytes)

    def bank(self, tower: str) -> ReferenceBank:
        """Encode the photos of the bank, and thin each alone."""
        rows = self.plan.rows_of_a_photo
        parts = []
        for photo in self.plan.bank:
            parts.append(self._learned(photo)["thinned"][:, :, :rows])
            if self.progress:
                self.progress(photo.path, None)
        if not self.tiles:
            return bank_of_photos([part[0] for part in parts], tower)
        return bank_of_tiles(
            {
                number: bank_of_photos([part[i] for part in parts], tower)
                for i, number in enumerate(self.tiles)
            }
        )

    def judge(self, bank: ReferenceBank) -> JudgedPhotos:
        """Inspect every photo without its own rows: those of the bank, then the others.

        Photos that were judged already, by the same bank, are not judged again.
        """
        compared = [self._learned(photo)["compared"] for photo in self.plan.bank]
        beginnings = [self._learned(photo)["beginning"] for photo in self.plan.bank]
        found = list(self._judged(bank, compared, beginnings))
        photos, values, nearest = zip(*found, strict=True)
        score, highest, mean, apart = np.array(values, np.float64).T
        return JudgedPhotos(photos, score, highest, mean, nearest, apart)

    def _judged(
        self, bank: ReferenceBank, compared: list[FloatArray], beginnings: list[FloatArray]
    ) -> Iterator[tuple[Photo, list[float], Path]]:
        """Give of each photo: score, highest and mean distance, how far it is from the nearest."""
        photos = self.plan.bank
        # A photo that is alone in the bank has nothing to be scored against.
        for number, photo in enumerate(photos if len(photos) > 1 else ()):
            others = [i for i in range(len(photos)) if i != number]
            near, apart = _nearest(compared[number], [beginnings[i] for i in others])
            known = self._scored(photo, bank.without_photo(number))
            yield photo, [*known, apart], photos[others[near]].path
        if self.plan.scheme != "split":
            return
        for photo in self.plan.calibrating:
            known = self._scored(photo, bank)
            tokens, _ = self._compared(self.scorer.pictures(self.reader.frame(photo)))
            near, apart = _nearest(tokens, beginnings)
            if self.progress:
                self.progress(photo.path, None)
            yield photo, [*known, apart], photos[near].path

    def _scored(self, photo: Photo, bank: ReferenceBank) -> list[float]:
        """Inspect a photo with a bank, and keep what is found."""
        settings = digest_of(self.store.settings, digest_of_bank(encode_reference_bank(bank)))
        kept = PhotoStore(self.store.directory, self.store.bundle, settings)
        stored = kept.read(photo)
        if stored is None:
            judged = self.scorer.judge(self.reader.frame(photo), self.scorer.load(bank))
            values = [judged.score, judged.highest, judged.mean]
            stored = {"judged": np.array(values, np.float64)}
            kept.write(photo, stored)
        return [float(value) for value in stored["judged"]]

    def _learned(self, photo: Photo) -> Arrays:
        """Return what is computed of a photo of the bank, and keep it.

        `thinned` is float16 [tiles or 1, blocks, rows, width], of `every` [1] rows that there were;
        `compared` and `beginning` are from `_compared`.
        """
        stored = self.store.read(photo)
        if stored is not None and stored.keys() == {"thinned", "every", "compared", "beginning"}:
            enough = min(self.plan.rows_of_a_photo, int(stored["every"][0]))
            if stored["thinned"].shape[2] >= enough:
                return stored
        pictures = list(self.scorer.pictures(self.reader.frame(photo)))
        rows = _SPARE * self.plan.rows_of_a_photo
        # Of one bank for all, as many of each tile as leave twice the largest bank's rows: not by
        # the plan, so that a photo has the same rows whatever the photos beside it are.
        share = -(-_SPARE * self.sizes.rows // len(pictures))
        of_tiles = [
            thinned(self._tokens(picture), rows if self.tiles else share) for _, picture in pictures
        ]
        if not self.tiles:
            together = np.concatenate(of_tiles, axis=1).astype(np.float32)
            of_tiles = [thinned(together, rows)]
            every = together.shape[1]
        else:
            every = self.sizes.tokens * (1 + len(self.views))
        compared, beginning = self._compared(iter(pictures))
        computed: Arrays = {
            "thinned": np.stack(of_tiles),
            "every": np.array([every], np.int64),
            "compared": compared,
            "beginning": beginning,
        }
        self.store.write(photo, computed)
        return computed

    def _tokens(self, picture: Frame) -> FloatArray:
        """Return the patch tokens of a picture and its other views, float32 [blocks, N, width]."""
        seen = [picture, *(view_of(picture, view) for view in self.views)]
        return np.concatenate([self.scorer.tokens(one) for one in seen], axis=1)

    def _compared(self, pictures: Iterator[tuple[int, Frame]]) -> tuple[FloatArray, FloatArray]:
        """Return what tells which photo is nearest: the tokens of the tile in the middle.

        Returns:
            float32 [N, width] of the first block, and the first of their coreset.
        """
        numbers = banked_tiles(self.scorer.view)
        middle = numbers[len(numbers) // 2]
        picture = next(picture for number, picture in pictures if number == middle)
        tokens = self.scorer.tokens(picture)[:1]
        beginning = thinned(tokens, _ROWS_COMPARED)[0].astype(np.float32)
        return tokens[0], beginning


def _nearest(tokens: FloatArray, beginnings: list[NDArray[np.float32]]) -> tuple[int, float]:
    """Find the photo that a photo is nearest to, as `nearest_photo` does with rows of a bank."""
    apart = [1 - float((rows @ tokens.T).max(axis=1).mean()) for rows in beginnings]
    nearest = int(np.argmin(apart))
    return nearest, apart[nearest]
