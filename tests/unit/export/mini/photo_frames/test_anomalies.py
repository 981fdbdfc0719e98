"""Each anomaly changes its own place and nothing else, and the mask says where that is."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from zeroflaw_export.drawn_frames.defects import TEST_DEFECTS
from zeroflaw_export.mini.photo_frames.anomalies import ANOMALIES
from zeroflaw_export.mini.photo_frames.draw import change_mask, draw_in_window, shows
from zeroflaw_export.mini.photo_frames.scenes import draw_scene
from zeroflaw_export.mini.photo_frames.windows import open_window

SIZE = 192


@pytest.fixture(scope="module")
def scenes(photos):
    drawn = [draw_scene(np.random.default_rng([4, i]), photos, SIZE) for i in range(24)]
    return {kind: [s for s in drawn if s.kind == kind] for kind in ("surface", "object")}


def _bytes(image):
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _drawn(photos, scenes, name, count):
    """Draw an anomaly until it shows `count` times: scene, window, change, mask."""
    anomaly = ANOMALIES[name]
    found = number = 0
    while found < count:
        assert number < 20 * count, f"{name} can hardly be seen"
        scene = scenes[number % len(scenes)]
        rng = np.random.default_rng([7, number])
        number += 1
        area = float(np.exp(rng.uniform(*np.log(anomaly.areas))))
        window = open_window(rng, scene, photos, area, at_the_edge=anomaly.place == "edge")
        if window is None:
            continue
        after = scene.image.copy()
        after[window.place] = draw_in_window(rng, anomaly, window)
        change = cv2.absdiff(_bytes(scene.image), _bytes(after)).max(-1)
        mask = change_mask(_bytes(scene.image), _bytes(after))
        if mask.mean() >= 0.001 and shows(_bytes(scene.image), _bytes(after), mask):
            found += 1
            yield scene, window, change, mask


def _grown(mask, pixels):
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1,) * 2)
    return cv2.dilate(mask.astype(np.uint8), disk) > 0


@pytest.mark.parametrize("name", ANOMALIES)
def test_mask_is_where_the_image_changed(photos, scenes, name):
    kind = "object" if ANOMALIES[name].place == "edge" else "surface"
    for _, window, change, mask in _drawn(photos, scenes[kind], name, 6):
        outside = change.copy()
        outside[window.place] = 0
        assert not outside.any()
        # Specks that are left out, and the tail of a soft edge or a shadow, are next to nothing
        # beside the anomaly.
        beyond = change.astype(float) * ~_grown(mask, 3)
        assert beyond.sum() <= 0.25 * change[mask].sum()


@pytest.mark.parametrize("name", ANOMALIES)
def test_anomaly_lies_on_the_object_or_touches_its_outline(photos, scenes, name):
    for scene, _, _, mask in _drawn(photos, scenes["object"], name, 4):
        part = scene.part > 0
        if ANOMALIES[name].place == "part":
            assert not (mask & ~_grown(part, 3)).any()
            continue
        _, labels = cv2.connectedComponents(mask.astype(np.uint8))
        outline = _grown(part, 6) & _grown(~part, 6)
        largest = np.argmax(np.bincount(labels.ravel())[1:]) + 1
        assert (outline & (labels == largest)).any()


def test_same_seed_draws_the_same_anomaly(photos, scenes):
    scene = scenes["surface"][0]

    def once(name):
        rng = np.random.default_rng(3)
        window = open_window(rng, scene, photos, 0.02, at_the_edge=False)
        return draw_in_window(rng, ANOMALIES[name], window)

    kept = scene.image.copy()
    for name, anomaly in ANOMALIES.items():
        if anomaly.place == "part":
            assert np.array_equal(once(name), once(name))
            assert np.array_equal(scene.image, kept), f"{name} writes into the scene"


def test_no_defect_of_the_test_split_is_drawn():
    assert not set(ANOMALIES) & set(TEST_DEFECTS)


def test_scene_without_an_outline_has_no_window_across_one(photos, scenes):
    scene = scenes["surface"][0]
    rng = np.random.default_rng(0)
    assert open_window(rng, scene, photos, 0.01, at_the_edge=True) is None


def test_unchanged_photo_has_an_empty_mask():
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert not change_mask(photo, photo).any()


def test_a_change_shows_if_it_is_strong_and_fills_its_mask():
    before = np.full((50, 50, 3), 100, np.uint8)
    mask = np.zeros((50, 50), np.bool_)
    mask[10:20, 10:30] = True
    for levels, share, expected in ((14, 20, True), (10, 20, False), (60, 8, False)):
        after = before.copy()
        after[10:20, 10 : 10 + share] += np.uint8(levels)
        assert shows(before, after, mask) is expected
    # On a busy surface the same change is lost.
    busy = np.random.default_rng(0).integers(40, 200, (50, 50, 1), dtype=np.uint8).repeat(3, -1)
    assert not shows(busy, np.where(mask[..., None], busy + np.uint8(14), busy), mask)


def test_mask_closes_gaps_and_leaves_specks_out():
    before = np.full((100, 100, 3), 100, np.uint8)
    after = before.copy()
    after[20:60, 20:60] = 160
    after[40:44, 40:44] = 100
    after[80, 80] = 160
    mask = change_mask(before, after)
    assert mask[20:60, 20:60].all()
    assert mask.sum() == 1600
