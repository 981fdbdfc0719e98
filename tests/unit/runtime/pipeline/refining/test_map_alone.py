"""The refiner `none`: the map's values brought to the frame, and compared there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from support.scripted_decoder import encoding_of, engines_of
from zeroflaw.pipeline.masks.of_map import map_above
from zeroflaw.pipeline.refining.map_alone import take_map_alone
from zeroflaw_engines.parameters import MethodParameters

NONE = MethodParameters(refiner="none")


def smooth_map(rng: np.random.Generator) -> np.ndarray:
    noise = torch.from_numpy(rng.random((1, 1, 6, 6)))
    grown = torch.nn.functional.interpolate(noise, (32, 32), mode="bicubic")[0, 0]
    return grown.clamp(0, 1).numpy().astype(np.float32)


@pytest.mark.parametrize("frame", [(32, 32), (120, 160), (33, 500)])
def test_values_are_interpolated_before_they_are_compared(rng, frame):
    anomaly_map = smooth_map(rng)
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(anomaly_map)[None, None].double(), frame, mode="bilinear"
    )[0, 0].numpy()
    near = abs(wanted - 0.5) < 1e-6
    encoding = encoding_of(anomaly_map, frame, features=False)
    found = take_map_alone(encoding, NONE, engines_of(None)).findings(encoding, NONE)
    np.testing.assert_array_equal(found.mask[~near], (wanted > 0.5)[~near])
    assert 0 < found.mask.mean() < 1
    assert found.status == "ok"
    ys, xs = np.nonzero(found.mask)
    assert found.mask_box == (xs.min(), ys.min(), xs.max(), ys.max())


@pytest.mark.parametrize("scoring", ["fused", "map", "mask", "sam_probability"])
def test_the_score_map_is_the_map_whatever_the_scoring(rng, scoring):
    encoding = encoding_of(smooth_map(rng), features=False)
    parameters = NONE.replace(scoring=scoring)
    found = take_map_alone(encoding, parameters, engines_of(None)).findings(encoding, parameters)
    np.testing.assert_array_equal(found.score_map, encoding.anomaly_map)


def test_nothing_extreme_is_no_region():
    encoding = encoding_of(np.full((32, 32), 0.5), features=False)
    refined = take_map_alone(encoding, NONE, engines_of(None))
    found = refined.findings(encoding, NONE)
    assert (found.status, found.mask_box) == ("no_region", None)
    assert found.mask.shape == (120, 160)
    assert not found.mask.any()
    trace = refined.trace(encoding)
    assert (trace.points, trace.stages, trace.kept_stage) == (None, (), 0)
    assert trace.zero_shot_map is encoding.zero_shot_map


@pytest.mark.parametrize(
    "frame", [(1, 1), (5, 200), (200, 5), (31, 31), (33, 33), (40, 37), (120, 160)]
)
def test_a_single_extreme_pixel_never_vanishes(rng, frame):
    for y, x in rng.integers(0, 32, (40, 2)):
        anomaly_map = np.full((32, 32), 0.1, np.float32)
        anomaly_map[y, x] = 0.51
        mask = map_above(anomaly_map, 0.5, frame)
        assert mask.shape == frame
        assert mask.any()
        ys, xs = np.nonzero(mask)
        # It lies where the pixel does, in frame pixels that it touches.
        scale_y, scale_x = frame[0] / 32, frame[1] / 32
        assert (ys + 1 > y * scale_y).all()
        assert (ys < (y + 1) * scale_y).all()
        assert (xs + 1 > x * scale_x).all()
        assert (xs < (x + 1) * scale_x).all()


def test_in_a_smaller_frame_every_pixel_counts_that_holds_an_extreme_one(rng):
    for _ in range(20):
        anomaly_map = rng.random((32, 32), dtype=np.float32) ** 8
        mask = map_above(anomaly_map, 0.5, (8, 8))
        holds = (anomaly_map > 0.5).reshape(8, 4, 8, 4).any(axis=(1, 3))
        assert mask[holds].all()
        assert (mask == holds).mean() > 0.9
