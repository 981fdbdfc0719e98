"""Masks against segment-anything itself, and what is computed in part against the whole."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from segment_anything.modeling import Sam
from segment_anything.utils.amg import batched_mask_to_box
from segment_anything.utils.transforms import ResizeLongestSide

from zeroflaw.pipeline.geometry import frame_geometry
from zeroflaw.pipeline.masks import from_logits
from zeroflaw.pipeline.masks.from_logits import (
    Workspace,
    inclusive_box,
    logits_at,
    logits_at_sam,
    mask_at_frame,
    mask_at_map,
)

SIZES = [
    (64, 64),
    (480, 640),
    (640, 480),
    (100, 37),
    (1, 1),
    (2, 3),
    (3, 500),
    (500, 3),
    (518, 518),
    (1024, 700),
    (1024, 1024),
    (1300, 1701),
]


def geometry_of(frame, *, squash_sam=False, map_size=518, sam_size=1024, feature_size=64):
    return frame_geometry(
        frame,
        map_size=map_size,
        sam_size=sam_size,
        feature_size=feature_size,
        squash_sam=squash_sam,
    )


def random_logits(seed, size=256):
    noise = np.random.default_rng(seed).normal(size=(size, size))
    return (20 * cv2.GaussianBlur(noise, (0, 0), size / 32)).astype(np.float32)


def sam_postprocess(low_res, sam_size, content, *sizes):
    sam = SimpleNamespace(image_encoder=SimpleNamespace(img_size=sam_size))
    logits = Sam.postprocess_masks(sam, torch.from_numpy(low_res)[None, None], content, sizes[0])
    for size in sizes[1:]:
        logits = torch.nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)
    return logits[0, 0].numpy()


@pytest.mark.parametrize("frame", [*SIZES, (2400, 3200)])
@pytest.mark.parametrize("squash_sam", [False, True])
def test_mask_is_that_of_postprocess_masks(frame, squash_sam):
    geometry = geometry_of(frame, squash_sam=squash_sam)
    if squash_sam:
        content, sizes = (1024, 1024), [(518, 518), frame]
    else:
        content, sizes = ResizeLongestSide.get_preprocess_shape(*frame, 1024), [frame]
    for seed in (0, 1):
        low_res = random_logits(seed)
        want = sam_postprocess(low_res, 1024, content, *sizes)
        got = mask_at_frame(low_res, geometry).whole()
        assert got.shape == frame
        assert got.dtype == np.bool_
        sure = np.abs(want) > 1e-4
        assert sure.mean() > 0.99
        np.testing.assert_array_equal(got[sure], want[sure] > 0)


@pytest.mark.parametrize("frame", SIZES)
def test_logits_are_those_of_postprocess_masks(frame):
    geometry, low_res = geometry_of(frame), random_logits(3)
    before = low_res.copy()
    content = logits_at_sam(low_res, geometry)
    assert content.shape == geometry.sam_content
    # SAM's first resize alone: no second one if the frame has the content's size.
    first = sam_postprocess(low_res, 1024, geometry.sam_content, geometry.sam_content)
    np.testing.assert_allclose(content, first, atol=1e-4)
    for size in [frame, (518, 518)]:
        want = sam_postprocess(low_res, 1024, geometry.sam_content, size)
        np.testing.assert_allclose(logits_at(content, size), want, atol=2e-4)
    np.testing.assert_array_equal(low_res, before)


@pytest.mark.parametrize("frame", [(40, 64), (64, 23), (7, 9)])
def test_tiny_sam(frame):
    geometry = geometry_of(frame, map_size=32, sam_size=64, feature_size=4)
    low_res = random_logits(4, size=16)
    want = sam_postprocess(low_res, 64, geometry.sam_content, frame)
    sure = np.abs(want) > 1e-4
    got = mask_at_frame(low_res, geometry).whole()
    np.testing.assert_array_equal(got[sure], want[sure] > 0)


def test_logit_zero_is_outside_the_mask():
    geometry = geometry_of((20, 30))
    zeros = np.zeros((256, 256), np.float32)
    assert not mask_at_frame(zeros, geometry).whole().any()
    assert mask_at_frame(zeros + 1e-3, geometry).whole().all()


# --- boxes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 4), (40, 60), (301, 200)])
def test_box_is_that_of_batched_mask_to_box(size, rng):
    for density in (0.002, 0.02, 0.3, 1):
        mask = rng.random(size) < density
        mask[rng.integers(size[0]), rng.integers(size[1])] = True
        want = tuple(batched_mask_to_box(torch.from_numpy(mask)).tolist())
        assert inclusive_box(mask) == want


def test_box_of_a_view(rng):
    whole = rng.random((60, 80)) < 0.002
    whole[31, 42] = True
    view = whole[5:55:2, 70:10:-2]
    want = tuple(batched_mask_to_box(torch.from_numpy(view.copy())).tolist())
    assert inclusive_box(view) == want


def test_box_of_nothing():
    assert inclusive_box(np.zeros((5, 6), bool)) is None


# --- what is not computed ---------------------------------------------------------------------


def logits_with_spots(seed, spots):
    """Negative everywhere but in boxes of noise of both signs."""
    rng = np.random.default_rng(seed)
    low_res = -np.abs(rng.standard_normal((256, 256), np.float32))
    for _ in range(spots):
        (y, x), (height, width) = rng.integers(0, 256, 2), rng.integers(1, 60, 2)
        spot = low_res[y : y + height, x : x + width]
        spot[:] = rng.standard_normal(spot.shape) + rng.random()
    return low_res


@given(
    frame=st.tuples(st.integers(1, 2400), st.integers(1, 3000)),
    seed=st.integers(0, 2**32),
    spots=st.integers(0, 3),
    squash_sam=st.booleans(),
)
@example(frame=(3000, 4096), seed=0, spots=1, squash_sam=False)
@example(frame=(1024, 768), seed=1, spots=1, squash_sam=False)
@settings(max_examples=60, deadline=None)
def test_mask_is_that_of_the_whole_to_the_last_pixel(frame, seed, spots, squash_sam):
    geometry, low_res = geometry_of(frame, squash_sam=squash_sam), logits_with_spots(seed, spots)
    content = logits_at_sam(low_res, geometry)
    source = logits_at(content, (518, 518)) if squash_sam else content
    for got, whole in (
        (mask_at_frame(low_res, geometry), logits_at(source, frame) > 0),
        (mask_at_map(low_res, geometry, (518, 518)), logits_at(content, (518, 518)) > 0),
        (mask_at_map(low_res, geometry, (512, 512)), logits_at(content, (512, 512)) > 0),
    ):
        np.testing.assert_array_equal(got.whole(), whole)
        assert got.whole().shape == whole.shape
        assert got.box == inclusive_box(whole)


@pytest.mark.parametrize("frame", [(3000, 4096), (1500, 1100), (2047, 2051)])
@pytest.mark.parametrize("seed", range(4))
def test_logits_of_a_part_are_those_of_the_whole_to_the_last_bit(frame, seed):
    rng = np.random.default_rng(seed)
    content = logits_at_sam(rng.standard_normal((256, 256), np.float32), geometry_of(frame))
    whole = logits_at(content, frame)
    for x in (0, 64, 448):
        rows = slice(int(rng.integers(frame[0] // 2)), int(rng.integers(frame[0] // 2, frame[0])))
        columns = slice(x, x + 64 * int(rng.integers(1, 6)))
        got = from_logits._logits_within(content, frame, rows, columns, Workspace())
        np.testing.assert_array_equal(got, whole[rows, columns])


def test_memory_of_the_frame_before_changes_nothing():
    workspace = Workspace()
    for seed, frame in enumerate([(3000, 4096), (700, 1100), (1536, 2048), (3000, 4096), (40, 30)]):
        geometry, low_res = geometry_of(frame), logits_with_spots(seed, 2)
        got, other = mask_at_frame(low_res, geometry, workspace), mask_at_frame(low_res, geometry)
        np.testing.assert_array_equal(got.whole(), other.whole())
        assert got.box == other.box
        mask = got.whole()
        assert not any(np.shares_memory(mask, buffer) for buffer in workspace._buffers.values())
        assert (workspace._buffers["sam"] == -1).all()


def test_memory_is_restored_after_an_error(monkeypatch):
    workspace, geometry = Workspace(), geometry_of((1500, 1100))
    low_res = logits_with_spots(0, 2)
    with monkeypatch.context() as patches:
        patches.setattr(from_logits, "_mask_of", None)
        with pytest.raises(TypeError):
            mask_at_frame(low_res, geometry, workspace)
    assert (workspace._buffers["sam"] == -1).all()
