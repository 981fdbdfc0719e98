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
    blanking = Blanking(judged)
    seen = blanking.blanked(frame)
    assert (frame == before).all()
    assert not np.shares_memory(seen, frame)
    assert (seen[judged] == frame[judged]).all()
    for colour in (0, 255, rng.integers(0, 256, (np.count_nonzero(~judged), 3))):
        painted = frame.copy()
        painted[~judged] = colour
        assert (blanking.blanked(painted) == seen).all()
        assert (Blanking(judged).blanked(painted) == seen).all()
    low, high = frame[judged].min(axis=0), frame[judged].max(axis=0)
    assert ((seen >= low) & (seen <= high)).all()


def test_one_colour_is_continued(rng):
    judged = judged_parts("specks", (300, 500), rng)
    frame = rng.integers(0, 256, (300, 500, 3)).astype(np.uint8)
    frame[judged] = (10, 200, 77)
    assert (Blanking(judged).blanked(frame) == (10, 200, 77)).all()


def test_the_fill_is_smooth_and_near_the_colours_beside_it():
    frame = np.ascontiguousarray(data.coffee())
    judged = np.zeros(frame.shape[:2], bool)
    judged[100:300, 150:450] = True
    seen = Blanking(judged).blanked(frame).astype(int)
    inside = seen[100:300, 150:450]
    for axis in (0, 1):
        steps = np.abs(np.diff(seen, axis=axis))
        both_outside = ~judged[1:] & ~judged[:-1] if axis == 0 else ~judged[:, 1:] & ~judged[:, :-1]
        assert steps[both_outside].max() <= 16
    # Above the zone: the mean of a stretch of the fill is that of the stretch inside below it.
    for x in range(0, 300, 50):
        beside, within = seen[90:100, 150 + x : 200 + x], inside[:16, x : x + 50]
        assert np.abs(beside.mean(axis=(0, 1)) - within.mean(axis=(0, 1))).max() < 40
