"""The page of the demo: what it says of a product that was learned, and its close-ups."""

from __future__ import annotations

import numpy as np
import pytest
from html_page import Page

from zeroflaw.pictures.demo_page import Lesson, Shown, closeup_of, demo_page
from zeroflaw.station.run_log import Entry
from zeroflaw.station.truth.judgement import Judgement
from zeroflaw_engines.bundle.manifest import Calibration, Product


def entry(name: str, decision: str, judgement: Judgement | None) -> Entry:
    row = {
        "decision": decision, "image_score": "0.25", "decision_score": "0.25", "rule": "",
        "threshold": "0.75", "frame_width": "400",
        "frame_height": "200", "total_ms": "120.0",
    } | ({} if judgement is None else judgement.columns())  # fmt: skip
    return Entry(f"/photos/{name}", name, name.removesuffix(".png"), decision, row)


CALIBRATION = Calibration(
    false_reject_rate=0.1, images=12, rank=12, interval=None, observed_rate=0.0,
    image_scoring="cls", data_digest="d", created="2026-01-01T00:00:00+00:00",
)  # fmt: skip
LESSON = Lesson(
    "ball_screw",
    Product(sentences=(1, 1), threshold=0.75, calibration=CALIBRATION),
    ["learned/one.jpg", "learned/two.jpg"],
)


def page_of(*entries: Entry, closeups=None) -> Page:
    shown = Shown("ball_screw", entries, 0.75, closeups or {})
    other = Shown("object", [], 0.5, {})
    return Page(
        demo_page(
            LESSON, shown, other, model="a <toy>", commands=["zeroflaw inspect <mini>"],
            sources="<b>theirs</b>",
        )
    )  # fmt: skip


def test_the_page_says_what_was_learned_and_what_is_right() -> None:
    missed = entry("pit & hole.png", "accept", Judgement(True, "missed", 0.9, 0.0, 0.25))
    good = entry("good.png", "accept", Judgement(False, "right_accept"))
    page = page_of(good, missed, entry("bad mask.png", "reject", None))
    for part in ("ball screw", "2 photos of good parts", "0.7500", "at most 7.7%", "a <toy>",
                 "1 of 2 decisions are right", "missed: a defective part is accepted",
                 "The mask covers 25% of the defect.", "score 0.2500 < threshold 0.7500",
                 "pit & hole.png", "Not inspected", "bad mask.png", "zeroflaw inspect <mini>",
                 "120 ms", "score of 0.5", "theirs"):  # fmt: skip
        assert part in page.text, part
    assert page.text.index("pit & hole.png") < page.text.index("good.png")
    assert {"wrong", "wide"} <= page.classes("article")[0]
    assert "wrong" not in page.classes("article")[1]
    assert {
        "learned/one.jpg",
        "ball_screw/pit%20%26%20hole.truth.png",
        "ball_screw/index.html",
    } <= (set(page.links()))
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe"}


def test_a_close_up_shows_the_defect() -> None:
    truth = np.zeros((200, 500), bool)
    truth[100:110, 300:330] = True
    near = closeup_of(truth)
    assert near is not None
    assert near.width * 500 == pytest.approx(near.height * 200) == pytest.approx(54)
    assert near.left * 500 + 27 == pytest.approx(315)
    assert near.top * 200 + 27 == pytest.approx(105)
    pit = entry("pit.png", "reject", Judgement(True, "right_reject", 0.9, 0.5, 0.5))
    page = page_of(pit, closeups={pit.source: near})
    (style,) = [a["style"] for tag, a in page.elements if a.get("alt") == "close-up of the defect"]
    assert (
        style
        == f"width:{500 / 54 * 100:.2f}%;left:{-288 / 54 * 100:.2f}%;top:{-78 / 54 * 100:.2f}%"
    )
    assert page_of(pit).classes("article")[0] == {"card", "reject", "wide"}


@pytest.mark.parametrize("corner", [(0, 0), (195, 495)])
def test_a_close_up_stays_inside_the_photo(corner: tuple[int, int]) -> None:
    truth = np.zeros((200, 500), bool)
    truth[corner[0] : corner[0] + 5, corner[1] : corner[1] + 5] = True
    near = closeup_of(truth)
    assert near is not None
    assert near.height == 0.25
    assert 0 <= near.left <= 1 - near.width
    assert 0 <= near.top <= 1 - near.height


def test_photos_that_are_not_wide_and_good_parts_have_no_close_up() -> None:
    assert closeup_of(np.ones((200, 300), bool)) is None
    assert closeup_of(np.zeros((200, 500), bool)) is None
    whole = closeup_of(np.ones((200, 500), bool))
    assert whole is not None
    assert (whole.height, whole.top) == (1, 0)
