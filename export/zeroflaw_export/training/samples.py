"""What adapters are trained on: the images of a data set, and mosaics of them, as cached tokens."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from zeroflaw_engines.errors import DatasetError, TrainingError
from zeroflaw_engines.files import sha256_of_file
from zeroflaw_export.datasets import (
    Dataset,
    DatasetClass,
    Sample,
    Skipped,
    mask_at_size,
    read_sample_image,
    read_sample_mask,
    sample_image_digest,
)
from zeroflaw_export.training.token_cache import FrozenTower, TokenCache, joint_key

_MOSAIC_SIDE: Final = 2


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training is.

    Attributes:
        stage: What is being done.
        done: Images or steps that are done.
        total: Images or steps of this stage.
        epoch: Epochs that are complete.
        loss: Of the last step, if there was one.
        cache_bytes: What this run will add to the token cache.
    """

    stage: str
    done: int
    total: int
    epoch: int = 0
    loss: float | None = None
    cache_bytes: int = 0


ReportProgress = Callable[[TrainingProgress], None]


@dataclass(frozen=True)
class TrainingSample:
    """One image or mosaic whose tokens are in the cache.

    Attributes:
        product: Name of its class, which chooses the text embeddings.
        tokens: Key of its tokens in the cache.
        mask: Packed bits at the tower's image size; empty for a good part.
    """

    product: str
    tokens: str
    mask: bytes


@dataclass(frozen=True)
class TrainingSamples:
    """Everything that is trained on.

    Attributes:
        images: In the data set's order.
        mosaics: The pool that mosaics are drawn from, by class.
        dataset: The data set as far as it could be used; what could not is in its `skipped`.
    """

    images: tuple[TrainingSample, ...]
    mosaics: dict[str, tuple[TrainingSample, ...]]
    dataset: Dataset


@dataclass(frozen=True)
class _Source:
    """One or four samples that make one image, and their keys in the cache."""

    product: str
    samples: tuple[Sample, ...]
    tokens: str
    mask: str


def prepare_samples(
    dataset: Dataset,
    tower: FrozenTower,
    cache: TokenCache,
    *,
    mosaic: float,
    seed: int,
    report: ReportProgress = lambda _: None,
) -> TrainingSamples:
    """Run the tower over every image and mosaic that is not in the cache yet.

    The reference makes a new mosaic of four images of a class wherever it draws one
    (dataset.py:98-144), before the tower. A frozen tower should see each image once, so a pool
    of mosaics, `mosaic` times as many as the class has images, is drawn here for the whole
    run, and an epoch draws from it. The tiles are drawn as there: a kind of defect (good parts
    are one), then an image of that kind.

    Args:
        mosaic: Share of the samples of an epoch that become mosaics, in [0, 1].
        seed: Of the pool of mosaics, at least 0.
        report: Called after each image.

    Raises:
        TrainingError: Nothing can be used, nothing is defective, or the disk is too small.
    """
    singles, skipped = _single_sources(dataset, report)
    # from all that is listed, so that the size is known now and an image that turns out to be
    # unusable takes away its own mosaics and changes no other
    pool = _mosaic_sources(singles, mosaic, seed)
    sources = [*singles, *pool]
    images = {source.tokens for source in sources if not cache.has_tokens(source.tokens)}
    masks = {source.mask for source in sources if source.mask and not cache.has_mask(source.mask)}
    wanted = cache.require_space(len(images), len(masks))
    unusable: set[int] = set()
    made: list[TrainingSample | None] = []
    with cache.locked():
        for done, source in enumerate(sources):
            report(TrainingProgress("running the tower", done, len(sources), cache_bytes=wanted))
            try:
                if unusable.intersection(map(id, source.samples)):
                    made.append(None)  # a mosaic with an image that was skipped already
                else:
                    made.append(_cached(source, tower, cache))
            except DatasetError as error:
                unusable.update(map(id, source.samples))
                skipped.append(Skipped(source.samples[0].image, error.cause))
                made.append(None)
        report(TrainingProgress("running the tower", len(sources), len(sources)))
    images_made = [sample for sample in made[: len(singles)] if sample is not None]
    if not any(sample.mask for sample in images_made):
        found = f"{len(images_made)} images that can be used, none of them defective"
        raise TrainingError(
            f"{dataset.root} has {found} ({len(skipped)} were skipped)",
            "give images with masks of their defects",
        )
    mosaics: dict[str, list[TrainingSample]] = defaultdict(list)
    for sample in made[len(singles) :]:
        if sample is not None:
            mosaics[sample.product].append(sample)
    return TrainingSamples(
        tuple(images_made),
        {name: tuple(pool) for name, pool in mosaics.items()},
        _without(dataset, skipped),
    )


def _without(dataset: Dataset, skipped: list[Skipped]) -> Dataset:
    paths = {skip.path for skip in skipped}
    classes = [
        DatasetClass(product.name, tuple(s for s in product.samples if s.image not in paths))
        for product in dataset.classes
    ]
    return replace(
        dataset,
        classes=tuple(product for product in classes if product.samples),
        skipped=tuple(skipped),
    )


def _single_sources(
    dataset: Dataset, report: ReportProgress
) -> tuple[list[_Source], list[Skipped]]:
    sources: list[_Source] = []
    skipped = list(dataset.skipped)
    total = sum(len(product.samples) for product in dataset.classes)
    for product in dataset.classes:
        for sample in product.samples:
            report(TrainingProgress("reading digests", len(sources), total))
            try:
                image = sample_image_digest(sample)
                mask = ""
                if sample.mask is not None:
                    # with the image's, because a mask is checked against its image
                    mask = joint_key([image, sha256_of_file(sample.mask)])
            except OSError as error:
                skipped.append(Skipped(sample.image, f"{sample.image} cannot be read: {error}"))
                continue
            sources.append(_Source(product.name, (sample,), image, mask))
    return sources, skipped


def _mosaic_sources(singles: Sequence[_Source], mosaic: float, seed: int) -> list[_Source]:
    by_class: dict[str, dict[tuple[bool, str], list[_Source]]] = defaultdict(dict)
    for source in singles:
        kind = (source.samples[0].anomalous, source.samples[0].defect)
        by_class[source.product].setdefault(kind, []).append(source)
    drawn = []
    for product, kinds in by_class.items():
        # by name, so that a class has the same mosaics whatever other classes are there
        random = np.random.default_rng([seed, *product.encode()])
        groups = [kinds[kind] for kind in sorted(kinds)]
        count = math.ceil(mosaic * sum(map(len, groups)))
        for _ in range(count):
            tiles = []
            for _ in range(_MOSAIC_SIDE**2):
                group = groups[random.integers(len(groups))]
                tiles.append(group[random.integers(len(group))])
            mask = ""
            if any(tile.mask for tile in tiles):
                mask = joint_key(["mosaic", *(tile.mask or tile.tokens for tile in tiles)])
            drawn.append(
                _Source(
                    product,
                    tuple(tile.samples[0] for tile in tiles),
                    joint_key(["mosaic", *(tile.tokens for tile in tiles)]),
                    mask,
                )
            )
    return drawn


def _cached(source: _Source, tower: FrozenTower, cache: TokenCache) -> TrainingSample:
    lacks_tokens = not cache.has_tokens(source.tokens)
    lacks_mask = bool(source.mask) and not cache.has_mask(source.mask)
    if lacks_tokens or lacks_mask:
        images = [read_sample_image(sample) for sample in source.samples]
        masks = [
            read_sample_mask(sample, (image.shape[0], image.shape[1]))
            for sample, image in zip(source.samples, images, strict=True)
        ]
        mosaic = len(images) > 1
        image, mask = (mosaic_of(images), mosaic_of(masks)) if mosaic else (images[0], masks[0])
        if lacks_tokens:
            cache.write_tokens(source.tokens, tower.patch_tokens(image))
        if lacks_mask:
            cache.write_mask(source.mask, mask_at_size(mask, cache.image_size))
    packed = cache.read_mask(source.mask) if source.mask else b""
    return TrainingSample(source.product, source.tokens, packed)


def mosaic_of(tiles: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Put four pictures into a 2x2 mosaic with cells of the first one's size.

    As in the reference, a larger picture reaches into the cells after it until they are filled,
    and what a smaller one leaves stays black.

    Args:
        tiles: Four of uint8 [H, W, 3], or of bool [H, W].

    Returns:
        The mosaic, twice as high and wide as the first tile.
    """
    height, width = tiles[0].shape[:2]
    canvas = np.zeros((2 * height, 2 * width, *tiles[0].shape[2:]), tiles[0].dtype)
    for i, tile in enumerate(tiles):
        y, x = i // _MOSAIC_SIDE * height, i % _MOSAIC_SIDE * width
        cell = canvas[y : y + tile.shape[0], x : x + tile.shape[1]]
        cell[:] = tile[: cell.shape[0], : cell.shape[1]]
    return canvas
