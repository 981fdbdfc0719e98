"""MMR beside a plain second implementation, with a decoder that answers what the test says."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from skimage.measure import label, regionprops

from support.scripted_decoder import (
    EMPTY,
    LOW,
    MAP_SIZE,
    SAM_SIZE,
    SIZES,
    DecoderSession,
    blob,
    encoding_of,
    engines_of,
    sam_mask,
)
from zeroflaw.pipeline.masks.from_logits import Workspace
from zeroflaw.pipeline.refining.mmr import drawn, mmr_prompts, refine_by_mmr
from zeroflaw_engines.errors import EngineError, ParametersError
from zeroflaw_engines.parameters import MethodParameters

MMR = MethodParameters(refiner="mmr")
FRAMES = [(120, 160), (160, 120), (32, 32), (150, 300), (20, 24)]


def random_map(rng: np.random.Generator, high: int = 5) -> np.ndarray:
    """Low values, and some blocks of high ones that may touch at corners."""
    values = rng.uniform(0.05, 0.4, (MAP_SIZE, MAP_SIZE))
    for _ in range(high):
        y, x = rng.integers(0, MAP_SIZE - 4, 2)
        height, width = rng.integers(1, 5, 2)
        values[y : y + height, x : x + width] = rng.uniform(0.5, 0.95, (height, width))
    return values.astype(np.float32)


def random_answers(rng: np.random.Generator, prompts: int = 16):
    """Logits of a few blobs each, and IoUs of which some leave [0, 1]."""
    masks = np.empty((prompts, 4, LOW, LOW), np.float32)
    for place in np.ndindex(prompts, 4):
        y, x = rng.integers(0, LOW - 5, 2)
        masks[place] = blob((y, y + rng.integers(2, 5), x, x + rng.integers(2, 5)))
    return masks, rng.uniform(-0.2, 1.2, (prompts, 4)).astype(np.float32)


def plain_boxes(anomaly_map, threshold, frame):
    """Boxes of the largest 8-connected parts, by scikit-image, in frame pixels that they touch."""
    parts = regionprops(label(anomaly_map > threshold, connectivity=2))
    parts.sort(key=lambda part: (-part.num_pixels, part.bbox[0], part.bbox[1]))
    boxes = []
    for part in parts[:16]:
        top, left, bottom, right = part.bbox  # half open
        scale_y, scale_x = frame[0] / MAP_SIZE, frame[1] / MAP_SIZE
        boxes.append((
            math.floor(left * scale_x), math.floor(top * scale_y),
            math.ceil(right * scale_x) - 1, math.ceil(bottom * scale_y) - 1,
        ))  # fmt: skip
    return boxes


def mask_on_map(low_res, frame):
    """SAM's two resizes, the second to the grid of the map."""
    sam = SimpleNamespace(image_encoder=SimpleNamespace(img_size=SAM_SIZE))
    content = ResizeLongestSide.get_preprocess_shape(*frame, SAM_SIZE)
    grid = (MAP_SIZE, MAP_SIZE)
    logits = Sam.postprocess_masks(sam, torch.from_numpy(low_res)[None, None], content, grid)
    assert (logits.abs() > 1e-4).all()
    return logits[0, 0].numpy() > 0


def plain_mmr(anomaly_map, frame, masks, ious, parameters):
    """Eq. 7 to 9 as loops: the mask at the frame's size, and the score map."""
    boxes = plain_boxes(anomaly_map, parameters.mmr_threshold, frame)
    final = np.zeros(frame, bool)
    total = anomaly_map.astype(np.float64)
    for number in range(len(boxes)):
        scores = np.clip(ious[number, 1:].astype(np.float64), 0, 1)
        three = [sam_mask(masks[number, 1 + j], frame) for j in range(3)]
        if parameters.mmr_mask == "best":
            final |= three[int(ious[number, 1:].argmax())]
        else:
            final |= sum(s * m for s, m in zip(scores, three, strict=True)) > scores.sum() / 2
        for j in range(3):
            total += parameters.mmr_weight * scores[j] * mask_on_map(masks[number, 1 + j], frame)
    if parameters.mmr_normalisation == "fixed":
        return boxes, final, np.minimum(total / (1 + 3 * parameters.mmr_weight), 1)
    return boxes, final, (total - total.min()) / (total.max() - total.min())


@pytest.mark.parametrize(
    ("normalisation", "weight"), [("fixed", 1), ("per_image", 1), ("fixed", 1 / 3)]
)
@pytest.mark.parametrize("choice", ["best", "vote"])
@pytest.mark.parametrize("frame", FRAMES)
def test_masks_and_scores_are_those_of_the_plain_implementation(
    frame, choice, normalisation, weight
):
    parameters = MMR.replace(mmr_mask=choice, mmr_normalisation=normalisation, mmr_weight=weight)
    boxes_seen = set()
    for seed in range(4):
        rng = np.random.default_rng(seed)
        anomaly_map = random_map(rng)
        masks, ious = random_answers(rng)
        decoder = DecoderSession(masks, ious)
        encoding = encoding_of(anomaly_map, frame)
        refined = refine_by_mmr(encoding, parameters, engines_of(decoder))
        boxes, mask, scores = plain_mmr(anomaly_map, frame, masks, ious, parameters)
        boxes_seen.add(len(boxes))
        assert list(refined.prompts.boxes) == boxes
        (call,) = decoder.calls
        assert len(call["point_labels"]) == len(boxes)
        found = refined.findings(encoding, parameters, Workspace())
        assert found.status == "ok"
        np.testing.assert_array_equal(found.mask, mask)
        np.testing.assert_allclose(found.score_map, scores, atol=2e-6)
        assert found.score_map.dtype == np.float32
        ys, xs = np.nonzero(mask)
        assert found.mask_box == (xs.min(), ys.min(), xs.max(), ys.max())
        again = refine_by_mmr(encoding, parameters, engines_of(DecoderSession(masks, ious)))
        same = again.findings(encoding, parameters)
        assert same.mask.tobytes() == found.mask.tobytes()
        assert same.score_map.tobytes() == found.score_map.tobytes()
    assert len(boxes_seen) > 1


@pytest.mark.parametrize("frame", FRAMES)
def test_the_decoder_is_given_every_box_with_all_points(frame):
    rng = np.random.default_rng(3)
    anomaly_map = random_map(rng)
    decoder = DecoderSession(*random_answers(rng))
    refined = refine_by_mmr(encoding_of(anomaly_map, frame), MMR, engines_of(decoder))
    points, boxes = refined.prompts.points, refined.prompts.boxes
    (call,) = decoder.calls
    transform = ResizeLongestSide(SAM_SIZE)
    for row, box in enumerate(boxes):
        assert call["point_labels"][row].tolist() == [1] * 5 + [2, 3, -2, -2]
        want = transform.apply_coords(points.coords, frame)
        np.testing.assert_allclose(call["point_coords"][row, :5], want, rtol=1e-6)
        corners = transform.apply_boxes(np.array([box], np.float64), frame).reshape(2, 2)
        np.testing.assert_allclose(call["point_coords"][row, 5:7], corners, rtol=1e-6)
    assert not call["mask_input"].any()
    assert not call["has_mask_input"].any()
    # Each point is the centre of another pixel of the foreground.
    grid = (points.coords + 0.5) * MAP_SIZE / np.array(frame[::-1]) - 0.5
    np.testing.assert_allclose(grid, grid.round(), atol=1e-3)
    pixels = {tuple(one) for one in grid.round().astype(int).tolist()}
    assert len(pixels) == 5
    assert all(anomaly_map[y, x] > MMR.mmr_threshold for x, y in pixels)


def plain_draw(count, wanted, seed):
    """Fisher and Yates on a whole list."""
    numbers = list(range(count))
    raw = np.random.PCG64(seed).random_raw(min(wanted, count))
    for at, value in enumerate(raw):
        other = at + int(value) % (count - at)
        numbers[at], numbers[other] = numbers[other], numbers[at]
    return numbers[: min(wanted, count)]


def test_points_are_drawn_without_putting_back_and_from_everywhere():
    for count in (1, 2, 3, 7, 50, 268_324):
        for seed in (0, 1, 2**32 - 1):
            assert drawn(count, 20, seed) == plain_draw(count, 20, seed)
            assert len(set(drawn(count, 20, seed))) == min(20, count)
    # Other machines draw the same.
    assert drawn(1000, 5, 0) == DRAWN
    seen = np.bincount([n for seed in range(2000) for n in drawn(10, 3, seed)], minlength=10)
    assert (abs(seen - 600) < 4.5 * math.sqrt(600 * 0.7)).all()


DRAWN = [271, 290, 776, 525, 379]


def test_points_depend_on_the_foreground_and_the_seed_alone(rng):
    anomaly_map = random_map(rng)
    encoding = encoding_of(anomaly_map)

    def coords(values, **parameters):
        return mmr_prompts(values, encoding.geometry, MMR.replace(**parameters)).points.coords

    first = coords(anomaly_map)
    elsewhere = np.where(anomaly_map > 0.47, anomaly_map, 0.2).astype(np.float32)
    np.testing.assert_array_equal(coords(elsewhere), first)
    other = coords(anomaly_map, mmr_seed=1)
    assert not np.array_equal(other, first)


@pytest.mark.parametrize("pixels", [1, 3])
def test_a_foreground_of_few_pixels_gives_as_many_points(pixels):
    anomaly_map = np.full((MAP_SIZE, MAP_SIZE), 0.1, np.float32)
    anomaly_map[4, 5 : 5 + pixels] = 0.9
    prompts = mmr_prompts(anomaly_map, encoding_of(anomaly_map).geometry, MMR)
    assert len(prompts.points.coords) == pixels
    assert len(prompts.boxes) == 1


def test_the_sixteen_largest_parts_get_a_box_and_all_parts_points():
    anomaly_map = np.full((MAP_SIZE, MAP_SIZE), 0.1, np.float32)
    for number in range(20):
        y, x = 6 * (number // 5), 6 * (number % 5)
        anomaly_map[y : y + 2, x : x + 2 + (number % 5 > 0)] = 0.9  # four of them are smaller
    geometry = encoding_of(anomaly_map, (MAP_SIZE, MAP_SIZE)).geometry
    prompts = mmr_prompts(anomaly_map, geometry, MMR.replace(mmr_points=20))
    assert len(prompts.boxes) == 16
    assert {x1 - x0 for x0, _, x1, _ in prompts.boxes} == {2}
    assert len(prompts.points.coords) == 20
    assert prompts.points.extreme_region.sum() == 16 * 6 + 4 * 4


def test_parts_that_touch_at_a_corner_are_one():
    anomaly_map = np.full((MAP_SIZE, MAP_SIZE), 0.1, np.float32)
    anomaly_map[4:6, 4:6] = anomaly_map[6:9, 6:8] = 0.9
    geometry = encoding_of(anomaly_map, (MAP_SIZE, MAP_SIZE)).geometry
    assert mmr_prompts(anomaly_map, geometry, MMR).boxes == ((4, 4, 7, 8),)


@pytest.mark.parametrize("value", [0.47, 0.2])
def test_without_foreground_sam_is_not_asked(value):
    anomaly_map = np.full((MAP_SIZE, MAP_SIZE), np.float32(value))
    decoder = DecoderSession(EMPTY[None, None].repeat(4, axis=1), np.ones((1, 4)))
    parameters = MMR.replace(mmr_threshold=float(np.float32(0.47)))
    encoding = encoding_of(anomaly_map)
    refined = refine_by_mmr(encoding, parameters, engines_of(decoder))
    found = refined.findings(encoding, parameters)
    assert found.status == "no_region"
    assert not found.mask.any()
    assert not decoder.calls
    np.testing.assert_allclose(found.score_map, anomaly_map / 4)
    trace = refined.trace(encoding)
    assert (trace.points, trace.stages, trace.kept_stage) == (None, (), 0)
    stretched = refined.findings(encoding, parameters.replace(mmr_normalisation="per_image"))
    assert not stretched.score_map.any()  # one value has no range


def test_always_run_begins_at_the_peak(rng):
    anomaly_map = random_map(rng, high=0)
    decoder = DecoderSession(*random_answers(rng))
    parameters = MMR.replace(no_region="always_run")
    refined = refine_by_mmr(encoding_of(anomaly_map), parameters, engines_of(decoder))
    y, x = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
    np.testing.assert_array_equal(np.argwhere(refined.prompts.points.extreme_region), [[y, x]])
    assert not refined.prompts.points.from_region
    assert len(decoder.calls) == 1


@pytest.mark.parametrize("choice", ["best", "vote"])
def test_where_sam_finds_nothing_the_foreground_is_the_mask(rng, choice):
    anomaly_map = random_map(rng)
    masks = EMPTY[None, None].repeat(4, axis=1).repeat(16, axis=0)
    masks[:, 0] = blob((2, 9, 3, 11))  # the single mask does not count
    decoder = DecoderSession(masks, np.full((16, 4), 0.9))
    parameters = MMR.replace(mmr_mask=choice)
    encoding = encoding_of(anomaly_map, (MAP_SIZE, MAP_SIZE))
    refined = refine_by_mmr(encoding, parameters, engines_of(decoder))
    found = refined.findings(encoding, parameters)
    assert found.status == "stage_1_empty"
    np.testing.assert_array_equal(found.mask, anomaly_map > MMR.mmr_threshold)
    assert refined.trace(encoding).kept_stage == 0


def test_scores_of_every_scoring(rng):
    anomaly_map = random_map(rng)
    masks, ious = random_answers(rng)
    frame = (120, 160)
    encoding = encoding_of(anomaly_map, frame)
    refined = refine_by_mmr(encoding, MMR, engines_of(DecoderSession(masks, ious)))
    count = len(refined.prompts.boxes)
    best = [masks[i, 1 + ious[i, 1:].argmax()] for i in range(count)]

    def scores(scoring):
        return refined.findings(encoding, MMR.replace(scoring=scoring)).score_map

    np.testing.assert_array_equal(scores("map"), anomaly_map)
    union = np.any([mask_on_map(low_res, frame) for low_res in best], axis=0)
    np.testing.assert_array_equal(scores("mask"), union)
    np.testing.assert_array_equal(scores("sam_probability") > 0.5, union)
    assert len(np.unique(scores("sam_probability"))) > 10


def test_the_trace_shows_points_boxes_and_the_chosen_masks(rng):
    masks, ious = random_answers(rng)
    encoding = encoding_of(random_map(rng))
    refined = refine_by_mmr(encoding, MMR, engines_of(DecoderSession(masks, ious)))
    trace = refined.trace(encoding)
    (stage,) = trace.stages
    count = len(refined.prompts.boxes)
    assert stage.boxes == refined.prompts.boxes
    assert stage.chosen == tuple(1 + ious[:count, 1:].argmax(axis=1))
    np.testing.assert_array_equal(stage.predicted_iou, ious[:count])
    np.testing.assert_array_equal(
        stage.low_res_logits, np.max([masks[i, t] for i, t in enumerate(stage.chosen)], axis=0)
    )
    assert trace.kept_stage == 1
    assert trace.points is refined.prompts.points


def test_more_points_than_rows_are_refused(rng):
    decoder = DecoderSession(*random_answers(rng))
    with pytest.raises(ParametersError, match="takes 9 rows") as caught:
        refine_by_mmr(encoding_of(random_map(rng)), MMR.replace(mmr_points=8), engines_of(decoder))
    assert "at most 7" in caught.value.remedy
    refine_by_mmr(encoding_of(random_map(rng)), MMR.replace(mmr_points=7), engines_of(decoder))


@pytest.mark.parametrize("token", [1, 2, 3])
def test_values_that_are_not_finite_are_refused_in_any_of_the_three(rng, token):
    masks, ious = random_answers(rng)
    masks[0, token, 3, 3] = np.nan
    with pytest.raises(EngineError, match="low_res_logits"):
        refine_by_mmr(encoding_of(random_map(rng)), MMR, engines_of(DecoderSession(masks, ious)))


@pytest.mark.parametrize("dead", ["low_res_logits", "predicted_iou"])
def test_answers_of_a_dead_decoder_are_refused(rng, dead):
    """Its empty masks would leave a quarter of the map as score: a defect below any threshold."""
    masks, ious = random_answers(rng)
    (masks if dead == "low_res_logits" else ious)[:] = 0
    with pytest.raises(EngineError, match=f"{dead} that is 0 everywhere"):
        refine_by_mmr(encoding_of(random_map(rng)), MMR, engines_of(DecoderSession(masks, ious)))


def test_features_of_a_dead_encoder_are_refused(rng):
    encoding = encoding_of(random_map(rng))
    dead = dataclasses.replace(encoding, features=np.zeros_like(encoding.features))
    with pytest.raises(EngineError, match="sam_encoder"):
        refine_by_mmr(dead, MMR, engines_of(DecoderSession(*random_answers(rng)), SIZES))
