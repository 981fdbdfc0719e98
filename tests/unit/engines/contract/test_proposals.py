"""What a box proposer may return, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from zeroflaw_engines.contract import ProposalSizes, box_proposer_contract
from zeroflaw_engines.contract.proposals import box_proposals
from zeroflaw_engines.errors import EngineContractError, EngineError

BOXES = np.array([(0.1, 0.2, 0.6, 0.4), (0, 0, 1, 1), (0.5, 0.5, 0.5, 0.9)], np.float32)
SCORES = np.array([0.3, 0, 1], np.float32)


def given(boxes=BOXES, scores=SCORES):
    return {
        "boxes": np.array(boxes, np.float32)[None],
        "scores": np.array(scores, np.float32)[None],
    }


def test_boxes_are_taken_as_they_are():
    got = box_proposals(given())
    np.testing.assert_array_equal(got.boxes, BOXES)
    np.testing.assert_array_equal(got.scores, SCORES)


def test_a_frame_may_have_no_box():
    got = box_proposals(given([(0, 0, 1, 1)] * 3, [0, 0, 0]))
    assert not got.scores.any()


def test_what_rounding_carried_too_far_is_set_right():
    got = box_proposals(given([(-1e-4, 0.5, 1 + 1e-4, 0.49995)], [1 + 1e-4]))
    assert got.boxes.tolist() == [[0, 0.5, 1, 0.5]]
    assert got.scores.tolist() == [1]


@pytest.mark.parametrize(
    ("boxes", "scores", "fault"),
    [
        (BOXES * np.nan, SCORES, "12 of 12 values of boxes that are not finite"),
        (BOXES, [0.1, np.inf, 0], "1 of 3 values of scores that are not finite"),
        (BOXES * 640, SCORES, "boxes from 0 to 640, outside"),
        (BOXES, [-3, 2, 0], "scores from -3 to 2, outside"),
        (BOXES * 0, SCORES, "boxes that are 0 everywhere"),
        (BOXES * 0 + 1, SCORES, "boxes that are 1 everywhere"),
        (BOXES, SCORES * 0, "scores that are 0 everywhere"),
        # (cx, cy, w, h), as DETR gives them
        ([(0.8, 0.5, 0.2, 0.1), *BOXES[1:]], SCORES, "1 of 3 boxes with x1 < x0 or y1 < y0"),
    ],
)
def test_what_are_no_boxes_is_refused(boxes, scores, fault):
    with pytest.raises(EngineError) as caught:
        box_proposals(given(boxes, scores))
    assert fault in caught.value.cause
    assert "shares of the frame" in caught.value.remedy


def test_the_contract_has_the_sizes_of_the_graph():
    contract = box_proposer_contract(ProposalSizes(800, 900))
    assert list(map(str, (*contract.inputs, *contract.outputs))) == [
        "image: uint8[1, 800, 800, 3]",
        "boxes: float32[1, 900, 4]",
        "scores: float32[1, 900]",
    ]
    with pytest.raises(EngineContractError, match="without one"):
        box_proposer_contract(None)
