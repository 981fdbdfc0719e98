"""No part of the extreme region is lost to rules by regions, whatever SAM made of it."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import label

from zeroflaw.pipeline.masks.extreme_parts import with_extreme_parts
from zeroflaw.pipeline.refining.refinement import Findings
from zeroflaw.pipeline.view.in_frame import findings_in_frame
from zeroflaw.pipeline.view.product_view import FrameView
from zeroflaw.pipeline.view.zones import zone_layout
from zeroflaw_engines.bundle.products.settings import Zone

MAP = (14, 20)


def at_frame(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map read at the centres of the frame's pixels, one by one."""
    of_row, of_column = (
        [int((at + 0.5) * extent / side) for at in range(side)]
        for extent, side in zip(values.shape, size, strict=True)
    )
    return values[np.ix_(of_row, of_column)]


@pytest.mark.parametrize("size", [(14, 20), (56, 80), (71, 133), (9, 11)])
def test_components_that_no_mask_touches_are_added_whole(size, rng):
    for share in (0.02, 0.1, 0.3):
        extreme = rng.random(MAP) < share
        mask = np.zeros(size, bool)
        mask[: size[0] // 2, size[1] // 3 :] = rng.random() < 0.9
        before = mask.copy()
        judged = np.arange(size[1]) < size[1] * 0.8
        judged = np.broadcast_to(judged, size)
        mask &= judged
        expected = mask.copy()
        parts = at_frame(label(extreme, connectivity=2), size) * judged
        for number in range(1, parts.max() + 1):
            if not (mask & (parts == number)).any():
                expected |= parts == number
        given = mask.copy()
        assert (with_extreme_parts(mask, extreme, judged) == expected).all()
        assert (mask == given).all()
        assert (with_extreme_parts(before, np.zeros(MAP, bool)) == before).all()


def test_an_extreme_pixel_of_a_zone_is_a_region_though_the_mask_lies_outside():
    layout = zone_layout([Zone(name="a", polygon=((0, 0), (40, 0), (40, 56), (0, 56)))], (56, 80))
    mask, scores = np.zeros((56, 80), bool), np.full(MAP, 0.1, np.float32)
    mask[20:40, 50:70] = True
    extreme = np.zeros(MAP, bool)
    extreme[5:8, 6:9] = True
    view = FrameView(np.zeros((56, 80, 3), np.uint8), None, None, layout, None)
    found = Findings(mask, None, scores, "ok")
    assert not findings_in_frame(found, view).mask.any()
    seen = findings_in_frame(found, view, extreme).mask
    expected = np.zeros((56, 80), bool)
    expected[20:32, 24:36] = True
    assert (seen == expected).all()
