"""The training: it learns, and it says what it could not use."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from support.adapter_training import SETTINGS, SIZE, Bench, fresh_adapters, same, text_of
from zeroflaw_engines.errors import TrainingError
from zeroflaw_export.datasets import (
    read_sample_image,
    read_sample_mask,
)
from zeroflaw_export.models.adapters import LinearAdapters, load_adapters
from zeroflaw_export.models.clip_encoder import ClipEncoder
from zeroflaw_export.training.april_gan import adapters_learner, published_recipe
from zeroflaw_export.training.token_cache import FrozenTower
from zeroflaw_export.training.train import TrainingSettings, publish_weights


def test_it_learns_where_the_defects_are(bench: Bench) -> None:
    adapters, record = bench.train(TrainingSettings(epochs=40, batch=8), seconds=60)
    assert len(record.losses) == 40
    # a good image has a Dice loss of almost 1 in each of four blocks, however good the map is
    assert record.losses[-1] - 2 < 0.1 * (record.losses[0] - 2)
    encoder = ClipEncoder(bench.tower.clip, adapters, (1, 2, 3, 4), SIZE).eval()
    for product in bench.dataset.classes:
        for sample in product.samples:
            image = read_sample_image(sample)
            mask = read_sample_mask(sample, image.shape[:2])
            squashed = Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
            with torch.inference_mode():
                found, _, _ = encoder(
                    torch.from_numpy(np.array(squashed))[None], text_of(product.name)
                )
            shown = np.array(Image.fromarray(mask).resize((SIZE, SIZE)))
            anomaly = found[0].numpy()
            if sample.anomalous:
                assert anomaly[shown].mean() > 0.5 + anomaly[~shown].mean()
            else:
                assert anomaly.mean() < 0.1


def test_the_seed_decides(bench: Bench, undisturbed: LinearAdapters) -> None:
    first, _ = bench.train()
    assert same(first, undisturbed)
    (bench.directory / "checkpoint").unlink()
    second, _ = bench.train(dataclasses.replace(SETTINGS, seed=112))
    assert not same(first, second)


def test_a_second_run_needs_no_tower(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    run = FrozenTower.patch_tokens
    monkeypatch.setattr(
        FrozenTower, "patch_tokens", lambda self, image: calls.append(1) or run(self, image)
    )
    bench.train()
    assert len(calls) == 16 + 8  # two classes, of eight images and four mosaics each
    calls.clear()
    (bench.directory / "checkpoint").unlink()
    bench.train(dataclasses.replace(SETTINGS, epochs=2, learning_rate=1e-2))
    assert not calls


def test_what_cannot_be_used_is_skipped_and_counted(bench: Bench) -> None:
    root = bench.dataset.root
    cut = root / "bolt" / "test" / "scratch" / "001.png"
    cut.write_bytes(cut.read_bytes()[:300])
    small = root / "metal_nut" / "ground_truth" / "scratch" / "002_mask.png"
    Image.fromarray(np.full((30, 40), 255, np.uint8)).save(small)
    grey = root / "metal_nut" / "ground_truth" / "scratch" / "003_mask.png"
    Image.fromarray(np.arange(4800, dtype=np.uint16).reshape(60, 80).astype(np.uint8)).save(grey)

    def path_of(name: str, number: int) -> str:
        return str(root / name / "test" / "scratch" / f"{number:03}.png")

    for _ in range(2):  # the second run finds the rest in the cache
        _, record = bench.train()
        assert record.classes["bolt"].defective == 3
        assert record.classes["metal_nut"].defective == 2
        assert record.classes["bolt"].good == record.classes["metal_nut"].good == 4
        assert len(record.skipped) == 3
        assert "has 40x30 px, its image 80x60 px" in record.skipped[path_of("metal_nut", 2)]
        assert "not binary" in record.skipped[path_of("metal_nut", 3)]
        assert path_of("bolt", 1) in record.skipped


def test_a_mended_mask_is_seen(bench: Bench) -> None:
    """Although the tokens of its image are in the cache."""
    first, _ = bench.train()
    (bench.directory / "checkpoint").unlink()
    mask = bench.dataset.root / "bolt" / "ground_truth" / "scratch" / "000_mask.png"
    Image.fromarray(np.full((60, 80), 255, np.uint8)).save(mask)
    second, _ = bench.train()
    assert not same(first, second)


def test_good_parts_alone_are_refused(bench: Bench) -> None:
    good = [
        dataclasses.replace(product, samples=tuple(s for s in product.samples if not s.anomalous))
        for product in bench.dataset.classes
    ]
    dataset = dataclasses.replace(bench.dataset, classes=tuple(good))
    with pytest.raises(TrainingError, match="8 images that can be used, none of them defective"):
        dataclasses.replace(bench, dataset=dataset).train()


def test_too_little_disk_is_said_before_the_tower_runs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "zeroflaw_export.training.token_cache.shutil.disk_usage",
        lambda _: type("U", (), {"free": 1000}),
    )
    monkeypatch.setattr(FrozenTower, "patch_tokens", lambda *_: pytest.fail("the tower ran"))
    with pytest.raises(TrainingError, match="tokens of 24 images need"):
        bench.train()


def test_the_cache_of_other_weights_is_refused(bench: Bench) -> None:
    bench.train()
    identity = dataclasses.replace(bench.tower.identity, weights="random:4")
    other = dataclasses.replace(bench.tower, identity=identity)
    with pytest.raises(TrainingError, match="of another tower"):
        dataclasses.replace(bench, tower=other).train()


def test_a_training_that_diverges_says_so(bench: Bench) -> None:
    adapters = fresh_adapters()
    adapters.fc[1].weight.data[0, 0] = float("nan")
    with pytest.raises(TrainingError, match="diverged"):
        bench.train(adapters=adapters)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_published_adapters_are_read_again(bench: Bench, name: str) -> None:
    adapters, record = bench.train(dataclasses.replace(SETTINGS, epochs=1))
    beside = publish_weights(adapters_learner(adapters), record, bench.directory / "out" / name)
    read = fresh_adapters(9)
    load_adapters(read, bench.directory / "out" / name)
    assert same(read, adapters)
    described = json.loads(beside.read_text())
    assert described["dataset"] == record.dataset
    assert described["tower"]["weights"] == "random:3"
    assert described["settings"]["epochs"] == 1
    assert described["classes"]["bolt"] == {"good": 4, "defective": 4, "mosaics": 4}
    assert len(described["losses"]) == 1
    assert sorted(path.name for path in beside.parent.iterdir()) == [name, f"{name}.json"]


def test_the_published_recipe() -> None:
    mvtec, visa, other = map(published_recipe, ("mvtec", "visa", "folder"))
    assert (mvtec.epochs, mvtec.mosaic) == (3, 0.2)
    assert (visa.epochs, visa.mosaic) == (other.epochs, other.mosaic) == (15, 0.0)
    assert (visa.batch, visa.learning_rate, visa.seed) == (16, 1e-3, 111)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"mosaic": 1.1},
        {"mosaic": -0.1},
        {"seed": -1},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(TrainingError, match=f"{next(iter(wrong))} cannot be"):
        TrainingSettings(**{"epochs": 1, **wrong})
