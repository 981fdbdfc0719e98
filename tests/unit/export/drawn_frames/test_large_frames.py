"""Large drawn frames: one small defect each, exact masks, and the layout of a dataset."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from zeroflaw_engines.errors import DatasetError
from zeroflaw_export.datasets import read_dataset, read_sample_image, read_sample_mask
from zeroflaw_export.drawn_frames.draw import DEFECTS, SURFACES
from zeroflaw_export.drawn_frames.large import LargeFrames, draw_large_frame, write_large_frames
from zeroflaw_export.drawn_frames.noise import widely_blurred

FRAME = (480, 640)
CASES = [(surface, defect) for surface in SURFACES["test"] for defect in DEFECTS["test"]]


@pytest.mark.parametrize(("surface", "defect"), CASES)
def test_the_defect_is_small_and_visible_and_all_that_differs(surface, defect):
    spoiled = draw_large_frame("test", surface, defect, seed=8, frame=FRAME)
    assert spoiled.image.shape == (*FRAME, 3)
    _, _, width, height = cv2.boundingRect(spoiled.mask.astype(np.uint8))
    assert 8 <= max(width, height) <= 30
    good = draw_large_frame("test", surface, "good", seed=8, frame=FRAME)
    assert not good.mask.any()
    change = np.abs(spoiled.image.astype(int) - good.image)
    assert change[spoiled.mask].mean() >= 14
    near = cv2.dilate(spoiled.mask.astype(np.uint8), np.ones((81, 81)))
    assert not change[near == 0].any()


def test_the_seed_decides():
    one, again, other = (
        draw_large_frame("test", "casting", "crack", seed=seed, frame=FRAME) for seed in (3, 3, 4)
    )
    assert np.array_equal(one.image, again.image)
    assert np.array_equal(one.mask, again.mask)
    assert not np.array_equal(one.image, other.image)


def test_a_dataset_of_large_frames_is_read_as_mvtec(tmp_path):
    options = LargeFrames(train_good=1, good=1, defective=5, frame=(160, 200))
    assert write_large_frames(tmp_path, options) == 7 * len(SURFACES["test"])
    dataset = read_dataset(tmp_path)
    assert dataset.layout == "mvtec"
    assert [c.name for c in dataset.classes] == sorted(SURFACES["test"])
    for each in dataset.classes:
        defects = [s.image.parent.name for s in each.samples if s.anomalous]
        first, *others = DEFECTS["test"]
        assert sorted(defects) == sorted([first, first, *others])
        for sample in each.samples:
            image = read_sample_image(sample)
            assert image.shape == (160, 200, 3)
            assert read_sample_mask(sample, image.shape[:2]).any() == sample.anomalous


def test_frames_too_small_for_such_defects_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="too small"):
        write_large_frames(tmp_path, LargeFrames(frame=(100, 4096)))


@pytest.mark.parametrize("pixels", [70.0, 140.0])
def test_a_wide_blur_is_that_of_the_whole_image(pixels):
    image = np.zeros((450, 600), np.float32)
    cv2.rectangle(image, (200, 0), (320, 450), 1.0, -1)
    whole = cv2.GaussianBlur(image, (0, 0), pixels)
    assert np.abs(widely_blurred(image, pixels) - whole).max() < 0.005
