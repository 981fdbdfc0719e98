"""SAA's masks of boxes, beside a plain second implementation at the size of the frame."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from support.scripted_decoder import (
    EMPTY,
    LOW,
    MAP_SIZE,
    MAX_PROMPTS,
    SAM_SIZE,
    DecoderSession,
    blob,
    geometry_of,
    sam_box,
    sam_mask,
)
from zeroflaw.pipeline.encoding.frame import Encoding
from zeroflaw.pipeline.encoding.frame_information import FrameInformation
from zeroflaw.pipeline.encoding.proposals import Proposals
from zeroflaw.pipeline.masks.from_logits import Workspace
from zeroflaw.pipeline.refining.box_proposals import masks_of_proposals, refine_by_box_proposals
from zeroflaw.pipeline.refining.refinement import RefinerEngines
from zeroflaw.pipeline.refining.refiners import refine
from zeroflaw.pipeline.view.zones import ZoneLayout
from zeroflaw_engines.contract import EngineSizes
from zeroflaw_engines.contract.proposals import BoxProposals
from zeroflaw_engines.errors import EngineError
from zeroflaw_engines.parameters import MethodParameters

SIDE = 5  # of the patch grid
SIZES = EngineSizes(
    clip_image_size=MAP_SIZE,
    embedding_size=8,
    sam_image_size=SAM_SIZE,
    sam_feature_size=4,
    sam_feature_channels=8,
    max_prompts=MAX_PROMPTS,
)


class BoxDecoder:
    """Knows a box by its corners in SAM's image, and answers with the mask that belongs to it."""

    def __init__(self, boxes, masks, geometry):
        height, width = geometry.sam_content
        scale = np.array([width, height, width, height])
        self.corners, self.masks, self.asked = boxes * scale, masks, []

    def __call__(self, prompts):
        assert prompts.point_labels[:, :2].tolist() == [[2, 3]] * len(prompts.point_labels)
        assert (prompts.point_labels[:, 2:] == -2).all()
        assert not prompts.has_mask_input.any()
        assert not prompts.mask_input.any()
        found = []
        for row in prompts.point_coords[:, :2].reshape(-1, 4):
            distances = np.abs(self.corners - row).max(axis=1)
            assert distances.min() < 1e-3
            found.append(int(distances.argmin()))
        self.asked.append(found)
        return [self.masks[number] for number in found]


def some_boxes(count, seed=0):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1)
    boxes = corners.reshape(count, 4).astype(np.float32)
    scores = rng.uniform(0.05, 0.9, count).astype(np.float32)
    masks = []
    for _ in range(count):
        y, x = rng.integers(0, LOW - 4, 2)
        height, width = rng.integers(2, 5, 2)
        masks.append(blob((y, y + height, x, x + width)))
    return boxes, scores, masks


def some_tokens(seed=1):
    tokens = np.random.default_rng(seed).normal(size=(3, SIDE * SIDE, 6)) + 0.8
    return (tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)).astype(np.float32)


def zones_of(judged):
    return None if judged is None else ZoneLayout((), judged)


def encoded(frame, boxes, scores, *, judged=None):
    proposals = Proposals(BoxProposals(boxes, scores), frame, some_tokens(), zones_of(judged))
    anomaly_map = np.random.default_rng(2).uniform(size=(MAP_SIZE, MAP_SIZE)).astype(np.float32)
    information = FrameInformation(1, 0, 1)
    return Encoding(
        geometry_of(frame), anomaly_map, 0.5, information, None, anomaly_map, proposals=proposals
    )


def refined(frame, boxes, scores, masks, *, judged=None, workspace=None, **parameters):
    encoding = encoded(frame, boxes, scores, judged=judged)
    decoder = BoxDecoder(boxes, masks, encoding.geometry)
    given = MethodParameters(refiner="box_proposals", **parameters)
    result = masks_of_proposals(
        decoder, encoding, encoding.proposals, given, sizes=SIZES, workspace=workspace
    )
    return result, decoder


def bilinear(grid, size):
    values = torch.from_numpy(grid.astype(np.float64))[None, None]
    return torch.nn.functional.interpolate(values, size, mode="bilinear")[0, 0].numpy()


def plain(frame, boxes, scores, masks, parameters, judged=None):
    """SAA as it is written: every box, everything at the frame's size, and no cleverness."""
    judged = np.ones(frame, bool) if judged is None else judged
    saliency = None
    if parameters.proposal_saliency == "anomaly_map":
        saliency = bilinear(encoded(frame, boxes, scores).anomaly_map, frame)
    elif parameters.proposal_saliency == "patch_tokens":
        cells = cells_of(judged, SIDE).ravel()
        grid = [
            dissimilarity(some_tokens(), patch, parameters.saliency_neighbours, cells)
            for patch in range(SIDE * SIDE)
        ]
        saliency = bilinear(np.array(grid).reshape(SIDE, SIDE), frame)
    rescored = []
    for number, (x0, y0, x1, y1) in enumerate(boxes.astype(np.float64)):
        area = (x1 - x0) * (y1 - y0)
        if not (scores[number] > parameters.proposal_score and 0 < area < parameters.proposal_area):
            continue
        mask = sam_mask(masks[number], frame) & judged
        if not mask.any():
            continue
        weight = 1 if saliency is None else math.exp(3 * saliency[mask].mean()) / math.exp(3)
        rescored.append((float(scores[number]) * weight, number))
    best = sorted(rescored, reverse=True)[: parameters.proposal_masks]
    union = np.zeros(frame, bool)
    total, weights = np.zeros((MAP_SIZE, MAP_SIZE)), np.ones((MAP_SIZE, MAP_SIZE))
    for score, number in best:
        union |= sam_mask(masks[number], frame) & judged
        at_map = on_map(masks[number], frame)
        total += at_map * score
        weights += at_map
    return best, union, total / weights * cells_of(judged, MAP_SIZE)


def dissimilarity(tokens, patch, neighbours, judged):
    joined = np.concatenate(tokens.astype(np.float64), axis=1)
    values = []
    for other in np.flatnonzero(judged):
        a, b = joined[patch], joined[other]
        values.append(0.5 * (1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
    return np.mean(sorted(values, reverse=True)[:neighbours])


def cells_of(judged, side):
    """Which cells of a grid over the frame hold the centre or a part of a judged pixel."""
    height, width = judged.shape
    cells = np.zeros((side, side), bool)
    for y, x in np.argwhere(judged):
        rows = slice(int(y * side / height), math.ceil((y + 1) * side / height))
        columns = slice(int(x * side / width), math.ceil((x + 1) * side / width))
        cells[rows, columns] = True
    return cells


def on_map(low_res, frame):
    """SAM's own resizing, with the map in place of the frame."""
    height, width = geometry_of(frame).sam_content
    at_sam = torch.nn.functional.interpolate(
        torch.from_numpy(low_res)[None, None], (SAM_SIZE, SAM_SIZE), mode="bilinear"
    )
    content = at_sam[..., :height, :width]
    size = (MAP_SIZE, MAP_SIZE)
    return torch.nn.functional.interpolate(content, size, mode="bilinear")[0, 0].numpy() > 0


@pytest.mark.parametrize("frame", [(32, 32), (120, 160), (200, 90)])
@pytest.mark.parametrize("saliency", ["patch_tokens", "anomaly_map", "none"])
@pytest.mark.parametrize(("masks", "neighbours"), [(5, 4), (2, 400), (30, 25)])
def test_it_is_that_of_the_plain_implementation(frame, saliency, masks, neighbours):
    boxes, scores, logits = some_boxes(24)
    given = {"proposal_masks": masks, "saliency_neighbours": neighbours}
    got, decoder = refined(frame, boxes, scores, logits, proposal_saliency=saliency, **given)
    parameters = MethodParameters(refiner="box_proposals", proposal_saliency=saliency, **given)
    best, union, score_map = plain(frame, boxes, scores, logits, parameters)
    assert got.status == "ok"
    assert [one.box_score for one in got.kept] == [scores[number] for _, number in best]
    np.testing.assert_allclose([one.score for one in got.kept], [s for s, _ in best], rtol=1e-5)
    np.testing.assert_array_equal(got.mask, union)
    assert got.mask_box == sam_box(union)
    np.testing.assert_allclose(got.score_map, score_map, atol=1e-6)
    assert got.score_map.dtype == np.float32
    assert 0 < got.score_map.max() < 1
    # Scores and areas are filtered, and no box is decoded twice.
    asked = [number for call in decoder.asked for number in call]
    assert len(set(asked)) == len(asked) < len(boxes)
    assert max(map(len, decoder.asked)) <= 16


def test_boxes_that_cannot_be_among_the_best_are_not_decoded():
    boxes, _, logits = some_boxes(40, seed=3)
    boxes[:, :] = (0.1, 0.1, 0.5, 0.5) + np.arange(40)[:, None] * np.float32(0.01)
    scores = (0.9 * 0.8 ** np.arange(40) + 0.1).astype(np.float32)
    got, decoder = refined((64, 64), boxes, scores, logits, proposal_masks=3)
    parameters = MethodParameters(refiner="box_proposals", proposal_masks=3)
    best, union, _ = plain((64, 64), boxes, scores, logits, parameters)
    np.testing.assert_allclose([one.score for one in got.kept], [s for s, _ in best], rtol=1e-5)
    np.testing.assert_array_equal(got.mask, union)
    assert sum(map(len, decoder.asked)) < 25


def test_a_workspace_changes_nothing():
    boxes, scores, logits = some_boxes(12)
    workspace = Workspace()
    for frame in ((120, 160), (64, 64), (120, 160)):
        fresh, _ = refined(frame, boxes, scores, logits)
        again, _ = refined(frame, boxes, scores, logits, workspace=workspace)
        np.testing.assert_array_equal(again.mask, fresh.mask)
        np.testing.assert_array_equal(again.score_map, fresh.score_map)


def test_scores_at_a_limit_do_not_pass_it():
    boxes = np.array([(0, 0, 0.5, 0.5), (0, 0, 0.25, 0.25), (0.5, 0.5, 0.5, 0.9)], np.float32)
    scores = np.array([0.9, 0.5, 0.9], np.float32)
    proposals = Proposals(BoxProposals(boxes, scores), (64, 64))

    def standing(**given):
        return proposals.standing(MethodParameters(refiner="box_proposals", **given)).tolist()

    assert standing(proposal_area=1.0) == [0, 1]  # the third has no area
    assert standing(proposal_area=0.25) == [1]
    assert standing(proposal_area=1.0, proposal_score=0.5) == [0]
    # What pads a frame's boxes never stands.
    padded = BoxProposals(np.array([(0, 0, 1, 1)] * 2, np.float32), np.zeros(2, np.float32))
    lowest = MethodParameters(refiner="box_proposals", proposal_score=0, proposal_area=1)
    assert not len(Proposals(padded, (64, 64)).standing(lowest))


def test_equal_scores_keep_their_order():
    boxes, _, logits = some_boxes(8)
    scores = np.full(8, 0.5, np.float32)
    got, _ = refined(
        (64, 64), boxes, scores, logits, proposal_saliency="none", proposal_area=1, proposal_masks=3
    )
    proposals = encoded((64, 64), boxes, scores).proposals
    assert [one.box for one in got.kept] == [proposals.in_pixels(number) for number in range(3)]


@pytest.mark.parametrize("masks", [1, 5])
def test_what_is_not_judged_has_no_influence(masks):
    frame = (120, 160)
    judged = np.zeros(frame, bool)
    judged[:, :80] = True
    boxes, scores, logits = some_boxes(16, seed=5)
    given = {"proposal_masks": masks, "saliency_neighbours": 6}
    got, _ = refined(frame, boxes, scores, logits, judged=judged, **given)
    parameters = MethodParameters(refiner="box_proposals", **given)
    inside = (boxes[:, 0] * 160 < 80).nonzero()[0]
    assert 0 < len(inside) < len(boxes)
    chosen = (boxes[inside], scores[inside], [logits[number] for number in inside])
    best, union, score_map = plain(frame, *chosen, parameters, judged)
    np.testing.assert_allclose([one.score for one in got.kept], [s for s, _ in best], rtol=1e-5)
    np.testing.assert_array_equal(got.mask, union)
    assert got.mask_box == sam_box(union)
    np.testing.assert_allclose(got.score_map, score_map, atol=1e-6)
    # The best of all boxes lies outside, and takes no place.
    outside = np.array([(0.55, 0.1, 0.9, 0.4)], np.float32)
    more, _ = refined(
        frame, np.concatenate([outside, boxes]), np.append(np.float32(1), scores),
        [blob((0, 4, 0, 4)), *logits], judged=judged, **given,
    )  # fmt: skip
    np.testing.assert_array_equal(more.mask, got.mask)
    np.testing.assert_array_equal(more.score_map, got.score_map)


def test_no_box_is_no_region():
    boxes, scores, logits = some_boxes(6)
    got, decoder = refined((64, 64), boxes, scores, logits, proposal_score=0.95)
    assert got.status == "no_region"
    assert not decoder.asked
    assert not got.mask.any()
    assert not got.score_map.any()
    assert got.score_map.shape == (MAP_SIZE, MAP_SIZE)
    assert got.mask_box is None


def test_an_empty_mask_takes_no_place():
    boxes, scores, logits = some_boxes(6)
    scores[:] = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + np.float32(0.01))
    logits[0] = logits[1] = EMPTY
    got, _ = refined((64, 64), boxes, scores, logits, proposal_masks=2, proposal_area=1)
    assert len(got.kept) == 2
    assert {one.box_score for one in got.kept} <= set(scores[2:].tolist())
    none, _ = refined((64, 64), boxes, scores, [EMPTY] * 6, proposal_area=1)
    assert none.status == "stage_1_empty"
    assert not none.mask.any()


def test_the_trace_names_the_boxes():
    boxes, scores, logits = some_boxes(12)
    got, _ = refined((120, 160), boxes, scores, logits)
    trace = got.trace(encoded((120, 160), boxes, scores))
    assert trace.proposals == got.kept
    assert trace.points is None
    assert trace.stages == ()
    assert all(0 < one.saliency < 1 for one in got.kept)
    x0, y0, x1, y1 = got.kept[0].box
    assert 0 <= x0 <= x1 < 160
    assert 0 <= y0 <= y1 < 120


def with_features(encoding):
    features = np.random.default_rng(3).normal(size=(1, 8, 4, 4)).astype(np.float32)
    return dataclasses.replace(encoding, features=features)


def test_masks_that_no_kernel_wrote_are_refused():
    """They would pass for boxes in which SAM finds nothing, and so for a good part."""
    encoding = with_features(encoded((64, 64), *some_boxes(12)[:2]))
    parameters = MethodParameters(refiner="box_proposals")
    for logits, refused in ((EMPTY, False), (np.zeros_like(EMPTY), True)):
        masks = np.broadcast_to(logits, (12, 4, LOW, LOW))
        engines = RefinerEngines(DecoderSession(masks, np.full((12, 4), 0.5), SIZES), SIZES)
        if refused:
            with pytest.raises(EngineError, match="low_res_logits that is 0 everywhere"):
                refine(encoding, parameters, engines)
        else:
            assert refine(encoding, parameters, engines).status == "stage_1_empty"


def test_what_is_missing_is_told():
    boxes, scores, logits = some_boxes(12)
    encoding = encoded((64, 64), boxes, scores)
    parameters = MethodParameters(refiner="box_proposals")
    without = dataclasses.replace(encoding, proposals=None)
    with pytest.raises(EngineError, match="without its boxes"):
        refine_by_box_proposals(without, parameters, RefinerEngines(None, SIZES))
    no_tokens = dataclasses.replace(encoding.proposals, patch_tokens=None)
    decoder = BoxDecoder(boxes, logits, encoding.geometry)
    with pytest.raises(EngineError, match="patch_tokens") as caught:
        masks_of_proposals(decoder, encoding, no_tokens, parameters, sizes=SIZES)
    assert "proposal_saliency" in caught.value.remedy
