"""Photo frames: seeds, good ones, sizes and visibility of what is anomalous."""

from __future__ import annotations

import numpy as np
import pytest

from zeroflaw_export.mini.photo_frames import draw
from zeroflaw_export.mini.photo_frames.draw import draw_photo_frame
from zeroflaw_export.mini.photo_frames.scenes import kind_of_scene

SIZE = 192
SEEDS = [(2, 0, i) for i in range(40)]


@pytest.fixture(scope="module")
def frames(photos):
    return [draw_photo_frame(photos, seed, SIZE) for seed in SEEDS]


def test_same_seed_same_frame_and_another_seed_another(photos, frames):
    for seed, frame in zip(SEEDS[:4], frames, strict=False):
        again = draw_photo_frame(photos, seed, SIZE)
        assert np.array_equal(again.image, frame.image)
        assert np.array_equal(again.mask, frame.mask)
    assert not np.array_equal(frames[0].image, frames[1].image)


def test_good_frames_have_empty_masks_and_the_others_not(frames):
    for frame in frames:
        assert frame.image.shape == (SIZE, SIZE, 3)
        assert frame.mask.any() == bool(frame.anomalies)
    good = sum(not frame.anomalies for frame in frames)
    assert 0.25 <= good / len(frames) <= 0.6


def test_anomalies_cover_what_is_promised(frames):
    areas = [frame.mask.mean() for frame in frames if frame.anomalies]
    assert min(areas) >= 0.0003
    assert max(areas) <= 0.2
    assert np.median(areas) < 0.05


def test_surfaces_and_objects_are_told_by_the_seed(frames):
    kinds = [frame.kind for frame in frames]
    assert kinds == [kind_of_scene(seed) for seed in SEEDS]
    assert set(kinds) == {"surface", "object"}


def test_anomalies_change_the_good_photo_in_the_mask_and_nowhere_else(photos, monkeypatch):
    monkeypatch.setattr(draw, "_compressed", lambda image, _quality: image)
    spoiled = [draw_photo_frame(photos, seed, SIZE) for seed in SEEDS[:20]]
    monkeypatch.setattr(draw, "_GOOD_SHARE", 1)
    good = [draw_photo_frame(photos, seed, SIZE) for seed in SEEDS[:20]]
    seen = 0
    for one, other in zip(spoiled, good, strict=True):
        assert not other.mask.any()
        change = np.abs(one.image.astype(int) - other.image).mean(-1)
        if not one.anomalies:
            assert not change.any()
            continue
        seen += 1
        # Every anomaly alone is as visible, and so is their sum.
        assert change[one.mask].mean() >= 12
        assert (np.abs(one.image.astype(int) - other.image).max(-1)[one.mask] >= 6).mean() >= 0.6
        assert change[~one.mask].sum() <= 0.4 * change[one.mask].sum()
    assert seen >= 6


def test_a_third_of_the_photos_went_through_jpeg(photos, monkeypatch):
    as_they_are = [draw_photo_frame(photos, seed, SIZE) for seed in SEEDS[:20]]
    monkeypatch.setattr(draw, "_compressed", lambda image, _quality: image)
    raw = [draw_photo_frame(photos, seed, SIZE).image for seed in SEEDS[:20]]
    pairs = list(zip(as_they_are, raw, strict=True))
    changed = [not np.array_equal(frame.image, image) for frame, image in pairs]
    assert 2 <= sum(changed) <= 13
    # The channels come back in their order.
    assert all(np.abs(f.image.astype(int) - i).mean() < 12 for f, i in pairs)
