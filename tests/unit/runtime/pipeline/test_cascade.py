"""The cascade with a decoder that records its prompts and answers what the test says."""

import itertools

import numpy as np
import pytest
from segment_anything.utils.transforms import ResizeLongestSide
from skimage.measure import label, regionprops

from support.scripted_decoder import (
    EMPTY,
    LOW,
    MAP_SIZE,
    MAX_PROMPTS,
    ONE,
    SAM_SIZE,
    THREE,
    TWO,
    Decoder,
    answer,
    blob,
    geometry_of,
    points_of,
    run,
    sam_box,
    sam_mask,
)
from zeroflaw.pipeline.masks.from_logits import MaskPart
from zeroflaw.pipeline.refining.cascade import decoder_prompts, location, run_cascade
from zeroflaw_engines.parameters import MethodParameters

# --- what the decoder is given ----------------------------------------------------------------


@pytest.mark.parametrize("frame", [(120, 160), (160, 120), (64, 64), (500, 300)])
def test_prompts_of_the_three_stages(frame):
    decoder = Decoder(answer(ONE, token=2), answer(TWO, token=3), answer(THREE))
    points = points_of()
    run(decoder, geometry=geometry_of(frame), points=points)
    transform = ResizeLongestSide(SAM_SIZE)
    want = transform.apply_coords(points.coords, frame)
    for call in decoder.calls:
        assert call.point_coords.shape == (1, MAX_PROMPTS, 2)
        assert call.point_coords.dtype == np.float32
        assert call.point_labels.shape == (1, MAX_PROMPTS)
        assert call.point_labels.dtype == np.int32
        assert call.mask_input.shape == (1, 1, LOW, LOW)
        assert call.mask_input.dtype == call.has_mask_input.dtype == np.float32
        np.testing.assert_allclose(call.point_coords[0, :3], want, rtol=1e-6)
    first, second, third = decoder.calls
    # Points and SAM's not-a-point row; the rest is ours, unused.
    assert first.point_labels.tolist() == [[1, 1, 0, -1, -2, -2, -2, -2, -2]]
    assert second.point_labels.tolist() == first.point_labels.tolist()
    # With a box there is no not-a-point row.
    assert third.point_labels.tolist() == [[1, 1, 0, 2, 3, -2, -2, -2, -2]]
    for call, used in ((first, 3), (second, 3), (third, 5)):
        assert not call.point_coords[0, used:].any()

    assert [call.has_mask_input.tolist() for call in decoder.calls] == [[0], [1], [1]]
    assert not first.mask_input.any()
    np.testing.assert_array_equal(second.mask_input[0, 0], ONE)
    np.testing.assert_array_equal(third.mask_input[0, 0], TWO)

    box = np.array(sam_box(sam_mask(TWO, frame)), np.float64)
    corners = transform.apply_boxes(box[None], frame).reshape(2, 2)
    np.testing.assert_allclose(third.point_coords[0, 3:5], corners, rtol=1e-6)


def test_box_of_stage_three_is_inclusive_in_frame_pixels():
    # 4 frame px to a low-res cell, 64 px to both SAM's image and the frame.
    decoder = Decoder(answer(ONE), answer(TWO), answer(THREE))
    cascade = run(decoder, geometry=geometry_of((64, 64)))
    assert [stage.boxes for stage in cascade.stages[:2]] == [(), ()]
    (box,) = cascade.stages[2].boxes
    ys, xs = np.nonzero(sam_mask(TWO, (64, 64)))
    assert box == (xs.min(), ys.min(), xs.max(), ys.max())
    assert decoder.calls[2].point_coords[0, 3:5].ravel().tolist() == list(box)


def test_squashed_sam_source():
    frame = (90, 200)
    geometry = geometry_of(frame, squash_sam=True)
    decoder = Decoder(answer(ONE), answer(TWO), answer(THREE))
    points = points_of()
    cascade = run(decoder, geometry=geometry, points=points, sam_input="squashed")
    scale = np.array([MAP_SIZE / frame[1], MAP_SIZE / frame[0]])

    def to_sam(coords):
        squashed = (np.asarray(coords, np.float64) + 0.5) * scale - 0.5
        return ResizeLongestSide(SAM_SIZE).apply_coords(squashed, (MAP_SIZE, MAP_SIZE))

    np.testing.assert_allclose(
        decoder.calls[0].point_coords[0, :3], to_sam(points.coords), rtol=1e-5
    )
    box = sam_box(sam_mask(TWO, frame, squash_sam=True))
    assert cascade.stages[2].boxes == (box,)
    np.testing.assert_allclose(
        decoder.calls[2].point_coords[0, 3:5], to_sam([box[:2], box[2:]]), rtol=1e-5
    )
    np.testing.assert_array_equal(cascade.mask, sam_mask(THREE, frame, squash_sam=True))


def test_rows_fill_up_to_the_last():
    many = points_of(coords=[(i, i) for i in range(7)], labels=[1] * 4 + [0] * 3)
    decoder = Decoder(answer(ONE), answer(TWO), answer(THREE))
    run(decoder, points=many)
    assert decoder.calls[0].point_labels.tolist() == [[1, 1, 1, 1, 0, 0, 0, -1, -2]]
    assert decoder.calls[2].point_labels.tolist() == [[1, 1, 1, 1, 0, 0, 0, 2, 3]]


def test_positives_alone():
    decoder = Decoder(answer(ONE), answer(TWO), answer(THREE))
    run(decoder, points=points_of(coords=[(7, 9)], labels=[1]))
    assert decoder.calls[0].point_labels.tolist() == [[1, -1] + [-2] * 7]
    assert decoder.calls[2].point_labels.tolist() == [[1, 2, 3] + [-2] * 6]


def test_decoder_prompts_by_themselves():
    points, boxes = points_of(), ((1, 2, 3, 4), (10, 20, 30, 40))
    got = decoder_prompts(
        points, boxes, ONE, geometry_of((64, 64)), max_prompts=6, low_res_size=LOW
    )
    assert got.point_labels.tolist() == [[1, 1, 0, 2, 3, -2]] * 2
    assert got.point_coords[0].tolist() == [[30, 40], [50.5, 44], [10, 90], [1, 2], [3, 4], [0, 0]]
    assert got.point_coords[1, 3:5].tolist() == [[10, 20], [30, 40]]
    np.testing.assert_array_equal(got.mask_input, np.stack([ONE, ONE])[:, None])
    assert got.has_mask_input.tolist() == [1, 1]


# --- which mask is taken ----------------------------------------------------------------------


@pytest.mark.parametrize("tokens", list(itertools.product([1, 2, 3], repeat=3)))
def test_best_of_the_three_multimask_tokens(tokens):
    decoder = Decoder(
        *(answer(best, token=t) for best, t in zip((ONE, TWO, THREE), tokens, strict=True))
    )
    cascade = run(decoder)
    assert [stage.chosen for stage in cascade.stages] == [(t,) for t in tokens]
    for stage, best in zip(cascade.stages, (ONE, TWO, THREE), strict=True):
        np.testing.assert_array_equal(stage.low_res_logits, best)
        assert stage.predicted_iou.shape == (1, 4)
        assert not stage.empty
    np.testing.assert_array_equal(cascade.mask, sam_mask(THREE, (120, 160)))
    assert cascade.mask.dtype == np.bool_
    assert cascade.status == "ok"
    assert cascade.kept_stage == 3


def test_single_mask_is_of_stage_one_only():
    single = blob((1, 14, 1, 14))
    decoder = Decoder(
        ([[single, ONE, ONE, ONE]], [[0.2, 0.5, 0.9, 0.7]]), answer(TWO), answer(THREE)
    )
    cascade = run(decoder, stage1_mask="single")
    assert [stage.chosen for stage in cascade.stages] == [(0,), (1,), (1,)]
    np.testing.assert_array_equal(decoder.calls[1].mask_input[0, 0], single)
    alone = run(
        Decoder(([[single, ONE, ONE, ONE]], [[0.2, 0.5, 0.9, 0.7]])),
        stage1_mask="single",
        cascade_stages=1,
    )
    assert alone.predicted_iou == pytest.approx(0.2)
    np.testing.assert_array_equal(alone.mask, sam_mask(single, (120, 160)))


def test_equal_ious_take_the_first_and_negative_ones_are_allowed():
    masks = [[EMPTY, ONE, TWO, THREE]]
    decoder = Decoder((masks, [[1, 0.5, 0.5, 0.5]]), (masks, [[1, -0.9, -0.2, -0.3]]))
    cascade = run(decoder, cascade_stages=2)
    assert [stage.chosen for stage in cascade.stages] == [(1,), (2,)]
    assert cascade.predicted_iou == pytest.approx(-0.2)


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("frame", [(120, 160), (33, 77)])
def test_number_of_stages(stages, frame):
    answers = [answer(ONE, iou=0.7), answer(TWO, iou=0.8), answer(THREE, iou=1.2)][:stages]
    decoder = Decoder(*answers)
    cascade = run(decoder, cascade_stages=stages, geometry=geometry_of(frame))
    assert len(decoder.calls) == len(cascade.stages) == cascade.kept_stage == stages
    assert cascade.status == "ok"
    assert cascade.predicted_iou == pytest.approx([0.7, 0.8, 1.2][stages - 1])
    np.testing.assert_array_equal(cascade.mask, sam_mask([ONE, TWO, THREE][stages - 1], frame))
    assert cascade.content_logits.shape == geometry_of(frame).sam_content


# --- a box for each component -----------------------------------------------------------------

TWO_PARTS = blob((1, 4, 1, 5), (6, 11, 7, 14))


def test_per_component_prompts_and_union():
    left, right = blob((1, 4, 1, 4)), blob((7, 10, 8, 13))
    both = ([[EMPTY, left, ONE, ONE], [EMPTY, ONE, ONE, right]], [[1, 0.8, 0, 0], [1, 0, 0, 0.6]])
    decoder = Decoder(answer(ONE), answer(TWO_PARTS), both)
    points = points_of()
    cascade = run(decoder, box="per_component", points=points)
    frame = (120, 160)
    parts = sorted(
        regionprops(label(sam_mask(TWO_PARTS, frame), connectivity=2)), key=lambda r: -r.area
    )
    boxes = tuple((r.bbox[1], r.bbox[0], r.bbox[3] - 1, r.bbox[2] - 1) for r in parts)
    assert len(boxes) == 2
    assert cascade.stages[2].boxes == boxes
    call = decoder.calls[2]
    assert call.point_labels.tolist() == [[1, 1, 0, 2, 3, -2, -2, -2, -2]] * 2
    transform = ResizeLongestSide(SAM_SIZE)
    want = transform.apply_coords(points.coords, frame)
    corners = transform.apply_boxes(np.array(boxes, np.float64), frame).reshape(2, 2, 2)
    for row in range(2):
        np.testing.assert_allclose(call.point_coords[row, :3], want, rtol=1e-6)
        np.testing.assert_allclose(call.point_coords[row, 3:5], corners[row], rtol=1e-6)
        np.testing.assert_array_equal(call.mask_input[row, 0], TWO_PARTS)
    assert call.has_mask_input.tolist() == [1, 1]
    assert cascade.stages[2].chosen == (1, 3)
    np.testing.assert_array_equal(cascade.stages[2].low_res_logits > 0, (left > 0) | (right > 0))
    np.testing.assert_array_equal(cascade.mask, sam_mask(np.maximum(left, right), frame))
    assert cascade.predicted_iou == pytest.approx(0.7)
    assert cascade.status == "ok"


def test_per_component_with_one_empty_answer():
    left = blob((1, 4, 1, 4))
    both = ([[EMPTY, left, ONE, ONE], [EMPTY, EMPTY, ONE, ONE]], [[1, 0.8, 0, 0], [1, 0.6, 0, 0]])
    cascade = run(Decoder(answer(ONE), answer(TWO_PARTS), both), box="per_component")
    assert cascade.status == "ok"
    np.testing.assert_array_equal(cascade.mask, sam_mask(left, (120, 160)))


def test_union_is_one_box_over_both_components():
    cascade = run(Decoder(answer(ONE), answer(TWO_PARTS), answer(THREE)))
    assert cascade.stages[2].boxes == (sam_box(sam_mask(TWO_PARTS, (120, 160))),)


def part_of(mask):
    """All of a mask, two rows and 64 columns into a larger one that shows nothing else."""
    height, width = mask.shape
    size = (height + 2, width + 64)
    return MaskPart(mask, slice(2, height + 2), slice(64, width + 64), size)


def moved(boxes):
    return tuple((x0 + 64, y0 + 2, x1 + 64, y1 + 2) for x0, y0, x1, y1 in boxes)


def test_location_takes_the_16_largest_components():
    mask = np.zeros((60, 200), bool)
    for i in range(20):
        mask[5 : 6 + (i * 7) % 20, 8 * i + 1 : 8 * i + 4] = True
    parts = sorted(regionprops(label(mask, connectivity=2)), key=lambda r: -r.area)[:16]
    want = [(r.bbox[1], r.bbox[0], r.bbox[3] - 1, r.bbox[2] - 1) for r in parts]
    assert location(part_of(mask), MethodParameters(box="per_component")) == moved(want)


def test_location_joins_components_at_corners():
    components, union = MethodParameters(box="per_component"), MethodParameters(box="union")
    mask = np.zeros((9, 9), bool)
    mask[1:3, 1:3] = mask[3:6, 3:5] = True
    assert location(part_of(mask), components) == moved([(1, 1, 4, 5)])
    mask[8, 8] = True
    assert location(part_of(mask), components) == moved([(1, 1, 4, 5), (8, 8, 8, 8)])
    assert location(part_of(mask), union) == moved([(1, 1, 8, 8)])


@pytest.mark.parametrize("box", ["union", "per_component"])
def test_location_of_nothing(box):
    assert location(part_of(np.zeros((4, 5), bool)), MethodParameters(box=box)) == ()


def test_answers_of_the_decoder_are_not_altered():
    masks = np.stack([EMPTY, ONE, TWO, THREE])[None]
    ious = np.array([[1, 0.5, 0.4, 0.3]], np.float32)
    kept = masks.copy()
    run_cascade(
        lambda prompts: (masks, ious),
        points_of(),
        geometry_of(),
        MethodParameters(),
        max_prompts=MAX_PROMPTS,
        low_res_size=LOW,
    )
    np.testing.assert_array_equal(masks, kept)
