from types import SimpleNamespace

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam

from zeroflaw.pipeline.geometry import frame_geometry
from zeroflaw.pipeline.refining.cascade import Cascade
from zeroflaw.pipeline.scoring import image_score, score_map
from zeroflaw_engines.parameters import MethodParameters

SIZE = 32
# Frame, map, SAM's image and low-res logits of one size: no resize comes in between.
SAME_GRIDS = frame_geometry(
    (SIZE, SIZE), map_size=SIZE, sam_size=SIZE, feature_size=4, squash_sam=False
)


def cascade_of(low_res, iou=0.8, geometry=SAME_GRIDS):
    return Cascade(
        mask=np.zeros((1, 1), bool),
        mask_box=None,
        low_res_logits=low_res,
        geometry=geometry,
        predicted_iou=iou,
        kept_stage=3,
        status="ok",
        stages=(),
    )


@pytest.fixture
def anomaly_map(rng):
    return rng.random((SIZE, SIZE), dtype=np.float32)


@pytest.fixture
def logits(rng):
    return rng.normal(scale=4, size=(SIZE, SIZE)).astype(np.float32)


@pytest.mark.parametrize("weight", [0, 0.25, 0.5, 1])
@pytest.mark.parametrize(
    ("iou", "clamped"), [(0.8, 0.8), (0, 0), (1, 1), (1.3, 1), (-0.2, 0), (100, 1)]
)
def test_fused(anomaly_map, logits, weight, iou, clamped):
    got = score_map(anomaly_map, cascade_of(logits, iou), MethodParameters(fusion_weight=weight))
    want = (1 - weight) * anomaly_map.astype(np.float64) + weight * clamped * (logits > 0)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert got.min() >= 0
    assert got.max() <= 1


def test_default_is_the_mean_of_map_and_confidence(anomaly_map, logits):
    got = score_map(anomaly_map, cascade_of(logits, 0.6), MethodParameters())
    np.testing.assert_allclose(got, (anomaly_map + 0.6 * (logits > 0)) / 2, atol=1e-6)


def test_map(anomaly_map, logits):
    parameters = MethodParameters(scoring="map")
    np.testing.assert_array_equal(
        score_map(anomaly_map, cascade_of(logits), parameters), anomaly_map
    )
    np.testing.assert_array_equal(score_map(anomaly_map, None, parameters), anomaly_map)


def test_mask(anomaly_map, logits):
    logits[0, :5] = 0
    got = score_map(anomaly_map, cascade_of(logits), MethodParameters(scoring="mask"))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.where(logits > 0, 1, 0))


def test_sam_probability(anomaly_map, logits):
    logits[0, :6] = [-1e4, -100, 0, 100, 1e4, 3]
    with np.errstate(all="raise", under="ignore"):
        got = score_map(
            anomaly_map, cascade_of(logits), MethodParameters(scoring="sam_probability")
        )
    assert got.dtype == np.float32
    want = torch.sigmoid(torch.from_numpy(logits).double()).numpy()
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("cascade", [None, cascade_of(None, 0.9)])
@pytest.mark.parametrize(
    ("scoring", "factor"), [("fused", 0.7), ("map", 1), ("mask", 0), ("sam_probability", 0)]
)
def test_without_a_mask_of_sam(anomaly_map, cascade, scoring, factor):
    parameters = MethodParameters(scoring=scoring, fusion_weight=0.3)
    got = score_map(anomaly_map, cascade, parameters)
    assert got.shape == (SIZE, SIZE)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, factor * anomaly_map, atol=1e-6)


@pytest.mark.parametrize("scoring", ["mask", "sam_probability", "fused"])
@pytest.mark.parametrize("frame", [(64, 64), (40, 64), (90, 30), (1, 1)])
def test_logits_are_read_as_postprocess_masks_does(anomaly_map, frame, scoring, rng):
    geometry = frame_geometry(frame, map_size=SIZE, sam_size=64, feature_size=4, squash_sam=False)
    low_res = rng.normal(scale=3, size=(16, 16)).astype(np.float32)
    sam = SimpleNamespace(image_encoder=SimpleNamespace(img_size=64))
    logits = (
        Sam.postprocess_masks(
            sam, torch.from_numpy(low_res)[None, None], geometry.sam_content, (SIZE, SIZE)
        )[0, 0]
        .double()
        .numpy()
    )
    want = {
        "mask": (logits > 0).astype(float),
        "sam_probability": 1 / (1 + np.exp(-logits)),
        "fused": 0.5 * anomaly_map + 0.4 * (logits > 0),
    }[scoring]
    got = score_map(
        anomaly_map, cascade_of(low_res, geometry=geometry), MethodParameters(scoring=scoring)
    )
    sure = abs(logits) > 1e-4
    np.testing.assert_allclose(got[sure], want[sure], atol=1e-5)


@pytest.mark.parametrize("scoring", ["fused", "map", "mask", "sam_probability"])
def test_inputs_are_not_altered(anomaly_map, logits, scoring):
    before = anomaly_map.copy(), logits.copy()
    for weight in (0, 0.5, 1):
        parameters = MethodParameters(scoring=scoring, fusion_weight=weight)
        score_map(anomaly_map, cascade_of(logits), parameters)
        score_map(anomaly_map, None, parameters)
    np.testing.assert_array_equal(anomaly_map, before[0])
    np.testing.assert_array_equal(logits, before[1])


def test_values_are_not_stretched():
    # A flat good part stays where CLIP put it.
    flat = np.full((SIZE, SIZE), 0.02, np.float32)
    flat[3, 4] = 0.04
    assert score_map(flat, None, MethodParameters()).max() == pytest.approx(0.02)


def test_image_score(anomaly_map):
    anomaly_map[5, 6] = 0.9999
    assert image_score(0.3, anomaly_map, MethodParameters(image_scoring="cls")) == 0.3
    got = image_score(0.3, anomaly_map, MethodParameters(image_scoring="map_max"))
    assert got == pytest.approx(0.9999)
    assert isinstance(got, float)
