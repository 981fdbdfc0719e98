"""Inspections against the truth: verdicts, and figures as scikit-learn has them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import jaccard_score, recall_score, roc_auc_score

from zeroflaw.station.truth.judgement import (
    JUDGEMENT_COLUMNS,
    Judgement,
    judge,
    judgement_in,
    pixel_auroc,
    tally,
)
from zeroflaw_export.datasets import mask_at_size

SIZE = (90, 140)


def inspection(rng: np.random.Generator, decision: str = "reject") -> SimpleNamespace:
    return SimpleNamespace(
        decision=decision,
        mask=rng.random(SIZE) < 0.3,
        anomaly_map=rng.random((64, 64), np.float32),
    )


def truth_of(share: float) -> np.ndarray:
    truth = np.zeros(SIZE, bool)
    truth[: round(SIZE[0] * share), 20:100] = True
    return truth


@pytest.mark.parametrize("levels", [2, 5, 1000, None])
@pytest.mark.parametrize("share", [0.0005, 0.02, 0.5, 0.98])
def test_the_auroc_of_pixels_is_that_of_scikit_learn(rng, levels: int | None, share: float) -> None:
    truth = rng.random((80, 80)) < share
    truth[0, 0], truth[0, 1] = True, False
    scores = rng.random((80, 80)) + 0.2 * truth
    if levels is not None:
        scores = np.floor(scores * levels) / levels
    scores = scores.astype(np.float32)
    assert pixel_auroc(scores, truth) == pytest.approx(
        roc_auc_score(truth.ravel(), scores.ravel()), abs=1e-12
    )


def test_the_auroc_at_its_ends_and_where_there_is_none() -> None:
    truth = np.eye(8, dtype=bool)
    assert pixel_auroc(truth.astype(np.float32), truth) == 1
    assert pixel_auroc(-truth.astype(np.float32), truth) == 0
    assert pixel_auroc(np.ones((8, 8), np.float32), truth) == 0.5
    for one in (np.zeros, np.ones):
        assert pixel_auroc(np.ones((8, 8), np.float32), one((8, 8), bool)) is None


def test_figures_of_a_defect_are_those_of_scikit_learn(rng) -> None:
    one, truth = inspection(rng), truth_of(0.4)
    judged = judge(one, truth)
    assert judged.mask_iou == pytest.approx(jaccard_score(truth.ravel(), one.mask.ravel()))
    assert judged.defect_found == pytest.approx(recall_score(truth.ravel(), one.mask.ravel()))
    # The grid of the map, as `zeroflaw evaluate` has it.
    assert judged.map_auroc == pytest.approx(
        roc_auc_score(mask_at_size(truth, 64).ravel(), one.anomaly_map.ravel())
    )


def test_the_map_of_a_frame_in_tiles_is_no_square(rng) -> None:
    one, truth = inspection(rng), np.zeros(SIZE, bool)
    one.anomaly_map = rng.random((SIZE[0] // 2, SIZE[1] // 2), np.float32)
    truth[20:40, 20:100] = True  # whole pixels of the map
    of_map = truth[::2, ::2]
    assert of_map.shape == one.anomaly_map.shape
    assert judge(one, truth).map_auroc == pytest.approx(
        roc_auc_score(of_map.ravel(), one.anomaly_map.ravel())
    )


def test_a_defect_that_no_pixel_of_the_map_shows_has_no_auroc(rng) -> None:
    truth = np.zeros(SIZE, bool)
    truth[3, 3] = True
    judged = judge(inspection(rng), truth)
    assert judged.map_auroc is None
    assert judged.defect_found in {0, 1}


@pytest.mark.parametrize(
    ("decision", "share", "verdict", "right", "wrong"),
    [
        ("accept", 0, "right_accept", True, False),
        ("reject", 0.5, "right_reject", True, False),
        ("reject", 0, "false_reject", False, True),
        ("accept", 0.5, "missed", False, True),
        ("hold", 0, "hold", False, False),
        ("hold", 0.5, "hold", False, False),
    ],
)
def test_the_verdict(
    rng, decision: str, share: float, verdict: str, right: bool, wrong: bool
) -> None:
    judged = judge(inspection(rng, decision), truth_of(share))
    assert (judged.verdict, judged.right, judged.wrong) == (verdict, right, wrong)
    assert judged.defective == (share > 0)
    if not judged.defective:
        assert (judged.map_auroc, judged.mask_iou, judged.defect_found) == (None, None, None)


def test_the_summary_gives_a_judgement_back(rng) -> None:
    for one in (judge(inspection(rng), truth_of(0.5)), Judgement(False, "hold")):
        columns = one.columns()
        assert tuple(columns) == JUDGEMENT_COLUMNS
        again = judgement_in(columns)
        assert again is not None
        assert (again.defective, again.verdict) == (one.defective, one.verdict)
        for name in JUDGEMENT_COLUMNS[2:]:
            assert getattr(again, name) == pytest.approx(getattr(one, name), abs=5e-5)
    assert judgement_in({}) is None
    assert judgement_in({"judgement": "", "truth": ""}) is None


def test_a_tally_counts_and_averages() -> None:
    counts = tally(
        [
            Judgement(True, "right_reject", 0.9, 0.5, 1.0),
            Judgement(True, "missed", None, 0.0, 0.0),
            Judgement(False, "right_accept"),
            Judgement(False, "false_reject"),
            Judgement(False, "hold"),
        ]
    )
    assert (counts.right, counts.defective, counts.good, counts.total) == (2, 2, 3, 5)
    assert (counts.missed, counts.false_rejects, counts.held) == (1, 1, 1)
    assert (counts.map_auroc, counts.mask_iou, counts.defect_found) == (0.9, 0.25, 0.5)
    assert tally([Judgement(False, "right_accept")]).mask_iou is None
