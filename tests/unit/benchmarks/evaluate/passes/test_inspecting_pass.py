"""What the pass for products with settings makes of a frame: its judged area, and its maps."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from zeroflaw_benchmarks.evaluate.passes.inspecting_pass import judged_area, map_at_size


def test_what_is_judged_lies_in_the_pixels_of_the_frame(rng):
    judged = rng.random((12, 16)) < 0.5
    zones = SimpleNamespace(judged=judged)
    moved = SimpleNamespace(mask_in_frame=lambda mask: np.roll(mask, 3, axis=1))
    assert judged_area(None, (12, 16)).all()
    assert judged_area(SimpleNamespace(zones=None, aligned=moved), (12, 16)).all()
    as_it_is = judged_area(SimpleNamespace(zones=zones, aligned=None), (12, 16))
    np.testing.assert_array_equal(as_it_is, judged)
    aligned = judged_area(SimpleNamespace(zones=zones, aligned=moved), (12, 16))
    np.testing.assert_array_equal(aligned, np.roll(judged, 3, axis=1))


def test_finer_maps_are_averaged_over_what_a_pixel_covers(rng):
    fine = rng.random((40, 60), dtype=np.float32)
    want = fine.reshape(20, 2, 20, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(map_at_size(fine, 20), want, atol=1e-6)
    same = rng.random((20, 20), dtype=np.float32)
    assert map_at_size(same, 20) is same
    coarse = map_at_size(np.eye(5, dtype=np.float32), 20)
    assert coarse.shape == (20, 20)
    assert coarse.max() == pytest.approx(1.0)
