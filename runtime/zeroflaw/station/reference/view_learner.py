"""Learning a product that has settings: banks of what its view shows CLIP, and whole inspections.

The patches of every tile that counts are thinned, tile by tile and then together for one bank of
all tiles, each photo alone: the bank without a photo's rows is the one that the others would give.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zeroflaw.pipeline.geometry import BoolArray, FloatArray
from zeroflaw.station.reference.learner import (
    ROWS_COMPARED,
    SPARE,
    JudgedPhotos,
    digest_of,
    view_of,
)
from zeroflaw.station.reference.photos import (
    Arrays,
    Photo,
    PhotoReader,
    PhotoStore,
    Progress,
    require_disk_space,
)
from zeroflaw.station.reference.plan import LearningPlan
from zeroflaw.station.reference.view_scorer import TilePicture, ViewScorer, banked_tiles
from zeroflaw.station.thinning import bank_of_photos, bank_of_tiles, thinned
from zeroflaw_engines.bundle.manifest import Augmentation
from zeroflaw_engines.bundle.reference_bank import (
    ReferenceBank,
    digest_of_bank,
    encode_reference_bank,
)
from zeroflaw_engines.contract import ReferenceSizes


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
        rows = max(1, len(self.tiles)) * SPARE * self.plan.rows_of_a_photo
        a_photo = 2 * sizes.blocks * sizes.width * rows + 4 * sizes.tokens * sizes.width
        missing = sum(not self.store.has(photo) for photo in self.plan.bank)
        require_disk_space(self.store.bundle, missing * a_photo + 2 * sizes.bank_bytes)

    def bank(self, tower: str) -> ReferenceBank:
        """Encode the photos of the bank, and thin each alone."""
        rows = self.plan.rows_of_a_photo
        parts = []
        for photo in self.plan.bank:
            learned = self._learned(photo)
            parts.append([learned[f"thinned_{i}"][:, :rows] for i in range(len(learned["every"]))])
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
        learned = [
            (stored["compared"], stored["beginning"])
            for stored in map(self._learned, self.plan.bank)
        ]
        compared, beginnings = [one[0] for one in learned], [one[1] for one in learned]
        found = list(self._judged(bank, compared, beginnings))
        photos, values, nearest = zip(*found, strict=True)
        score, image_score, highest, mean, apart = np.array(values, np.float64).T
        return JudgedPhotos(photos, score, image_score, highest, mean, nearest, apart)

    def _judged(
        self, bank: ReferenceBank, compared: list[FloatArray], beginnings: list[FloatArray]
    ) -> Iterator[tuple[Photo, list[float], Path]]:
        """Give of each photo: scores, highest and mean distance, how far it is from the nearest."""
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
            values = [judged.score, judged.image_score, judged.highest, judged.mean]
            stored = {"judged": np.array(values, np.float64)}
            kept.write(photo, stored)
        return [float(value) for value in stored["judged"]]

    def _learned(self, photo: Photo) -> Arrays:
        """Return what is computed of a photo of the bank, and keep it.

        `thinned_0` and on are float16 [blocks, rows, width], of each bank; `every` [banks] says of
        how many patches; `compared` and `beginning` are from `_compared`.
        """
        stored = self.store.read(photo)
        if stored is not None and stored.keys() >= {"every", "compared", "beginning"}:
            needed = np.minimum(self.plan.rows_of_a_photo, stored["every"])
            known = [stored.get(f"thinned_{i}") for i in range(len(needed))]
            if all(k is not None and k.shape[1] >= n for k, n in zip(known, needed, strict=True)):
                return stored
        pictures = list(self.scorer.pictures(self.reader.frame(photo)))
        rows = SPARE * self.plan.rows_of_a_photo
        # Of one bank for all, as many of each tile as leave twice the largest bank's rows: not by
        # the plan, so that a photo has the same rows whatever the photos beside it are.
        share = -(-SPARE * self.sizes.rows // len(pictures))
        found, every = [], []
        for picture in pictures:
            tokens = self._tokens(picture)
            every.append(tokens.shape[1])
            found.append(thinned(tokens, rows if self.tiles else share))
        if not self.tiles:
            together = np.concatenate(found, axis=1).astype(np.float32)
            found, every = [thinned(together, rows)], [together.shape[1]]
        compared, beginning = self._compared(iter(pictures))
        computed: Arrays = {
            **{f"thinned_{i}": one for i, one in enumerate(found)},
            "every": np.array(every, np.int64),
            "compared": compared,
            "beginning": beginning,
        }
        self.store.write(photo, computed)
        return computed

    def _tokens(self, tile: TilePicture) -> FloatArray:
        """Return the tokens of the patches that count of a tile and its other views.

        What is blanked is not learned: a defect that is as smooth would be near to it.

        Returns:
            float32 [blocks, N, width].
        """
        found = []
        for view in (None, *self.views):
            picture, judged = tile.picture, tile.judged
            if view is not None:
                picture = view_of(picture, view)
                judged = None if judged is None else view_of(judged, view)
            tokens = self.scorer.tokens(picture)
            if judged is not None:
                tokens = tokens[:, judged_patches(judged, tokens.shape[1])]
            found.append(tokens)
        return np.concatenate(found, axis=1)

    def _compared(self, pictures: Iterator[TilePicture]) -> tuple[FloatArray, FloatArray]:
        """Return what tells which photo is nearest: the tokens of the tile in the middle.

        Returns:
            float32 [N, width] of the first block, and the first of their coreset.
        """
        numbers = banked_tiles(self.scorer.view)
        middle = numbers[len(numbers) // 2]
        tile = next(one for one in pictures if one.number == middle)
        tokens = self.scorer.tokens(tile.picture)[:1]
        beginning = thinned(tokens, ROWS_COMPARED)[0].astype(np.float32)
        return tokens[0], beginning


def judged_patches(judged: BoolArray, count: int) -> BoolArray:
    """Return which patches of a picture hold anything that is judged.

    Args:
        judged: bool [h, w], True somewhere.
        count: Of the patches, which lie in a square over the picture.

    Returns:
        bool [count], row by row.
    """
    side = math.isqrt(count)
    height, width = judged.shape
    at = np.arange(side)
    # A patch of a small picture is less than a pixel: each has one at least.
    rows, columns = (at * extent // side for extent in (height, width))
    ends = [-(-(at + 1) * extent // side) for extent in (height, width)]
    sums = np.zeros((height + 1, width + 1), np.int64)
    sums[1:, 1:] = judged.cumsum(axis=0).cumsum(axis=1)
    top, bottom, left, right = rows[:, None], ends[0][:, None], columns[None], ends[1][None]
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return np.asarray(inside > 0).ravel()


def _nearest(tokens: FloatArray, beginnings: list[NDArray[np.float32]]) -> tuple[int, float]:
    """Find the photo that a photo is nearest to, as `nearest_photo` does with rows of a bank."""
    apart = [1 - float((rows @ tokens.T).max(axis=1).mean()) for rows in beginnings]
    nearest = int(np.argmin(apart))
    return nearest, apart[nearest]
