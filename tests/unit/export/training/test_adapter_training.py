"""The training: it learns, it can be killed anywhere, and it says what it could not use."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from support.defect_pictures import write_defect_pictures
from zeroflaw_engines.errors import TrainingError
from zeroflaw_export.datasets import (
    Dataset,
    read_dataset,
    read_sample_image,
    read_sample_mask,
)
from zeroflaw_export.models.adapters import LinearAdapters, load_adapters
from zeroflaw_export.models.architectures import clip_architecture
from zeroflaw_export.models.clip_encoder import ClipEncoder
from zeroflaw_export.models.load import WeightsSource, load_clip
from zeroflaw_export.training.run import frozen_tower
from zeroflaw_export.training.samples import TrainingProgress, mosaic_of, prepare_samples
from zeroflaw_export.training.token_cache import FrozenTower, open_token_cache, unpack_mask
from zeroflaw_export.training.train import (
    TrainingRecord,
    TrainingSettings,
    _batches_of_epoch,
    publish_adapters,
    published_recipe,
    train_adapters,
)

SIZE = 56
SOURCE = WeightsSource(name="random", path=None, seed=3)
SETTINGS = TrainingSettings(epochs=3, batch=5, mosaic=0.5)


class Killed(BaseException):
    """What no code catches."""


@dataclass
class Bench:
    """One data set, one tower, and a directory for everything that a training writes."""

    dataset: Dataset
    tower: FrozenTower
    directory: Path

    def train(
        self,
        settings: TrainingSettings = SETTINGS,
        report: Callable[[TrainingProgress], None] = lambda _: None,
        seconds: float = 0.0,
        cache: str = "cache",
        adapters: LinearAdapters | None = None,
    ) -> tuple[LinearAdapters, TrainingRecord]:
        trained = adapters or fresh_adapters()
        record = train_adapters(
            self.tower,
            trained,
            self.dataset,
            text_of,
            settings,
            cache=self.directory / cache,
            checkpoint=self.directory / "checkpoint",
            checkpoint_seconds=seconds,
            report=report,
        )
        return trained, record


def fresh_adapters(seed: int = 1) -> LinearAdapters:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LinearAdapters(4, 64, 32)


def text_of(name: str) -> torch.Tensor:
    """Close to each other, as the two sides of CLIP's are: far ones saturate every logit."""
    generator = torch.Generator().manual_seed(len(name))
    normal, change = functional.normalize(torch.randn(2, 32, generator=generator), dim=-1)
    return functional.normalize(torch.stack([normal, normal + 0.1 * change]), dim=-1)


@pytest.fixture(scope="module")
def tower() -> FrozenTower:
    architecture = clip_architecture("tiny")
    return frozen_tower(load_clip(architecture, SIZE, SOURCE), architecture, SIZE, SOURCE)


@pytest.fixture(scope="module")
def undisturbed(tower: FrozenTower, tmp_path_factory: pytest.TempPathFactory) -> LinearAdapters:
    """What a run gives that nothing interrupts."""
    folder = tmp_path_factory.mktemp("undisturbed")
    root = write_defect_pictures(folder / "data")
    adapters, _ = Bench(read_dataset(root), tower, folder).train()
    return adapters


@pytest.fixture
def bench(tower: FrozenTower, tmp_path: Path) -> Bench:
    root = write_defect_pictures(tmp_path / "data")
    return Bench(read_dataset(root), tower, tmp_path)


def same(left: LinearAdapters, right: LinearAdapters) -> bool:
    pairs = zip(left.parameters(), right.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


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
                found, _ = encoder(
                    torch.from_numpy(np.array(squashed))[None], text_of(product.name)
                )
            shown = np.array(Image.fromarray(mask).resize((SIZE, SIZE)))
            anomaly = found[0].numpy()
            if sample.anomalous:
                assert anomaly[shown].mean() > 0.5 + anomaly[~shown].mean()
            else:
                assert anomaly.mean() < 0.1


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
@pytest.mark.parametrize("at", [0, 5, 6, 11])
def test_a_killed_run_goes_on_to_the_same_bits(
    bench: Bench, undisturbed: LinearAdapters, at: int, seconds: float
) -> None:
    """Killed in the first step, within an epoch, after one, and at the very end."""

    def kill(progress: TrainingProgress) -> None:
        if progress.stage == "training" and progress.done == at + 1:
            raise Killed

    with pytest.raises(Killed):
        bench.train(report=kill, seconds=seconds)
    seen: list[TrainingProgress] = []
    got, record = bench.train(report=seen.append)
    assert same(got, undisturbed)
    assert len(record.losses) == SETTINGS.epochs
    steps = [progress.done for progress in seen if progress.stage == "training"]
    # 16 images in batches of 5 are 4 steps; what was lost is a step, or an epoch
    assert steps[0] == (at + 1 if seconds == 0.0 else at // 4 * 4 + 1)


def test_a_run_killed_while_the_tower_runs_goes_on(
    bench: Bench, undisturbed: LinearAdapters
) -> None:

    def kill(progress: TrainingProgress) -> None:
        if progress.stage == "running the tower" and progress.done == 7:
            raise Killed

    with pytest.raises(Killed):
        bench.train(report=kill)
    kept = {path.name for path in (bench.directory / "cache" / "tokens").iterdir()}
    assert len(kept) == 7
    got, _ = bench.train()
    assert same(got, undisturbed)


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


def test_the_finished_state_stays_until_it_is_published(bench: Bench) -> None:
    """A kill between the last step and the writing of the file costs nothing."""
    first, record = bench.train()
    steps: list[TrainingProgress] = []
    again, second = bench.train(report=steps.append)
    assert same(first, again)
    assert second.losses == record.losses
    assert not [progress for progress in steps if progress.stage == "training"]
    publish_adapters(
        again, second, bench.directory / "a.safetensors", bench.directory / "checkpoint"
    )
    assert not (bench.directory / "checkpoint").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 5}, "seed"),
        ({"epochs": 9}, "epochs"),
        ({"learning_rate": 0.5}, "learning_rate"),
        ({"batch": 6}, "batch"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(
    bench: Bench, change: dict[str, float], named: str
) -> None:
    bench.train()
    with pytest.raises(TrainingError, match=f"of another training: its {named} is"):
        bench.train(dataclasses.replace(SETTINGS, **change))


def test_a_checkpoint_of_other_data_or_adapters_is_refused(bench: Bench) -> None:
    bench.train()
    with pytest.raises(TrainingError, match="its initial adapters is"):
        bench.train(adapters=fresh_adapters(2))
    less = dataclasses.replace(bench.dataset, classes=bench.dataset.classes[:1])
    with pytest.raises(TrainingError, match="its dataset is"):
        dataclasses.replace(bench, dataset=less).train()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_refused(bench: Bench, content: bytes) -> None:
    (bench.directory / "checkpoint").write_bytes(content)
    with pytest.raises(TrainingError, match="cannot be read"):
        bench.train()


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
    beside = publish_adapters(adapters, record, bench.directory / "out" / name)
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
