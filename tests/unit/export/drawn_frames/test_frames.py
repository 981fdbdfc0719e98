"""The drawn frames: exact masks, seeds, and a test split that shares nothing with training."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zeroflaw_export.datasets import read_dataset, read_sample_image, read_sample_mask
from zeroflaw_export.drawn_frames import surfaces
from zeroflaw_export.drawn_frames.dataset import DatasetOptions, write_dataset
from zeroflaw_export.drawn_frames.draw import DEFECTS, SURFACES, draw_frame
from zeroflaw_export.drawn_frames.noise import blob

EXAMPLES = Path(__file__).parents[4] / "examples"
SIZE = 192
CASES = [
    (split, surface, defect)
    for split in ("train", "test")
    for surface in SURFACES[split]
    for defect in DEFECTS[split]
]


@pytest.mark.parametrize(("split", "surface", "defect"), CASES)
def test_defect_is_visible_and_of_the_promised_size(split, surface, defect):
    frame = draw_frame(split, surface, defect, seed=5, size=SIZE)
    assert frame.image.shape == (SIZE, SIZE, 3)
    assert frame.image.dtype == np.uint8
    assert 0.0005 <= frame.mask.mean() <= 0.2


@pytest.mark.parametrize(("split", "surface"), [(s, n) for s in SURFACES for n in SURFACES[s]])
def test_good_frame_is_the_same_scene_without_the_defect(split, surface):
    defect = next(iter(DEFECTS[split]))
    spoiled = draw_frame(split, surface, defect, seed=11, size=SIZE)
    good = draw_frame(split, surface, "good", seed=11, size=SIZE)
    assert not good.mask.any()
    change = np.abs(spoiled.image.astype(int) - good.image).mean(axis=-1)
    assert change[spoiled.mask].mean() >= 14
    assert change[spoiled.mask].mean() > 5 * change[~spoiled.mask].mean()


def test_same_seed_same_frame_and_another_seed_another():
    one, again, other = (
        draw_frame("test", "casting", "crack", seed=seed, size=SIZE) for seed in (3, 3, 4)
    )
    assert np.array_equal(one.image, again.image)
    assert np.array_equal(one.mask, again.mask)
    assert not np.array_equal(one.image, other.image)


def test_train_and_test_share_no_surface_texture_or_defect():
    assert not set(SURFACES["train"]) & set(SURFACES["test"])
    assert not set(DEFECTS["train"]) & set(DEFECTS["test"])
    drawn = {split: {draw for draw, _ in DEFECTS[split].values()} for split in DEFECTS}
    assert not drawn["train"] & drawn["test"]
    assert not set(SURFACES["train"].values()) & set(SURFACES["test"].values())
    photos = {
        split: {
            inspect.getclosurevars(draw).nonlocals["name"]
            for draw in SURFACES[split].values()
            if draw.__qualname__.startswith(surfaces.real_texture.__name__)
        }
        for split in SURFACES
    }
    assert photos["train"]
    assert photos["test"]
    assert not photos["train"] & photos["test"]


@pytest.mark.parametrize("area", [0.001, 0.02, 0.2])
def test_blob_covers_exactly_its_area(area):
    level = blob(np.random.default_rng(0), SIZE, area)
    assert (level >= 0).sum() == pytest.approx(area * SIZE * SIZE, abs=2)


@pytest.fixture(scope="module")
def options():
    return DatasetOptions(train_good=1, test_good=2, test_defective=1, size=128)


def test_dataset_is_read_as_mvtec(tmp_path, options):
    count = write_dataset(tmp_path, options, processes=2)
    dataset = read_dataset(tmp_path)
    assert dataset.layout == "mvtec"
    assert not dataset.skipped
    assert [c.name for c in dataset.classes] == sorted(SURFACES["test"])
    samples = [sample for each in dataset.classes for sample in each.samples]
    assert len(samples) + len(SURFACES["test"]) == count
    for sample in samples:
        image = read_sample_image(sample)
        assert read_sample_mask(sample, image.shape[:2]).any() == sample.anomalous


def test_killed_writing_goes_on(tmp_path, options):
    write_dataset(tmp_path, options)
    images = sorted(tmp_path.rglob("test/*/*.png"))
    kept, lost = images[0], images[-1]
    whole = lost.read_bytes()
    lost.unlink()
    Image.fromarray(np.zeros((128, 128, 3), np.uint8)).save(kept)
    marked = kept.read_bytes()
    write_dataset(tmp_path, options)
    assert lost.read_bytes() == whole
    assert kept.read_bytes() == marked


def test_the_masks_of_the_example_frames_are_those_that_were_drawn() -> None:
    table = (EXAMPLES / "frame_masks" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| (\w+) \| (\w+) \| (\d+) \|$", table, flags=re.MULTILINE)
    assert {stem for stem, *_ in rows} == {p.stem for p in (EXAMPLES / "frames").glob("*.jpg")}
    for stem, surface, defect, seed in rows:
        frame = draw_frame("test", surface, defect, seed=int(seed), size=640)
        with Image.open(EXAMPLES / "frames" / f"{stem}.jpg") as photo:
            change = np.abs(np.asarray(photo).astype(int) - frame.image).mean()
        assert change < 4, stem
        mask = EXAMPLES / "frame_masks" / f"{stem}.png"
        assert mask.exists() == (defect != "good")
        if mask.exists():
            assert (np.asarray(Image.open(mask)) == frame.mask).all()
