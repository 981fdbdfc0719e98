"""The picture that shows the truth beside the mask."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from zeroflaw.pictures.overlay import draw_truth
from zeroflaw.pipeline.masks.regions import regions_of

FRAME = np.full((200, 400, 3), 128, np.uint8)
CYAN, RED = (0, 235, 255), (255, 40, 40)


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros(FRAME.shape[:2], bool)
    mask[top : top + side, left : left + side] = True
    return mask


def drawn(mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    regions = regions_of(mask, np.zeros((16, 16), np.float32))
    return draw_truth(FRAME, SimpleNamespace(regions=regions), truth)  # type: ignore[arg-type]


def pixels(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where a line of this colour runs; its edges are blended with what lies below."""
    return (np.abs(picture.astype(int) - colour) < 90).all(axis=-1)


def test_the_true_outline_runs_just_outside_the_defect_and_hides_nothing_of_it() -> None:
    truth, mask = square(50, 100, 20), square(100, 300, 30)
    picture = drawn(mask, truth)
    rows, columns = np.nonzero(pixels(picture, CYAN))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (47, 72, 97, 122)
    assert (picture[truth] == 128).all()
    assert pixels(picture, RED).any()
    assert not pixels(picture, RED)[:, :250].any()
    assert (FRAME == 128).all()


def test_a_mask_that_is_the_truth_leaves_both_lines_to_see() -> None:
    truth = square(50, 100, 20)
    picture = drawn(truth, truth)
    assert pixels(picture, RED).any()
    assert pixels(picture, CYAN).any()


def test_a_good_part_has_no_true_outline_and_a_defect_at_the_edge_has_one() -> None:
    none = np.zeros(FRAME.shape[:2], bool)
    assert (drawn(none, none) == FRAME).all()
    assert pixels(drawn(none, square(0, 0, 10)), CYAN).any()
