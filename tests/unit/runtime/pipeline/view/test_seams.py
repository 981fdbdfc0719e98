"""Defects on the seams of tiles come out whole: one region, where it was drawn."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import ndimage
from scripted_engines import TiledPart, dim_frame
from skimage.draw import ellipse, polygon

from zeroflaw_engines.bundle.products.settings import Tiles

HEIGHT, WIDTH = 600, 800
DEFECTS = 200


def drawn_defect(rng: np.random.Generator, seams: tuple[list[int], list[int]]) -> np.ndarray:
    """An ellipse or a turned bar whose middle lies on a seam, or where two of them cross."""
    kind = rng.integers(3)
    y = int(rng.choice(seams[0])) if kind != 0 else int(rng.integers(70, HEIGHT - 70))
    x = int(rng.choice(seams[1])) if kind != 1 else int(rng.integers(70, WIDTH - 70))
    long, short = rng.uniform(8, 65), rng.uniform(5, 20)
    turn = rng.uniform(0, np.pi)
    truth = np.zeros((HEIGHT, WIDTH), np.bool_)
    if rng.integers(2):
        truth[ellipse(y, x, short, long, truth.shape, rotation=turn)] = True
    else:
        corners = np.array([(-short, -long), (-short, long), (short, long), (short, -long)]) / 2
        cos, sin = np.cos(turn), np.sin(turn)
        turned = corners @ np.array([(cos, -sin), (sin, cos)]) + (y, x)
        truth[polygon(*turned.T, truth.shape)] = True
    return truth


@pytest.mark.long
def test_two_hundred_defects_on_seams_come_out_whole() -> None:
    part = TiledPart((HEIGHT, WIDTH), Tiles(rows=3, columns=4))
    windows = part.grid.windows
    seams = tuple(
        sorted({edge for w in windows for edge in (w[axis].start, w[axis].stop)} - {0, extent})
        for axis, extent in enumerate((HEIGHT, WIDTH))
    )
    rng = np.random.default_rng(17)
    good = dim_frame(HEIGHT, WIDTH)
    around = np.ones((3, 3), np.bool_)
    in_several = 0
    for number in range(DEFECTS):
        truth = drawn_defect(rng, seams)
        frame = good.copy()
        frame[truth] = 240
        found = part.inspect(frame)
        assert len(found.regions) == 1, f"defect {number} came out as {len(found.regions)} regions"
        outline = np.zeros(truth.shape, np.uint8)
        cv2.fillPoly(outline, [np.array(found.regions[0].polygon, np.int32)], 1)
        # What is compared is cut out, or it would take longer than the inspection.
        ys, xs = np.nonzero(found.mask | truth | (outline > 0))
        cut = np.s_[max(0, ys.min() - 2) : ys.max() + 3, max(0, xs.min() - 2) : xs.max() + 3]
        mask, drawn = found.mask[cut], truth[cut]
        assert ndimage.label(mask, around)[1] == 1
        assert not (mask & ~ndimage.binary_dilation(drawn, around)).any(), number
        assert not (ndimage.binary_erosion(drawn, around) & ~mask).any(), number
        np.testing.assert_array_equal(ndimage.binary_fill_holes(mask), outline[cut] > 0)
        assert found.status == "ok"
        in_several += sum(truth[window].any() for window in windows) > 1
    # Of a defect in a single tile there is no seam to see.
    assert in_several == DEFECTS
    part.close()
