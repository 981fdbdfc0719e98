"""Blanking: nothing of what is not judged is left, and nothing of what is judged is changed."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from zeroflaw.pipeline.view.blanking import Blanking


def judged_parts(name, size, rng):
    judged = np.zeros(size, bool)
    if name == "disk":
        y, x = np.ogrid[: size[0], : size[1]]
        judged |= (y - size[0] / 2) ** 2 + (x - size[1] / 2) ** 2 < (min(size) / 3) ** 2
    elif name == "pixel":
        judged[size[0] // 3, size[1] // 2] = True
    elif name == "line":
        judged[size[0] // 2] = True
    elif name == "specks":
        judged |= rng.random(size) < 0.01
    elif name == "all but a corner":
        judged[:] = True
        judged[:5, :5] = False
    return judged


@pytest.mark.parametrize("size", [(400, 600), (97, 33), (16, 17), (1, 40)])
@pytest.mark.parametrize("part", ["disk", "pixel", "line", "specks", "all but a corner"])
def test_no_pixel_outside_changes_a_bit_of_what_is_seen(part, size, rng):
    judged = judged_parts(part, size, rng)
    judged[0, 0] |= not judged.any()
    frame = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    before = frame.copy()
    mirrored = ~judged & (np.arange(size[1]) < size[1] * 0.6)
    blanking = Blanking(judged, mirrored)
    seen = blanking.blanked(frame)
    assert (frame == before).all()
    assert not np.shares_memory(seen, frame)
    assert (seen[judged] == frame[judged]).all()
    for colour in (0, 255, rng.integers(0, 256, (np.count_nonzero(~judged), 3))):
        painted = frame.copy()
        painted[~judged] = colour
        assert (blanking.blanked(painted) == seen).all()
        assert (Blanking(judged, mirrored).blanked(painted) == seen).all()
    low, high = frame[judged].min(axis=0), frame[judged].max(axis=0)
    assert ((seen >= low) & (seen <= high)).all()


def test_one_colour_is_continued(rng):
    judged = judged_parts("specks", (300, 500), rng)
    frame = rng.integers(0, 256, (300, 500, 3)).astype(np.uint8)
    frame[judged] = (10, 200, 77)
    assert (Blanking(judged, ~judged).blanked(frame) == (10, 200, 77)).all()


def test_the_fill_is_the_mirror_image_of_what_is_beside_it():
    frame = np.ascontiguousarray(data.coffee())[:400, :600]
    judged = np.zeros(frame.shape[:2], bool)
    judged[100:300, 150:450] = True
    inside = frame[100:300, 150:450]
    mirrored = np.pad(inside, ((100, 100), (150, 150), (0, 0)), mode="reflect")
    assert (Blanking(judged, ~judged).blanked(frame) == mirrored).all()
    # Of a part alone, the rest is as smooth as without.
    left = ~judged & (np.arange(600) < 100)
    seen, smooth = Blanking(judged, left).blanked(frame), Blanking(judged).blanked(frame)
    assert (seen == np.where((left | judged)[..., None], mirrored, smooth)).all()


def test_where_the_mirror_shows_nothing_the_fill_is_smooth_and_near_the_colours_beside_it():
    frame = np.ascontiguousarray(data.coffee())
    judged = np.zeros(frame.shape[:2], bool)
    judged[196:204, 150:450] = True
    seen = Blanking(judged, ~judged).blanked(frame).astype(int)
    above = seen[:180]
    for axis in (0, 1):
        assert np.abs(np.diff(above, axis=axis)).max() <= 16
    beside, within = above[:, 150:450].mean(axis=(0, 1)), frame[judged].mean(axis=0)
    assert np.abs(beside - within).max() < 20


def test_a_frame_too_long_to_mirror_is_smooth(rng):
    frame = rng.integers(0, 256, (2, 33000, 3)).astype(np.uint8)
    judged = np.ones((2, 33000), bool)
    judged[:, 32900:] = False
    seen = Blanking(judged, ~judged).blanked(frame)
    assert (seen[judged] == frame[judged]).all()
    assert np.abs(np.diff(seen[:, 32900:].astype(int), axis=1)).max() <= 16
