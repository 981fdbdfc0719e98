"""The cascade where the mask of a stage is empty: the one before is kept."""

import dataclasses

import numpy as np
import pytest

from support.scripted_decoder import (
    EMPTY,
    LOW,
    MAP_SIZE,
    ONE,
    THREE,
    TWO,
    Decoder,
    answer,
    blob,
    geometry_of,
    points_of,
    run,
    sam_mask,
)
from zeroflaw_engines.errors import EngineError


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("frame", [(120, 160), (32, 32), (31, 47)])
def test_stage_one_empty_keeps_the_extreme_region(stages, frame):
    decoder = Decoder(answer(EMPTY, others=ONE))
    points = points_of()
    cascade = run(decoder, cascade_stages=stages, geometry=geometry_of(frame))
    assert cascade.status == "stage_1_empty"
    assert cascade.kept_stage == 0
    assert cascade.content_logits is None
    assert cascade.predicted_iou == 0
    assert [stage.empty for stage in cascade.stages] == [True]
    np.testing.assert_array_equal(cascade.mask, region_at_frame(points.extreme_region, frame))
    assert cascade.mask.dtype == np.bool_


def region_at_frame(region, frame):
    """By axis: a shrinking one keeps every pixel it touches, a growing one takes the centre's."""
    for axis, wanted in enumerate(frame):
        have = region.shape[axis]
        if wanted < have:
            touched = [
                range(i * have // wanted, -(-(i + 1) * have // wanted)) for i in range(wanted)
            ]
        else:
            touched = [[(2 * i + 1) * have // (2 * wanted)] for i in range(wanted)]
        parts = [np.take(region, list(some), axis=axis).any(axis=axis) for some in touched]
        region = np.stack(parts, axis=axis)
    return region


@pytest.mark.parametrize("frame", [(2048, 3), (3, 2048), (401, 20), (31, 499), (5, 5), (1, 1)])
def test_the_extreme_region_loses_no_pixel_where_one_axis_shrinks(frame):
    for y, x in np.random.default_rng(0).integers(0, MAP_SIZE, (60, 2)):
        region = np.zeros((MAP_SIZE, MAP_SIZE), np.bool_)
        region[y, x] = True
        points = dataclasses.replace(points_of(), extreme_region=region)
        cascade = run(
            Decoder(answer(EMPTY)), cascade_stages=1, geometry=geometry_of(frame), points=points
        )
        assert cascade.mask.any()
        np.testing.assert_array_equal(cascade.mask, region_at_frame(region, frame))


@pytest.mark.parametrize("thin", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("upright", [True, False])
def test_a_stage_of_a_thin_frame_is_empty_where_the_frame_has_nothing_of_it(thin, upright):
    frame = (20, thin) if upright else (thin, 20)
    rng = np.random.default_rng(thin)
    seen = set()
    for _ in range(40):
        low_res = np.full((LOW, LOW), -5, np.float32)
        y, x = rng.integers(0, LOW, 2)
        low_res[(y, x // 4) if upright else (x // 4, y)] = rng.uniform(0.5, 8)
        cascade = run(
            Decoder(answer(low_res), answer(EMPTY)), cascade_stages=2, geometry=geometry_of(frame)
        )
        empty = not sam_mask(low_res, frame).any()
        seen.add(empty)
        assert cascade.stages[0].empty == empty
        assert cascade.status == ("stage_1_empty" if empty else "stage_2_empty")
    assert seen == {True, False}


@pytest.mark.parametrize("stages", [2, 3])
def test_stage_two_empty_keeps_stage_one(stages):
    decoder = Decoder(answer(ONE, iou=0.6), answer(EMPTY, others=ONE))
    cascade = run(decoder, cascade_stages=stages)
    assert cascade.status == "stage_2_empty"
    assert cascade.kept_stage == 1
    assert cascade.predicted_iou == pytest.approx(0.6)
    assert [stage.empty for stage in cascade.stages] == [False, True]
    np.testing.assert_array_equal(cascade.mask, sam_mask(ONE, (120, 160)))
    assert (cascade.content_logits > 0).any()


@pytest.mark.parametrize("box", ["union", "per_component"])
def test_stage_three_empty_keeps_stage_two(box):
    decoder = Decoder(answer(ONE), answer(TWO, iou=0.75), answer(EMPTY, others=ONE))
    cascade = run(decoder, box=box)
    assert cascade.status == "stage_3_empty"
    assert cascade.kept_stage == 2
    assert cascade.predicted_iou == pytest.approx(0.75)
    assert [stage.empty for stage in cascade.stages] == [False, False, True]
    np.testing.assert_array_equal(cascade.mask, sam_mask(TWO, (120, 160)))


def test_logits_of_zero_are_empty():
    logits = np.zeros((LOW, LOW), np.float32)
    logits[0, 0] = -1
    assert run(Decoder(answer(logits))).status == "stage_1_empty"


def test_logits_that_no_kernel_wrote_are_no_empty_mask():
    with pytest.raises(EngineError, match="low_res_logits that is 0 everywhere"):
        run(Decoder(answer(np.zeros((LOW, LOW), np.float32))))


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_logits_in_the_padding_alone_are_empty(stages):
    # 40 x 160 fills the upper quarter of SAM's image: rows 0 to 3 of the logits.
    padding = blob((6, 16, 0, 16))
    assert not sam_mask(padding, (40, 160)).any()
    decoder = Decoder(answer(padding), answer(TWO), answer(THREE))
    cascade = run(decoder, geometry=geometry_of((40, 160)), cascade_stages=stages)
    assert cascade.status == "stage_1_empty"
    assert [stage.empty for stage in cascade.stages] == [True]
    assert len(decoder.calls) == 1


def test_the_kept_mask_is_never_empty_in_a_frame_smaller_than_the_logits():
    # 10 x 10: the blob of stage 1 lies between the points at which the frame's pixels look.
    frame = (10, 10)
    speck = next(
        low
        for y, x in np.ndindex(LOW, LOW)
        if not sam_mask(low := blob((y, y + 1, x, x + 1)), frame).any()
    )
    cascade = run(Decoder(answer(speck), answer(EMPTY)), geometry=geometry_of(frame))
    assert cascade.mask.any()
    assert cascade.kept_stage == 0
    assert cascade.status == "stage_1_empty"
