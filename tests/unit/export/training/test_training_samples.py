"""The samples that an epoch shows: images, mosaics of them, and their masks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from support.adapter_training import SIZE, Bench
from zeroflaw_export.training.samples import mosaic_of, prepare_samples
from zeroflaw_export.training.token_cache import open_token_cache, unpack_mask
from zeroflaw_export.training.train import (
    TrainingSettings,
    _batches_of_epoch,
)


def test_an_epoch_shows_every_image_once_or_a_mosaic_of_its_class(bench: Bench) -> None:
    cache = open_token_cache(bench.directory / "cache", bench.tower)
    samples = prepare_samples(bench.dataset, bench.tower, cache, mosaic=0.5, seed=1)
    plain = TrainingSettings(epochs=1, batch=5)
    batches = _batches_of_epoch(samples, plain, 0)
    assert [len(batch) for batch in batches] == [5, 5, 5, 1]
    shown = [sample for batch in batches for sample in batch]
    assert sorted(shown, key=repr) == sorted(samples.images, key=repr)
    assert shown != list(samples.images)
    assert batches != _batches_of_epoch(samples, plain, 1)

    half = dataclasses.replace(plain, mosaic=0.5)
    drawn = [
        sample
        for epoch in range(40)
        for batch in _batches_of_epoch(samples, half, epoch)
        for sample in batch
    ]
    mosaics = [sample for sample in drawn if sample not in samples.images]
    assert 0.4 < len(mosaics) / len(drawn) < 0.6
    assert all(sample in samples.mosaics[sample.product] for sample in mosaics)
    assert sum(sample.product == "bolt" for sample in drawn) == len(drawn) / 2


def test_a_class_has_the_same_mosaics_whatever_else_is_there(bench: Bench) -> None:
    cache = open_token_cache(bench.directory / "cache", bench.tower)
    both = prepare_samples(bench.dataset, bench.tower, cache, mosaic=0.5, seed=1)
    alone = dataclasses.replace(bench.dataset, classes=bench.dataset.classes[1:])
    one = prepare_samples(alone, bench.tower, cache, mosaic=0.5, seed=1)
    assert one.mosaics["metal_nut"] == both.mosaics["metal_nut"]


def test_masks_are_the_datasets(bench: Bench) -> None:
    """Good parts have none; a mosaic's tiles lie where its image's tiles lie."""
    cache = open_token_cache(bench.directory / "cache", bench.tower)
    samples = prepare_samples(bench.dataset, bench.tower, cache, mosaic=1.0, seed=1)
    areas = [unpack_mask(sample.mask, SIZE).mean() for sample in samples.images]
    truth = [sample.anomalous for product in bench.dataset.classes for sample in product.samples]
    assert [area > 0 for area in areas] == truth
    assert max(areas) == pytest.approx(25 * 25 / (60 * 80), rel=0.1)
    in_mosaics = [unpack_mask(sample.mask, SIZE).mean() for sample in samples.mosaics["bolt"]]
    assert 0 < np.mean(in_mosaics) < max(areas)


def test_mosaic() -> None:
    tiles = [np.full((4, 6, 3), value, np.uint8) for value in (1, 2, 3, 4)]
    got = mosaic_of(tiles)
    assert got.shape == (8, 12, 3)
    assert [got[0, 0, 0], got[0, 11, 0], got[7, 0, 0], got[7, 11, 0]] == [1, 2, 3, 4]
    assert np.bincount(got.ravel()).tolist() == [0, 72, 72, 72, 72]


def test_a_mosaic_of_pictures_of_other_sizes() -> None:
    """As Pillow pastes them one after the other, which is what the reference does."""
    random = np.random.default_rng(0)
    sizes = [(4, 6), (9, 2), (3, 30), (5, 7)]
    tiles = [random.integers(1, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    want = Image.new("RGB", (12, 8))
    for place, tile in zip([(0, 0), (6, 0), (0, 4), (6, 4)], tiles, strict=True):
        want.paste(Image.fromarray(tile), place)
    assert np.array_equal(mosaic_of(tiles), np.asarray(want))
