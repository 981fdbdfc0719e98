"""Flawless scenes: parts and shafts lie where their silhouettes say."""

from __future__ import annotations

import numpy as np
import pytest

from zeroflaw_export.mini.photo_frames.scenes import draw_scene
from zeroflaw_export.mini.photo_frames.silhouettes import draw_silhouette

SIZE = 160


@pytest.fixture(scope="module")
def scenes(photos):
    return [draw_scene(np.random.default_rng([1, i]), photos, SIZE) for i in range(40)]


def test_scenes_are_images(scenes):
    for scene in scenes:
        for image in (scene.image, scene.ground):
            assert image.shape == (SIZE, SIZE, 3)
            assert image.dtype == np.float32
            assert image.min() >= 0
            assert image.max() <= 1
        assert scene.part.min() >= 0
        assert scene.part.max() == 1


def test_surface_fills_its_frame_and_an_object_shows_its_ground(scenes):
    surfaces = [s for s in scenes if s.kind == "surface"]
    assert all((s.part == 1).all() for s in surfaces)
    parts = [s for s in scenes if s.kind == "object" and (s.part == 0).any()]
    assert len(parts) >= 5
    shown = [np.abs(s.image - s.ground)[s.part == 0].mean() for s in parts]
    hidden = [np.abs(s.image - s.ground)[s.part == 1].mean() for s in parts]
    assert np.median(shown) < 0.03 < np.median(hidden)


def test_silhouettes_are_of_many_shapes_and_sizes():
    shares = []
    for seed in range(60):
        part = draw_silhouette(np.random.default_rng(seed), SIZE)
        assert set(np.unique(part.round(3))) >= {0, 1}
        shares.append(part.mean())
    assert min(shares) < 0.15
    assert max(shares) > 0.4
