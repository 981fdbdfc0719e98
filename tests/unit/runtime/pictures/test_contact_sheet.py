"""The contact sheet: well-formed, whole without a network, and safe with any file name."""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath
from urllib.parse import unquote_to_bytes, urlsplit

import numpy as np
import pytest
from html_page import Page

from zeroflaw.inspection import Inspection
from zeroflaw.pictures.contact_sheet import (
    Card,
    SheetHeader,
    contact_sheet,
    failed_card,
    inspected_card,
    left_out_card,
)
from zeroflaw.pipeline.masks.regions import regions_of
from zeroflaw.records.decision import Reason
from zeroflaw.station.truth.judgement import Judgement
from zeroflaw_engines.bundle.products.settings import Zone
from zeroflaw_engines.errors import ImageFileError

NAMES = [
    "plain",
    'it\'s "50%" #1 <b>&amp;',
    "größe 螺丝? a+b;c=d",
    "javascript:alert(1)",
    "a\\b",
    "new\nline",
    "turned\u202eround",
    "not utf-8 \udcff",
]


def inspection(**changes) -> Inspection:
    mask = np.zeros((40, 60), bool)
    mask[5:10, 5:20] = mask[20:30, 30:35] = True
    score = np.full((16, 16), 0.75, np.float32)
    values = {
        "id": "0" * 32, "time": "2026-01-01T00:00:00.000000Z", "monotonic_ns": 1,
        "part_id": None, "frame_id": None, "camera_id": None,
        "reason": Reason("reaches_threshold", "the image score reaches the threshold"),
        "frame": np.zeros((40, 60, 3), np.uint8), "software": "1.2.3",
        "text_embeddings": "e" * 64, "reference": None, "calibration": None, "settings": None,
        "parameters": "a" * 64,
        "status": "ok", "product": "nut", "decision": "reject", "image_score": 0.8125,
        "decision_score": 0.8125, "rule": None,
        "threshold": 0.5, "frame_size": (40, 60), "mask": mask, "anomaly_map": score,
        "score_map": score, "regions": regions_of(mask, score),
        "timings_ms": {"clip_encoder": 12.34, "total": 45.6}, "bundle": "b" * 64,
        "backend": "onnxruntime", "warnings": (),
    }  # fmt: skip
    return Inspection(**{**values, **changes})


def header(**changes) -> SheetHeader:
    values = {
        "bundle": "my <bundle>", "identity": "c0ffee" * 10, "product": "nut & bolt",
        "started": "2026-01-01T00:00:00+00:00", "files": 1, "notes": (),
    }  # fmt: skip
    return SheetHeader(**{**values, **changes})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("folder", ["", "line <3>/a&b", "..."])
def test_any_file_name_is_shown_and_linked(name: str, folder: str) -> None:
    stem = PurePosixPath(folder, name)
    card = inspected_card(stem.with_name(name + ".png"), stem, inspection())
    html = contact_sheet(header(), [card])
    page = Page(html.encode("utf-8").decode("utf-8"))
    shown = "".join(c if c.isprintable() else "\ufffd" for c in name)
    assert shown + ".png" in page.text
    assert folder in page.text
    wanted = {".overlay.png", ".map.png", ".mask.png", ".json"}
    linked = set()
    for link in page.links():
        parts = urlsplit(link)
        assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("", "", "", "")
        path = os.fsdecode(unquote_to_bytes(parts.path))
        assert path.startswith(str(stem))
        linked.add(path.removeprefix(str(stem)))
    assert linked == wanted


def test_nothing_comes_from_afar_and_nothing_runs() -> None:
    html = contact_sheet(header(), [inspected_card(PurePosixPath("a.png"), PurePosixPath("a"),
                                                   inspection())])  # fmt: skip
    page = Page(html)
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "base"}
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    assert not re.search(r"https?:|url\(|@import", html)
    assert "prefers-color-scheme: dark" in html


def test_a_card_says_what_came_out() -> None:
    card = inspected_card(PurePosixPath("in/a.png"), PurePosixPath("a"), inspection())
    assert card.outcome == "reject"
    text = Page(card.html).text
    for part in ("reject", "a.png", "in", "score 0.8125 ≥ threshold 0.5000", "ok", "46 ms",
                 "5.21% of 60 × 40 px", "2 regions", "5, 5", "15 × 5", "75", "0.750",  # noqa: RUF001
                 "clip_encoder", "12.3"):  # fmt: skip
        assert part in text, part
    good = inspection(
        decision="accept", image_score=0.25, decision_score=0.25, regions=(), status="no_region"
    )
    card = inspected_card(PurePosixPath("a.png"), PurePosixPath("a"), good)
    assert card.outcome == "accept"
    text = Page(card.html).text
    for part in ("accept", "score 0.2500 < threshold 0.5000", "no regions", "nothing extreme"):
        assert part in text, part


def test_a_card_of_a_product_with_rules_names_rule_zones_and_severity() -> None:
    plain = inspection()
    zones = (
        Zone(name="rim <1>", polygon=((0, 0), (60, 0), (60, 15), (0, 15)), severity="critical"),
        Zone(name="face", polygon=((0, 15), (60, 15), (60, 40), (0, 40)), severity="minor"),
    )
    regions = regions_of(plain.mask, plain.score_map, zones=zones, mm_per_pixel=0.1)
    reason = Reason("rule", "the rule 'scratch' rejects: a region of <75 px>")
    ruled = inspection(
        reason=reason, rule="scratch", decision_score=1.0, regions=regions, zones=zones
    )
    page = Page(inspected_card(PurePosixPath("a.png"), PurePosixPath("a"), ruled).html)
    for part in (reason.text, "decision score 1.0000 ≥ threshold", "rim <1>critical", "faceminor",
                 "area (mm²)", "0.75"):  # fmt: skip
        assert part in page.text, part
    plain_page = Page(inspected_card(PurePosixPath("a.png"), PurePosixPath("a"), plain).html).text
    for part in ("decision score", "mm²", "severity", "zones"):
        assert part not in plain_page, part


def test_a_held_card_says_why_and_shows_what_was_measured() -> None:
    reason = Reason("low_contrast", "the contrast is <0.01>")
    held = inspection(decision="hold", reason=reason)
    card = inspected_card(PurePosixPath("a.png"), PurePosixPath("a"), held)
    assert card.outcome == "hold"
    page = Page(card.html)
    for part in ("hold: low contrast", "the contrast is <0.01>", "score 0.8125 ≥ threshold"):
        assert part in page.text, part
    assert ("article", {"class": "card hold"}) in page.elements


def test_every_filter_has_a_rule_of_its_own() -> None:
    html = contact_sheet(header(), [])
    for kind in ("reject", "hold", "failed", "accept"):
        assert f'id="show-{kind}"' in html
        assert f"body:has(#show-{kind}:checked) .card:not(.{kind})" in html


def test_many_regions_are_cut_short() -> None:
    mask = np.zeros((40, 120), bool)
    mask[10, ::4] = True
    many = inspection(mask=mask, frame_size=mask.shape,
                      regions=regions_of(mask, np.zeros((8, 8), np.float32)))  # fmt: skip
    text = Page(inspected_card(PurePosixPath("a.png"), PurePosixPath("a"), many).html).text
    assert "30 regions" in text
    assert "and 10 smaller ones" in text


def test_a_failed_file_has_its_error() -> None:
    error = ImageFileError("x <y>.png is empty", "check & repeat")
    name = PurePosixPath("in/x <y>.png")
    card = failed_card(name, PurePosixPath("x <y>"), error)
    assert card.outcome == "failed"
    page = Page(card.html)
    assert page.links() == ["x%20%3Cy%3E.json"]
    assert Page(failed_card(name, None, error).html).links() == []
    assert "hold: failed" in page.text
    assert "x <y>.png is empty" in page.text
    assert "check & repeat" in page.text


def test_the_header_says_what_the_run_was() -> None:
    cards = [
        *(Card(outcome, "") for outcome in ("reject", "accept", "accept", "failed", "hold")),
        left_out_card(PurePosixPath("in/<raw>.raw"), "ends in .raw", may_be_picture=True),
    ]
    page = Page(contact_sheet(header(files=5, notes=("random <weights>", "a toy")), cards))
    for part in ("my <bundle>", "c0ffeec0ffee", "nut & bolt", "random <weights>", "a toy",
                 "all 5", "rejected 1", "accepted 2", "held 2", "failed 1", "Left out: 1",
                 "in/<raw>.raw ends in .raw"):  # fmt: skip
        assert part in page.text, part
    assert "interrupted" not in page.text
    page = Page(contact_sheet(header(files=9), cards))
    assert "interrupted after 5 of 9 files" in page.text
    page = Page(contact_sheet(header(files=9, state="under way"), cards))
    assert "under way, or was killed: 5 of 9 files so far" in page.text
    page = Page(contact_sheet(header(files=5), cards, [Card("accept", "<p>of old</p>")]))
    assert "Earlier runs into this folder: 1" in page.text
    assert "accepted 3" in page.text
    assert page.text.index("of old") > page.text.index("Earlier runs")
    assert "interrupted after 0 of 9 files" in Page(contact_sheet(header(files=9), [])).text


JUDGED = Judgement(True, "right_reject", map_auroc=0.98765, mask_iou=0.25, defect_found=0.8)


def judged_card(judgement: Judgement, **changes) -> Card:
    name = PurePosixPath("a.png")
    return inspected_card(name, PurePosixPath("a"), inspection(**changes), judgement)


def test_a_card_with_a_truth_says_whether_the_decision_is_right() -> None:
    page = Page(judged_card(JUDGED).html)
    assert page.classes("article") == [{"card", "reject", "right"}]
    for part in ("right", "a defective part is rejected", "pixel AUROC 0.988", "80% of it found",
                 "IoU of the mask 0.250"):  # fmt: skip
        assert part in page.text, part
    assert {"a.truth.png", "a.overlay.png", "a.map.png"} <= set(page.links())
    good = Page(judged_card(Judgement(False, "false_reject")).html)
    assert good.classes("article") == [{"card", "reject", "wrong"}]
    assert "false reject: a good part is rejected" in good.text
    assert "AUROC" not in good.text
    held = Page(judged_card(Judgement(True, "hold"), decision="hold").html)
    assert held.classes("article") == [{"card", "hold"}]
    tiny = Page(judged_card(Judgement(True, "missed", None, 0.0, 0.0)).html)
    assert "pixel AUROC not known" in tiny.text


def test_a_card_says_why_its_truth_cannot_be_used() -> None:
    name, stem = PurePosixPath("a.png"), PurePosixPath("a")
    card = inspected_card(name, stem, inspection(), without_truth="a.png is <damaged>")
    page = Page(card.html)
    assert "No truth: a.png is <damaged>" in page.text
    assert "a.overlay.png" in page.links()
    assert card.judgement is None


def test_the_head_counts_what_is_right() -> None:
    verdicts = [
        JUDGED,
        Judgement(True, "missed", map_auroc=0.5, mask_iou=0.0, defect_found=0.0),
        Judgement(False, "right_accept"),
        Judgement(False, "right_accept"),
        Judgement(False, "false_reject"),
        Judgement(False, "hold"),
    ]
    cards = [Card("reject", "", verdict) for verdict in verdicts]
    page = Page(contact_sheet(header(files=6), cards))
    for part in ("3 of 6 decisions are right", "1 of 2 defective parts rejected",
                 "2 of 4 good parts accepted", "1 missed", "1 false reject", "1 held",
                 "AUROC of the map 0.744", "40% of the defect found", "mask 0.125",
                 "right 3", "wrong 2", "Cyan: the truth"):  # fmt: skip
        assert part in page.text, part
    for kind in ("right", "wrong"):
        assert f"body:has(#show-{kind}:checked) .card:not(.{kind})" in contact_sheet(header(), [])
    plain = Page(contact_sheet(header(files=1), [Card("reject", "")]))
    assert "decisions are right" not in plain.text
    assert "show-right" not in [attrs.get("id") for _, attrs in plain.elements]


def test_wide_photos_lie_above_each_other() -> None:
    wide = inspection(mask=np.zeros((40, 70), bool), frame_size=(40, 70), regions=())
    card = inspected_card(PurePosixPath("a.png"), PurePosixPath("a"), wide)
    assert Page(card.html).classes("article") == [{"card", "reject", "wide"}]
