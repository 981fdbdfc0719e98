"""Parity of masks and of engines: what is the same passes, and each kind of difference fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from zeroflaw.inspector import Inspector
from zeroflaw.pictures.images import read_image
from zeroflaw_benchmarks.verify.gpu_acceptance.parity import engine_parity, mask_parity

FRAME = next((Path(__file__).parents[5] / "examples" / "frames").glob("*dent.jpg"))


def inspected(mask, total=1.0, decision="accept", anomaly_map=None, image_score=0.25):
    values = np.full((4, 4), 0.5, np.float32) if anomaly_map is None else anomaly_map
    return SimpleNamespace(
        mask=mask,
        anomaly_map=values,
        decision=decision,
        image_score=image_score,
        timings_ms={"total": total},
    )


MASK = np.zeros((8, 8), bool)
MASK[2:5, 2:6] = True
OTHER = np.roll(MASK, 1, axis=0)


@pytest.mark.parametrize(
    ("got", "outcome"),
    [
        (inspected(MASK), "passed"),
        (inspected(OTHER), "failed"),
        (inspected(MASK, decision="reject"), "failed"),
        (inspected(MASK, anomaly_map=np.eye(4, dtype=np.float32)), "failed"),
        (inspected(MASK, anomaly_map=np.full((4, 4), np.nan, np.float32)), "failed"),
        (inspected(MASK, anomaly_map=np.full((4, 4), np.inf, np.float32)), "failed"),
        (inspected(MASK, anomaly_map=np.full((1, 4), 0.5, np.float32)), "failed"),
        (inspected(MASK, anomaly_map=np.zeros((4, 4), np.float32)), "failed"),
        (inspected(MASK, image_score=np.nan), "failed"),
        (inspected(MASK[:1]), "failed"),
    ],
    ids=[
        "same", "mask", "decision", "map", "NaN map", "infinite map", "small map", "zero map",
        "NaN score", "small mask",
    ],
)  # fmt: skip
def test_masks_maps_and_decisions_must_agree(got, outcome: str) -> None:
    def inspector(result):
        return SimpleNamespace(inspect=lambda frame, product: result)

    check = mask_parity(inspector(inspected(MASK)), inspector(got), [None], "object")
    assert check.outcome == outcome


def test_frames_without_a_mask_prove_nothing() -> None:
    empty = SimpleNamespace(inspect=lambda frame, product: inspected(MASK & False))
    check = mask_parity(empty, empty, [None, None], "object")
    assert (check.outcome, "none of 2 frames has a mask" in check.detail) == ("failed", True)


def test_a_few_pixels_of_a_small_mask_are_its_outline() -> None:
    """300 px, of which 4 differ, have an IoU of 0.987; of a mask of 6 px, 4 are most of it."""

    def check(side: int, stray: int):
        want = np.zeros((40, 40), bool)
        want[:side, :side] = True
        got = want.copy()
        got[0, :stray] = False
        maps = np.full((4, 4), 0.5, np.float32)
        inspect = [inspected(mask, anomaly_map=maps) for mask in (want, got)]
        reference, candidate = (
            SimpleNamespace(inspect=lambda frame, product, one=one: one) for one in inspect
        )
        return mask_parity(reference, candidate, [None], "object")

    few = check(17, 4)
    assert few.outcome == "passed", few
    assert few.figures["mask IoU, least"] < 0.99
    assert few.figures["mask pixels that differ, most"] == 4
    assert check(17, 9).outcome == "failed"
    assert check(3, 2).outcome == "failed"


class Spoilt:
    """A session whose outputs are changed."""

    def __init__(self, session, change) -> None:
        self.session, self.change, self.contract = session, change, session.contract
        self.backend = session.backend

    def execute(self, inputs, *, keep=()):
        out = self.session.execute(inputs)
        return {name: self.change(name, np.asarray(value)) for name, value in out.items()}


@pytest.fixture(scope="module")
def reference():
    with Inspector.load("mini") as inspector:
        yield inspector


def spoilt(reference: Inspector, engine: str, change) -> Inspector:
    """An Inspector one of whose engines is spoilt."""
    sessions = reference.sessions
    session = Spoilt(getattr(sessions, engine), change)
    return Inspector(reference.bundle, replace(sessions, **{engine: session}))


def test_the_same_engines_agree_in_every_output(reference: Inspector) -> None:
    check = engine_parity(reference, reference, [read_image(FRAME)], "object")
    assert check.outcome == "passed"
    outputs = {f"{s.contract.name} {out.name}" for s in reference.sessions
               for out in s.contract.outputs}  # fmt: skip
    assert {name.partition(",")[0] for name in check.figures} >= outputs
    assert check.figures["frames' features, cosine"] == pytest.approx(1)
    assert check.figures["frames' low_res_logits, cosine"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("engine", "output", "change", "figure"),
    [
        ("sam_encoder", "features", lambda a: a + a.std() * np.sign(np.sin(np.arange(a.size))
         ).reshape(a.shape).astype(a.dtype), "frames' features, cosine"),
        ("sam_decoder", "low_res_logits", lambda a: np.roll(a, 3, -1), "frames' low_res_logits"),
        ("clip_encoder", "image_score", lambda a: a - np.float32(0.1), "clip_encoder image_score"),
        ("sam_encoder", "features", lambda a: a * np.float32(1.05), "frames' features, 1 - error"),
    ],
    ids=["features", "logits", "score", "scale"],
)  # fmt: skip
def test_each_engine_that_differs_fails(reference, engine, output, change, figure) -> None:
    worse = spoilt(reference, engine, lambda name, a: change(a) if name == output else a)
    check = engine_parity(reference, worse, [read_image(FRAME)], "object")
    assert check.outcome == "failed"
    assert figure in check.detail, check.detail


def test_an_engine_that_is_compared_with_nothing_fails(reference: Inspector) -> None:
    """No product of mini has a bank: a matcher that was not built is left out without a word."""
    less = Inspector(reference.bundle, replace(reference.sessions, reference_matcher=None))
    for pair in ((reference, less), (less, reference)):
        check = engine_parity(*pair, [read_image(FRAME)], "object")
        assert check.outcome == "failed"
        assert check.detail.startswith("reference_matcher was loaded on one side alone")


def test_an_engine_that_gives_nan_fails(reference: Inspector) -> None:
    broken = spoilt(reference, "sam_decoder", lambda name, a: a * np.float32(np.nan))
    check = engine_parity(reference, broken, [read_image(FRAME)], "object")
    assert check.outcome == "failed"
    assert "not finite" in check.detail
